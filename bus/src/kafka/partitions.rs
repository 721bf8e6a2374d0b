use std::ops::ControlFlow;
use std::time::Instant;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::messages::{PartitionQueue, RawMessage};
use super::waker::Waker;
use crate::{Record, TopicPartition};

/// A partition that the group gave to this member, from its announcement to its release.
pub(super) struct Owned {
    pub(super) at: TopicPartition,
    queue: PartitionQueue,
    /// librdkafka fetches it.
    pub(super) started: bool,
    /// Its owner has paused it; fetched records stay in its queue.
    pub(super) paused: bool,
    /// The group revokes it; nothing of it is delivered any more.
    pub(super) leaving: bool,
    /// Another member may own it already.
    pub(super) lost: bool,
    /// Its end was reported and no record has come since.
    pub(super) ended: bool,
    /// Where the partition ended when it was assigned.
    pub(super) given_end: u64,
    /// librdkafka's position from before the last start, which it forgets in its own time.
    stale_position: Option<u64>,
    /// One past the record delivered last.
    pub(super) next: u64,
    /// When a commit for it was refused because the broker does not know this member.
    pub(super) disowned: Option<Instant>,
}

impl Owned {
    /// Returns whether it had been started before.
    pub(super) fn start<C: ClientContext>(&mut self, client: &Client<C>, offset: u64) -> bool {
        self.queue.forget_taken();
        self.stale_position = self.queue.position(client);
        (self.paused, self.ended, self.next) = (false, false, offset);
        std::mem::replace(&mut self.started, true)
    }

    /// Whether every record has been taken that the partition held when it was assigned, or that is known to have come
    /// since.
    fn is_at_end<C: ClientContext>(&mut self, client: &Client<C>) -> bool {
        let end = self.queue.newest_seen(client).unwrap_or(0).max(self.given_end);
        if self.next >= end {
            return true;
        }
        let position = self.queue.position(client);
        if self.stale_position != position {
            self.stale_position = None;
        }
        self.stale_position.is_none() && position.is_some_and(|position| position >= end)
    }
}

/// The partitions that this member owns.
#[derive(Default)]
pub(super) struct Partitions {
    owned: Vec<Owned>,
    /// Which partition is read first: each in turn, so that a busy one does not starve the others.
    turn: usize,
}

/// The result of one pass over the queues.
#[derive(Default)]
pub(super) struct Handed {
    pub(super) records: usize,
    /// Partitions whose end was reached.
    pub(super) ends: Vec<TopicPartition>,
    /// Errors found in the place of records.
    pub(super) errors: Vec<(TopicPartition, RDKafkaErrorCode)>,
}

impl Partitions {
    /// Adds a partition; returns `false` when librdkafka has no queue for it.
    pub(super) fn announce<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        at: &TopicPartition,
        waker: &Waker,
    ) -> bool {
        self.forget(at);
        let Ok(partition) = i32::try_from(at.partition) else { return false };
        let Some(queue) = PartitionQueue::new(client, &at.topic, partition, waker) else { return false };
        self.owned.push(Owned {
            at: at.clone(),
            queue,
            started: false,
            paused: false,
            leaving: false,
            lost: false,
            ended: false,
            given_end: 0,
            stale_position: None,
            next: 0,
            disowned: None,
        });
        true
    }

    pub(super) fn get(&mut self, at: &TopicPartition) -> Option<&mut Owned> {
        self.owned.iter_mut().find(|owned| owned.at == *at)
    }

    pub(super) fn forget(&mut self, at: &TopicPartition) {
        self.owned.retain(|owned| owned.at != *at);
    }

    pub(super) fn may_commit(&self, at: &TopicPartition) -> bool {
        self.owned.iter().any(|owned| owned.at == *at && !owned.lost)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Owned> {
        self.owned.iter()
    }

    /// Hands over fetched records, at most `max` until `each` breaks, without waiting.
    pub(super) fn hand_over<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        max: usize,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Handed {
        let mut handed = Handed::default();
        // A caller that stops here gets the remaining records from the next call.
        let _enough = self.hand_over_in_turn(client, max, each, &mut handed);
        handed
    }

    fn hand_over_in_turn<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        max: usize,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
        handed: &mut Handed,
    ) -> ControlFlow<()> {
        let count = self.owned.len();
        self.turn = self.turn.checked_add(1).filter(|turn| *turn < count).unwrap_or(0);
        for place in (self.turn..count).chain(0..self.turn) {
            let owned = &mut self.owned[place];
            if !owned.started || owned.leaving || owned.paused {
                continue;
            }
            let Owned { at, queue, next, ended, .. } = owned;
            let left = max.saturating_sub(handed.records);
            if left == 0 {
                break;
            }
            queue.take(left, |message| {
                if let Some(code) = message.error() {
                    handed.errors.push((at.clone(), code));
                    return ControlFlow::Continue(());
                }
                let flow = hand_over(at, &message, next, ended, each);
                handed.records += usize::from(flow.is_some());
                flow.unwrap_or(ControlFlow::Continue(()))
            })?;
            if handed.records < max && !owned.ended && owned.is_at_end(client) {
                owned.ended = true;
                handed.ends.push(owned.at.clone());
            }
        }
        ControlFlow::Continue(())
    }
}

/// Hands over a record; `None` for one from before the last start.
fn hand_over(
    at: &TopicPartition,
    message: &RawMessage<'_>,
    next: &mut u64,
    ended: &mut bool,
    each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
) -> Option<ControlFlow<()>> {
    let offset = u64::try_from(message.offset()).ok()?;
    if offset < *next {
        return None;
    }
    (*next, *ended) = (offset + 1, false);
    let headers = message.headers();
    Some(each(Record {
        topic: &at.topic,
        partition: at.partition,
        offset,
        time_ms: message.time_ms().unwrap_or(-1),
        key: message.key(),
        payload: message.payload().unwrap_or_default(),
        is_tombstone: message.payload().is_none(),
        headers: &headers,
    }))
}
