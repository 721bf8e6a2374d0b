//! Partitions that the group assigns to this member, and takes back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use tracing::{debug, warn};

use super::super::lookup::{self, Lookup, list_of, offset_of};
use super::super::member::{Event, give_back};
use super::{ASKING, KafkaSubscriber};
use crate::{Assignment, BusError, GroupEvent, StreamId, TopicPartition};

/// How soon a failed query is repeated.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// How long a member waits for its leaving to complete.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Partitions that the group has assigned and whose start offsets are not known yet.
pub(super) struct Assigning {
    partitions: Vec<TopicPartition>,
    pub(super) next_try: Instant,
}

impl KafkaSubscriber {
    pub(super) fn rebalance(&mut self, event: Event) -> Result<Option<GroupEvent>, BusError> {
        match event {
            Event::Assign(partitions) => {
                if partitions.is_empty() {
                    self.assign(&[])?;
                    return Ok(None);
                }
                for at in &partitions {
                    if !self.partitions.announce(self.consumer.client(), at, self.wakeups.waker()) {
                        return Err(BusError::Fatal(format!("librdkafka has no queue for {at}")));
                    }
                }
                self.assigning = Some(Assigning { partitions, next_try: Instant::now() });
                Ok(None)
            }
            Event::Revoke { partitions, lost } => {
                for at in &partitions {
                    if let Some(owned) = self.partitions.get(at) {
                        owned.leaving = true;
                        owned.lost |= lost;
                    }
                }
                if partitions.is_empty() {
                    self.unassign(&[])?;
                    return Ok(None);
                }
                self.revoking.clone_from(&partitions);
                self.releasing.clear();
                Ok(Some(if lost { GroupEvent::Lost(partitions) } else { GroupEvent::Revoked(partitions) }))
            }
        }
    }

    /// Queries where the assigned partitions begin, and reports the assignment once that is known. The group waits
    /// meanwhile, and the owner can keep polling.
    pub(super) fn assigned(&mut self) -> Result<Option<GroupEvent>, BusError> {
        let Some(assigning) = &mut self.assigning else { return Ok(None) };
        if Instant::now() < assigning.next_try {
            return Ok(None);
        }
        let wanted: Vec<(&str, u32)> = assigning.partitions.iter().map(|at| (&*at.topic, at.partition)).collect();
        let connection = &self.consumer.context().connection;
        // The stream ids first: offsets that are read after them, and records read after that, are of these streams when
        // the ids are the same later.
        let known = streams_of(&self.look, &assigning.partitions).and_then(|streams| {
            let committed = lookup::committed(&self.consumer, connection, &wanted, ASKING)?;
            Ok((streams, committed, self.look.ranges_of(&wanted, ASKING)?))
        });
        match known {
            Ok((streams, committed, ranges)) => {
                for (at, range) in assigning.partitions.iter().zip(&ranges) {
                    if let Some(owned) = self.partitions.get(at) {
                        owned.given_end = range.end;
                    }
                }
                let each = assigning.partitions.iter().zip(streams).zip(committed.into_iter().zip(ranges));
                let assignments = each
                    .map(|((at, stream), (committed, range))| Assignment { at: at.clone(), stream, committed, range })
                    .collect();
                self.assigning = None;
                self.start_due = true;
                Ok(Some(GroupEvent::Assigned(assignments)))
            }
            Err(error) if error.is_refusal() || matches!(error, BusError::Settings(_)) => Err(error),
            Err(error) => {
                assigning.next_try = Instant::now() + ASK_AGAIN;
                if let Some(more) = connection.due("assigned") {
                    warn!(target: "kafka", more, "partitions were given to this member; where they begin is not known: {error}");
                }
                Ok(None)
            }
        }
    }

    /// A member that the group does not know is usually notified of the loss soon. Without that notice its owner would
    /// wait forever for partitions that it has dropped; so the member is replaced.
    pub(super) fn check_disowned(&self) -> Result<(), BusError> {
        let timeout = (self.joining.session() * 2).max(Duration::from_secs(10));
        let waits = |since: Instant| since.elapsed() > timeout;
        let forgotten = self.partitions.iter().find(|owned| !owned.leaving && owned.disowned.is_some_and(waits));
        match forgotten {
            Some(owned) => Err(BusError::Fatal(format!("the group reassigned {} without a revocation", owned.at))),
            None => Ok(()),
        }
    }

    pub(super) fn assign(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), BusError> {
        let list = list_of(starts.iter().map(|(at, offset)| (&*at.topic, at.partition, offset_of(*offset))))?;
        self.consumer.incremental_assign(&list).map_err(|error| BusError::Fatal(format!("starting: {error}")))
    }

    pub(super) fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError> {
        give_back(&self.consumer, partitions).map_err(|error| BusError::Fatal(format!("releasing: {error}")))
    }
}

/// The stream id of each partition's topic.
fn streams_of(look: &Lookup, partitions: &[TopicPartition]) -> Result<Vec<StreamId>, BusError> {
    let topics: BTreeSet<&str> = partitions.iter().map(|at| &*at.topic).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    let known: BTreeMap<&str, StreamId> = topics.iter().copied().zip(look.stream_ids(&topics, ASKING)?).collect();
    let each: Option<Vec<StreamId>> = partitions.iter().map(|at| known.get(&*at.topic).cloned()).collect();
    each.ok_or_else(|| BusError::Unavailable("the brokers' answer left a topic out".to_owned()))
}

impl Drop for KafkaSubscriber {
    /// Leaves the group. The wrapper's consumer waits in its own drop until it has left the group.
    fn drop(&mut self) {
        self.consumer.context().close();
        let _answered = self.settle_commit(LAST_WORDS);
        // An event that was taken and not answered yet would keep the consumer from closing.
        let mut unanswered: Vec<Event> = std::iter::from_fn(|| self.consumer.context().next_event()).collect();
        if self.assigning.is_some() || self.start_due {
            unanswered.push(Event::Assign(Vec::new()));
        }
        if !self.revoking.is_empty() || !self.releasing.is_empty() {
            let all = self.revoking.drain(..).chain(self.releasing.drain(..)).collect();
            unanswered.push(Event::Revoke { partitions: all, lost: false });
        }
        for event in unanswered {
            let answer = match event {
                Event::Assign(_) => self.assign(&[]),
                Event::Revoke { partitions, .. } => self.unassign(&partitions),
            };
            if let Err(error) = answer {
                debug!(target: "kafka", "while leaving the group: {error}");
            }
        }
    }
}
