//! Records that librdkafka cannot decompress: it asks for them again for ever, and delivers nothing after them.
//!
//! They were compressed together, and the error names the first of them only. Where they end is found by reading from later
//! offsets: inside of them the same error comes, after them a record.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;

use super::config::Settings;
use super::lookup::{Asking, list_of, offset_of};
use super::reader::unused_group;
use super::state::{Connection, is_refusal, refusal};
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
    probe: &Probe,
    at: &TopicPartition,
    next: u64,
    code: RDKafkaErrorCode,
) -> Result<Unreadable, BusError> {
    let (mut bad, mut step) = (next, 1);
    let mut good = loop {
        let offset = bad.saturating_add(step);
        if !probe.is_bad(at, offset)? {
            break offset;
        }
        (bad, step) = (offset, step * 2);
    };
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if probe.is_bad(at, middle)? {
            bad = middle;
        } else {
            good = middle;
        }
    }
    Ok(Unreadable { at: at.clone(), offsets: next..good, reason: reason(code) })
}

/// Reads single offsets.
pub(super) struct Probe {
    consumer: BaseConsumer<Asking>,
    connection: Arc<Connection>,
    until: Instant,
}

impl Probe {
    pub(super) fn new(settings: &Settings) -> Result<Self, BusError> {
        let connection = Arc::new(Connection::new("probe"));
        let consumer = settings.reader(&unused_group()).create_with_context(Asking(Arc::clone(&connection)));
        let consumer = consumer.map_err(|error| BusError::Settings(error.to_string()))?;
        Ok(Self { consumer, connection, until: Instant::now() + PATIENCE })
    }

    /// Whether what comes at this offset is the error of a record that cannot be read.
    ///
    /// # Errors
    /// The brokers do not say within a minute, or refuse to.
    pub(super) fn is_bad(&self, at: &TopicPartition, offset: u64) -> Result<bool, BusError> {
        let failed = |reason: &dyn Display| {
            BusError::Unavailable(format!(
                "{at} could not be read at offset {offset}, where a record is unreadable: {reason}"
            ))
        };
        let list = list_of([(&*at.topic, at.partition, offset_of(offset))].into_iter())?;
        self.consumer.unassign().and_then(|()| self.consumer.assign(&list)).map_err(|error| failed(&error))?;
        let mut reason = "no answer".to_owned();
        loop {
            match self.consumer.poll(WAIT) {
                Some(Ok(message)) if u64::try_from(message.offset()).is_ok_and(|found| found >= offset) => {
                    return Ok(false);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(false),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(code) if is_unreadable(code) => return Ok(true),
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => return Ok(false),
                    Some(code) if is_refusal(code) => return Err(refusal(code, self.connection.reason(code))),
                    _ => reason = error.to_string(),
                },
                Some(Ok(_)) | None => {}
            }
            if Instant::now() > self.until {
                return Err(failed(&reason));
            }
        }
    }
}
