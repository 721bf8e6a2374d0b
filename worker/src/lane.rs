use std::collections::VecDeque;
use std::time::Instant;

use tallybus_bus::{Commit, Committed, Record, TopicPartition};
use tallybus_sdk::{BatchLimits, SEAL_AHEAD, SealNote, Shape};

use super::builder::{BatchBuilder, Closed};
use super::ledger_check::LedgerCheck;

/// One partition on its way through the worker: a state machine without I/O and without a clock of its own.
///
/// Offsets, in this order: `committed <= settled <= (sealed ends) <= (closed ends) <= next`.
pub(crate) struct Lane {
    pub(crate) at: TopicPartition,
    /// Tells this ownership of the partition from an earlier one.
    pub(crate) epoch: u64,
    builder: BatchBuilder,
    limits: BatchLimits,
    shape: Shape,
    /// The shape of what was found sealed, when it is another one, until all of that is settled.
    recovered_shape: Option<Shape>,
    /// Ends that were found sealed and are yet to be collected again.
    recover: VecDeque<u64>,
    closed: VecDeque<Closed>,
    /// How many of `closed` the commit in flight seals.
    sealing: Option<usize>,
    sealed: VecDeque<Closed>,
    settled: u64,
    /// What the group holds; nothing when it never committed.
    committed: Option<Committed>,
    open_first: u64,
    opened_at: Option<Instant>,
    next: u64,
    at_end: bool,
    /// Where the partition ended when it was assigned.
    initial_end: u64,
    pub(crate) paused: bool,
    /// What the destination's ledger is compared with before anything is sealed; `None` once it was confirmed.
    unconfirmed: Option<LedgerCheck>,
    /// See [`Lane::write_unsealed`].
    unsealed: bool,
}

/// Where a lane begins.
pub(crate) struct LaneStart {
    pub(crate) at: TopicPartition,
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    pub(crate) end: u64,
    pub(crate) note: SealNote,
    /// As read from the group.
    pub(crate) committed: Option<Committed>,
}

impl Lane {
    pub(crate) fn new(start: LaneStart, builder: BatchBuilder, limits: BatchLimits, shape: Shape) -> Self {
        let sealed_end = start.note.sealed_end().unwrap_or(start.offset);
        let unconfirmed = Some(LedgerCheck { at: start.at.clone(), sealed_end });
        let recovered_shape = start.note.shape.filter(|sealed_under| *sealed_under != shape);
        Self {
            at: start.at,
            epoch: start.epoch,
            builder,
            limits,
            shape,
            recovered_shape,
            recover: start.note.ends.into(),
            closed: VecDeque::new(),
            sealing: None,
            sealed: VecDeque::new(),
            settled: start.offset,
            committed: start.committed,
            open_first: start.offset,
            opened_at: None,
            next: start.offset,
            at_end: false,
            initial_end: start.end,
            paused: false,
            unconfirmed,
            unsealed: false,
        }
    }

    /// Takes the next record. Answers a batch that was found sealed, once it is whole again: it may be written at once.
    ///
    /// # Errors
    /// The worker's own shape does not work; the lane must not go on.
    pub(crate) fn accept(&mut self, record: &Record<'_>, now: Instant) -> Result<Option<usize>, String> {
        if record.offset < self.next {
            return Ok(None);
        }
        let mut recovered = 0;
        // A gap (compaction, a transaction marker) may hide the last offset of a sealed batch.
        while self.recover.front().is_some_and(|&end| record.offset >= end) {
            recovered += self.close_recovered()?;
        }
        self.builder.add(record);
        self.next = record.offset + 1;
        self.at_end = false;
        self.opened_at.get_or_insert(now);
        if self.recover.front() == Some(&self.next) {
            recovered += self.close_recovered()?;
        } else if self.recover.is_empty() && self.is_full() {
            self.close(self.next);
        }
        Ok((recovered > 0).then_some(recovered))
    }

    /// Everything that the partition held has been accepted.
    pub(crate) fn reached_end(&mut self) -> Result<Option<usize>, String> {
        self.at_end = true;
        let mut recovered = 0;
        while self.recover.front().is_some_and(|&end| end <= self.initial_end) {
            recovered += self.close_recovered()?;
        }
        Ok((recovered > 0).then_some(recovered))
    }

