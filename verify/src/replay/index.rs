//! Reads the dead-letter topic and the replay topic: which dead letters there are, and which of them were chosen.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Observer, Record, read_topic};
use tallybus_schemas::{Encoding, Event, Series, decode_all};
use tallybus_sdk::dead_letter::DeadLetterHeaders;
use tallybus_worker::settings::SinkSettings;

use super::{DeadLetterEntry, DeadLetterIndex, State};
use crate::streams::Streams;

type Offsets = std::ops::Range<u64>;

/// The dead letters chosen so far.
#[derive(Default)]
struct Chosen {
    /// The first offset of each key.
    offsets: HashMap<String, u64>,
    /// By offset.
    records: HashMap<u64, Again>,
    /// Everything below this offset is written.
    settled: u64,
    /// See [`DeadLetterIndex::lost_history`].
    lost: Option<String>,
}

/// A chosen dead letter.
struct Again {
    key: String,
    /// How often it had been replayed when this record was published.
    replays: u32,
    /// How many events it sums.
    events: u32,
}

impl Chosen {
    fn read(
        bus: &dyn Bus,
        observer: &dyn Observer,
        sink: &SinkSettings,
        streams: &Streams,
        stall_timeout: Duration,
    ) -> Result<Self, BusError> {
        let mut chosen = Self::default();
        let topic = sink.replay_topic();
        if observer.partitions_of(&topic)?.is_none() {
            return Ok(chosen);
        }
        let committed = observer.committed_by(&sink.replay_group(), &topic)?;
        chosen.settled = committed.first().and_then(Option::as_ref).map_or(0, |committed| committed.offset);
        let held = read_topic(bus, observer, &topic, stall_timeout, &mut |record| {
            let Some(head) = DeadLetterHeaders::of(&record).filter(|head| streams.has(head)) else { return };
            let (key, replays, events) = (head.coordinate(), head.replays.max(1), head.events.max(1));
            chosen.offsets.entry(key.clone()).or_insert(record.offset);
            chosen.records.insert(record.offset, Again { key, replays, events });
        })?;
        let (first, end) = held.first().map_or((0, 0), |held| (held.first, held.end));
        if first > 0 {
            chosen.lost = Some(format!(
                "{topic} begins at offset {first}; it must keep its records for ever, but they were deleted; remove \
                 its retention limits"
            ));
        } else if chosen.settled > end {
            chosen.lost = Some(format!(
                "{topic} ends at offset {end}, but {} of its records were written already: it was recreated",
                chosen.settled
            ));
        }
        Ok(chosen)
    }
}

/// Progress is told after so many records.
const PROGRESS_EVERY: u64 = 1_000;

pub(super) fn read(
    bus: &dyn Bus,
    observer: &dyn Observer,
    sink: &SinkSettings,
    stall_timeout: Duration,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<DeadLetterIndex, BusError> {
    let mut dead_letters = DeadLetterIndex::default();
    let topic = sink.dead_letter_topic();
    if observer.partitions_of(&topic)?.is_none() {
        return Ok(dead_letters);
    }
    let streams = Streams::read(observer, sink.topics.iter().chain([&sink.replay_topic()]))?;
    let chosen = Chosen::read(bus, observer, sink, &streams, stall_timeout)?;
    let (mut seen, mut settled) = (HashSet::new(), Settled::new(observer, sink));
    let mut unknown = None;
    let (mut read, whole) = (0, observer.offsets_of(&topic)?.iter().map(|range| range.end - range.first).sum());
    let held = read_topic(bus, observer, &topic, stall_timeout, &mut |record| {
        read += 1;
        if read % PROGRESS_EVERY == 0 {
            progress(read, whole);
        }
        let Some(head) = DeadLetterHeaders::of(&record).filter(|head| head.sink == sink.name) else {
            dead_letters.foreign += 1;
            return;
        };
        if !streams.has(&head) {
            dead_letters.elsewhere += 1;
            return;
        }
        // A dead letter that was published again after a crash has the same coordinate.
        if unknown.is_some() || !seen.insert(head.coordinate()) {
            return;
        }
        match dead_letter(&head, &record, sink, &chosen, &mut settled) {
            Ok(dead_letter) => dead_letters.dead_letters.push(dead_letter),
            Err(error) => unknown = Some(error),
        }
    })?;
    if let Some(error) = unknown {
        return Err(error);
    }
    dead_letters.gone = held.iter().map(|held| held.first).sum();
    for (place, dead_letter) in dead_letters.dead_letters.iter().enumerate() {
        dead_letters.by_key.insert(dead_letter.key.clone(), place);
    }
    tell_refused(&mut dead_letters.dead_letters, &chosen, sink);
    dead_letters.lost_history = chosen.lost;
    dead_letters.pending = chosen.offsets.values().filter(|offset| **offset >= chosen.settled).count() as u64;
    Ok(dead_letters)
}

fn dead_letter(
    head: &DeadLetterHeaders<'_>,
    record: &Record<'_>,
    sink: &SinkSettings,
    chosen: &Chosen,
    settled: &mut Settled<'_>,
) -> Result<DeadLetterEntry, BusError> {
    let key = head.coordinate();
    let state = match chosen.offsets.get(&key) {
        Some(offset) if *offset < chosen.settled => State::Replayed,
        Some(_) => State::Chosen,
        None if !settled.is_settled(head)? => State::Unsettled,
        None => State::Dead,
    };
    let written = (head.topic == sink.replay_topic()).then(|| chosen.records.get(&head.offset)).flatten();
    let (origin, replays) = match written {
        Some(written) => (Some(written.key.clone()), written.replays),
        // Its record is gone: it has been replayed at least once.
        None => (None, u32::from(head.topic == sink.replay_topic())),
    };
    Ok(DeadLetterEntry {
        key,
        topic: head.topic.to_owned(),
        record_key: head.key(),
        partition: head.partition,
        offset: head.offset,
        index: head.index,
        events: head.events,
        batch: head.batch.to_owned(),
        reason: head.reason.to_owned(),
        encoding: head.encoding.map(str::to_owned),
        time_ms: head.time_ms,
        bytes: record.payload.len(),
        cut_from: head.cut_from,
        event: event(record).filter(|_| head.events > 0),
        replays,
        origin,
        state,
    })
}

fn event(record: &Record<'_>) -> Option<Event> {
    decode_all(Some(Encoding::Json), record.payload, 0).ok()?.into_iter().next()
}

/// The progress of the sink's groups, read once for each topic.
struct Settled<'a> {
    observer: &'a dyn Observer,
    sink: &'a SinkSettings,
    topics: HashMap<String, Vec<u64>>,
}

