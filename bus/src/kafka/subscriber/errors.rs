//! Errors of the client: which of them its owner must see.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use tracing::warn;

use super::super::joining::Joined;
use super::super::lookup;
use super::super::partitions::Partitions;
use super::super::state::{is_refusal, is_transport, refusal};
use super::super::unreadable::{self, Probe};
use super::KafkaSubscriber;
use crate::{BusError, Subscriber, TopicPartition};

impl KafkaSubscriber {
    /// Handles events of the group and of the client as a whole.
    pub(super) fn serve(&mut self) -> Result<(), BusError> {
        match self.consumer.poll(Duration::ZERO) {
            // Out of order with those in its partition's own queue: records would be skipped.
            Some(Ok(message)) => {
                let (topic, partition) = (message.topic().to_owned(), message.partition());
                Err(BusError::Fatal(format!("a record of {topic}/{partition} came outside of its partition's queue")))
            }
            Some(Err(error)) => self.failed(&error),
            None => Ok(()),
        }
    }

    /// The error for the owner, if any: librdkafka recovers from most errors by itself.
    fn failed(&mut self, error: &KafkaError) -> Result<(), BusError> {
        let Some(code) = error.rdkafka_error_code() else {
            return Err(BusError::Fatal(error.to_string()));
        };
        let reason = self.connection().reason(code);
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Err(BusError::Fatal(reason));
        }
        self.judge(code, reason, None)
    }

    pub(super) fn judge(
        &mut self,
        code: RDKafkaErrorCode,
        reason: String,
        at: Option<(&TopicPartition, Option<u64>)>,
    ) -> Result<(), BusError> {
        match code {
            RDKafkaErrorCode::Fatal => return Err(BusError::Fatal(reason)),
            RDKafkaErrorCode::InvalidSessionTimeout => return self.join_with_longer_session(&reason),
            _ => {}
        }
        if is_refusal(code) {
            return Err(refusal(code, reason));
        }
        match (code, at) {
            (RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange, Some((at, _))) => {
                Err(self.out_of_range(at))
            }
            (code, Some((at, Some(_)))) if unreadable::is_unreadable(code) => self.pass_unreadable(at, code),
            // librdkafka skips records with a wrong checksum; they would be lost.
            (RDKafkaErrorCode::BadMessage, _) => {
                Err(BusError::Fatal(format!("records on the bus are damaged: {reason}")))
            }
            // The connection's state has logged it, once.
            (code, _) if is_transport(code) => Ok(()),
            // The loss of the partitions comes as an event of its own.
            (RDKafkaErrorCode::PollExceeded, _) => Ok(()),
            // librdkafka retries it forever: the partition makes no progress.
            (code, at) => {
                if let Some(more) = self.connection().due(&code.to_string()) {
                    let partition = at.map(|(at, _)| at.to_string());
                    warn!(target: "kafka", partition, reason, more, "a partition cannot be read: {code}");
                }
                Ok(())
            }
        }
    }

    /// Delivers the records that cannot be read without their payloads, and reads on after them.
    fn pass_unreadable(&mut self, at: &TopicPartition, code: RDKafkaErrorCode) -> Result<(), BusError> {
        // The error may come several times before the partition is read from another offset.
        let Some(owned) = self.partitions.get(at) else { return Ok(()) };
        if !owned.mark_unreadable() {
            return Ok(());
        }
        let next = owned.next;
        match Probe::new(&self.settings).and_then(|probe| unreadable::find(&probe, at, next, code)) {
            Ok(found) => {
                let end = found.offsets.end;
                warn!(
                    target: "kafka", partition = %at, from = next, end, reason = unreadable::reason(code),
                    "records cannot be decompressed: each becomes a dead letter without its payload; the payload stays on \
                     the bus, as long as its retention keeps it"
                );
                let paused = self.partitions.get(at).is_some_and(|owned| owned.paused);
                self.start(&[(at.clone(), end)])?;
                if let Some(owned) = self.partitions.get(at) {
                    owned.paused = paused;
                    owned.unreadable = Some(found);
                }
                Ok(())
            }
            Err(error) => {
                let reason = format!("{}; up to which offset is not known: {error}", unreadable::reason(code));
                Err(BusError::Unreadable { at: at.clone(), offset: next, reason })
            }
        }
    }

    /// Nothing is owned before the brokers have accepted the session timeout.
    fn join_with_longer_session(&mut self, reason: &str) -> Result<(), BusError> {
        if !self.joining.lengthen() {
            return Err(BusError::Settings(format!("`session.timeout.ms`: {reason}")));
        }
        let Joined { commits, consumer } = self.joining.join(&self.wakeups, &self.look)?;
        self.commits = commits;
        self.partitions = Partitions::default();
        self.consumer = consumer;
        Ok(())
    }

    /// Nothing more is delivered of the partition, and no second error comes: if the brokers do not answer now, the
    /// error is final too.
    fn out_of_range(&mut self, at: &TopicPartition) -> BusError {
        let next = self.partitions.get(at).map_or(0, |owned| owned.next);
        match self.range(at) {
            Ok(range) => lookup::out_of_range(at, next, range),
            Err(_) => BusError::Fatal(format!("{at}: offset {next} no longer exists")),
        }
    }
}
