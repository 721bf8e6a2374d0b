//! The commits of one partition: what seals closed batches and settles written ones.

use tallybus_bus::{Commit, Committed, Expected, StreamId, TopicPartition};
use tallybus_sdk::{SEAL_AHEAD, SealMetadata, SealMetadataError, Written};

use super::{ClaimState, PartitionTask};
use crate::builder::Closed;
use crate::destination_check::DestinationCheck;

impl PartitionTask {
    /// Allows closed batches to be written although nothing is sealed; commits only settle, as is common elsewhere.
    /// This is the baseline against which the cost of sealing is measured.
    #[cfg(feature = "unsealed-benchmark")]
    pub(crate) fn write_unsealed(&mut self) {
        self.unsealed = true;
        self.stream.confirm_everything();
        self.sealed.extend(self.closed.drain(..));
    }

    /// What the writer compares the destination with before it writes; `None` once that was done.
    pub(crate) fn destination_check(&self) -> Option<DestinationCheck> {
        self.unconfirmed.clone()
    }

    /// The partition and its topic's incarnation.
    pub(crate) fn place(&self) -> (TopicPartition, StreamId) {
        (self.at.clone(), self.stream.id().clone())
    }

    /// The destination agrees with the group: batches may be sealed from now on. `ledger`: the ledger's offset, if the
    /// destination keeps one.
    pub(crate) fn confirm_destination(&mut self, ledger: Option<u64>) {
        self.unconfirmed = None;
        // What another destination holds is not expected of this one.
        self.written.take_if(|written| self.destination.as_ref() != Some(&written.to));
        if let Some(end) = ledger.filter(|end| *end > 0) {
            self.note_written(end);
        }
    }

    /// Whether the claim on the destination is wanted now: a batch with points could be sealed but for it, and the group has
    /// an offset. With a claim and without an offset, the group would look like one that the bus forgot. `true` once.
    pub(crate) fn asks_for_claim(&mut self) -> bool {
        let is_due =
            self.claim == ClaimState::Unknown && !self.rests && self.unconfirmed.is_none() && self.committed.is_some();
        let is_wanted = is_due && self.recovered_shape.is_none() && self.confirmed().any(has_points);
        if is_wanted {
            self.claim = ClaimState::AskedFor;
        }
        is_wanted
    }

    /// The destination holds the claim: batches with points may be sealed from now on.
    pub(crate) fn claim_held(&mut self) {
        self.claim = ClaimState::Held;
    }

    /// The closed batches whose records are known to be of the topic's incarnation.
    fn confirmed(&self) -> impl Iterator<Item = &Closed> {
        self.closed.iter().take_while(|closed| closed.batch.id.end <= self.stream.confirmed())
    }

    /// The destination holds everything below this offset.
    pub(super) fn note_written(&mut self, end: u64) {
        let Some(to) = self.destination.clone() else { return };
        let marked = self.written.as_ref().and_then(|written| written.marked);
        self.written = Some(Written { to, end, marked });
    }

    /// The destination holds this mark from now on.
    pub(crate) fn note_marked(&mut self, mark: u64) {
        let Some(to) = self.destination.clone() else { return };
        let end = self.written.as_ref().map_or(mark, |written| written.end.max(mark));
        self.written = Some(Written { to, end, marked: Some(mark) });
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
        // old one are settled. A batch without points is not written, and needs no claim.
        let seal = match self.recovered_shape {
            Some(_) => 0,
            None if self.rests || self.unconfirmed.is_some() => 0,
            None => {
                let is_held = self.claim == ClaimState::Held;
                let may_be_sealed = self.confirmed().take_while(|closed| is_held || !has_points(closed));
                // No batch is closed before those that were found sealed were collected again: `recover` is empty.
                may_be_sealed.count().min(SEAL_AHEAD.saturating_sub(self.sealed.len()))
            }
        };
        // The start of a partition is committed at once, so that records that retention deletes later are noticed.
        if seal == 0 && self.is_settled_committed() || self.would_be_first() {
            return Ok(None);
        }
        let commit = self.commit_of(seal)?;
        self.sealing = Some(seal);
        // Only one commit is in flight at a time, so that the group's offset is known.
        Ok(Some(Commit { expected: Expected::Exactly(self.committed.clone()), ..commit }))
    }

