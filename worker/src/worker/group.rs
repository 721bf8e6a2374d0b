//! What comes from the consumer group: records, partitions that come and go, and a subscription that fails.

use std::ops::ControlFlow;
use std::time::Duration;

use tallybus_bus::{Assignment, BusError, GroupEvent, Record, Subscriber, TopicPartition};

use super::streams::StreamCheck;
use super::{IDLE_WAIT, REVOKE_GRACE, Worker, WorkerError};
use crate::counters::GroupChange;
#[cfg(feature = "simulation")]
use crate::simulation::Mutant;
use crate::status::HaltCause;

/// Records processed by one poll: few enough that commits and completions are handled in between.
const MAX_RECORDS: usize = 4_096;
/// How long a worker waits before it replaces a client that failed for good.
const REJOIN_AFTER: Duration = Duration::from_secs(1);
/// How long it waits before it asks a bus again that refuses access: every attempt makes its group rebalance.
const ASK_AFTER_REFUSAL: Duration = Duration::from_secs(4);

impl Worker {
    /// Processes what the bus delivers within `timeout`.
    ///
    /// # Errors
    /// Only errors that need operator action.
    pub(super) fn poll(&mut self, timeout: Duration) -> Result<(), WorkerError> {
        self.stop_unreadable();
        let (tasks, clock) = (&mut self.tasks, &self.clock);
        // When the first record arrived: a poll may have waited long for it.
        let mut now = None;
        let mut broken = None;
        let mut each = |record: Record<'_>| {
            let now = *now.get_or_insert_with(|| clock.now());
            tasks.accept(&record, now).unwrap_or_else(|reason| {
                broken.get_or_insert(reason);
                ControlFlow::Continue(())
            })
        };
        let Some(subscriber) = self.membership.subscriber() else { return Ok(()) };
        let polled = subscriber.poll(timeout, MAX_RECORDS, &mut each);
        if let Some((at, reason)) = broken {
            self.stop_partition(&at, HaltCause::Records, reason);
        }
        match polled {
            Ok(event) => event.map_or(Ok(()), |event| self.take_group_event(event)),
            Err(error) if error.is_transient() => {
                self.bus_failures.note(&error.to_string());
                self.clock.sleep(timeout.min(IDLE_WAIT));
                Ok(())
            }
            Err(BusError::Fatal(reason)) => self.rejoin(&reason),
            // Records read before the gap are settled first; the group's offset then decides whether the partition can
            // continue.
            Err(error @ BusError::Gone { .. }) => {
                let owned: Vec<TopicPartition> = self.tasks.iter().map(|task| task.at.clone()).collect();
                self.settle_before_leaving(&owned, REVOKE_GRACE);
                self.rejoin(&error.to_string())
            }
            Err(BusError::Unreadable { at, offset, reason }) => {
                self.found_unreadable(at, offset, &reason);
                Ok(())
            }
            Err(error) if self.waits_for_rights(&error) => self.refused(&error),
            Err(source) => Err(WorkerError::Bus { sink: self.options.sink.clone(), source }),
        }
    }

    /// Whether the worker keeps trying although only an operator can grant what is missing. One that shall end does not.
    fn waits_for_rights(&self, error: &BusError) -> bool {
        error.is_refusal() && !self.options.until_caught_up
    }

    /// The bus refuses access, as it does after a right was taken away or a password was changed. What was sealed is written again
    /// once it grants access.
    fn refused(&mut self, error: &BusError) -> Result<(), WorkerError> {
        self.note_refusal(error);
        let until = self.clock.now() + ASK_AFTER_REFUSAL;
        while self.clock.now() < until && !self.handle.is_stopped() {
            self.clock.sleep(IDLE_WAIT);
            self.note_run();
        }
        self.give_up_and_rejoin()
    }

    fn note_refusal(&mut self, error: &BusError) {
        self.view.refused(self.clock.now());
        self.bus_failures.note(&format!("{error}; `tallybus doctor` names what is missing, and for whom"));
        self.refresh_last_error();
    }

    /// The client has failed for good.
    pub(super) fn rejoin(&mut self, reason: &str) -> Result<(), WorkerError> {
        tracing::error!(
            sink = self.options.sink,
            reason,
            "the subscription failed; rejoining the group (no data lost)"
        );
        self.give_up_and_rejoin()
    }

    /// Gives every partition up without a final commit, as if the worker had been killed, and joins the group as a new member.
    fn give_up_and_rejoin(&mut self) -> Result<(), WorkerError> {
        let owned: Vec<TopicPartition> = self.tasks.iter().map(|task| task.at.clone()).collect();
        owned.iter().for_each(|at| self.drop_task(at));
        self.committer.forget();
        self.unreadable.clear();
        self.stream_check = StreamCheck::default();
        loop {
            self.clock.sleep(REJOIN_AFTER);
            self.note_run();
            if self.options.until_caught_up {
                self.check_descriptors()?;
            }
            match self.membership.join_again(&self.options) {
                Ok(()) => {
                    if let Some(waker) = self.membership.waker() {
                        self.tasks.set_waker(waker);
                    }
                    return Ok(());
                }
                Err(error) if error.is_transient() => self.bus_failures.note(&error.to_string()),
                Err(error) if self.waits_for_rights(&error) => self.note_refusal(&error),
                Err(source) => return Err(WorkerError::Bus { sink: self.options.sink.clone(), source }),
            }
            if self.handle.is_stopped() {
                return Ok(());
            }
        }
    }

    fn take_group_event(&mut self, event: GroupEvent) -> Result<(), WorkerError> {
        let change = match event {
            GroupEvent::Assigned(_) => Some(GroupChange::Assigned),
            GroupEvent::Revoked(_) => Some(GroupChange::Revoked),
            GroupEvent::Lost(_) => Some(GroupChange::Lost),
            GroupEvent::Committed(_) | GroupEvent::Streams(_) | GroupEvent::End { .. } => None,
        };
        if let Some(change) = change {
            self.tasks.counters().group_changed(change);
        }
        match event {
            GroupEvent::Assigned(assignments) => self.assigned(assignments),
            #[cfg(feature = "simulation")]
            GroupEvent::Revoked(partitions) if Mutant::SealAfterRelease.is_on() => {
                self.bus_call(|subscriber| subscriber.release(&partitions))
            }
            GroupEvent::Revoked(partitions) => {
                self.settle_before_leaving(&partitions, REVOKE_GRACE);
                self.release(&partitions)
            }
            #[cfg(feature = "simulation")]
            GroupEvent::Lost(partitions) if Mutant::SealAfterEviction.is_on() => {
                self.bus_call(|subscriber| subscriber.release(&partitions))
            }
            GroupEvent::Lost(partitions) => {
                tracing::warn!(
                    sink = self.options.sink,
                    partitions = partitions.len(),
                    cause = self.turns.cause_of_loss(),
                    "the group gave this worker's partitions up; it assigns them again, here or elsewhere (no data lost)"
                );
                self.release(&partitions)
            }
            GroupEvent::Committed(answers) => {
                self.committed(answers);
                Ok(())
            }
            GroupEvent::Streams(answer) => {
                self.streams_answered(answer);
                Ok(())
            }
            GroupEvent::End { at, offset } => {
                let now = self.clock.now();
                if let Some(owned) = self.tasks.get_mut(&at) {
                    match owned.task.reached_end(offset, now) {
                        Ok(()) => owned.hand_over(),
                        Err(reason) => self.stop_partition(&at, HaltCause::Records, reason),
                    }
                }
                Ok(())
            }
        }
    }

    pub(super) fn bus_call(
        &mut self,
        call: impl FnOnce(&mut dyn Subscriber) -> Result<(), BusError>,
    ) -> Result<(), WorkerError> {
        match self.membership.subscriber().map_or(Ok(()), call) {
            Ok(()) => Ok(()),
            Err(error) => self.rejoin(&error.to_string()),
        }
    }

    /// Starts the assigned partitions; one that cannot continue stays owned and stopped.
    fn assigned(&mut self, assignments: Vec<Assignment>) -> Result<(), WorkerError> {
        let notes = match self.membership.notes_for(&assignments, &self.options) {
            // Whether the group is new is not known yet: it is assigned again, and asked for then.
            Err(error) if error.is_transient() => {
                self.bus_failures.note(&error.to_string());
                return self.give_up_and_rejoin();
            }
            Err(error) if self.waits_for_rights(&error) => return self.refused(&error),
            notes => notes,
        };
        let mut starts = Vec::new();
        for assignment in assignments {
            let at = assignment.at.clone();
            match self.membership.begin(assignment, &notes, &self.options, self.tasks.sink()) {
                Ok((task, offset)) => {
                    self.membership.forget(&at);
                    self.owes_no_more(&at);
                    self.tasks.add(task);
                    starts.push((at, offset));
                }
                Err(reason) => {
                    tracing::error!(
                        sink = self.options.sink,
                        partition = %at,
                        reason,
                        "partition halted: needs operator action"
                    );
                    self.membership.stop(at, HaltCause::Start, reason);
                }
            }
        }
        let stopped = self.membership.stopped().len();
        tracing::info!(sink = self.options.sink, partitions = starts.len(), stopped, "partitions assigned");
        self.bus_call(|subscriber| subscriber.start(&starts))
    }
}

#[cfg(test)]
mod tests;
