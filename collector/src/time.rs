use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch; `None` for a time before it, or after the year 2262: the clock is wrong.
pub(crate) fn nanos_of(time: SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_before_1970_is_no_time() {
        assert_eq!(nanos_of(UNIX_EPOCH), Some(0));
        assert_eq!(nanos_of(UNIX_EPOCH + Duration::from_nanos(7)), Some(7));
        assert_eq!(nanos_of(UNIX_EPOCH - Duration::from_nanos(1)), None);
        assert_eq!(nanos_of(UNIX_EPOCH + Duration::from_secs(1 << 34)), None);
    }
}
