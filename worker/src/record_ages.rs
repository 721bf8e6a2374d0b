use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// How far the times of two records must be apart for both to be remembered.
const RESOLUTION_MS: u64 = 1_000;
/// The most remembered; while so many are open, times are as coarse as they must be.
const MOST: usize = 1_024;

/// The timestamps of the records of one partition that are not settled, to within a second.
#[derive(Debug, Default)]
pub(crate) struct RecordAges {
    /// Offset and timestamp of the first record of each stretch; the timestamp is negative where records have none.
    stretches: VecDeque<(u64, i64)>,
}

impl RecordAges {
    /// A record was read; offsets rise.
    #[inline]
    pub(crate) fn note(&mut self, offset: u64, time_ms: i64) {
        let is_new = self.stretches.back().is_none_or(|(_, last)| last.abs_diff(time_ms) >= RESOLUTION_MS);
        if is_new && self.stretches.len() < MOST {
            self.stretches.push_back((offset, time_ms));
        }
    }

    /// The time of the oldest of the records that were read, from `settled` to `next`; `None` where there is none, or
    /// where it has no timestamp.
    pub(crate) fn oldest(&mut self, settled: u64, next: u64) -> Option<SystemTime> {
        if settled >= next {
            self.stretches.clear();
            return None;
        }
        while self.stretches.get(1).is_some_and(|(first, _)| *first <= settled) {
            self.stretches.pop_front();
        }
        let (_, time_ms) = self.stretches.front()?;
        let since_epoch = Duration::from_millis(u64::try_from(*time_ms).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(since_epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_record_that_is_not_settled_is_known_to_within_a_second() {
        let mut ages = RecordAges::default();
        for offset in 0..100u64 {
            ages.note(offset, 1_000_000 + i64::try_from(offset).unwrap() * 300);
        }
        for settled in 0..100 {
            let age = ages.oldest(settled, 100).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let exact = Duration::from_millis(1_000_000 + settled * 300);
            assert!(age <= exact && age + Duration::from_millis(RESOLUTION_MS + 300) > exact, "{settled}: {age:?}");
        }
        assert_eq!(ages.oldest(100, 100), None);
        ages.note(100, 5);
        assert_eq!(ages.oldest(100, 101), Some(SystemTime::UNIX_EPOCH + Duration::from_millis(5)));
    }

    #[test]
    fn the_age_of_a_record_without_a_timestamp_is_unknown() {
        let mut ages = RecordAges::default();
        ages.note(0, -1);
        ages.note(1, 5_000);
        assert_eq!(ages.oldest(0, 2), None);
        assert_eq!(ages.oldest(1, 2), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(5)));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_stays_known() {
        let mut ages = RecordAges::default();
        for offset in 0..1_000_000u64 {
            ages.note(offset, i64::try_from(offset).unwrap() * 10_000);
        }
        assert_eq!(ages.stretches.len(), MOST);
        assert_eq!(ages.oldest(0, 1_000_000), Some(SystemTime::UNIX_EPOCH));
    }
}
