//! Names, texts and times as SQL. Nothing reaches Redshift but through here.

/// The most bytes that a name may have.
pub(super) const MAX_NAME: usize = 127;

/// A quoted name: right for reserved words too. Redshift folds the letters of quoted names as it does those of others.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Appends a text as an expression that holds no backslash.
///
/// Whether Redshift takes a backslash in a literal for an escape depends on a parameter of PostgreSQL 8's that nobody sees
/// here (its own `QUOTE_LITERAL` doubles them). So backslashes come in from outside: another character, one that the
/// text has not, stands for them in the literal and `REPLACE` puts them in. The text must be [`unfit`] for nothing.
pub(super) fn push_literal(out: &mut String, text: &str) {
    if !text.contains('\\') {
        push_plain(out, text);
        return;
    }
    // A text is finite, and the private use area has more characters than a name, a tag or all tags of a series.
    let stands_in = "~^|`".chars().chain('\u{e000}'..='\u{f8ff}').find(|candidate| !text.contains(*candidate));
    let stands_in = stands_in.unwrap_or('\u{f8ff}');
    out.push_str("REPLACE(");
    push_plain(out, &text.replace('\\', stands_in.encode_utf8(&mut [0; 4])));
    out.push_str(",'");
    out.push(stands_in);
    out.push_str("',CHR(92))");
}

/// The same as a text of its own.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_literal(&mut out, text);
    out
}

fn push_plain(out: &mut String, text: &str) {
    out.push('\'');
    for piece in text.split_inclusive('\'') {
        out.push_str(piece);
        if piece.ends_with('\'') {
            out.push('\'');
        }
    }
    out.push('\'');
}

/// Why Redshift cannot hold a text: it refuses NUL and what Unicode says is no character.
pub(super) fn unfit(text: &str) -> Option<&'static str> {
    let is_no_character = |c: char| matches!(u32::from(c), 0xfdd0..=0xfdef) || u32::from(c) & 0xfffe == 0xfffe;
    if text.contains('\0') {
        return Some("holds the character NUL, which Redshift cannot store");
    }
    text.chars().any(is_no_character).then_some("holds a code point that is no character, which Redshift cannot store")
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const NANOS_PER_MICRO: i64 = 1_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A time as a `TIMESTAMP`, which has microseconds, and the nanoseconds that it has not: `2023-11-14 22:13:20.000001`, 7.
pub(super) fn timestamp(nanos: i64) -> (String, i64) {
    let (second, rest) = (nanos.div_euclid(NANOS_PER_SECOND), nanos.rem_euclid(NANOS_PER_SECOND));
    let (day, second) = (second.div_euclid(SECONDS_PER_DAY), second.rem_euclid(SECONDS_PER_DAY));
    let (year, month, day) = civil(day);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
    if rest / NANOS_PER_MICRO != 0 {
        text.push_str(&format!(".{:06}", rest / NANOS_PER_MICRO));
    }
    (text, rest % NANOS_PER_MICRO)
}

/// Reads what Redshift shows of a `TIMESTAMP`; nanoseconds since the Unix epoch.
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    let seconds = days(year, month, day) * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second;
    seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(micros * NANOS_PER_MICRO)
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar; years begin in March here, so that the day
/// that comes every four years is the last.
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads an expression as SQL does, with backslashes as escapes or without.
    fn evaluate(sql: &str, escapes: bool) -> Option<String> {
        if let Some(inner) = sql.strip_prefix("REPLACE(") {
            let (text, rest) = read_literal(inner, escapes)?;
            let (stands_in, rest) = read_literal(rest.strip_prefix(',')?, escapes)?;
            return (rest == ",CHR(92))").then(|| text.replace(&stands_in, "\\"));
        }
        let (text, rest) = read_literal(sql, escapes)?;
        rest.is_empty().then_some(text)
    }

    fn read_literal(sql: &str, escapes: bool) -> Option<(String, &str)> {
        let mut chars = sql.strip_prefix('\'')?.char_indices().peekable();
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\'' if chars.peek().is_some_and(|(_, next)| *next == '\'') => {
                    chars.next();
                    text.push('\'');
                }
                '\'' => return Some((text, &sql[at + 2..])),
                '\\' if escapes => text.push(chars.next()?.1),
                c => text.push(c),
            }
        }
        None
    }

    proptest! {
        #[test]
        fn a_literal_is_its_text_whatever_a_backslash_means(text in ".{0,40}|[\\\\'~^|`a\\n\u{e000}\u{e001}\";:-]{0,30}") {
            let sql = literal(&text);
            prop_assert!(!sql.contains('\\'));
            prop_assert_eq!(evaluate(&sql, true), Some(text.clone()));
            prop_assert_eq!(evaluate(&sql, false), Some(text));
        }

        #[test]
        fn an_identifier_ends_where_it_should(name in ".{1,40}|[\"a;-]{1,20}") {
            let sql = identifier(&name);
            let inner = sql.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
            prop_assert!(!inner.replace("\"\"", "").contains('"'));
            prop_assert_eq!(inner.replace("\"\"", "\""), name);
        }

        #[test]
        fn times_come_back(nanos in any::<i64>()) {
            let (text, rest) = timestamp(nanos);
            prop_assert!((0..1_000).contains(&rest));
            if let Some(whole) = nanos.checked_sub(rest) {
                prop_assert_eq!(parse_timestamp(&text), Some(whole));
            }
        }
    }

    #[test]
    fn times_read_as_people_write_them() {
        for (nanos, expected) in [
            (0, ("1970-01-01 00:00:00", 0)),
            (1_700_000_000_123_456_789, ("2023-11-14 22:13:20.123456", 789)),
            (951_782_400_000_000_000, ("2000-02-29 00:00:00", 0)),
            (4_102_444_799_999_999_999, ("2099-12-31 23:59:59.999999", 999)),
            (-1, ("1969-12-31 23:59:59.999999", 999)),
            (i64::MAX, ("2262-04-11 23:47:16.854775", 807)),
        ] {
            let (text, rest) = timestamp(nanos);
            assert_eq!((text.as_str(), rest), expected);
        }
        assert_eq!(parse_timestamp("2023-11-14 22:13:20.5"), Some(1_700_000_000_500_000_000));
        for wrong in ["", "2023-11-14", "2023-11-14 22:13", "a-b-c d:e:f", "2023-11-14 22:13:20.x"] {
            assert_eq!(parse_timestamp(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_stored_is_known() {
        for fine in ["", "a\\'b", "日本 🎲", "\u{202e}", "\u{fffd}", "\u{1}"] {
            assert_eq!(unfit(fine), None, "{fine:?}");
        }
        for bad in ["a\0b", "\u{fdd0}", "\u{fdef}", "\u{fffe}", "\u{ffff}", "\u{1fffe}", "\u{10ffff}"] {
            assert!(unfit(bad).is_some(), "{bad:?}");
        }
    }
}
