//! Times as dates and times of day, in UTC.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// Date and time of day of a time: nanoseconds since the Unix epoch.
pub(crate) fn utc(nanos: i64) -> DateTime {
    // 64-bit nanoseconds, the years 1677 to 2262, are well inside the range of a timestamp.
    Offset::UTC.to_datetime(Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The inverse; `None` when it does not fit 64 bits.
pub(crate) fn nanos(time: DateTime) -> Option<i64> {
    i64::try_from(Offset::UTC.to_timestamp(time).ok()?.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_64_bits_come_back() {
        for (time, text) in [
            (i64::MIN, "1677-09-21T00:12:43.145224192"),
            (-1, "1969-12-31T23:59:59.999999999"),
            (0, "1970-01-01T00:00:00"),
            (1_709_164_800_000_000_000, "2024-02-29T00:00:00"),
            (i64::MAX, "2262-04-11T23:47:16.854775807"),
        ] {
            assert_eq!((utc(time).to_string().as_str(), nanos(utc(time))), (text, Some(time)));
        }
        assert_eq!(nanos("1600-01-01T00:00".parse().unwrap()), None);
    }
}
