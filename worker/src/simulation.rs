//! Workers that are broken on purpose: a simulation that does not notice one of them proves nothing.
//!
//! Only with the feature `simulation`, which no program that is shipped enables; even then no mutant is on unless a simulation
//! turns it on, for its own thread.

use std::cell::Cell;

/// Names each mutant once: a list beside the enum could lack one.
macro_rules! mutants {
    ($($(#[$meaning:meta])* $name:ident,)*) => {
        /// A guarantee that a worker breaks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[$meaning])* $name,)*
        }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

mutants! {
    // Sealing and settling.
    /// Batches are written once the commit that seals them was sent, whatever its answer.
    WriteBeforeTheSealIsAnswered,
    /// A commit without an answer is taken as made.
    UnansweredMeansMade,
    /// A commit without an answer is taken as not made, and not read back.
    UnansweredMeansNotMade,
    /// A partition that was asked back is released, and its task works on.
    SealAfterRelease,
    /// A worker that lost its partitions works on with them once it is a member again.
    SealAfterEviction,
    /// The last commit of a partition that is given up leaves no batch sealed.
    LeavingUnseals,
    /// A batch settles although one before it was not written.
    SettledOutOfOrder,
    /// Offsets without records at the end of a partition are not settled.
    MarkersAreNotSettled,
    // Resting.
    /// A worker says that it is drained once its batches are written, before the bus has shown that they are settled.
    DrainedBeforeReadBack,
    /// A worker that says that it is drained goes on.
    SealsAfterDrain,
    // Batches that were found sealed.
    /// A batch that was found sealed is taken as written.
    RecoveredMeansDone,
    /// Batches that were found sealed are cut anew by size and time.
    BoundariesByTheClock,
    /// Batches that were found sealed are built under the present settings.
    SealedShapeIgnored,
    // Where a partition begins.
    /// A topic that is not one of the sink's counts as the first of them.
    UnknownTopicIsIndexZero,
    /// A recreated topic is taken for the one that it replaces.
    NoStreamCheck,
    /// The topic's incarnation is compared when a partition is assigned, and not before batches are sealed.
    StreamNotConfirmed,
    /// An offset that another program committed is taken.
    ForeignCommitTaken,
    /// A group that the bus forgot begins at the oldest record.
    ForgottenGroupFromTheStart,
    /// A group that the bus forgot begins at the newest record.
    ForgottenGroupFromTheEnd,
    /// The notes of a group's progress are not read.
    NotesNotRead,
    /// Records that retention deleted before they were written are passed.
    LostOffsetsPassed,
    // The destination.
    /// Nothing is claimed in the destination.
    ClaimNotTaken,
    /// A partition is claimed after its first batch was written.
    ClaimTakenAfterTheWrite,
    /// The claims of other sinks and incarnations are not compared.
    ClaimsNotCompared,
    /// A ledger that is ahead of the group is no reason to stop.
    LedgerAheadTaken,
    /// A ledger that is behind what the group has written is no reason to stop.
    LedgerBehindTaken,
    /// A connection does not notice that the ledger, which it has written, is behind: in the sinks, not in the worker.
    LedgerLossNotNoticed,
    // Writing.
    /// The right half of a batch is written before the left one.
    HalvesInTheWrongOrder,
    /// Only the left half of a batch is written.
    RightHalfDropped,
    /// A batch that is written again is written in halves.
    RetryInHalves,
    /// A batch that is written again lacks its first point.
    RetryWithoutAPoint,
    // Dead letters.
    /// A batch settles although its dead letters are not on the bus yet.
    SettleBeforeTheDeadLetter,
    /// A record that cannot be decoded becomes no dead letter.
    DeadLetterDropped,
    /// A dead letter that the bus refused counts as published.
    RefusedDeadLetterIsPublished,
}

thread_local! {
    static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
}

impl Mutant {
    /// Breaks the workers that this thread steps from now on; `None` for none.
    pub fn set(mutant: Option<Self>) {
        ON.set(mutant);
    }

    /// Whether a group without an offset is taken for a new one, whatever notes and claims say.
    pub(crate) fn takes_forgotten_groups() -> bool {
        Self::ForgottenGroupFromTheStart.is_on() || Self::ForgottenGroupFromTheEnd.is_on()
    }

    /// Whether the workers of this thread are broken in this way.
    pub fn is_on(self) -> bool {
        ON.get() == Some(self)
    }
}
