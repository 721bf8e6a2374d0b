use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Observer, Reader, StreamId, read_range};

use super::Known;

/// How long the bus may return nothing before reading fails.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of records that are kept.
const MAX_MEMORY: usize = 1 << 30;

/// Reads the topic of the producers: whole the first time, and then what has come since. Joins no group.
pub struct ProducersTopic {
    bus: Arc<dyn Bus>,
    topic: String,
    reader: Option<Box<dyn Reader>>,
    /// The incarnation that was read.
    stream: Option<StreamId>,
    /// By partition: the next offset to read.
    next: Vec<u64>,
    known: Known,
}

impl ProducersTopic {
    /// Reads nothing yet. `topic`: from [`tallybus_worker::settings::names::producers_topic`].
    pub fn new(bus: Arc<dyn Bus>, topic: &str) -> Self {
        Self { bus, topic: topic.to_owned(), reader: None, stream: None, next: Vec::new(), known: Known::default() }
    }

    /// Reads everything that is on the topic at the time of the call. Returns whether the topic exists.
    ///
    /// # Errors
    /// The bus did not answer, or the topic is too large: then not everything was read, and nothing may be concluded.
    pub fn refresh(&mut self, observer: &dyn Observer) -> Result<bool, BusError> {
        let outcome = self.read(observer);
        if outcome.is_err() {
            // It is read again from the beginning: what a reader that failed has passed over is not known.
            self.reader = None;
            self.stream = None;
        }
        outcome
    }

    fn read(&mut self, observer: &dyn Observer) -> Result<bool, BusError> {
        let topic = self.topic.as_str();
        let stream = match observer.stream_id_of(topic) {
            Ok(stream) => Some(stream),
            Err(BusError::NoTopic(_)) => None,
            Err(error) => return Err(error),
        };
        if stream.is_none() || stream != self.stream {
            self.known = Known::default();
            self.next.clear();
            self.stream = stream;
        }
        if self.stream.is_none() {
            return Ok(false);
        }
        let ranges = observer.offsets_of(topic)?;
        self.next.resize(ranges.len(), 0);
        let span = |((partition, range), next): ((u32, &tallybus_bus::OffsetRange), &u64)| {
            (partition, (*next).max(range.first)..range.end)
        };
        let spans: Vec<(u32, Range<u64>)> = (0..).zip(&ranges).zip(&self.next).map(span).collect();
        if spans.iter().any(|(_, span)| !span.is_empty()) {
            let reader = match self.reader.take() {
                Some(reader) => reader,
                None => self.bus.reader()?,
            };
            let known = &mut self.known;
            read_range(self.reader.insert(reader).as_mut(), topic, &spans, STALL_TIMEOUT, &mut |record| {
                known.take(&record);
            })?;
        }
        for (next, range) in self.next.iter_mut().zip(&ranges) {
            *next = range.end;
        }
        if self.known.bytes() > MAX_MEMORY {
            return Err(BusError::Settings(format!(
                "topic {topic:?} holds more than {MAX_MEMORY} bytes of checkpoints"
            )));
        }
        Ok(true)
    }

    /// What was read.
    pub fn known(&self) -> &Known {
        &self.known
    }
}
