use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tallybus_bus::{Commit, Committed, Expected, Record, TopicPartition};
use tallybus_sdk::dead_letter::DeadLetter;
use tallybus_sdk::{Batch, BatchLimits, SEAL_AHEAD, SealMetadata, SealMetadataError, Shape};

use super::builder::{BatchBuilder, Closed};
use super::ledger_check::LedgerCheck;
use super::records::RecordSource;

/// The task of one partition in a worker: a state machine without I/O and without a clock of its own.
///
/// Offsets, in this order: `committed <= settled <= (sealed ends) <= (closed ends) <= next`.
///
/// A batch is stored in one place at a time: it is collected, closed, sealed, handed over
/// ([`PartitionTask::next_batch`]), and then passes through the [`Stage`]s until it is settled
/// ([`PartitionTask::settle`]).
pub(crate) struct PartitionTask {
    pub(crate) at: TopicPartition,
    /// Distinguishes this ownership of the partition from earlier ones.
    pub(crate) epoch: u64,
    source: RecordSource,
    builder: BatchBuilder,
    limits: BatchLimits,
    shape: Shape,
    /// The shape of the batches that were found sealed, when it differs from the current one, until all of them are
    /// settled.
    recovered_shape: Option<Shape>,
    /// Ends of the batches that were found sealed and have not been collected again yet.
    recover: VecDeque<u64>,
    closed: VecDeque<Closed>,
    /// How many of `closed` the commit in flight seals.
    sealing: Option<usize>,
    sealed: VecDeque<Sealed>,
    /// How many of `sealed`, from the front, were handed to the writer.
    handed_over: usize,
    settled: u64,
    /// What the group has committed; `None` when it never committed.
    committed: Option<Committed>,
    open_first: u64,
    opened_at: Option<Instant>,
    next: u64,
    at_end: bool,
    /// The end of the partition when it was assigned.
    initial_end: u64,
    pub(crate) paused: bool,
    /// The offsets to compare the destination's ledger with before anything is sealed; `None` once it was confirmed.
    unconfirmed: Option<LedgerCheck>,
    #[cfg(feature = "unsealed-benchmark")]
    unsealed: bool,
}

/// A sealed batch.
struct Sealed {
    closed: Closed,
    stage: Stage,
    /// Number of requests that writing it took.
    requests: u64,
}

/// The state of a sealed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for the writer, or is being written.
    Writing,
    /// All of it is written except its dead letters, which are published under this token.
    AwaitingDeadLetters(u64),
    /// All of it is written, and its dead letters are on the bus.
    Done,
}

/// A batch that is settled: the group's offset may pass it.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) batch: Arc<Batch>,
    /// Number of its events, selected or not.
    pub(crate) events: u64,
    /// Number of requests that writing it took.
    pub(crate) requests: u64,
}

/// The state from which a partition starts.
pub(crate) struct TaskStart {
    pub(crate) at: TopicPartition,
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    pub(crate) end: u64,
    pub(crate) seal: SealMetadata,
    /// As read from the group.
    pub(crate) committed: Option<Committed>,
}

impl PartitionTask {
    pub(crate) fn new(
        start: TaskStart,
        source: RecordSource,
        builder: BatchBuilder,
        limits: BatchLimits,
        shape: Shape,
    ) -> Self {
        let sealed_end = start.seal.sealed_end().unwrap_or(start.offset);
        let unconfirmed = Some(LedgerCheck { at: start.at.clone(), sealed_end });
        let recovered_shape = start.seal.shape.filter(|sealed_under| *sealed_under != shape);
        Self {
            at: start.at,
            epoch: start.epoch,
            source,
            builder,
            limits,
            shape,
            recovered_shape,
            recover: start.seal.ends.into(),
            closed: VecDeque::new(),
            sealing: None,
            sealed: VecDeque::new(),
            handed_over: 0,
            settled: start.offset,
            committed: start.committed,
            open_first: start.offset,
            opened_at: None,
            next: start.offset,
            at_end: false,
            initial_end: start.end,
            paused: false,
            unconfirmed,
            #[cfg(feature = "unsealed-benchmark")]
            unsealed: false,
        }
    }

