mod commits;
mod resting;
mod sealed;
mod stream;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tallybus_bus::{Committed, Record, StreamId, TopicPartition};
use tallybus_sdk::dead_letter::DeadLetter;
use tallybus_sdk::{Batch, BatchLimits, SEAL_AHEAD, SealMetadata, Shape, Written};

use self::sealed::{SealedBatches, Settled};
use self::stream::ConfirmedStream;
pub(crate) use self::stream::changed;
use super::builder::{BatchBuilder, Closed};
use super::destination_check::DestinationCheck;
use super::record_ages::RecordAges;
use super::records::RecordSource;

/// The task of one partition in a worker: a state machine without I/O and without a clock of its own.
///
/// Offsets, in this order: `committed <= settled <= (sealed ends) <= (closed ends) <= next`.
///
/// A batch is stored in one place at a time: it is collected and closed (here), sealed by a commit (`commits.rs`), and
/// then written and settled (`sealed.rs`).
pub(crate) struct PartitionTask {
    pub(crate) at: TopicPartition,
    /// Distinguishes this ownership of the partition from earlier ones.
    pub(crate) epoch: u64,
    stream: ConfirmedStream,
    source: RecordSource,
    builder: BatchBuilder,
    limits: BatchLimits,
    shape: Shape,
    /// The shape of the batches that were found sealed, when it differs from the current one, until all of them are
    /// settled.
    recovered_shape: Option<Shape>,
    /// The incarnation under which batches were found sealed; `None` when a version without stream ids sealed them.
    recovered_stream: Option<StreamId>,
    /// Ends of the batches that were found sealed and have not been collected again yet.
    recover: VecDeque<u64>,
    closed: VecDeque<Closed>,
    /// How many of `closed` the commit in flight seals.
    sealing: Option<usize>,
    sealed: SealedBatches,
    settled: u64,
    /// What the group has committed; `None` when it never committed.
    committed: Option<Committed>,
    open_first: u64,
    opened_at: Option<Instant>,
    next: u64,
    ages: RecordAges,
    at_end: bool,
    /// The end of the partition when it was assigned.
    initial_end: u64,
    pub(crate) paused: bool,
    /// Whether an operator wants nothing more to be sealed. What is found sealed is still collected.
    rests: bool,
    /// What to compare the destination with before anything is sealed; `None` once it was confirmed.
    unconfirmed: Option<DestinationCheck>,
    claim: ClaimState,
    /// The destination's short name, for commits; `None` if the kind names none.
    destination: Option<String>,
    /// What the destination holds at least.
    written: Option<Written>,
    #[cfg(feature = "unsealed-benchmark")]
    unsealed: bool,
}

/// Whether the destination holds the sink's claim on the partition, as far as this task knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClaimState {
    Unknown,
    /// The writer takes it.
    AskedFor,
    Held,
}

/// The state from which a partition starts.
pub(crate) struct TaskStart {
    pub(crate) at: TopicPartition,
    pub(crate) epoch: u64,
    /// The incarnation of the topic.
    pub(crate) stream: StreamId,
    pub(crate) offset: u64,
    pub(crate) end: u64,
    pub(crate) seal: SealMetadata,
    /// As read from the group.
    pub(crate) committed: Option<Committed>,
    /// The destination's short name, for commits; `None` if the kind names none.
    pub(crate) destination: Option<String>,
    /// Lost offset ranges that the operator accepts.
    pub(crate) accept_gaps: Arc<[String]>,
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
        let unconfirmed = Some(DestinationCheck {
            at: start.at.clone(),
            stream: start.stream.clone(),
            sealed_end,
            is_known: start.committed.is_some(),
            written: start.seal.written.clone(),
            accept_gaps: start.accept_gaps,
        });
        let recovered_shape = start.seal.shape.filter(|sealed_under| *sealed_under != shape);
        Self {
            at: start.at,
            epoch: start.epoch,
            stream: ConfirmedStream::new(start.stream),
            source,
            builder,
            limits,
            shape,
            recovered_shape,
            recovered_stream: start.seal.stream,
            recover: recovered_ends(start.seal.ends),
            closed: VecDeque::new(),
            sealing: None,
            sealed: SealedBatches::default(),
            settled: start.offset,
            committed: start.committed,
            open_first: start.offset,
            opened_at: None,
            next: start.offset,
            ages: RecordAges::default(),
            at_end: false,
            initial_end: start.end,
            paused: false,
            rests: false,
            unconfirmed,
            claim: ClaimState::Unknown,
            destination: start.destination,
            written: start.seal.written,
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
        self.ages.note(record.offset, record.time_ms);
        self.at_end = false;
        self.opened_at.get_or_insert(now);
        if self.recover.front() == Some(&self.next) {
            self.close_recovered()?;
        } else if self.recover.is_empty() && self.is_full() {
            self.close(self.next);
        }
        Ok(())
    }

    /// Accepts the end of the partition: every record below `offset` has been accepted. Offsets before it that hold no
    /// record (the marker of a transaction, records of an aborted one) become the end of a batch, or a batch without
    /// events, so that they are settled like others: otherwise the group would stay behind, and would miss them as lost
    /// once retention has deleted them.
    ///
    /// # Errors
    /// As [`PartitionTask::accept`].
    pub(crate) fn reached_end(&mut self, offset: u64, now: Instant) -> Result<(), String> {
        self.at_end = true;
        while self.recover.front().is_some_and(|&end| end <= self.initial_end.max(offset)) {
            self.close_recovered()?;
        }
        #[cfg(feature = "simulation")]
        if crate::simulation::Mutant::MarkersAreNotSettled.is_on() {
            return Ok(());
        }
        if self.recover.is_empty() && offset > self.next {
            self.next = offset;
            self.opened_at.get_or_insert(now);
        }
        Ok(())
    }

