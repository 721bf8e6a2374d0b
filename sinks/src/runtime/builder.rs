use std::sync::Arc;

use hashbrown::HashTable;
use tallybus_bus::Record;
use tallybus_schemas::{Coordinate, Decoder, ENCODING_HEADER, Encoding, Event, Receiver, Series};

use super::dead_letter::DeadLetter;
use super::series_cache::SeriesCache;
use crate::{Batch, BatchId, Point, Selector, Shape};

/// What every backend can hold, and therefore the most that one point may sum to.
const MAX_VALUE: u64 = i64::MAX as u64;

/// Handle of a series that the selection leaves out.
const LEFT_OUT: u32 = u32::MAX;

/// Collects the records of one partition into a batch. What comes out follows from the records and the shape alone.
pub(crate) struct BatchBuilder {
    topic: Arc<str>,
    partition: u32,
    topic_index: u32,
    selector: Selector,
    decoder: Decoder,
    cache: SeriesCache,
    open: Open,
    /// The decoded events of one message, until all of it is known to be right.
    message: Vec<Decoded>,
}

/// A batch that takes no more records.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) batch: Arc<Batch>,
    /// Records that could not be decoded, and events that no backend could hold.
    pub(crate) letters: Vec<DeadLetter>,
    /// Events in it, selected or not.
    pub(crate) events: u64,
    /// Bytes of its records.
    pub(crate) bytes: usize,
}

#[derive(Default)]
struct Open {
    series: Vec<Arc<Series>>,
    points: Vec<Point>,
    /// Places in `points`, by series and window.
    sums: HashTable<u32>,
    letters: Vec<DeadLetter>,
    records: u64,
    events: u64,
    bytes: usize,
}

struct Decoded {
    series: u32,
    value: u64,
    time: i64,
    index: u32,
}

impl BatchBuilder {
    pub(crate) fn new(topic: Arc<str>, partition: u32, topic_index: u32, selector: Selector) -> Self {
        let mut cache = SeriesCache::default();
        cache.begin_batch();
        Self {
            topic,
            partition,
            topic_index,
            selector,
            decoder: Decoder::default(),
            cache,
            open: Open::default(),
            message: Vec::new(),
        }
    }

    /// Goes on under another shape; the open batch must be empty.
    pub(crate) fn reshape(&mut self, shape: &Shape) -> Result<(), String> {
        debug_assert_eq!(self.open.records, 0);
        self.selector = shape.selector()?;
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.records == 0
    }

    /// Events and dead letters so far: what the batch's limit counts.
    pub(crate) fn events(&self) -> usize {
        usize::try_from(self.open.events).unwrap_or(usize::MAX).saturating_add(self.open.letters.len())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.open.bytes
    }