    /// The commit in flight succeeded: the batches it sealed can be handed over. Returns how many it sealed.
    pub(crate) fn commit_made(&mut self, offset: u64, metadata: String) -> usize {
        let seal = self.sealing.take().unwrap_or(0);
        self.sealed.extend(self.closed.drain(..seal));
        self.committed = Some(Committed { offset, metadata });
        seal
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
        if self.would_be_first() {
            return Ok(None);
        }
        let commit = self.commit_of(self.sealing.unwrap_or(0))?;
        #[cfg(feature = "simulation")]
        let commit = match crate::simulation::Mutant::LeavingUnseals.is_on() {
            true => {
                let seal = SealMetadata::new(self.stream.id().clone(), Vec::new(), &self.shape);
                Commit { metadata: seal.to_metadata()?, ..commit }
            }
            false => commit,
        };
        let same = |held: &Committed| held.offset == commit.offset && held.metadata == commit.metadata;
        let unchanged = self.committed.as_ref().is_some_and(same);
        Ok((!unchanged || self.sealing.is_some()).then_some(commit))
    }

    /// What the group has committed: partition, incarnation of the topic and settled offset.
    pub(crate) fn committed_offset(&self) -> Option<(TopicPartition, StreamId, u64)> {
        let committed = self.committed.as_ref()?;
        Some((self.at.clone(), self.stream.id().clone(), committed.offset))
    }

    /// Whether batches wait for the next answer about the topic's incarnation.
    pub(crate) fn awaits_stream(&self) -> bool {
        let last = self.closed.back().map(|closed| closed.batch.id.end).or_else(|| self.sealed.ends().last());
        last.is_some_and(|end| self.stream.awaits(end))
    }

    /// A query for the topic's incarnation begins now.
    pub(crate) fn stream_query_started(&mut self) {
        self.stream.query_started(self.next);
    }

    /// The query was answered: the topic's incarnation, `None` when it does not exist.
    ///
    /// # Errors
    /// The topic was recreated or deleted; the partition must not continue.
    pub(crate) fn stream_query_answered(&mut self, found: Option<&StreamId>) -> Result<(), String> {
        self.stream.query_answered(&self.at, self.settled, found)
    }

    /// The query was not answered; another one is needed.
    pub(crate) fn stream_query_failed(&mut self) {
        self.stream.query_failed();
    }

    /// Whether batches are left sealed for the next owner: found so, written in part, or sealed by a commit in flight.
    pub(crate) fn leaves_sealed(&self) -> bool {
        !self.sealed.is_empty() || !self.recover.is_empty() || self.sealing.is_some_and(|count| count > 0)
    }

    /// Whether nothing is sealed and nothing is to be committed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.sealed.is_empty() && self.sealing.is_none() && self.is_settled_committed()
    }

    /// Whether this would be the group's first commit although the destination is not confirmed yet. A group that the bus
    /// forgot is recognised by having none, also by the next worker.
    fn would_be_first(&self) -> bool {
        self.committed.is_none() && self.unconfirmed.is_some()
    }

    pub(super) fn is_settled_committed(&self) -> bool {
        self.committed.as_ref().is_some_and(|held| held.offset == self.settled)
    }

    fn commit_of(&self, seal: usize) -> Result<Commit, SealMetadataError> {
        let (at, offset) = (self.at.clone(), self.settled);
        #[cfg(feature = "unsealed-benchmark")]
        if self.unsealed {
            return Ok(Commit { at, offset, metadata: String::new(), expected: Expected::Anything });
        }
        let recover = self.recover.iter().copied();
        let closed = self.closed.iter().take(seal).map(|closed| closed.batch.id.end);
        let ends: Vec<u64> = self.sealed.ends().chain(recover).chain(closed).collect();
        let shape = self.recovered_shape.as_ref().unwrap_or(&self.shape);
        let metadata = SealMetadata::new(self.stream.id().clone(), ends, shape)
            .with_written(self.written.clone())
            .to_metadata()?;
        Ok(Commit { at, offset, metadata, expected: Expected::Anything })
    }
}

fn has_points(closed: &Closed) -> bool {
    !closed.batch.points.is_empty()
}
