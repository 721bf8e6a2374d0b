mod filling;
mod known;

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use tallybus_bus::{Record, StreamId};
use tallybus_schemas::{Coordinate, Decoder, Encoding, Event, Lines, SchemaError, TimeUnit};
use tallybus_sdk::dead_letter::DeadLetter;
use tallybus_sdk::reading::record_time;
use tallybus_sdk::{Batch, BatchId, Capacity, Point, Selector, SeriesTable, Shape};

use self::filling::{Decoded, Filling};
use self::known::{RawSeriesKeyCache, SeriesIndex};
use super::records::Content;

/// The largest value that every backend can store, and therefore the largest sum of one point.
const MAX_VALUE: u64 = i64::MAX as u64;

/// Tables of sums up to this size are not worth shrinking.
const SMALL_SUMS: usize = 1 << 12;

/// Collects the records of one partition into a batch. The result depends on the records and the shape alone.
///
/// The cost of an event depends on its batch only, not on earlier batches; working memory is reused.
pub(crate) struct BatchBuilder {
    topic: Arc<str>,
    partition: u32,
    topic_index: u32,
    selector: Selector,
    decoder: Decoder,
    open: Open,
    index: SeriesIndex,
    raw_keys: RawSeriesKeyCache,
    /// Indexes of the open batch's points, by series and window; empty with window 0.
    sums: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Decoded events of one message, which count only once the whole message has been decoded.
    message: Vec<Decoded>,
    /// The size of the previous batch: the next one is most likely as large.
    expected: (Capacity, usize),
    /// How many events each event of the message counts for: 1, except for dead letters that are replayed.
    stands_for: u32,
}

/// A batch that accepts no more records.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) batch: Arc<Batch>,
    /// Records that could not be decoded, and events whose value no backend can store.
    pub(crate) dead_letters: Vec<DeadLetter>,
    /// The number of its events, selected or not.
    pub(crate) events: u64,
    /// Its memory use in bytes.
    pub(crate) memory: usize,
}

#[derive(Default)]
struct Open {
    series: SeriesTable,
    points: Vec<Point>,
    dead_letters: Vec<DeadLetter>,
    records: u64,
    events: u64,
    bytes: usize,
}

impl Open {
    /// Frees unused capacity of a batch that closed early, because it may wait for some time.
    fn shrink(&mut self) {
        if self.points.capacity() / 2 > self.points.len() {
            self.points.shrink_to_fit();
            self.series.shrink();
        }
    }

    /// Points mostly, which are many times larger than the native messages that they come from.
    fn memory(&self) -> usize {
        let dead_letters: usize = self.dead_letters.iter().map(DeadLetter::memory).sum();
        self.points.len() * size_of::<Point>() + self.series.memory() + dead_letters
    }
}

/// The state of a batch before a message.
struct Mark {
    series: usize,
    raw_keys: usize,
    points: usize,
}

impl BatchBuilder {
    pub(crate) fn new(topic: Arc<str>, partition: u32, topic_index: u32, selector: Selector) -> Self {
        Self {
            topic,
            partition,
            topic_index,
            selector,
            decoder: Decoder::default(),
            open: Open::default(),
            index: SeriesIndex::default(),
            raw_keys: RawSeriesKeyCache::default(),
            sums: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            message: Vec::new(),
            expected: (Capacity::default(), 0),
            stands_for: 1,
        }
    }

    /// Continues under another shape; the open batch must be empty.
    pub(crate) fn reshape(&mut self, shape: &Shape) -> Result<(), String> {
        debug_assert_eq!(self.open.records, 0);
        self.selector = shape.selector()?;
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.records == 0
    }

    /// Events and dead letters so far: the number that the batch's limit applies to.
    pub(crate) fn events(&self) -> usize {
        usize::try_from(self.open.events).unwrap_or(usize::MAX).saturating_add(self.open.dead_letters.len())
    }

    /// Bytes of its records so far: the number that the batch's limit applies to.
    pub(crate) fn bytes(&self) -> usize {
        self.open.bytes
    }