impl<'a> Settled<'a> {
    fn new(observer: &'a dyn Observer, sink: &'a SinkSettings) -> Self {
        Self { observer, sink, topics: HashMap::new() }
    }

    /// Whether the batch of the dead letter is settled. No worker processes a topic that is gone.
    fn is_settled(&mut self, head: &DeadLetterHeaders<'_>) -> Result<bool, BusError> {
        if !self.topics.contains_key(head.topic) {
            self.topics.insert(head.topic.to_owned(), self.settled(head.topic)?);
        }
        let settled = self.topics.get(head.topic).and_then(|offsets| offsets.get(head.partition as usize));
        Ok(settled.is_none_or(|settled| head.offset < *settled))
    }

    /// Where unsettled work begins, by partition; `None` for a topic that is gone.
    fn settled(&self, topic: &str) -> Result<Vec<u64>, BusError> {
        let group = if topic == self.sink.replay_topic() { self.sink.replay_group() } else { self.sink.group() };
        let committed = match self.observer.committed_by(&group, topic) {
            Ok(committed) => committed,
            Err(BusError::NoTopic(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(committed.iter().map(|committed| committed.as_ref().map_or(0, |committed| committed.offset)).collect())
    }
}

/// Links replayed dead letters to the dead letters that they have become. Several of them may be one now: those of one
/// series and window in one batch are one point.
fn tell_refused(dead_letters: &mut [DeadLetterEntry], chosen: &Chosen, sink: &SinkSettings) {
    let topic = sink.replay_topic();
    let mut by_record: HashMap<u64, String> = HashMap::new();
    let mut by_point: HashMap<(Series, i64), Vec<(Offsets, String)>> = HashMap::new();
    for refused in dead_letters.iter().filter(|dead_letter| dead_letter.topic == topic) {
        by_record.insert(refused.offset, refused.key.clone());
        let sums_more = chosen.records.get(&refused.offset).is_some_and(|written| refused.events > written.events);
        if let (true, Some(event), Some(batch)) = (sums_more, &refused.event, offsets_of(&refused.batch)) {
            by_point.entry((event.series.clone(), event.time)).or_default().push((batch, refused.key.clone()));
        }
    }
    if by_record.is_empty() {
        return;
    }
    for dead_letter in dead_letters.iter_mut().filter(|dead_letter| dead_letter.state == State::Replayed) {
        let Some(offset) = chosen.offsets.get(&dead_letter.key) else { continue };
        let within = || {
            let event = dead_letter.event.as_ref()?;
            let points = by_point.get(&(event.series.clone(), event.time))?;
            points.iter().find(|(batch, _)| batch.contains(offset)).map(|(_, key)| key.clone())
        };
        if let Some(key) = by_record.get(offset).cloned().or_else(within) {
            dead_letter.state = State::RefusedAgain(key);
        }
    }
}

/// The offsets in a batch's name.
fn offsets_of(batch: &str) -> Option<Offsets> {
    let (first, end) = batch.rsplit_once('/')?.1.split_once('-')?;
    Some(first.parse().ok()?..end.parse().ok()?)
}
