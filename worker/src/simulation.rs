//! Workers that are broken on purpose: a simulation that does not notice one of them proves nothing.
//!
//! Only with the feature `simulation`, which no program that is shipped enables; even then no mutant is on unless a simulation
//! turns it on, for its own thread.

use std::cell::Cell;

/// A guarantee that a worker breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Batches are written once the commit that seals them was sent, whatever its answer.
    WriteBeforeTheSealIsAnswered,
    /// A partition that was asked back is released, and its task works on.
    SealAfterRelease,
    /// A batch that was found sealed is taken as written.
    RecoveredMeansDone,
    /// A batch settles although its dead letters are not on the bus yet.
    SettleBeforeTheDeadLetter,
    /// Batches that were found sealed are cut anew by size and time.
    BoundariesByTheClock,
    /// A topic that is not one of the sink's counts as the first of them.
    UnknownTopicIsIndexZero,
    /// A recreated topic is taken for the one that it replaces.
    NoStreamCheck,
    /// Nothing is claimed in the destination.
    ClaimNotTaken,
}

thread_local! {
    static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Self; 8] = [
        Self::WriteBeforeTheSealIsAnswered,
        Self::SealAfterRelease,
        Self::RecoveredMeansDone,
        Self::SettleBeforeTheDeadLetter,
        Self::BoundariesByTheClock,
        Self::UnknownTopicIsIndexZero,
        Self::NoStreamCheck,
        Self::ClaimNotTaken,
    ];

    /// Breaks the workers that this thread steps from now on; `None` for none.
    pub fn set(mutant: Option<Self>) {
        ON.set(mutant);
    }

    pub(crate) fn is_on(self) -> bool {
        ON.get() == Some(self)
    }
}