    /// Accepts the next record. A batch that was found sealed can be handed over once it is complete again.
    ///
    /// # Errors
    /// The current shape is invalid; the partition must not continue.
    pub(crate) fn accept(&mut self, record: &Record<'_>, now: Instant) -> Result<(), String> {
        if record.offset < self.next {
            return Ok(());
        }
        // A gap (compaction, a transaction marker) may hide the last offset of a sealed batch.
        while self.recover.front().is_some_and(|&end| record.offset >= end) {
            self.close_recovered()?;
        }
        let content = self.source.content(record);
        self.builder.add(record, content);
        self.next = record.offset + 1;
        self.at_end = false;
        self.opened_at.get_or_insert(now);
        if self.recover.front() == Some(&self.next) {
            self.close_recovered()?;
        } else if self.recover.is_empty() && self.is_full() {
            self.close(self.next);
        }
        Ok(())
    }

    /// Accepts the end of the partition: every record that it holds has been accepted.
    ///
    /// # Errors
    /// As [`PartitionTask::accept`].
    pub(crate) fn reached_end(&mut self) -> Result<(), String> {
        self.at_end = true;
        while self.recover.front().is_some_and(|&end| end <= self.initial_end) {
            self.close_recovered()?;
        }
        Ok(())
    }

    /// Returns the next sealed batch that was not handed over yet; the caller writes it.
    pub(crate) fn next_batch(&mut self) -> Option<Arc<Batch>> {
        loop {
            let sealed = self.sealed.get(self.handed_over)?;
            self.handed_over += 1;
            if sealed.stage == Stage::Writing {
                return Some(sealed.closed.batch.clone());
            }
        }
    }

    /// The writer lost the batches that it was given: those that are not written yet are handed over again.
    pub(crate) fn hand_over_again(&mut self) {
        self.handed_over = 0;
    }

    /// All of a batch is written except dead letters. Returns the dead letters that were found while it was collected;
    /// `None` when no batch with this end is being written.
    pub(crate) fn wrote(&mut self, end: u64, requests: u64) -> Option<&[DeadLetter]> {
        let is_it = |sealed: &&mut Sealed| sealed.closed.batch.id.end == end && sealed.stage == Stage::Writing;
        let sealed = self.sealed.iter_mut().find(is_it)?;
        sealed.stage = Stage::Done;
        sealed.requests = requests;
        Some(&sealed.closed.dead_letters)
    }

    /// The dead letters of a written batch are published under this token: the batch is not settled before they are on
    /// the bus.
    pub(crate) fn await_dead_letters(&mut self, end: u64, token: u64) {
        if let Some(sealed) = self.sealed.iter_mut().find(|sealed| sealed.closed.batch.id.end == end) {
            sealed.stage = Stage::AwaitingDeadLetters(token);
        }
    }

    /// The dead letters of this token are on the bus. Returns whether a batch of this partition waited for them.
    pub(crate) fn dead_letters_published(&mut self, token: u64) -> bool {
        let waiting = self.sealed.iter_mut().find(|sealed| sealed.stage == Stage::AwaitingDeadLetters(token));
        let Some(sealed) = waiting else { return false };
        sealed.stage = Stage::Done;
        true
    }

    /// The tokens of dead letters that batches wait for.
    pub(crate) fn awaited_dead_letters(&self) -> impl Iterator<Item = u64> {
        self.sealed.iter().filter_map(|sealed| match sealed.stage {
            Stage::AwaitingDeadLetters(token) => Some(token),
            Stage::Writing | Stage::Done => None,
        })
    }

    /// Settles the oldest sealed batch when it is done. In order: a batch waits for the batches before it.
    pub(crate) fn settle(&mut self) -> Option<Settled> {
        if self.sealed.front()?.stage != Stage::Done {
            return None;
        }
        let Sealed { closed, requests, .. } = self.sealed.pop_front()?;
        self.handed_over = self.handed_over.saturating_sub(1);
        self.settled = closed.batch.id.end;
        Some(Settled { batch: closed.batch, events: closed.events, requests })
    }

    /// Closes the open batch when it is old enough.
    pub(crate) fn close_if_due(&mut self, now: Instant) {
        if self.due_at().is_some_and(|due| now >= due) {
            self.close(self.next);
        }
    }

