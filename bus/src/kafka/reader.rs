use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use tracing::debug;

use super::config::Settings;
use super::lookup::{self, Asking, list_of, offset_of};
use super::raw::MessageHeaders;
use super::state::{Connection, READER, is_refusal, refusal};
use super::unreadable::{self, Probe, Unreadable};
use crate::{BusError, Progress, Reader, Record, TopicPartition, count_of};

/// The longest wait for the answer to a query.
const ASKING: Duration = Duration::from_secs(10);
/// The most records handed over by one poll, so that its caller is not blocked indefinitely.
const RUN: usize = 10_000;

/// Reads by assignment: it joins no group and commits nothing. librdkafka asks for a group's name all the same; it is one that
/// no group uses.
pub(super) struct KafkaReader {
    consumer: BaseConsumer<Asking>,
    connection: Arc<Connection>,
    topic: String,
    parts: Vec<Part>,
    ends: VecDeque<u32>,
    settings: Settings,
    /// Records that cannot be read; after them, all partitions are assigned again.
    unreadable: Option<Unreadable>,
}

struct Part {
    partition: u32,
    next: u64,
}

impl KafkaReader {
    pub(super) fn new(settings: &Settings) -> Result<Self, BusError> {
        let connection = Arc::new(Connection::new(READER));
        let consumer = settings
            .reader(&unused_group())
            .create_with_context(Asking(Arc::clone(&connection)))
            .map_err(|error| BusError::Settings(error.to_string()))?;
        Ok(Self {
            consumer,
            connection,
            topic: String::new(),
            parts: Vec::new(),
            ends: VecDeque::new(),
            settings: settings.clone(),
            unreadable: None,
        })
    }

    fn failed(&mut self, error: &KafkaError) -> Result<(), BusError> {
        if let KafkaError::PartitionEOF(partition) = error {
            let partition = u32::try_from(*partition).ok();
            self.ends.extend(partition.filter(|end| self.parts.iter().any(|part| part.partition == *end)));
            return Ok(());
        }
        let Some(code) = error.rdkafka_error_code() else {
            return Err(BusError::Fatal(error.to_string()));
        };
        match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => Err(self.out_of_range()),
            // It uses no group, so a missing permission to look one up does not matter.
            RDKafkaErrorCode::GroupAuthorizationFailed => Ok(()),
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                Err(BusError::NoTopic(self.topic.clone()))
            }
            code if is_refusal(code) => Err(refusal(code, self.connection.reason(code))),
            code if unreadable::is_unreadable(code) => self.find_unreadable(code),
            // librdkafka skips records with a wrong checksum; a caller that sums records must get an error.
            RDKafkaErrorCode::BadMessage => {
                Err(BusError::Fatal(format!("records of topic {:?} are damaged", self.topic)))
            }
            RDKafkaErrorCode::Fatal => Err(BusError::Fatal(self.connection.reason(code))),
            code => {
                debug!(target: "kafka", "{code}");
                Ok(())
            }
        }
    }

    /// Finds the records that cannot be read; the error does not name their partition.
    fn find_unreadable(&mut self, code: RDKafkaErrorCode) -> Result<(), BusError> {
        if self.unreadable.is_some() {
            return Ok(());
        }
        let probe = Probe::new(&self.settings)?;
        for part in &self.parts {
            let at = TopicPartition::new(&self.topic, part.partition);
            if probe.is_bad(&at, part.next)? {
                self.unreadable = Some(unreadable::find(&probe, &at, part.next, code)?);
                return Ok(());
            }
        }
        // The records before it have not been handed over yet: the client reports it again when they have.
        debug!(target: "kafka", "{code}: not at the next offset of any partition");
        Ok(())
    }

    /// Hands over records that cannot be read, and reads on after them.
    fn hand_over_unreadable(
        &mut self,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, BusError> {
        while let Some(record) = self.unreadable.as_mut().and_then(Unreadable::next_record) {
            let (partition, offset) = (record.partition, record.offset);
            let flow = each(record);
            if let Some(part) = self.parts.iter_mut().find(|part| part.partition == partition) {
                part.next = offset + 1;
            }
            if flow.is_break() {
                break;
            }
        }
        if self.unreadable.as_ref().is_some_and(|rest| rest.offsets.is_empty()) {
            self.unreadable = None;
            self.assign_parts()?;
        }
        Ok(Progress::Records)
    }

    /// Reads every partition from its next offset on.
    fn assign_parts(&mut self) -> Result<(), BusError> {
        let topic = self.topic.as_str();
        let list = list_of(self.parts.iter().map(|part| (topic, part.partition, offset_of(part.next))))?;
        self.consumer
            .unassign()
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| BusError::Fatal(format!("reading topic {topic:?}: {error}")))?;
        self.ends.clear();
        Ok(())
    }

    /// Finds the partition whose next record was deleted: the error does not name it.
    fn out_of_range(&self) -> BusError {
        let wanted: Vec<(&str, u32)> = self.parts.iter().map(|part| (self.topic.as_str(), part.partition)).collect();
        let ranges = match lookup::ranges(&self.consumer, &self.connection, &wanted, ASKING) {
            Ok(ranges) => ranges,
            Err(error) => return error,
        };
        for (part, range) in self.parts.iter().zip(ranges) {
            if part.next < range.first || part.next > range.end {
                return lookup::out_of_range(&TopicPartition::new(&self.topic, part.partition), part.next, range);
            }
        }
        BusError::Fatal(format!("an offset of topic {:?} no longer exists", self.topic))
    }
}

