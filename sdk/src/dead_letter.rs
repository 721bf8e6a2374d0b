//! Events and records that a sink did not write, with their coordinate and the reason.
//!
//! A dead letter is published before its batch settles, so after a crash it may be in the topic twice, but it is never
//! missing. Readers of the topic count a dead letter once per coordinate, and only those of the topic's present incarnation:
//! in a topic that was recreated, an offset is another record.

use tallybus_bus::{Record, StreamId};
use tallybus_schemas::{ENCODING_HEADER, Encoding, Event};

use crate::{Batch, Rejection};

/// Header: [`UNDECODABLE`] or [`REJECTED`].
pub const KIND_HEADER: &str = "tallybus-kind";
/// The payload is the original record, or the line of it that the index names.
pub const UNDECODABLE: &str = "undecodable";
/// The payload is one JSON event, as Tallybus writes it.
pub const REJECTED: &str = "rejected";
/// Header: the sink that refused it.
pub const SINK_HEADER: &str = "tallybus-sink";
/// Header: the topic it came from.
pub const TOPIC_HEADER: &str = "tallybus-topic";
/// Header: the incarnation of the topic ([`StreamId`]); absent when a version without stream ids published it.
pub const STREAM_HEADER: &str = "tallybus-stream";
/// Header: the partition it came from, in decimal.
pub const PARTITION_HEADER: &str = "tallybus-partition";
/// Header: the offset of its record, in decimal.
pub const OFFSET_HEADER: &str = "tallybus-offset";
/// Header: the index of the (first) event in the record, in decimal; absent when the whole record could not be decoded.
/// A line that could not be decoded takes one index.
pub const INDEX_HEADER: &str = "tallybus-index";
/// Header: the batch that it was part of.
pub const BATCH_HEADER: &str = "tallybus-batch";
/// Header: how many events the payload sums, in decimal.
pub const EVENTS_HEADER: &str = "tallybus-events";
/// Header: why it was refused.
pub const REASON_HEADER: &str = "tallybus-reason";
/// Header: the record's own time in milliseconds, for the events that carry none.
pub const TIME_HEADER: &str = "tallybus-time";

/// Header: how many bytes the payload had, in decimal; only present when it was too large for the topic and was
/// truncated. The original record has all of it, as long as retention keeps it. 0: the bus could not deliver the record, and
/// none of it is here.
pub const CUT_HEADER: &str = "tallybus-cut-from";

/// Header: how often the dead letter had been replayed when this record was published, in decimal; only in replay
/// topics.
pub const REPLAYS_HEADER: &str = "tallybus-replays";

/// A payload is not truncated below this size, in bytes.
const SMALLEST_CUT: usize = 1_024;

/// An event or record that a sink did not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The topic it came from.
    pub topic: String,
    /// The incarnation of the topic; `None` for a batch that a version without stream ids sealed.
    pub stream: Option<StreamId>,
    /// The partition it came from.
    pub partition: u32,
    /// The offset it came from.
    pub offset: u64,
    /// The index of the (first) event in the record, or of a line that could not be decoded; `None` when the whole record
    /// could not be decoded.
    pub index: Option<u32>,
    /// How many events it sums; 0 when the record, or the line, could not be decoded.
    pub events: u32,
    /// The batch that it was part of.
    pub batch: String,
    /// Why it was refused.
    pub reason: String,
    /// The original record's bytes, a line of it, or one JSON event.
    pub payload: Vec<u8>,
    /// The original record's encoding header, if it had one.
    pub encoding: Option<String>,
    /// The original record's time: milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// How many bytes the payload had before it was truncated to fit the topic; 0 when the bus could not deliver it.
    pub cut_from: Option<usize>,
}

impl DeadLetter {
    /// A record that could not be decoded, or one line of it: its index, text and encoding.
    pub fn undecodable(record: &Record<'_>, line: Option<(u32, &[u8], Encoding)>, reason: String) -> Self {
        let header = || record.headers.get(ENCODING_HEADER).map(|name| String::from_utf8_lossy(name).into_owned());
        Self {
            topic: record.topic.to_owned(),
            stream: None,
            partition: record.partition,
            offset: record.offset,
            index: line.map(|(index, _, _)| index),
            events: 0,
            batch: String::new(),
            reason,
            payload: line.map_or(record.payload, |(_, text, _)| text).to_vec(),
            encoding: line.map(|(_, _, encoding)| encoding.to_string()).or_else(header),
            time_ms: record.time_ms,
            cut_from: record.unreadable.map(|_| 0),
        }
    }

