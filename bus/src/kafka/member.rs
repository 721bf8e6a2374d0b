//! A member's context: it records the group's rebalance events; the member's owner answers them later.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tracing::warn;

use super::lookup::list_of;
use super::raw;
use super::state::{Connection, lock};
use crate::TopicPartition;

/// A rebalance event; the group waits until it is answered, and sends no other before.
#[derive(Debug)]
pub(super) enum Event {
    Assign(Vec<TopicPartition>),
    Revoke { partitions: Vec<TopicPartition>, lost: bool },
}

pub(super) struct MemberContext {
    pub(super) connection: Connection,
    events: Mutex<VecDeque<Event>>,
    closing: AtomicBool,
}

impl MemberContext {
    pub(super) fn new() -> Self {
        Self { connection: Connection::new("subscriber"), events: Mutex::default(), closing: AtomicBool::new(false) }
    }

    pub(super) fn next_event(&self) -> Option<Event> {
        lock(&self.events).pop_front()
    }

    /// From now on rebalances are answered at once: no owner is left that could settle anything.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.connection.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.connection.error(&error, reason);
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.connection.alive();
        let partitions = partitions_of(list);
        let assigned = matches!(event, RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS);
        if self.closing.load(Ordering::SeqCst) {
            let answer = if assigned {
                consumer.incremental_assign(&TopicPartitionList::new())
            } else {
                give_back(consumer, &partitions)
            };
            if let Err(error) = answer {
                warn!(target: "kafka", "the group could not be answered while leaving it: {error}");
            }
            return;
        }
        let event = if assigned {
            Event::Assign(partitions)
        } else {
            Event::Revoke { partitions, lost: consumer.assignment_lost() }
        };
        lock(&self.events).push_back(event);
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let known = raw::elements(list).into_iter();
    known
        .filter_map(|element| Some(TopicPartition::new(&element.topic, u32::try_from(element.partition).ok()?)))
        .collect()
}

/// Unassigns those of these partitions that librdkafka holds: a partition that was never started was never assigned in
/// it. Answers a pending revocation, also with nothing to give back.
pub(super) fn give_back(consumer: &BaseConsumer<MemberContext>, partitions: &[TopicPartition]) -> KafkaResult<()> {
    let held = partitions_of(&consumer.assignment()?);
    let both = held.iter().filter(|held| partitions.contains(held));
    let list = list_of(both.map(|at| (&*at.topic, at.partition, Offset::Invalid)));
    consumer.incremental_unassign(&list.unwrap_or_default())
}
