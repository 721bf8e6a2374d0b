//! Names, texts and times as SQL. All values sent to Redshift are quoted here.

use crate::shared::calendar;

/// The most bytes that a name may have.
pub(super) const MAX_NAME: usize = 127;

/// A quoted name: right for reserved words too. Redshift folds the case of quoted names as it does for unquoted ones.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Appends a text as an expression that holds no backslash.
///
/// Whether Redshift treats a backslash in a literal as an escape depends on a PostgreSQL 8 parameter that is not known
/// here (its own `QUOTE_LITERAL` doubles them). So the literal contains a placeholder character that the text does not
/// have, and `REPLACE` substitutes the backslashes. The text must have passed [`unfit`].
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

/// The same, as a new string.
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

/// Why Redshift cannot store a text: it refuses NUL and Unicode noncharacters.
pub(super) fn unfit(text: &str) -> Option<&'static str> {
    let is_no_character = |c: char| matches!(u32::from(c), 0xfdd0..=0xfdef) || u32::from(c) & 0xfffe == 0xfffe;
    if text.contains('\0') {
        return Some("contains the character NUL, which Redshift cannot store");
    }
    text.chars().any(is_no_character).then_some("contains a Unicode noncharacter, which Redshift cannot store")
}

const NANOS_PER_MICRO: i64 = 1_000;

/// A time as a `TIMESTAMP` in microseconds, and the remaining nanoseconds: `2023-11-14 22:13:20.000001`, 7.
pub(super) fn timestamp(nanos: i64) -> (String, i64) {
    let time = calendar::utc(nanos);
    let mut text = time.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let micros = time.subsec_nanosecond() / 1_000;
    if micros != 0 {
        text.push_str(&format!(".{micros:06}"));
    }
    (text, nanos.rem_euclid(NANOS_PER_MICRO))
}

/// Parses Redshift's text of a `TIMESTAMP`, down to the second; nanoseconds since the Unix epoch.
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    let is_whole = text.matches(':').count() == 2;
    calendar::nanos(text.parse().ok().filter(|_| is_whole)?)
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
    fn times_read_as_operators_write_them() {
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