    /// See [`SealedBatches::next_batch`].
    pub(crate) fn next_batch(&mut self) -> Option<Arc<Batch>> {
        self.sealed.next_batch(self.stream.confirmed())
    }

    /// See [`SealedBatches::hand_over_again`].
    pub(crate) fn hand_over_again(&mut self) {
        self.sealed.hand_over_again();
        // The writer that was asked is gone.
        if self.claim == ClaimState::AskedFor {
            self.claim = ClaimState::Unknown;
        }
    }

    /// See [`SealedBatches::wrote`].
    pub(crate) fn wrote(&mut self, end: u64, requests: u64) -> Option<&[DeadLetter]> {
        self.sealed.wrote(end, requests)
    }

    /// See [`SealedBatches::await_dead_letters`].
    pub(crate) fn await_dead_letters(&mut self, end: u64, token: u64) {
        self.sealed.await_dead_letters(end, token);
    }

    /// See [`SealedBatches::dead_letters_published`].
    pub(crate) fn dead_letters_published(&mut self, token: u64) -> bool {
        self.sealed.dead_letters_published(token)
    }

    /// The tokens of dead letters that batches wait for.
    pub(crate) fn awaited_dead_letters(&self) -> impl Iterator<Item = u64> {
        self.sealed.awaited_dead_letters()
    }

    /// Settles the oldest sealed batch when it is done.
    pub(crate) fn settle(&mut self) -> Option<Settled> {
        let settled = self.sealed.take_done()?;
        self.settled = settled.batch.id.end;
        if settled.requests > 0 {
            self.note_written(self.settled);
        }
        Some(settled)
    }

    /// Closes the open batch when it is old enough.
    pub(crate) fn close_if_due(&mut self, now: Instant) {
        if self.due_at().is_some_and(|due| now >= due) {
            self.close(self.next);
        }
    }

    /// Closes the open batch early when it uses at least this many bytes of memory.
    pub(crate) fn close_if_larger(&mut self, bytes: usize) {
        let may_close = self.recover.is_empty() && !self.rests && !self.builder.is_empty() && !self.is_crowded();
        if may_close && self.builder.memory() >= bytes {
            self.close(self.next);
        }
    }

    /// The timestamp of the oldest record that was read and is not settled.
    pub(crate) fn oldest(&mut self) -> Option<SystemTime> {
        self.ages.oldest(self.settled, self.next)
    }

    /// Bytes of memory that the open batch uses.
    pub(crate) fn open_memory(&self) -> usize {
        self.builder.memory()
    }

    /// The number of batches that are closed and not sealed yet.
    pub(crate) fn closed(&self) -> usize {
        self.closed.len()
    }

    /// The time at which the open batch is old enough; `None` while the maximum number of batches waits before it, and while
    /// nothing may be sealed.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        if !self.recover.is_empty() || self.rests || self.closed.len() >= SEAL_AHEAD {
            return None;
        }
        self.opened_at.map(|opened| opened + self.limits.max_delay)
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

    /// Whether the destination is confirmed, everything up to the end at assignment is settled, and the group's offset says
    /// so.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.at_end && self.recover.is_empty() && self.is_finished()
    }

    /// Whether everything that was accepted is settled, or cannot be because the rest of a batch that was found sealed did
    /// not come.
    pub(crate) fn is_finished(&self) -> bool {
        let is_settled = self.is_quiet() && self.closed.is_empty() && self.builder.is_empty();
        !self.recover.is_empty() || (is_settled && self.settled == self.next && self.unconfirmed.is_none())
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes of memory that its batches use.
    pub(crate) fn memory(&self) -> usize {
        let closed: usize = self.closed.iter().map(|closed| closed.memory).sum();
        closed + self.sealed.memory() + self.builder.memory()
    }

    fn is_full(&self) -> bool {
        self.builder.events() >= self.limits.max_events || self.builder.bytes() >= self.limits.max_bytes
    }

    fn close(&mut self, end: u64) {
        let stream = Some(self.stream.id().clone());
        let closed = self.builder.close(self.open_first, end, stream, false);
        self.open_first = end;
        self.opened_at = None;
        self.closed.push_back(closed);
    }

    /// Closes a batch that was found sealed; it is sealed already.
    fn close_recovered(&mut self) -> Result<(), String> {
        let Some(end) = self.recover.pop_front() else { return Ok(()) };
        let closed = self.builder.close(self.open_first, end, self.recovered_stream.clone(), true);
        self.open_first = end;
        self.next = self.next.max(end);
        self.opened_at = None;
        self.sealed.extend([closed]);
        if self.recover.is_empty() && self.recovered_shape.is_some() {
            self.builder.reshape(&self.shape)?;
        }
        Ok(())
    }
}

/// The ends of the batches that were found sealed.
fn recovered_ends(ends: Vec<u64>) -> VecDeque<u64> {
    #[cfg(feature = "simulation")]
    if crate::simulation::Mutant::BoundariesByTheClock.is_on() {
        return VecDeque::new();
    }
    ends.into()
}

#[cfg(test)]
mod tests;