    /// Closes the open batch when it is old enough.
    pub(crate) fn close_if_due(&mut self, now: Instant) {
        if self.due_at().is_some_and(|due| now >= due) {
            self.close(self.next);
        }
    }

    /// Closes the open batch before its time when it takes up at least so many bytes of memory.
    pub(crate) fn close_if_held(&mut self, bytes: usize) {
        let may_close = self.recover.is_empty() && !self.builder.is_empty() && !self.is_crowded();
        if may_close && self.builder.held() >= bytes {
            self.close(self.next);
        }
    }

    /// Bytes of memory that the open batch takes up.
    pub(crate) fn open_held(&self) -> usize {
        self.builder.held()
    }

    /// How many batches are closed and not sealed yet.
    pub(crate) fn closed(&self) -> usize {
        self.closed.len()
    }

    /// When the open batch is old enough; never while as many wait before it as may.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        if !self.recover.is_empty() || self.closed.len() >= SEAL_AHEAD {
            return None;
        }
        self.opened_at.map(|opened| opened + self.limits.max_delay)
    }

    /// What closed batches there are may be written although nothing is sealed, and commits only settle, as usual elsewhere:
    /// what sealing costs is measured against this. Answers how many became writable.
    pub(crate) fn write_unsealed(&mut self) -> usize {
        self.unsealed = true;
        let count = self.closed.len();
        self.sealed.append(&mut self.closed);
        count
    }

    /// What the writer compares the destination's ledger with before it writes; `None` once that was done.
    pub(crate) fn ledger_check(&self) -> Option<LedgerCheck> {
        self.unconfirmed.clone()
    }

    /// The destination's ledger is not past what the group sealed: batches may be sealed from now on.
    pub(crate) fn confirm_ledger(&mut self) {
        self.unconfirmed = None;
    }

    /// The commit that seals what is closed and settles what was written, when there is anything to say.
    pub(crate) fn plan_commit(&mut self) -> Option<Commit> {
        if self.sealing.is_some() {
            return None;
        }
        if self.sealed.is_empty() && self.recover.is_empty() {
            self.recovered_shape = None;
        }
        // One note names one shape: nothing is sealed under the new one before the old one is done.
        let seal = match self.recovered_shape {
            Some(_) => 0,
            None if self.unconfirmed.is_some() => 0,
            None => self.closed.len().min(SEAL_AHEAD.saturating_sub(self.sealed.len() + self.recover.len())),
        };
        // Where a partition begins is committed at once: what retention takes after that is noticed.
        if seal == 0 && self.is_settled_committed() {
            return None;
        }
        self.sealing = Some(seal);
        Some(self.commit_of(seal))
    }

    /// The commit in flight was made. Answers how many batches became writable: the last ones of [`Self::sealed`].
    pub(crate) fn commit_made(&mut self, offset: u64, metadata: String) -> usize {
        let seal = self.sealing.take().unwrap_or(0);
        self.sealed.extend(self.closed.drain(..seal));
        self.committed = Some(Committed { offset, metadata });
        seal
    }

    /// The commit in flight was certainly not made; it will be planned again.
    pub(crate) fn commit_not_made(&mut self) {
        self.sealing = None;
    }

    /// What the group held before the commit in flight.
    pub(crate) fn committed_before(&self) -> Option<&Committed> {
        self.committed.as_ref()
    }

    /// The commit for giving the partition up: what is written is settled, what may be written stays sealed.
    pub(crate) fn farewell(&self) -> Option<Commit> {
        let commit = self.commit_of(self.sealing.unwrap_or(0));
        let same = |held: &Committed| held.offset == commit.offset && held.metadata == commit.metadata;
        let unchanged = self.committed.as_ref().is_some_and(same);
        (!unchanged || self.sealing.is_some()).then_some(commit)
    }

    /// Batches that are sealed and not settled; the front one is being written.
    pub(crate) fn sealed(&self) -> &VecDeque<Closed> {
        &self.sealed
    }

    /// The oldest sealed batch is in, and its dead letters are on the bus. Answers it.
    pub(crate) fn settle_front(&mut self, end: u64) -> Option<Closed> {
        if self.sealed.front().is_none_or(|front| front.batch.id.end != end) {
            return None;
        }
        self.settled = end;
        self.sealed.pop_front()
    }

    /// Forgets what is not sealed: it is still on the bus. What was found sealed and is not yet whole stays sealed.
    pub(crate) fn discard_unsealed(&mut self) {
        let keep = self.sealing.unwrap_or(0);
        self.closed.truncate(keep);
        self.builder.discard();
        self.opened_at = None;
    }

    /// The partition ends at `end` for now.
    pub(crate) fn observe_end(&mut self, end: u64) {
        self.at_end = self.at_end || self.next >= end;
    }

    /// Whether the lane holds as much as it may.
    pub(crate) fn is_crowded(&self) -> bool {
        self.closed.len() + self.sealed.len() >= SEAL_AHEAD
    }

    /// Whether the lane holds no finished batch.
    pub(crate) fn is_idle(&self) -> bool {
        self.closed.is_empty() && self.sealed.is_empty()
    }

    /// Whether a crowded lane has room again.
    pub(crate) fn has_room(&self) -> bool {
        self.closed.len() + self.sealed.len() <= SEAL_AHEAD / 2
    }

    /// Whether batches are left sealed for the next owner: found so, written in part, or sealed by a commit under way.
    pub(crate) fn leaves_sealed(&self) -> bool {
        !self.sealed.is_empty() || !self.recover.is_empty() || self.sealing.is_some_and(|count| count > 0)
    }

    /// Nothing sealed, nothing to commit.
    pub(crate) fn is_quiet(&self) -> bool {
        self.sealed.is_empty() && self.sealing.is_none() && self.is_settled_committed()
    }

    /// The ledger is confirmed, everything that was there is settled, and the group knows.
    pub(crate) fn is_caught_up(&self) -> bool {
        let collected = self.recover.is_empty() && self.closed.is_empty();
        self.at_end
            && self.unconfirmed.is_none()
            && self.is_quiet()
            && collected
            && self.builder.is_empty()
            && self.settled == self.next
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes of memory that its batches take up.
    pub(crate) fn held(&self) -> usize {
        let held: usize = self.closed.iter().chain(&self.sealed).map(|closed| closed.held).sum();
        held + self.builder.held()
    }

    fn is_settled_committed(&self) -> bool {
        self.committed.as_ref().is_some_and(|held| held.offset == self.settled)
    }

    fn is_full(&self) -> bool {
        self.builder.events() >= self.limits.max_events || self.builder.bytes() >= self.limits.max_bytes
    }

    fn commit_of(&self, seal: usize) -> Commit {
        let sealed = self.sealed.iter().map(|closed| closed.batch.id.end);
        let recover = self.recover.iter().copied();
        let closed = self.closed.iter().take(seal).map(|closed| closed.batch.id.end);
        let ends: Vec<u64> = sealed.chain(recover).chain(closed).collect();
        if self.unsealed {
            return Commit { at: self.at.clone(), offset: self.settled, metadata: String::new() };
        }
        let shape = self.recovered_shape.as_ref().unwrap_or(&self.shape);
        Commit { at: self.at.clone(), offset: self.settled, metadata: SealNote::new(ends, shape).to_metadata() }
    }

    fn close(&mut self, end: u64) {
        let closed = self.builder.close(self.open_first, end, false);
        self.open_first = end;
        self.opened_at = None;
        self.closed.push_back(closed);
    }

    /// Closes the batch that was found sealed; it is sealed already.
    fn close_recovered(&mut self) -> Result<usize, String> {
        let Some(end) = self.recover.pop_front() else { return Ok(0) };
        let closed = self.builder.close(self.open_first, end, true);
        self.open_first = end;
        self.next = self.next.max(end);
        self.opened_at = None;
        self.sealed.push_back(closed);
        if self.recover.is_empty() && self.recovered_shape.is_some() {
            self.builder.reshape(&self.shape)?;
        }
        Ok(1)
    }
}

#[cfg(test)]
mod tests;