    /// [`REJECTED`] or [`UNDECODABLE`].
    pub fn kind(&self) -> &'static str {
        if self.events > 0 { REJECTED } else { UNDECODABLE }
    }

    /// Bytes of memory that it uses.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.payload.len() + self.reason.len()
    }

    /// A point that a sink rejected.
    pub fn of_point(batch: &Batch, rejection: &Rejection) -> Option<Self> {
        let point = batch.points.get(rejection.point)?;
        let event = Event { series: batch.series.get(point.series).to_series(), value: point.value, time: point.time };
        Some(Self::of_event(batch.id.topic.as_ref(), point.first, point.events, &event, &rejection.reason))
            .map(|dead_letter| Self { batch: batch.id.to_string(), stream: batch.stream.clone(), ..dead_letter })
    }

    /// An event whose value no backend can store.
    pub fn of_event(
        topic: &str,
        first: tallybus_schemas::Coordinate,
        events: u32,
        event: &Event,
        reason: &str,
    ) -> Self {
        let mut payload = Vec::new();
        tallybus_schemas::json::write_event(&mut payload, event);
        Self {
            topic: topic.to_owned(),
            stream: None,
            partition: first.partition,
            offset: first.offset,
            index: Some(first.index),
            events,
            batch: String::new(),
            reason: reason.to_owned(),
            payload,
            encoding: Some("json".to_owned()),
            time_ms: event.time / 1_000_000,
            cut_from: None,
        }
    }

    /// Halves the payload, so that the topic may accept it. Returns whether it was large enough to be halved.
    pub fn cut(&mut self) -> bool {
        let bytes = self.payload.len();
        if bytes / 2 < SMALLEST_CUT {
            return false;
        }
        self.cut_from.get_or_insert(bytes);
        self.payload.truncate(bytes / 2);
        true
    }

    /// The key of its record, which identifies it for ever: `topic@stream/partition/offset`, followed by `/index` for an event,
    /// where `stream` is the short form of the topic's incarnation.
    pub fn key(&self) -> String {
        key_of(&self.topic, self.stream.as_ref().map(StreamId::short), (self.partition, self.offset, self.index))
    }
}

/// The headers of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterHeaders<'r> {
    /// The sink that refused it.
    pub sink: &'r str,
    /// The topic it came from.
    pub topic: &'r str,
    /// The incarnation of the topic; `None` when a version without stream ids published it.
    pub stream: Option<&'r str>,
    /// The partition it came from.
    pub partition: u32,
    /// The offset it came from.
    pub offset: u64,
    /// The index of the (first) event in the record; `None` when the record could not be decoded.
    pub index: Option<u32>,
    /// How many events it sums; 0 when the record could not be decoded.
    pub events: u32,
    /// The batch that it was part of.
    pub batch: &'r str,
    /// Why it was refused.
    pub reason: &'r str,
    /// The original record's encoding header, if it had one.
    pub encoding: Option<&'r str>,
    /// The original record's time: milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// How many bytes the payload had before it was truncated to fit the topic.
    pub cut_from: Option<u64>,
    /// How often it had been replayed when this record was published; 0 in dead-letter topics.
    pub replays: u32,
}

impl<'r> DeadLetterHeaders<'r> {
    /// Reads a record's headers; `None` when it is not a dead letter.
    pub fn of(record: &Record<'r>) -> Option<Self> {
        let headers = record.headers;
        let text = |name: &str| headers.get(name).and_then(|value| std::str::from_utf8(value).ok());
        let index = match text(INDEX_HEADER) {
            Some(index) => Some(index.parse().ok()?),
            None => None,
        };
        let cut_from = match text(CUT_HEADER) {
            Some(bytes) => Some(bytes.parse().ok()?),
            None => None,
        };
        Some(Self {
            sink: text(SINK_HEADER)?,
            topic: text(TOPIC_HEADER)?,
            stream: text(STREAM_HEADER),
            partition: text(PARTITION_HEADER)?.parse().ok()?,
            offset: text(OFFSET_HEADER)?.parse().ok()?,
            index,
            events: text(EVENTS_HEADER)?.parse().ok()?,
            batch: text(BATCH_HEADER).unwrap_or_default(),
            reason: text(REASON_HEADER).unwrap_or_default(),
            encoding: text(ENCODING_HEADER),
            time_ms: text(TIME_HEADER)?.parse().ok()?,
            cut_from,
            replays: text(REPLAYS_HEADER).and_then(|count| count.parse().ok()).unwrap_or(0),
        })
    }

    /// Its coordinate: `topic/partition/offset`, followed by `/index` for an event. It names one dead letter of the topic's
    /// present incarnation.
    pub fn coordinate(&self) -> String {
        key_of(self.topic, None, (self.partition, self.offset, self.index))
    }

    /// The key of its record, as [`DeadLetter::key`] returns it.
    pub fn key(&self) -> String {
        let short = self.stream.map(|stream| stream.rsplit(':').next().unwrap_or(stream));
        key_of(self.topic, short, (self.partition, self.offset, self.index))
    }

    /// Whether it came from this incarnation of its topic. One that does not say is taken for one of the present.
    pub fn is_of(&self, stream: &StreamId) -> bool {
        self.stream.is_none_or(|its| its == stream.as_str())
    }
}

fn key_of(topic: &str, stream: Option<&str>, (partition, offset, index): (u32, u64, Option<u32>)) -> String {
    let stream = stream.map(|stream| format!("@{stream}")).unwrap_or_default();
    let index = index.map(|index| format!("/{index}")).unwrap_or_default();
    format!("{topic}{stream}/{partition}/{offset}{index}")
}