    /// Takes one record, whole; what cannot be decoded becomes a dead letter.
    pub(crate) fn add(&mut self, record: &Record<'_>) {
        self.open.records += 1;
        self.open.bytes += record.payload.len();
        let series_before = self.open.series.len();
        self.message.clear();
        let header = record.headers.get(ENCODING_HEADER).and_then(|name| std::str::from_utf8(name).ok());
        let decoded = match header.map(str::parse::<Encoding>) {
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(encoding)) => self.decode(Some(encoding), record),
            None => self.decode(self.selector.encoding, record),
        };
        match decoded {
            Ok(()) => self.take_message(record),
            Err(reason) => {
                self.open.series.truncate(series_before);
                self.cache.truncate(series_before);
                self.open.letters.push(undecodable(record, header, reason));
            }
        }
    }

    /// Ends the batch at `end` and begins the next.
    pub(crate) fn close(&mut self, first: u64, end: u64, recovered: bool) -> Closed {
        let open = std::mem::take(&mut self.open);
        self.cache.begin_batch();
        let id = BatchId { topic: self.topic.clone(), partition: self.partition, first, end };
        let key = id.to_string();
        let letters = open.letters.into_iter().map(|letter| DeadLetter { batch: key.clone(), ..letter }).collect();
        let batch = Batch {
            id,
            topic_index: self.topic_index,
            series: open.series,
            points: open.points,
            window: self.selector.window,
            part: String::new(),
            recovered,
        };
        Closed { batch: Arc::new(batch), letters, events: open.events, bytes: open.bytes }
    }

    /// Forgets the open batch: its records are still on the bus.
    pub(crate) fn discard(&mut self) {
        self.open = Open::default();
        self.cache.begin_batch();
    }

    fn decode(&mut self, encoding: Option<Encoding>, record: &Record<'_>) -> Result<(), String> {
        let mut filling = Filling {
            selector: &self.selector,
            cache: &mut self.cache,
            series: &mut self.open.series,
            message: &mut self.message,
            index: 0,
        };
        let time = record.time_ms.max(0).saturating_mul(1_000_000);
        match self.decoder.decode(encoding, record.payload, time, &mut filling) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn take_message(&mut self, record: &Record<'_>) {
        let mut message = std::mem::take(&mut self.message);
        for decoded in message.drain(..) {
            self.open.events += 1;
            if decoded.series == LEFT_OUT {
                continue;
            }
            let first = Coordinate { partition: record.partition, offset: record.offset, index: decoded.index };
            if !self.add_up(&decoded, first) {
                let series = self.open.series[decoded.series as usize].as_ref().clone();
                let event = Event { series, value: decoded.value, time: decoded.time };
                let reason = format!("the value, or the sum of its window, is over {MAX_VALUE}");
                self.open.letters.push(DeadLetter::of_event(&self.topic, first, 1, &event, &reason));
            }
        }
        self.message = message;
    }

    /// Adds an event to its point; `false` when no backend could hold the sum.
    fn add_up(&mut self, event: &Decoded, first: Coordinate) -> bool {
        let time = self.selector.window_start(event.time);
        let fresh = Point { series: event.series, time, value: event.value, events: 1, first };
        if event.value > MAX_VALUE {
            return false;
        }
        if self.selector.window == 0 {
            self.open.points.push(fresh);
            return true;
        }
        let points = &mut self.open.points;
        let hash = point_hash(event.series, time);
        let found = self.open.sums.find(hash, |&place| {
            let point = &points[place as usize];
            point.series == event.series && point.time == time
        });
        if let Some(&place) = found {
            let point = &mut points[place as usize];
            if point.value + event.value > MAX_VALUE {
                return false;
            }
            point.value += event.value;
            point.events += 1;
            return true;
        }
        let place = u32::try_from(points.len()).unwrap_or(u32::MAX);
        points.push(fresh);
        self.open.sums.insert_unique(hash, place, |&place| {
            let point = &points[place as usize];
            point_hash(point.series, point.time)
        });
        true
    }
}

fn point_hash(series: u32, time: i64) -> u64 {
    let mixed = time.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ u64::from(series).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    mixed ^ (mixed >> 29)
}

fn undecodable(record: &Record<'_>, encoding: Option<&str>, reason: String) -> DeadLetter {
    DeadLetter {
        topic: record.topic.to_owned(),
        partition: record.partition,
        offset: record.offset,
        index: None,
        events: 0,
        batch: String::new(),
        reason,
        payload: record.payload.to_vec(),
        encoding: encoding.map(str::to_owned),
        time_ms: record.time_ms,
        cut_from: None,
    }
}

/// Receives one message's events.
struct Filling<'a> {
    selector: &'a Selector,
    cache: &'a mut SeriesCache,
    series: &'a mut Vec<Arc<Series>>,
    message: &'a mut Vec<Decoded>,
    index: u32,
}

impl Receiver for Filling<'_> {
    fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32 {
        if !self.selector.takes(name) {
            return LEFT_OUT;
        }
        if self.selector.keeps_tags() {
            return self.cache.index(name, tags, self.series);
        }
        let mut shaped = Vec::with_capacity(tags.len() + 4);
        self.selector.shape_tags(tags, &mut shaped);
        self.cache.index(name, &shaped, self.series)
    }

    fn event(&mut self, series: u32, value: u64, time: i64) {
        let index = self.index;
        self.index += 1;
        self.message.push(Decoded { series, value, time, index });
    }
}
