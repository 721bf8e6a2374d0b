//! Times as people write them.

use jiff::Timestamp;

use crate::config::parse_duration;

/// Reads a time: RFC 3339, a date with or without a time (UTC), `now`, `-1h` (before now), or nanoseconds since the
/// Unix epoch. `now` and the result are nanoseconds since the Unix epoch.
///
/// # Errors
/// What was expected.
pub fn parse_time(text: &str, now: i64) -> Result<i64, String> {
    let nanos = |time: Timestamp| i64::try_from(time.as_nanosecond()).map_err(|_| format!("{text:?} is too far away"));
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago = parse_duration(ago)?;
        let ago = i64::try_from(ago.as_nanos()).map_err(|_| format!("{text:?} is too long ago"))?;
        return Ok(now.saturating_sub(ago));
    }
    if let Ok(value) = text.parse::<i64>() {
        return unambiguous(value);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return nanos(time);
    }
    let in_utc =
        text.parse::<jiff::civil::DateTime>().ok().and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok());
    match in_utc {
        Some(time) => nanos(time.timestamp()),
        None => {
            Err("expected a time such as 2026-01-31T12:00:00Z, 2026-01-31, -1h, now, or nanoseconds since 1970"
                .to_owned())
        }
    }
}

/// Nanoseconds since 1970; a number that is more likely a year, seconds, milliseconds or microseconds is refused.
fn unambiguous(value: i64) -> Result<i64, String> {
    /// In 1973.
    const SMALLEST: i64 = 100_000_000_000_000_000;
    let digits = value.to_string().len();
    let what = match digits {
        _ if value == 0 || value >= SMALLEST => return Ok(value),
        4 => {
            return Err(format!("{value} alone is taken neither as a year nor as a time: write a date, {value}-01-01"));
        }
        9..=10 => "seconds since 1970",
        12..=13 => "milliseconds since 1970",
        15..=16 => "microseconds since 1970",
        _ => {
            return Err(format!(
                "{value} nanoseconds since 1970 is too early to be meant: write a date such as 2026-01-31, or nanoseconds \
                 (19 digits)"
            ));
        }
    };
    let zeros = 19_usize.saturating_sub(digits);
    Err(format!(
        "{value} may be {what}, but numbers are nanoseconds: write {value}{}, or a date such as 2026-01-31",
        "0".repeat(zeros)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-31T12:00:00Z.
    const NOW: i64 = 1_769_860_800_000_000_000;

    #[test]
    fn a_number_that_is_too_small_for_nanoseconds_is_refused_with_what_to_write() {
        for (text, advice) in [
            ("2020", "write a date, 2020-01-01"),
            ("1700000000", "may be seconds since 1970, but numbers are nanoseconds: write 1700000000000000000,"),
            (
                "1700000000123",
                "may be milliseconds since 1970, but numbers are nanoseconds: write 1700000000123000000,",
            ),
            ("1700000000123456", "may be microseconds"),
            ("86400", "write a date such as"),
        ] {
            let refused = parse_time(text, NOW).unwrap_err();
            assert!(refused.contains(advice), "{refused}");
        }
    }

    #[test]
    fn every_form_is_read_and_what_has_none_is_refused() {
        let seconds = |text: &str| (parse_time(text, NOW).unwrap() - NOW) / 1_000_000_000;
        assert_eq!(seconds("now"), 0);
        assert_eq!(seconds("-1h"), -3_600);
        assert_eq!(seconds("2026-01-31T13:00:00+01:00"), 0);
        assert_eq!(seconds("2026-01-31"), -43_200);
        assert_eq!(parse_time("1700000000000000000", NOW), Ok(1_700_000_000_000_000_000));
        assert_eq!(seconds("2026-01-31 12:30"), 1_800);
        assert_eq!(parse_time("0", NOW), Ok(0));
        for wrong in [
            "2020",
            "7",
            "1700000000",
            "1700000000000",
            "1700000000000000",
            "",
            "yesterday",
            "-",
            "-1",
            "2026-13-01",
            "2026-01-31 25:00",
        ] {
            assert!(parse_time(wrong, NOW).is_err(), "{wrong}");
        }
    }
}
