//! The sealed batches of one partition: from the commit that sealed them until they are settled.

use std::collections::VecDeque;
use std::sync::Arc;

use tallybus_sdk::Batch;
use tallybus_sdk::dead_letter::DeadLetter;

use crate::builder::Closed;

/// Sealed batches that are not settled yet, in offset order.
#[derive(Default)]
pub(super) struct SealedBatches {
    batches: VecDeque<Sealed>,
    /// How many of them, from the front, were handed to the writer.
    handed_over: usize,
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

impl SealedBatches {
    /// Adds batches that are sealed now; they follow those already sealed.
    pub(super) fn extend(&mut self, closed: impl IntoIterator<Item = Closed>) {
        let sealed = |closed| Sealed { closed, stage: Stage::Writing, requests: 0 };
        self.batches.extend(closed.into_iter().map(sealed));
    }

    /// Returns the next sealed batch that was not handed over yet; the caller writes it. A batch that was found sealed waits
    /// until its records are confirmed to be of the topic's incarnation (those below the offset `confirmed`).
    pub(super) fn next_batch(&mut self, confirmed: u64) -> Option<Arc<Batch>> {
        loop {
            let sealed = self.batches.get(self.handed_over).filter(|sealed| sealed.closed.batch.id.end <= confirmed)?;
            self.handed_over += 1;
            if sealed.stage == Stage::Writing {
                return Some(sealed.closed.batch.clone());
            }
        }
    }

    /// The writer lost the batches that it was given: those that are not written yet are handed over again.
    pub(super) fn hand_over_again(&mut self) {
        self.handed_over = 0;
    }

    /// All of a batch is written except dead letters. Returns the dead letters that were found while it was collected;
    /// `None` when no batch with this end is being written.
    pub(super) fn wrote(&mut self, end: u64, requests: u64) -> Option<&[DeadLetter]> {
        let is_it = |sealed: &&mut Sealed| sealed.closed.batch.id.end == end && sealed.stage == Stage::Writing;
        let sealed = self.batches.iter_mut().find(is_it)?;
        sealed.stage = Stage::Done;
        sealed.requests = requests;
        Some(&sealed.closed.dead_letters)
    }

    /// The dead letters of a written batch are published under this token: the batch is not settled before they are on
    /// the bus.
    pub(super) fn await_dead_letters(&mut self, end: u64, token: u64) {
        if let Some(sealed) = self.batches.iter_mut().find(|sealed| sealed.closed.batch.id.end == end) {
            sealed.stage = Stage::AwaitingDeadLetters(token);
        }
    }

    /// The dead letters of this token are on the bus. Returns whether a batch of this partition waited for them.
    pub(super) fn dead_letters_published(&mut self, token: u64) -> bool {
        let waiting = self.batches.iter_mut().find(|sealed| sealed.stage == Stage::AwaitingDeadLetters(token));
        let Some(sealed) = waiting else { return false };
        sealed.stage = Stage::Done;
        true
    }

    /// The tokens of dead letters that batches wait for.
    pub(super) fn awaited_dead_letters(&self) -> impl Iterator<Item = u64> {
        self.batches.iter().filter_map(|sealed| match sealed.stage {
            Stage::AwaitingDeadLetters(token) => Some(token),
            Stage::Writing | Stage::Done => None,
        })
    }

    /// Removes the oldest batch when it is done. In order: a batch waits for the batches before it.
    pub(super) fn take_done(&mut self) -> Option<Settled> {
        #[cfg(feature = "simulation")]
        if crate::simulation::Mutant::SettledOutOfOrder.is_on() {
            let done = self.batches.iter().rposition(|sealed| sealed.stage == Stage::Done)?;
            self.batches.drain(..done);
        }
        if self.batches.front()?.stage != Stage::Done {
            return None;
        }
        let Sealed { closed, requests, .. } = self.batches.pop_front()?;
        self.handed_over = self.handed_over.saturating_sub(1);
        Some(Settled { batch: closed.batch, events: closed.events, requests })
    }

    /// Where each batch ends.
    pub(super) fn ends(&self) -> impl Iterator<Item = u64> {
        self.batches.iter().map(|sealed| sealed.closed.batch.id.end)
    }

    /// The number of batches.
    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether every sealed batch is settled.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Bytes of memory that the batches use.
    pub(super) fn memory(&self) -> usize {
        self.batches.iter().map(|sealed| sealed.closed.memory).sum()
    }

    #[cfg(test)]
    pub(super) fn batches(&self) -> Vec<Arc<Batch>> {
        self.batches.iter().map(|sealed| sealed.closed.batch.clone()).collect()
    }
}