    /// The memory use of the open batch in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.open.memory()
    }

    /// Adds one whole record; a record that cannot be decoded becomes a dead letter.
    pub(crate) fn add(&mut self, record: &Record<'_>, content: Content<'_>) {
        if self.open.records == 0 {
            self.open.series = SeriesTable::with_capacity(self.expected.0);
            self.open.points = Vec::with_capacity(self.expected.1);
        }
        self.open.records += 1;
        self.open.bytes += record.payload.len();
        match content {
            Content::Events(events, stands_for) => {
                self.stands_for = stands_for;
                self.add_message(&events);
            }
            Content::Nothing => {}
            Content::Unreadable(reason) => self.open.dead_letters.push(DeadLetter::undecodable(record, None, reason)),
        }
    }

    fn add_message(&mut self, record: &Record<'_>) {
        let before = self.mark();
        let reading = self.selector.reading.of(record);
        let decoded = reading.clone().and_then(|reading| self.decode(reading.encoding, reading.time_unit, record));
        match decoded {
            Ok(events) => {
                self.open.events += u64::from(events) * u64::from(self.stands_for);
                self.settle_message(record);
            }
            Err(reason) => {
                self.roll_back(&before);
                let payload = record.payload;
                let lines =
                    reading.ok().and_then(|reading| self.decoder.lines(reading.encoding, payload, record_time(record)));
                match lines {
                    Some(lines) => self.add_lines(record, &lines),
                    None => self.open.dead_letters.push(DeadLetter::undecodable(record, None, reason)),
                }
            }
        }
    }

    /// Adds the lines of a message that cannot be decoded as a whole: those that can, and a dead letter for each other
    /// line. Each event takes one index in the message, and so does each refused line.
    fn add_lines(&mut self, record: &Record<'_>, lines: &Lines<'_>) {
        let mut index = 0;
        for line in &lines.lines {
            let before = self.mark();
            let (encoding, time) = (Some(lines.encoding), record_time(record));
            let decoded = match &line.events {
                Ok(_) => self.decode_from(index, encoding, line.text, time, record).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match decoded {
                Ok(events) => {
                    self.open.events += u64::from(events) * u64::from(self.stands_for);
                    self.settle_message(record);
                    index += events;
                }
                Err(reason) => {
                    self.roll_back(&before);
                    let line = Some((index, line.text, lines.encoding));
                    self.open.dead_letters.push(DeadLetter::undecodable(record, line, reason));
                    index += 1;
                }
            }
        }
    }

    /// Ends the batch at `end` and begins the next. `stream`: as in [`Batch::stream`].
    pub(crate) fn close(&mut self, first: u64, end: u64, stream: Option<StreamId>, recovered: bool) -> Closed {
        let mut open = std::mem::take(&mut self.open);
        open.shrink();
        self.expected = (open.series.capacity(), open.points.len());
        self.forget_known();
        let id = BatchId { topic: self.topic.clone(), partition: self.partition, first, end };
        let key = id.to_string();
        let memory = open.memory();
        let dead_letters = open
            .dead_letters
            .into_iter()
            .map(|dead_letter| DeadLetter { batch: key.clone(), stream: stream.clone(), ..dead_letter })
            .collect();
        let batch = Batch {
            id,
            topic_index: self.topic_index,
            series: Arc::new(open.series),
            points: open.points,
            window: self.selector.window,
            part: String::new(),
            stream,
            recovered,
        };
        Closed { batch: Arc::new(batch), dead_letters, events: open.events, memory }
    }

    /// Discards the open batch: its records are still on the bus.
    pub(crate) fn discard(&mut self) {
        self.open = Open::default();
        self.forget_known();
    }

    fn forget_known(&mut self) {
        self.index.clear();
        self.raw_keys.clear();
        self.sums.clear();
        if self.sums.capacity() > SMALL_SUMS && self.sums.capacity() / 4 > self.expected.1 {
            self.sums.shrink_to(self.expected.1, |_| 0);
        }
    }

    /// Decodes the events of the message; returns their number.
    fn decode(
        &mut self,
        encoding: Option<Encoding>,
        time_unit: Option<TimeUnit>,
        record: &Record<'_>,
    ) -> Result<u32, String> {
        self.decoder.set_time_unit(time_unit);
        self.decode_from(0, encoding, record.payload, record_time(record), record).map_err(|error| error.to_string())
    }

    /// Decodes events, the first of which has this index in the record's message; returns their number.
    fn decode_from(
        &mut self,
        index: u32,
        encoding: Option<Encoding>,
        payload: &[u8],
        time: i64,
        record: &Record<'_>,
    ) -> Result<u32, SchemaError> {
        let mut filling = Filling {
            selector: &self.selector,
            index: &mut self.index,
            raw_keys: &mut self.raw_keys,
            series: &mut self.open.series,
            points: &mut self.open.points,
            message: &mut self.message,
            stands_for: self.stands_for,
            at: Coordinate { partition: record.partition, offset: record.offset, index },
        };
        self.decoder.decode(encoding, payload, time, &mut filling)?;
        Ok(filling.at.index - index)
    }

    /// The state that [`Self::roll_back`] goes back to.
    fn mark(&self) -> Mark {
        Mark { series: self.open.series.len(), raw_keys: self.raw_keys.len(), points: self.open.points.len() }
    }

    /// A message, or a line of one, is added whole or not at all.
    fn roll_back(&mut self, before: &Mark) {
        self.message.clear();
        self.open.points.truncate(before.points);
        self.open.series.truncate(before.series);
        self.index.truncate(before.series);
        self.raw_keys.truncate(before.raw_keys);
    }

    /// Adds the events of a message once all of it has been decoded.
    fn settle_message(&mut self, record: &Record<'_>) {
        if self.message.is_empty() {
            return;
        }
        let mut message = std::mem::take(&mut self.message);
        for decoded in message.drain(..) {
            let first = Coordinate { partition: record.partition, offset: record.offset, index: decoded.index };
            if !self.add_up(&decoded, first) {
                let series = self.open.series.get(decoded.series).to_series();
                let event = Event { series, value: decoded.value, time: decoded.time };
                let reason = format!("the value, or the sum of its window, is over {MAX_VALUE}");
                self.open.dead_letters.push(DeadLetter::of_event(&self.topic, first, self.stands_for, &event, &reason));
            }
        }
        self.message = message;
    }

    /// Adds an event to its point; `false` when no backend can store the sum.
    fn add_up(&mut self, event: &Decoded, first: Coordinate) -> bool {
        if event.value > MAX_VALUE {
            return false;
        }
        let time = self.selector.window_start(event.time);
        let fresh = Point { series: event.series, time, value: event.value, events: self.stands_for, first };
        let points = &mut self.open.points;
        let hash = self.hasher.hash_one((event.series, time));
        let found = self.sums.find(hash, |&place| {
            let point = &points[place as usize];
            point.series == event.series && point.time == time
        });
        if let Some(&place) = found {
            let point = &mut points[place as usize];
            if point.value + event.value > MAX_VALUE {
                return false;
            }
            point.value += event.value;
            point.events = point.events.saturating_add(self.stands_for);
            return true;
        }
        let place = u32::try_from(points.len()).unwrap_or(u32::MAX);
        points.push(fresh);
        self.sums.insert_unique(hash, place, |&place| {
            let point = &points[place as usize];
            self.hasher.hash_one((point.series, point.time))
        });
        true
    }
}

#[cfg(test)]
mod tests;