impl Reader for KafkaReader {
    fn assign(&mut self, topic: &str, starts: &[(u32, u64)]) -> Result<(), BusError> {
        let known = lookup::partitions(&self.consumer, &self.connection, topic, ASKING)?;
        let count = known.ok_or_else(|| BusError::NoTopic(topic.to_owned()))?;
        if let Some((missing, _)) = starts.iter().find(|(partition, _)| *partition >= count) {
            return Err(BusError::Settings(format!(
                "topic {topic:?} has {} and no partition {missing}",
                count_of(count, "partition")
            )));
        }
        topic.clone_into(&mut self.topic);
        self.parts = starts.iter().map(|(partition, next)| Part { partition: *partition, next: *next }).collect();
        self.unreadable = None;
        self.assign_parts()
    }

    fn poll(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, BusError> {
        if let Some(partition) = self.ends.pop_front() {
            return Ok(Progress::End(partition));
        }
        if self.unreadable.is_some() {
            return self.hand_over_unreadable(each);
        }
        let until = Instant::now() + timeout;
        let mut handed = 0;
        let mut wait = timeout;
        loop {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    let (Ok(partition), Ok(offset)) =
                        (u32::try_from(message.partition()), u64::try_from(message.offset()))
                    else {
                        continue;
                    };
                    let part = self.parts.iter_mut().find(|part| part.partition == partition && offset >= part.next);
                    let Some(part) = part.filter(|_| message.topic() == self.topic) else { continue };
                    part.next = offset + 1;
                    handed += 1;
                    let headers = MessageHeaders::of_borrowed(&message);
                    let record = Record {
                        topic: &self.topic,
                        partition,
                        offset,
                        time_ms: message.timestamp().to_millis().unwrap_or(-1),
                        key: message.key(),
                        payload: message.payload().unwrap_or_default(),
                        is_tombstone: message.payload().is_none(),
                        unreadable: None,
                        headers: &headers,
                    };
                    if each(record).is_break() || handed == RUN {
                        break;
                    }
                }
                Some(Err(error)) => {
                    self.failed(&error)?;
                    if self.unreadable.is_some() && handed == 0 {
                        return self.hand_over_unreadable(each);
                    }
                    if handed > 0 {
                        break;
                    }
                    if let Some(partition) = self.ends.pop_front() {
                        return Ok(Progress::End(partition));
                    }
                }
                None if handed > 0 => break,
                None if Instant::now() >= until => return Ok(Progress::Idle),
                None => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            wait = if handed > 0 { Duration::ZERO } else { left };
        }
        self.connection.alive();
        Ok(Progress::Records)
    }
}

/// A group's name under which nothing is ever committed.
pub(super) fn unused_group() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Only distinguishes processes with the same number: before 1970 the distance to the epoch does so as well.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = since.unwrap_or_else(|before| before.duration()).as_nanos();
    format!("tallybus.reader.{}.{}.{now}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