    /// Closes the open batch early when it uses at least this many bytes of memory.
    pub(crate) fn close_if_larger(&mut self, bytes: usize) {
        let may_close = self.recover.is_empty() && !self.builder.is_empty() && !self.is_crowded();
        if may_close && self.builder.memory() >= bytes {
            self.close(self.next);
        }
    }

    /// Bytes of memory that the open batch uses.
    pub(crate) fn open_memory(&self) -> usize {
        self.builder.memory()
    }

    /// The number of batches that are closed and not sealed yet.
    pub(crate) fn closed(&self) -> usize {
        self.closed.len()
    }

    /// The time at which the open batch is old enough; `None` while the maximum number of batches waits before it.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        if !self.recover.is_empty() || self.closed.len() >= SEAL_AHEAD {
            return None;
        }
        self.opened_at.map(|opened| opened + self.limits.max_delay)
    }

    /// Allows closed batches to be written although nothing is sealed; commits only settle, as is common elsewhere.
    /// This is the baseline against which the cost of sealing is measured.
    #[cfg(feature = "unsealed-benchmark")]
    pub(crate) fn write_unsealed(&mut self) {
        self.unsealed = true;
        self.sealed.extend(self.closed.drain(..).map(Sealed::new));
    }

    /// The offsets that the writer compares the destination's ledger with before it writes; `None` once that was done.
    pub(crate) fn ledger_check(&self) -> Option<LedgerCheck> {
        self.unconfirmed.clone()
    }

    /// The destination's ledger is not past the sealed offsets of the group: batches may be sealed from now on.
    pub(crate) fn confirm_ledger(&mut self) {
        self.unconfirmed = None;
    }

    /// Returns the commit that seals closed batches and settles written ones, when there is anything to commit.
    ///
    /// # Errors
    /// The metadata cannot be written; the partition must not continue.
    pub(crate) fn plan_commit(&mut self) -> Result<Option<Commit>, SealMetadataError> {
        if self.sealing.is_some() {
            return Ok(None);
        }
        if self.sealed.is_empty() && self.recover.is_empty() {
            self.recovered_shape = None;
        }
        // The metadata of one commit names one shape: nothing is sealed under the new shape before all batches of the
        // old one are settled.
        let seal = match self.recovered_shape {
            Some(_) => 0,
            None if self.unconfirmed.is_some() => 0,
            None => self.closed.len().min(SEAL_AHEAD.saturating_sub(self.sealed.len() + self.recover.len())),
        };
        // The start of a partition is committed at once, so that records that retention deletes later are noticed.
        if seal == 0 && self.is_settled_committed() {
            return Ok(None);
        }
        let commit = self.commit_of(seal)?;
        self.sealing = Some(seal);
        // Only one commit is in flight at a time, so that the group's offset is known.
        Ok(Some(Commit { expected: Expected::Exactly(self.committed.clone()), ..commit }))
    }

    /// The commit in flight succeeded: the batches it sealed can be handed over.
    pub(crate) fn commit_made(&mut self, offset: u64, metadata: String) {
        let seal = self.sealing.take().unwrap_or(0);
        self.sealed.extend(self.closed.drain(..seal).map(Sealed::new));
        self.committed = Some(Committed { offset, metadata });
    }

    /// The commit in flight certainly failed; it will be planned again.
    pub(crate) fn commit_not_made(&mut self) {
        self.sealing = None;
    }

    /// What the group had committed before the commit in flight.
    pub(crate) fn committed_before(&self) -> Option<&Committed> {
        self.committed.as_ref()
    }

    /// Returns the final commit before the partition is given up: written batches are settled, batches that may have
    /// been written stay sealed.
    ///
    /// # Errors
    /// As [`PartitionTask::plan_commit`].
    pub(crate) fn final_commit(&self) -> Result<Option<Commit>, SealMetadataError> {
        let commit = self.commit_of(self.sealing.unwrap_or(0))?;
        let same = |held: &Committed| held.offset == commit.offset && held.metadata == commit.metadata;
        let unchanged = self.committed.as_ref().is_some_and(same);
        Ok((!unchanged || self.sealing.is_some()).then_some(commit))
    }

    /// The number of batches that are sealed and not settled.
    pub(crate) fn sealed(&self) -> usize {
        self.sealed.len()
    }

    /// Discards everything that is not sealed: it is still on the bus. Batches that were found sealed and are not yet
    /// complete stay sealed.
    pub(crate) fn discard_unsealed(&mut self) {
        let keep = self.sealing.unwrap_or(0);
        self.closed.truncate(keep);
        self.builder.discard();
        self.opened_at = None;
    }

    /// Sets the current end of the partition.
    pub(crate) fn observe_end(&mut self, end: u64) {
        self.at_end = self.at_end || self.next >= end;
    }

    /// Whether the partition has the maximum number of batches.
    pub(crate) fn is_crowded(&self) -> bool {
        self.closed.len() + self.sealed.len() >= SEAL_AHEAD
    }

    /// Whether the partition has no closed or sealed batch.
    pub(crate) fn is_idle(&self) -> bool {
        self.closed.is_empty() && self.sealed.is_empty()
    }

    /// Whether a partition that was paused as crowded may resume.
    pub(crate) fn has_capacity(&self) -> bool {
        self.closed.len() + self.sealed.len() <= SEAL_AHEAD / 2
    }

    /// Whether batches are left sealed for the next owner: found so, written in part, or sealed by a commit in flight.
    pub(crate) fn leaves_sealed(&self) -> bool {
        !self.sealed.is_empty() || !self.recover.is_empty() || self.sealing.is_some_and(|count| count > 0)
    }

    /// Whether nothing is sealed and nothing is to be committed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.sealed.is_empty() && self.sealing.is_none() && self.is_settled_committed()
    }

    /// Whether the ledger is confirmed, everything up to the end at assignment is settled, and the group's offset says
    /// so.
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

    /// Bytes of memory that its batches use.
    pub(crate) fn memory(&self) -> usize {
        let sealed = self.sealed.iter().map(|sealed| &sealed.closed);
        let finished: usize = self.closed.iter().chain(sealed).map(|closed| closed.memory).sum();
        finished + self.builder.memory()
    }

    fn is_settled_committed(&self) -> bool {
        self.committed.as_ref().is_some_and(|held| held.offset == self.settled)
    }

    fn is_full(&self) -> bool {
        self.builder.events() >= self.limits.max_events || self.builder.bytes() >= self.limits.max_bytes
    }

    fn commit_of(&self, seal: usize) -> Result<Commit, SealMetadataError> {
        let (at, offset) = (self.at.clone(), self.settled);
        #[cfg(feature = "unsealed-benchmark")]
        if self.unsealed {
            return Ok(Commit { at, offset, metadata: String::new(), expected: Expected::Anything });
        }
        let sealed = self.sealed.iter().map(|sealed| sealed.closed.batch.id.end);
        let recover = self.recover.iter().copied();
        let closed = self.closed.iter().take(seal).map(|closed| closed.batch.id.end);
        let ends: Vec<u64> = sealed.chain(recover).chain(closed).collect();
        let shape = self.recovered_shape.as_ref().unwrap_or(&self.shape);
        let metadata = SealMetadata::new(ends, shape).to_metadata()?;
        Ok(Commit { at, offset, metadata, expected: Expected::Anything })
    }

    fn close(&mut self, end: u64) {
        let closed = self.builder.close(self.open_first, end, false);
        self.open_first = end;
        self.opened_at = None;
        self.closed.push_back(closed);
    }

    /// Closes a batch that was found sealed; it is sealed already.
    fn close_recovered(&mut self) -> Result<(), String> {
        let Some(end) = self.recover.pop_front() else { return Ok(()) };
        let closed = self.builder.close(self.open_first, end, true);
        self.open_first = end;
        self.next = self.next.max(end);
        self.opened_at = None;
        self.sealed.push_back(Sealed::new(closed));
        if self.recover.is_empty() && self.recovered_shape.is_some() {
            self.builder.reshape(&self.shape)?;
        }
        Ok(())
    }
}

impl Sealed {
    fn new(closed: Closed) -> Self {
        Self { closed, stage: Stage::Writing, requests: 0 }
    }
}

#[cfg(test)]
mod tests;
