//! From a written batch to a settled one.

use std::time::Instant;

use tallybus_sdk::dead_letter::DeadLetter;

use super::{Worker, Written};
use crate::writer::{News, Report};

impl Worker {
    pub(super) fn take_reports(&mut self) {
        while let Ok(Report { epoch, news }) = self.reports.try_recv() {
            match news {
                News::LedgerConfirmed => {
                    if let Some(slot) = self.lanes.by_epoch(epoch) {
                        slot.confirmed();
                    }
                }
                News::Written { end, letters, requests } => self.written(epoch, end, letters, requests),
                News::Retrying { reason, wait } => {
                    self.put_off(epoch, &format!("{reason} (trying again in {:.1} s)", wait.as_secs_f64()));
                }
                News::Halted { reason, wait } => {
                    let wait = wait.as_secs_f64();
                    let text = format!("halted until somebody acts: {reason} (looking again in {wait:.0} s)");
                    self.put_off(epoch, &text);
                    if let Some(slot) = self.lanes.by_epoch(epoch) {
                        slot.halts += 1;
                    }
                }
            }
        }
    }

    fn put_off(&mut self, epoch: u64, reason: &str) {
        let Some(slot) = self.lanes.by_epoch(epoch) else { return };
        slot.troubled = true;
        self.handle.status.update(|status| status.retries += 1);
        self.trouble.note(reason);
    }

    /// Starts lanes again whose sink panicked.
    pub(super) fn revive(&mut self) {
        let panicked = self.lanes.revive(Instant::now());
        if panicked > 0 {
            self.handle.status.update(|status| status.retries += panicked);
            self.trouble.note("the sink panicked, which is an error in it; its batches are written again");
        }
    }

    /// What stands in the way now, for the status. One lane's success does not end another's trouble.
    pub(super) fn tell_trouble(&mut self) {
        if !self.lanes.is_troubled() {
            self.trouble.over();
        }
        let others = || self.letters.trouble().or_else(|| self.bus_trouble.current());
        let trouble = self.trouble.current().or_else(others);
        self.handle.status.update(|status| status.trouble = trouble);
    }

    pub(super) fn written(&mut self, epoch: u64, end: u64, mut letters: Vec<DeadLetter>, requests: u64) {
        let Some(slot) = self.lanes.by_epoch(epoch) else { return };
        slot.wrote();
        if let Some(closed) = slot.lane.sealed().iter().find(|closed| closed.batch.id.end == end) {
            letters.extend(closed.letters.iter().cloned());
        }
        let mut waits_for = None;
        if let Some(first) = letters.first() {
            let (count, key, reason) = (letters.len(), first.key(), first.reason.as_str());
            tracing::warn!(sink = self.options.sink, count, first = key, reason, "dead letters");
            self.next_token += 1;
            waits_for = Some(self.next_token);
            self.letters.submit(self.next_token, letters);
        }
        self.written.entry(epoch).or_default().push_back(Written { end, requests, letters: waits_for });
        self.settle_written(epoch);
    }

    pub(super) fn take_delivered_letters(&mut self, now: Instant) {
        for token in self.letters.poll(now) {
            let waiting = self.written.iter_mut().flat_map(|(epoch, queue)| queue.iter_mut().map(|one| (*epoch, one)));
            let mut found = waiting.filter(|(_, written)| written.letters == Some(token));
            if let Some((epoch, written)) = found.next() {
                written.letters = None;
                drop(found);
                self.settle_written(epoch);
            }
        }
    }

    /// Settles in order: a batch waits for the letters of those before it.
    pub(super) fn settle_written(&mut self, epoch: u64) {
        while let Some(queue) = self.written.get_mut(&epoch) {
            if queue.front().is_none_or(|written| written.letters.is_some()) {
                return;
            }
            if let Some(Written { end, requests, .. }) = queue.pop_front() {
                self.settled(epoch, end, requests);
            }
        }
    }

    pub(super) fn settled(&mut self, epoch: u64, end: u64, requests: u64) {
        let dead_letters = self.letters.published();
        let Some(closed) = self.lanes.by_epoch(epoch).and_then(|slot| slot.lane.settle_front(end)) else { return };
        self.handle.status.update(|status| {
            status.events += closed.events;
            status.points += closed.batch.points.len() as u64;
            status.batches += 1;
            status.requests += requests;
            status.dead_letters = dead_letters;
            status.last_settled = Some(Instant::now());
        });
    }
}
