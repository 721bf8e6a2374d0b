//! What a member of the pool's group gets from the bus: partitions and tasks.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tallybus_bus::{Assignment, BusError, GroupEvent, Record, Subscriber, TopicPartition};
use tallybus_control::PoolState;

use super::super::topics;
use super::hand::Hand;
use super::{Fetched, MAX_FETCHED, Owned, Pool, TURN, begun};

/// How long an instance that has to give up a partition waits for the task in hand of it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

impl Pool {
    pub(super) fn poll(&mut self, member: &mut dyn Subscriber, hand: &mut Hand) -> Result<(), BusError> {
        let is_full = self.fetched.len() >= MAX_FETCHED;
        if is_full != self.is_paused {
            let all: Vec<TopicPartition> = self.owned.keys().cloned().collect();
            if is_full {
                member.pause(&all)?
            } else {
                member.resume(&all)?
            }
            self.is_paused = is_full;
        }
        let is_waiting = !self.fetched.is_empty() && hand.is_empty() && self.presence.pool() == PoolState::In;
        let timeout = if is_waiting { Duration::ZERO } else { TURN };
        let room = MAX_FETCHED.saturating_sub(self.fetched.len()).max(1);
        let (fetched, owned) = (&mut self.fetched, &self.owned);
        let mut each = |record: Record<'_>| {
            let at = TopicPartition::new(record.topic, record.partition);
            if owned.contains_key(&at) {
                fetched.push_back(Fetched {
                    at,
                    offset: record.offset,
                    payload: record.payload.to_vec(),
                    signature: topics::signed_of(&record)
                        .map(|signed| (signed.id.to_owned(), signed.timestamp, signed.signature.to_owned())),
                });
            }
            ControlFlow::Continue(())
        };
        match member.poll(timeout, room, &mut each) {
            Ok(Some(event)) => self.take_event(member, hand, event),
            Ok(None) => Ok(()),
            // The bus's retention has deleted tasks that nobody did in time: they have expired.
            Err(BusError::Gone { at, wanted, first }) => {
                tracing::warn!(%at, wanted, first, "tasks were deleted from the bus before this service did them: its topic \
                    has to keep them for longer than they live");
                self.fetched.retain(|fetched| fetched.at != at);
                member.start(&[(at, first)])
            }
            Err(error) => Err(error),
        }
    }

    fn take_event(&mut self, member: &mut dyn Subscriber, hand: &mut Hand, event: GroupEvent) -> Result<(), BusError> {
        match event {
            GroupEvent::Assigned(assignments) => self.own(member, assignments),
            GroupEvent::Revoked(partitions) => {
                self.await_task(member, hand, &partitions);
                self.give_up(member, hand, &partitions)
            }
            GroupEvent::Lost(partitions) => self.give_up(member, hand, &partitions),
            GroupEvent::Committed(_) | GroupEvent::End { .. } | GroupEvent::Streams(_) => Ok(()),
        }
    }

    fn own(&mut self, member: &mut dyn Subscriber, assignments: Vec<Assignment>) -> Result<(), BusError> {
        let mut starts = Vec::with_capacity(assignments.len());
        for assignment in assignments {
            let (offset, begun) = begun::start_of(&assignment);
            let stream = assignment.stream.to_string();
            self.owned.insert(assignment.at.clone(), Owned { stream, next: offset, begun });
            starts.push((assignment.at, offset));
        }
        member.start(&starts)?;
        if self.is_paused {
            let new: Vec<TopicPartition> = starts.into_iter().map(|(at, _)| at).collect();
            member.pause(&new)?;
        }
        Ok(())
    }

    /// Waits for the task in hand where it is of one of these partitions, so that no other member does it again.
    fn await_task(&mut self, member: &mut dyn Subscriber, hand: &mut Hand, partitions: &[TopicPartition]) {
        let until = Instant::now() + GIVE_UP_AFTER;
        while hand.at().is_some_and(|at| partitions.contains(at)) && Instant::now() < until {
            if self.stop.left().is_some_and(|left| left.is_zero()) {
                return;
            }
            self.orders.wait(TURN);
            self.go_on(member, hand);
        }
    }

    fn give_up(
        &mut self,
        member: &mut dyn Subscriber,
        hand: &mut Hand,
        partitions: &[TopicPartition],
    ) -> Result<(), BusError> {
        partitions.iter().for_each(|at| self.disown(at));
        hand.disown(|at| partitions.contains(at));
        member.release(partitions)
    }
}
