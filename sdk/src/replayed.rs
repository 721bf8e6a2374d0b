//! Records of the topic from which dead letters are replayed.
//!
//! A dead letter may be in the topic twice: two operators replayed it at once, or a replay was killed and repeated.
//! Only its first record counts. So the content of a record is determined by the topic alone, and batches stay the same
//! for ever.

use std::collections::HashSet;
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Record, TopicPartition, read_range};

use crate::dead_letter::DeadLetterHeaders;

/// How long the bus may return nothing before reading fails.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The keys of the dead letters that precede a record: about 100 bytes of memory for each dead letter ever replayed.
pub type Seen = HashSet<Box<[u8]>>;

/// Reads which dead letters precede `offset`.
pub fn keys_below(bus: &dyn Bus, at: &TopicPartition, offset: u64) -> Result<Seen, BusError> {
    let mut seen = Seen::new();
    let mut reader = bus.reader()?;
    let below = [(at.partition, 0..offset)];
    read_range(reader.as_mut(), &at.topic, &below, STALL_TIMEOUT, &mut |record| {
        is_first(&mut seen, &record);
    })?;
    Ok(seen)
}

/// Whether no earlier record holds the same dead letter; remembers it.
pub fn is_first(seen: &mut Seen, record: &Record<'_>) -> bool {
    match record.key {
        Some(key) if seen.contains(key) => false,
        Some(key) => seen.insert(key.into()),
        None => true,
    }
}

/// The record to be decoded: restored as its original was, with the original's time; and how many events its one event
/// sums.
///
/// # Errors
/// Why it cannot be replayed.
pub fn original<'r>(record: &Record<'r>) -> Result<(Record<'r>, u32), String> {
    let Some(head) = DeadLetterHeaders::of(record) else { return Err("the record is not a dead letter".to_owned()) };
    if let Some(bytes) = head.cut_from {
        return Err(format!("the dead letter was truncated (its payload had {bytes} bytes)"));
    }
    Ok((Record { time_ms: head.time_ms, ..*record }, head.events.max(1)))
}
