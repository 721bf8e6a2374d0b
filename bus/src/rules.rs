//! What the embedded bus and the simulated one both hold to: limits, the partition of a key, and the words of refusals.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{BusError, Commit, TopicPartition};

/// More than one machine needs; the limit keeps a mistyped number from creating millions of rows.
const MAX_PARTITIONS: u32 = 4096;
/// The default limit of Kafka's brokers; the same here, so that moving to Kafka brings no new limit.
pub(crate) const MAX_METADATA: usize = 4096;
/// The longest record, in bytes: key, headers and payload.
pub(crate) const MAX_RECORD: usize = 16 << 20;

/// Whether the end of a partition that is read has been reached, and reported.
#[derive(PartialEq)]
pub(crate) enum End {
    NotReached,
    /// Reached, and not reported yet.
    Due,
    Reported,
}

/// # Errors
/// No topic can have so many partitions.
pub(crate) fn check_partitions(topic: &str, partitions: u32) -> Result<(), BusError> {
    if (1..=MAX_PARTITIONS).contains(&partitions) {
        return Ok(());
    }
    Err(BusError::Settings(format!("topic {topic:?}: partitions must be 1 to {MAX_PARTITIONS}")))
}

/// # Errors
/// A subscription that names no topic would wait for ever.
pub(crate) fn check_topics(group: &str, topics: &[String]) -> Result<(), BusError> {
    if !topics.is_empty() {
        return Ok(());
    }
    Err(BusError::Settings(format!("group {group:?} subscribes to no topic: name at least one")))
}

/// # Errors
/// The first commit with metadata above the limit.
pub(crate) fn check_metadata(commits: &[Commit]) -> Result<(), String> {
    let Some(commit) = commits.iter().find(|commit| commit.metadata.len() > MAX_METADATA) else { return Ok(()) };
    Err(format!("commit metadata of {} has {} bytes, the limit is {MAX_METADATA}", commit.at, commit.metadata.len()))
}

pub(crate) fn not_assigned(at: &TopicPartition) -> BusError {
    BusError::Settings(format!("{at} is not assigned to this member and cannot be started"))
}

/// # Errors
/// A member that waited behind the end would silently skip all records written up to there.
pub(crate) fn check_start(at: &TopicPartition, offset: u64, end: u64) -> Result<(), BusError> {
    if offset <= end {
        return Ok(());
    }
    Err(BusError::Settings(format!(
        "offset {offset} of {at} is past its end {end}: was the bus replaced? Reset the group's offsets"
    )))
}

/// The refusal of a record for a partition that its topic does not have.
pub(crate) fn no_partition(topic: &str, partition: u64, count: u64) -> String {
    format!("topic {topic:?} has no partition {partition}, only {count}")
}

/// FNV-1a with a final mix: the same key goes to the same partition in every version.
pub(crate) fn hash(key: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    let hash = key.iter().fold(start, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

/// Milliseconds since the Unix epoch.
///
/// # Errors
/// The time is before 1970 or too large: the clock is wrong, and a record must not be given a wrong time.
pub(crate) fn millis_of(time: SystemTime) -> Result<i64, BusError> {
    let since = time.duration_since(UNIX_EPOCH).ok();
    since.and_then(|since| i64::try_from(since.as_millis()).ok()).ok_or_else(|| {
        BusError::Unavailable(
            "the system clock is wrong (before 1970): set it; no record is published before".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_before_1970_is_an_error_and_no_time() {
        assert_eq!(millis_of(UNIX_EPOCH).unwrap(), 0);
        assert_eq!(millis_of(UNIX_EPOCH + Duration::from_micros(1_999)).unwrap(), 1);
        let before = millis_of(UNIX_EPOCH - Duration::from_nanos(1));
        assert!(matches!(&before, Err(BusError::Unavailable(reason)) if reason.contains("before 1970")), "{before:?}");
    }

    #[test]
    fn the_hash_never_changes_and_spreads() {
        // Fixed values: a key that moved to another partition would break the order of its series.
        assert_eq!(hash(b""), 0xfdbdf6ac4fc52e7f);
        assert_eq!(hash(b"http.requests"), 0x649b23530b88cd7a);
        let mut counts = [0u32; 4];
        for n in 0..10_000 {
            counts[usize::try_from(hash(format!("series-{n}").as_bytes()) % 4).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (2_200..2_800).contains(count)), "{counts:?}");
    }
}
