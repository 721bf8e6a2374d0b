//! Records that librdkafka cannot decompress: it asks for them again for ever, and delivers nothing after them.
//!
//! They were compressed together, and the error names the first of them only. Where they end is found by reading from later
//! offsets: inside of them the same error comes, after them a record.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;

use super::config::Settings;
use super::lookup::{Asking, list_of, offset_of};
use super::reader::unused_group;
use super::state::Connection;
use crate::{BusError, NoHeaders, Record, TopicPartition};

/// The longest that all of it may take.
const PATIENCE: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_millis(100);

/// Offsets whose records cannot be read.
pub(super) struct Unreadable {
    pub(super) at: TopicPartition,
    pub(super) offsets: Range<u64>,
    reason: String,
}

impl Unreadable {
    /// The next of them, as a record without its payload.
    pub(super) fn next_record(&mut self) -> Option<Record<'_>> {
        let offset = self.offsets.next()?;
        Some(Record {
            topic: &self.at.topic,
            partition: self.at.partition,
            offset,
            time_ms: -1,
            key: None,
            payload: &[],
            is_tombstone: false,
            unreadable: Some(&self.reason),
            headers: &NoHeaders,
        })
    }
}

/// Whether this error stands for records that cannot be read.
pub(super) fn is_unreadable(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::BadCompression | RDKafkaErrorCode::NotImplemented)
}

pub(super) fn reason(code: RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::BadCompression => {
            "the record cannot be decompressed, or is larger than `receive.message.max.bytes` when it is".to_owned()
        }
        code => format!("the record cannot be decompressed: {code}"),
    }
}

/// Finds the records that cannot be read: those of this partition from `next` on.
///
/// # Errors
/// Where they end is not known.
pub(super) fn find(
    settings: &Settings,
    at: &TopicPartition,
    next: u64,
    code: RDKafkaErrorCode,
) -> Result<Unreadable, BusError> {
    let probe = Probe::new(settings, at)?;
    let (mut bad, mut step) = (next, 1);
    let mut good = loop {
        let offset = bad.saturating_add(step);
        if !probe.is_bad(offset)? {
            break offset;
        }
        (bad, step) = (offset, step * 2);
    };
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if probe.is_bad(middle)? {
            bad = middle;
        } else {
            good = middle;
        }
    }
    Ok(Unreadable { at: at.clone(), offsets: next..good, reason: reason(code) })
}

/// Reads single offsets of a partition.
pub(super) struct Probe<'a> {
    consumer: BaseConsumer<Asking>,
    at: &'a TopicPartition,
    until: Instant,
}

impl<'a> Probe<'a> {
    pub(super) fn new(settings: &Settings, at: &'a TopicPartition) -> Result<Self, BusError> {
        let context = Asking(Arc::new(Connection::new("probe")));
        let consumer = settings.reader(&unused_group()).create_with_context(context);
        let consumer = consumer.map_err(|error| BusError::Settings(error.to_string()))?;
        Ok(Self { consumer, at, until: Instant::now() + PATIENCE })
    }

    /// Whether what comes at this offset is the error of a record that cannot be read.
    pub(super) fn is_bad(&self, offset: u64) -> Result<bool, BusError> {
        let failed = |error: KafkaError| BusError::Unavailable(format!("reading {} from {offset}: {error}", self.at));
        let list = list_of([(&*self.at.topic, self.at.partition, offset_of(offset))].into_iter())?;
        self.consumer.unassign().and_then(|()| self.consumer.assign(&list)).map_err(failed)?;
        loop {
            match self.consumer.poll(WAIT) {
                Some(Ok(message)) if u64::try_from(message.offset()).is_ok_and(|found| found >= offset) => {
                    return Ok(false);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(false),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(code) if is_unreadable(code) => return Ok(true),
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => return Ok(false),
                    _ => {}
                },
                Some(Ok(_)) | None => {}
            }
            if Instant::now() > self.until {
                return Err(BusError::Unavailable(format!("{} did not answer at offset {offset}", self.at)));
            }
        }
    }
}
