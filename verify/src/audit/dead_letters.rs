use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tallybus_bus::{Bus, Observer, Record, read_topic};
use tallybus_schemas::{Encoding, Series, decode_all};
use tallybus_sdk::dead_letter::DeadLetterHeaders;
use tallybus_sdk::replayed::{self, Seen};

use super::AuditedSink;
use super::messages::Messages;
use super::sink_progress::SinkProgress;
use super::tally::shape;

/// The content of a sink's dead-letter topic, each dead letter once, and of its replay topic.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    /// Dead letters, including undecodable records.
    pub(super) count: u64,
    /// Dead letters that were replayed: settled by the sink's replay group.
    pub(super) replayed: u64,
    /// The value of the refused points, and of those that were replayed, by series after the sink's selection.
    pub(super) points: HashMap<Series, Vec<DeadLetterPoint>>,
    /// Dead letters deleted by retention: their value appears as missing.
    pub(super) gone: u64,
    /// Records of the topic that are not dead letters.
    pub(super) unreadable: u64,
    /// Whether records of the replay topic are gone.
    pub(super) replays_gone: bool,
    /// Records that the worker could not decode, and lines of records: topic, partition, offset, index of the line.
    undecodable: HashMap<String, HashSet<(u32, u64, Option<u32>)>>,
}

#[derive(Debug, Clone)]
pub(super) struct DeadLetterPoint {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) time: i64,
    pub(super) value: u64,
    /// Whether it was replayed, rather than refused.
    pub(super) again: bool,
}

impl DeadLetters {
    /// Reads the current content.
    ///
    /// # Errors
    /// Why it is unknown, for operators.
    pub(super) fn read(
        bus: &dyn Bus,
        observer: &dyn Observer,
        sink: &AuditedSink,
        before: &SinkProgress,
        stall_timeout: Duration,
    ) -> Result<Self, String> {
        let mut dead_letters = Self::default();
        let mut seen = Seen::new();
        dead_letters.gone = read_all(bus, observer, &sink.dead_letter_topic, stall_timeout, &mut |record| {
            // A dead letter that was published again after a crash has the same key.
            if replayed::is_first(&mut seen, record) {
                dead_letters.take(record, sink);
            }
        })?;
        dead_letters.read_again(bus, observer, sink, before, stall_timeout)?;
        Ok(dead_letters)
    }

    fn take(&mut self, record: &Record<'_>, sink: &AuditedSink) {
        let Some(head) = DeadLetterHeaders::of(record) else {
            self.unreadable += 1;
            return;
        };
        if !sink.topics.iter().any(|known| known == head.topic) && head.topic != sink.replay_topic {
            return;
        }
        self.count += 1;
        if head.events == 0 {
            let records = self.undecodable.entry(head.topic.to_owned()).or_default();
            records.insert((head.partition, head.offset, head.index));
            return;
        }
        let Ok(events) = decode_all(Some(Encoding::Json), record.payload, 0) else {
            self.unreadable += 1;
            return;
        };
        for event in events {
            self.points.entry(event.series).or_default().push(DeadLetterPoint {
                topic: head.topic.to_owned(),
                partition: head.partition,
                offset: head.offset,
                time: event.time,
                value: event.value,
                again: false,
            });
        }
    }

    /// Reads the replayed dead letters, exactly as the worker that writes them does.
    fn read_again(
        &mut self,
        bus: &dyn Bus,
        observer: &dyn Observer,
        sink: &AuditedSink,
        before: &SinkProgress,
        stall_timeout: Duration,
    ) -> Result<(), String> {
        let selector = sink.shape.selector()?;
        let encoding = sink.shape.encoding.iter().map(|encoding| (sink.replay_topic.clone(), encoding.clone()));
        let mut messages = Messages::new(&encoding.collect::<BTreeMap<_, _>>())?;
        let mut seen = Seen::new();
        let gone = read_all(bus, observer, &sink.replay_topic, stall_timeout, &mut |record| {
            let settled = before.mark(&sink.replay_topic, record.partition).settled;
            if !replayed::is_first(&mut seen, record) || record.offset >= settled {
                return;
            }
            self.replayed += 1;
            let Ok((original, _)) = replayed::original(record) else { return };
            if messages.decode(&original).is_err() {
                return;
            }
            for row in messages.rows() {
                let Some(series) = shape(&selector, messages.series(row.series)) else { continue };
                self.points.entry(series).or_default().push(DeadLetterPoint {
                    topic: sink.replay_topic.clone(),
                    partition: record.partition,
                    offset: record.offset,
                    time: row.time,
                    value: row.value,
                    again: true,
                });
            }
        })?;
        self.replays_gone = gone > 0;
        Ok(())
    }

    /// Whether the worker could not decode this record, or the line of it with this index, so that it did not write the
    /// event.
    pub(super) fn is_dead(&self, topic: &str, partition: u32, offset: u64, index: u32) -> bool {
        let records = self.undecodable.get(topic).filter(|_| !self.undecodable.is_empty());
        records.is_some_and(|records| {
            [None, Some(index)].into_iter().any(|index| records.contains(&(partition, offset, index)))
        })
    }
}

/// Reads the whole topic, which need not exist; returns the number of its records that are gone.
fn read_all(
    bus: &dyn Bus,
    observer: &dyn Observer,
    topic: &str,
    stall_timeout: Duration,
    each: &mut dyn FnMut(&Record<'_>),
) -> Result<u64, String> {
    let failed = |error: tallybus_bus::BusError| error.to_string();
    if observer.partitions_of(topic).map_err(failed)?.is_none() {
        return Ok(0);
    }
    let ranges = read_topic(bus, observer, topic, stall_timeout, &mut |record| each(&record)).map_err(failed)?;
    Ok(ranges.iter().map(|range| range.first).sum())
}
