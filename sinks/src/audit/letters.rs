use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Record, read_range};
use tallybus_schemas::{Encoding, Series, decode_all};

use super::AuditedSink;
use crate::runtime::dead_letter::{INDEX_HEADER, OFFSET_HEADER, PARTITION_HEADER, TOPIC_HEADER};

/// What stands in a sink's dead-letter topic, each letter once.
#[derive(Debug, Default)]
pub(super) struct Letters {
    /// Letters, undecodable records included.
    pub(super) count: u64,
    /// Records that could not be decoded.
    pub(super) undecodable: u64,
    /// What the refused points hold, by series as the sink would have it.
    pub(super) points: HashMap<Series, Vec<LetterPoint>>,
    /// Letters that retention took: what they held looks missing.
    pub(super) gone: u64,
    /// Records of the topic that are no letters.
    pub(super) unreadable: u64,
}

#[derive(Debug, Clone)]
pub(super) struct LetterPoint {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) time: i64,
    pub(super) value: u64,
}

impl Letters {
    /// Reads what stands there now.
    pub(super) fn read(bus: &dyn Bus, sink: &AuditedSink, stall_timeout: Duration) -> Result<Self, BusError> {
        let mut letters = Self::default();
        if bus.partitions(&sink.dead_topic)?.is_none() {
            return Ok(letters);
        }
        let ranges = bus.offsets(&sink.dead_topic)?;
        letters.gone = ranges.iter().map(|range| range.first).sum();
        let ranges: Vec<_> = (0..).zip(&ranges).map(|(partition, range)| (partition, range.first..range.end)).collect();
        let mut seen = HashSet::new();
        let mut reader = bus.reader()?;
        read_range(reader.as_mut(), &sink.dead_topic, &ranges, stall_timeout, &mut |record| {
            // A letter that was published again after a crash has the same key.
            let known = record.key.is_some_and(|key| !seen.insert(key.to_vec()));
            if !known {
                letters.take(&record, sink);
            }
        })?;
        Ok(letters)
    }

    fn take(&mut self, record: &Record<'_>, sink: &AuditedSink) {
        let text = |name: &str| record.headers.get(name).and_then(|value| std::str::from_utf8(value).ok());
        let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok());
        let (Some(topic), Some(partition), Some(offset)) =
            (text(TOPIC_HEADER), number(PARTITION_HEADER), number(OFFSET_HEADER))
        else {
            self.unreadable += 1;
            return;
        };
        if !sink.topics.iter().any(|known| known == topic) {
            return;
        }
        self.count += 1;
        if record.headers.get(INDEX_HEADER).is_none() {
            self.undecodable += 1;
            return;
        }
        let Ok(events) = decode_all(Some(Encoding::Json), record.payload, 0) else {
            self.unreadable += 1;
            return;
        };
        for event in events {
            self.points.entry(event.series).or_default().push(LetterPoint {
                topic: topic.to_owned(),
                partition: u32::try_from(partition).unwrap_or(u32::MAX),
                offset,
                time: event.time,
                value: event.value,
            });
        }
    }
}
