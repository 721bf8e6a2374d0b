//! A partition of which nothing more is sealed, because an operator wants its worker paused or drained.

use super::PartitionTask;
use crate::status::BatchesInMemory;

impl PartitionTask {
    /// Whether something may be sealed from now on. What was closed or collected stays in memory, and is sealed as it is once it
    /// may be; until then the topic may have been recreated, which has to be asked for again.
    pub(crate) fn set_resting(&mut self, rests: bool) {
        if self.rests && !rests {
            self.stream.unconfirm();
        }
        self.rests = rests;
    }

    /// Whether records are of no use now: nothing may be sealed, and what was found sealed is collected.
    pub(crate) fn wants_no_records(&self) -> bool {
        self.rests && self.recover.is_empty()
    }

    /// Batches that are sealed, or may be by the commit in flight, and are not settled.
    pub(crate) fn unsettled_batches(&self) -> usize {
        self.sealed.len() + self.recover.len() + self.sealing.unwrap_or(0)
    }

    /// Whether nothing is sealed, no commit is in flight, and the group's offset says how far this is settled, if it has one.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.unsettled_batches() == 0
            && self.sealing.is_none()
            && (self.committed.is_none() || self.is_settled_committed())
    }

    /// Where the last batch ends that is sealed, or may be by the commit in flight; `None` when none is.
    pub(crate) fn last_sealed(&self) -> Option<u64> {
        let sealing = self.closed.iter().take(self.sealing.unwrap_or(0)).map(|closed| closed.batch.id.end);
        self.sealed.ends().chain(self.recover.iter().copied()).chain(sealing).last()
    }

    /// The batches in memory.
    pub(crate) fn batches(&self) -> BatchesInMemory {
        BatchesInMemory {
            sealed: self.sealed.len() + self.recover.len(),
            closed: self.closed.len(),
            open_events: self.builder.events(),
            memory: self.memory(),
        }
    }
}
