use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::messages::{PartitionQueue, RawMessage};
use super::unreadable::Unreadable;
use super::waker::Waker;
use crate::{Record, TopicPartition};

/// How long nothing may come of a partition that holds more before the cause is looked for.
const HELD_BACK: Duration = Duration::from_secs(5);

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
    /// The offset of the last error that came in a record's place: librdkafka counts it as taken, which it was not.
    error_at: Option<u64>,
    /// Its next record cannot be read; nothing more of it is delivered until it is started again.
    is_unreadable: bool,
    /// Records that cannot be read, which come before what librdkafka fetches now.
    pub(super) unreadable: Option<Unreadable>,
    /// Since when librdkafka has not passed this offset, although the partition holds more.
    held_back: Option<(u64, Instant)>,
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
        (self.error_at, self.is_unreadable, self.held_back) = (None, false, None);
        self.unreadable = None;
        std::mem::replace(&mut self.started, true)
    }

    /// The offset up to which every record has been taken, when that is all that the partition held when it was assigned,
    /// or that is known to have come since. Offsets without records are passed.
    fn end_reached<C: ClientContext>(&mut self, client: &Client<C>) -> Option<u64> {
        let end = self.queue.newest_seen(client).unwrap_or(0).max(self.given_end);
        if self.next >= end {
            return Some(self.next);
        }
        self.passed(client).filter(|position| *position >= end)
    }

    /// The offset up to which everything was taken or passed, as far as librdkafka knows it.
    fn passed<C: ClientContext>(&mut self, client: &Client<C>) -> Option<u64> {
        let position = self.queue.position(client);
        if self.stale_position != position {
            self.stale_position = None;
        }
        let is_wrong = self.stale_position.is_some() || self.error_at.is_some_and(|offset| offset >= self.next);
        position.filter(|_| !is_wrong)
    }

    /// Marks it as one whose next record cannot be read; returns whether it was not marked before.
    pub(super) fn mark_unreadable(&mut self) -> bool {
        !std::mem::replace(&mut self.is_unreadable, true)
    }

    /// Whether nothing has come for a while of a partition that ends at `end`.
    pub(super) fn is_held_back<C: ClientContext>(&mut self, client: &Client<C>, end: u64, now: Instant) -> bool {
        let position = self.passed(client).unwrap_or(0).max(self.next);
        if !self.started || self.paused || self.leaving || self.is_unreadable || position >= end {
            self.held_back = None;
            return false;
        }
        let since = self.held_back.filter(|(before, _)| *before == position).map_or(now, |(_, since)| since);
        self.held_back = Some((position, since));
        now.saturating_duration_since(since) >= HELD_BACK
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
    /// Partitions whose end was reached, and the offset up to which every record was handed over.
    pub(super) ends: Vec<(TopicPartition, u64)>,
    /// Errors found in the place of records.
    pub(super) errors: Vec<(TopicPartition, Option<u64>, RDKafkaErrorCode)>,
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
            error_at: None,
            is_unreadable: false,
            unreadable: None,
            held_back: None,
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
            if !owned.started || owned.leaving || owned.paused || owned.is_unreadable {
                continue;
            }
            let Owned { at, queue, next, ended, error_at, unreadable, .. } = owned;
            let left = max.saturating_sub(handed.records);
            if left == 0 {
                break;
            }
            while handed.records < max
                && let Some(record) = unreadable.as_mut().and_then(Unreadable::next_record)
            {
                handed.records += 1;
                each(record)?;
            }
            if unreadable.as_ref().is_some_and(|rest| !rest.offsets.is_empty()) {
                break;
            }
            *unreadable = None;
            let left = max.saturating_sub(handed.records);
            queue.take(left, |message| {
                if let Some(code) = message.error() {
                    let offset = u64::try_from(message.offset()).ok();
                    *error_at = (*error_at).max(offset);
                    handed.errors.push((at.clone(), offset, code));
                    return ControlFlow::Continue(());
                }
                let flow = hand_over(at, &message, next, ended, each);
                handed.records += usize::from(flow.is_some());
                flow.unwrap_or(ControlFlow::Continue(()))
            })?;
            if handed.records < max
                && !owned.ended
                && let Some(offset) = owned.end_reached(client)
            {
                owned.ended = true;
                handed.ends.push((owned.at.clone(), offset));
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
        unreadable: None,
        headers: &headers,
    }))
}
