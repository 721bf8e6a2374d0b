use std::collections::BTreeMap;
use std::time::Duration;

use tallybus_bus::{Bus, Observer, Record, read_topic};
use tallybus_schemas::{Encoding, decode_all};
use tallybus_sdk::dead_letter::DeadLetterHeaders;
use tallybus_sdk::replayed::{self, Seen};

use super::AuditedSink;
use super::claims::{At, Claims, Content, Event};
use super::messages::Messages;
use super::sink_progress::SinkProgress;
use super::tally::Tally;
use crate::streams::Streams;

/// The content of a sink's dead-letter topic, each dead letter once, and of its replay topic.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    streams: Streams,
    /// What they claim.
    pub(super) claims: Claims,
    /// Dead letters that were replayed: settled by the sink's replay group.
    pub(super) replayed: u64,
    /// Dead letters deleted by retention: their value appears as missing.
    pub(super) gone: u64,
    /// Records of the topic that are not dead letters, or truncated ones.
    pub(super) unreadable: u64,
    /// Whether records of the replay topic are gone.
    pub(super) replays_gone: bool,
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
        tally: &mut Tally<'_>,
        before: &SinkProgress,
        stall_timeout: Duration,
    ) -> Result<Self, String> {
        let mut dead_letters = Self::default();
        let mut seen = Seen::new();
        let topics = sink.topics.iter().chain([&sink.replay_topic]);
        dead_letters.streams = Streams::read(observer, topics).map_err(|error| error.to_string())?;
        dead_letters.gone = read_all(bus, observer, &sink.dead_letter_topic, stall_timeout, &mut |record| {
            // A dead letter that was published again after a crash has the same key.
            if replayed::is_first(&mut seen, record) {
                dead_letters.take(record, tally);
            }
        })?;
        dead_letters.read_replays(bus, observer, sink, tally, before, stall_timeout)?;
        Ok(dead_letters)
    }

    fn take(&mut self, record: &Record<'_>, tally: &mut Tally<'_>) {
        let Some(head) = DeadLetterHeaders::of(record) else {
            self.unreadable += 1;
            return;
        };
        if !self.streams.has(&head) {
            return;
        }
        match self.content(&head, record.payload, tally) {
            Some(content) => self.claims.refuse(at(&head), content),
            None => self.unreadable += 1,
        }
    }

    /// `None` for one that cannot be read.
    fn content(&self, head: &DeadLetterHeaders<'_>, payload: &[u8], tally: &mut Tally<'_>) -> Option<Content> {
        if head.index.is_none() {
            return Some(self.claims.record_content(payload, head.cut_from.is_some()));
        }
        if head.events == 0 {
            return Some(Content::Line);
        }
        let events = decode_all(Some(Encoding::Json), payload, 0).ok()?;
        let [event] = events.as_slice() else { return None };
        Some(Content::Event {
            events: head.events,
            series: tally.number(&event.series),
            window: tally.window(event.time),
            value: event.value,
        })
    }

    /// Reads the replayed dead letters, exactly as the worker that writes them does.
    fn read_replays(
        &mut self,
        bus: &dyn Bus,
        observer: &dyn Observer,
        sink: &AuditedSink,
        tally: &mut Tally<'_>,
        before: &SinkProgress,
        stall_timeout: Duration,
    ) -> Result<(), String> {
        let topic = &sink.replay_topic;
        let encoding = sink.shape.encoding.iter().map(|encoding| (topic.clone(), encoding.clone()));
        let mut messages = Messages::new(&encoding.collect::<BTreeMap<_, _>>()).map_err(|error| error.to_string())?;
        let mut seen = Seen::new();
        let mut places = Vec::new();
        let gone = read_all(bus, observer, topic, stall_timeout, &mut |record| {
            if !replayed::is_first(&mut seen, record) {
                return;
            }
            // One that is refused again is a dead letter of this topic.
            self.claims.check_record(topic, record.partition, record.offset, record.payload);
            let decoded = replayed::original(record).and_then(|(original, sums)| {
                messages.decode(&original)?;
                Ok(sums)
            });
            if let Ok(stands_for) = decoded {
                for (index, row) in (0..).zip(messages.rows()) {
                    let series = tally.place(&mut places, row.series, messages.series(row.series));
                    let (partition, offset) = (record.partition, record.offset);
                    let (window, value) = (tally.window(row.time), row.value);
                    let event = Event { partition, offset, index, series, window, value, stands_for };
                    self.claims.check_event(topic, &event);
                }
            }
            if record.offset >= before.mark(topic, record.partition).settled {
                return;
            }
            self.replayed += 1;
            let Some(head) = DeadLetterHeaders::of(record).filter(|head| self.streams.has(head)) else { return };
            if let Some(content) = self.content(&head, record.payload, tally) {
                self.claims.replay(at(&head), content, decoded.is_ok());
            }
        })?;
        self.claims.end_topic();
        self.replays_gone = gone > 0;
        Ok(())
    }
}

fn at(head: &DeadLetterHeaders<'_>) -> At {
    let (topic, partition) = (head.topic.to_owned(), head.partition);
    At { topic, partition, offset: head.offset, index: head.index }
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
