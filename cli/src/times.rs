//! Times as input and output.

use jiff::Timestamp;
use tallybus_sdk::TimeRange;
use tallybus_sdk::times::parse_time;

use crate::failure::Failure;

/// Parses a time as [`parse_time`] does.
///
/// # Errors
/// What was expected.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    parse_time(text, now()?)
}

/// The current time, in nanoseconds since the Unix epoch.
///
/// # Errors
/// The clock is beyond the year 2262.
pub(crate) fn now() -> Result<i64, String> {
    i64::try_from(Timestamp::now().as_nanosecond()).map_err(|_| "the clock of this machine is beyond 2262".to_owned())
}

/// The range from `from` (inclusive) to `to` (exclusive).
///
/// # Errors
/// The range is empty.
pub(crate) fn range(from: Option<i64>, to: Option<i64>) -> Result<TimeRange, Failure> {
    match (from, to) {
        (Some(first), Some(end)) if first >= end => Err(Failure::could_not_look(format!(
            "the range from --from {} to --to {} is empty: are the two swapped?",
            show(first),
            show(end)
        ))),
        _ => Ok(TimeRange { from, to }),
    }
}

/// A time as text: RFC 3339 in UTC.
pub(crate) fn show(nanos: i64) -> String {
    match Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(time) => time.to_string(),
        Err(_) => nanos.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_utc_with_all_its_digits() {
        assert_eq!(show(1_700_000_000_000_000_001), "2023-11-14T22:13:20.000000001Z");
    }
}
