//! From a written batch to a settled one.

use tallybus_sdk::dead_letter::DeadLetter;

use super::Worker;
use crate::counters::RetryReason;
use crate::failure_log::{HALTED, RETRYING};
#[cfg(feature = "simulation")]
use crate::simulation::Mutant;
use crate::status::BackendFailure;
use crate::writer::{EventKind, WriterEvent};

impl Worker {
    /// Processes the events of the writers.
    pub(super) fn take_events(&mut self) {
        while let Ok(WriterEvent { epoch, kind }) = self.events.try_recv() {
            match kind {
                EventKind::DestinationConfirmed { ledger } => {
                    if let Some(owned) = self.tasks.by_epoch(epoch) {
                        owned.destination_confirmed(ledger);
                    }
                }
                EventKind::ClaimHeld => {
                    if let Some(owned) = self.tasks.by_epoch(epoch) {
                        owned.task.claim_held();
                        owned.backend_answered();
                    }
                }
                EventKind::Written { end, dead_letters, requests, marked } => {
                    if let (Some(owned), Some(mark)) = (self.tasks.by_epoch(epoch), marked) {
                        owned.task.note_marked(mark);
                    }
                    self.wrote(epoch, end, dead_letters, requests);
                }
                EventKind::Retrying { reason, wait, throttled } => {
                    let why = if throttled { RetryReason::Throttled } else { RetryReason::Unavailable };
                    self.tasks.counters().retried(why);
                    self.put_off(epoch, &format!("{reason}{RETRYING}{:.1} s)", wait.as_secs_f64()));
                }
                EventKind::Halted { reason, wait } => {
                    let wait = wait.as_secs_f64();
                    self.tasks.counters().retried(RetryReason::Halted);
                    self.put_off(epoch, &format!("{HALTED}: {reason}{RETRYING}{wait:.0} s)"));
                    if let Some(owned) = self.tasks.by_epoch(epoch) {
                        owned.halts += 1;
                    }
                }
            }
        }
    }

    fn put_off(&mut self, epoch: u64, reason: &str) {
        let Some(owned) = self.tasks.by_epoch(epoch) else { return };
        owned.is_failing = true;
        self.handle.status.update(|status| status.retries += 1);
        self.backend_failures.note_at(&owned.task.at, reason);
    }

    /// Restarts the writers whose sink panicked.
    pub(super) fn restart_writers(&mut self) {
        let panicked = self.tasks.restart_writers(self.clock.now());
        for at in panicked {
            self.tasks.counters().retried(RetryReason::Panicked);
            self.handle.status.update(|status| status.retries += 1);
            let reason = "the sink panicked (a defect of the sink); its batches are written again";
            self.backend_failures.note_at(&at, reason);
        }
    }

    /// The current failures, for the status. One partition's success does not end another's failure.
    pub(super) fn refresh_last_error(&mut self) {
        let failing = self.tasks.failing();
        self.backend_failures.keep(|at| failing.contains(at));
        let others = || self.dead_letters.last_error().or_else(|| self.bus_failures.last_error());
        let last_error = self.backend_failures.last_error().or_else(others);
        let is_bus_failing = self.bus_failures.is_failing();
        let mut backend: Vec<BackendFailure> = self.backend_failures.reasons().iter().map(BackendFailure::of).collect();
        backend.sort_by(|one, other| one.partitions.cmp(&other.partitions));
        self.handle.status.update(|status| {
            status.backend_failures = backend;
            status.last_error = last_error;
            status.is_bus_failing = is_bus_failing;
        });
        self.backend_failures.remind();
        self.bus_failures.remind();
    }

    fn wrote(&mut self, epoch: u64, end: u64, refused: Vec<DeadLetter>, requests: u64) {
        let Some(owned) = self.tasks.by_epoch(epoch) else { return };
        owned.backend_answered();
        // A batch that was already written needs nothing more when it is written again.
        let Some(undecodable) = owned.task.wrote(end, requests) else { return };
        #[cfg(feature = "simulation")]
        let undecodable = if Mutant::DeadLetterDropped.is_on() { &[] } else { undecodable };
        let mut dead_letters = refused;
        dead_letters.extend_from_slice(undecodable);
        if let Some(first) = dead_letters.first() {
            let (count, key, reason) = (dead_letters.len(), first.key(), first.reason.as_str());
            let (sink, topic) = (self.options.sink.as_str(), self.options.dead_letter_topic.as_str());
            tracing::warn!(
                sink,
                count,
                topic,
                first = key,
                reason,
                "dead letters; `tallybus replay list --sink {sink}` lists them"
            );
            self.next_token += 1;
            #[cfg(feature = "simulation")]
            let is_awaited = !Mutant::SettleBeforeTheDeadLetter.is_on();
            #[cfg(not(feature = "simulation"))]
            let is_awaited = true;
            if is_awaited {
                owned.task.await_dead_letters(end, self.next_token);
            }
            self.dead_letters.submit(self.next_token, dead_letters);
        }
        self.settle(epoch);
    }

    /// Settles the batches whose dead letters are now on the bus.
    pub(super) fn take_published_dead_letters(&mut self) {
        for token in self.dead_letters.poll(self.clock.now()) {
            let waiting =
                self.tasks.iter_mut().find_map(|task| task.dead_letters_published(token).then_some(task.epoch));
            if let Some(epoch) = waiting {
                self.settle(epoch);
            }
        }
    }

    fn settle(&mut self, epoch: u64) {
        let (dead_letters, now) = (self.dead_letters.published(), self.clock.now());
        let Some(owned) = self.tasks.by_epoch(epoch) else { return };
        while let Some(settled) = owned.task.settle() {
            self.handle.status.counters().settled(settled.events);
            let (id, value) = (&settled.batch.id, settled.batch.total());
            self.handle.status.update(|status| {
                status.events += settled.events;
                status.value = status.value.saturating_add(value);
                status.messages += id.end - id.first;
                status.points += settled.batch.points.len() as u64;
                status.batches += 1;
                status.requests += settled.requests;
                status.dead_letters = dead_letters;
                status.last_settled = Some(now);
            });
        }
    }
}
