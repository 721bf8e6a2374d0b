use std::time::Duration;

use thiserror::Error;

use crate::{BusError, TopicPartition};

/// What a group committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Where a new owner starts.
    pub offset: u64,
    /// As written.
    pub metadata: String,
}

/// A change of what the group holds for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Which partition.
    pub at: TopicPartition,
    /// Where a new owner would start.
    pub offset: u64,
    /// At most [`GroupState::metadata_limit`] bytes.
    pub metadata: String,
    /// What the group must hold before.
    pub expected: Expected,
}

/// What a [`Commit`] expects the group to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it holds is replaced.
    Anything,
    /// Exactly this; `None` for a partition that the group never committed.
    Exactly(Option<Committed>),
}

/// Why a commit was not made.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// This member no longer owns the partition, or is no longer a member: drop everything of it.
    #[error("the commit was refused, the partition belongs to another member now: {0}")]
    NotOwner(String),
    /// Not made: this member owns the partition, and the group holds something else than [`Commit::expected`]. Read it back
    /// before going on.
    #[error("the commit was refused, the group's offset was changed meanwhile: {0}")]
    Changed(String),
    /// No answer, or one that leaves it open: the commit may have been made. Read it back before going on.
    #[error("the commit was not answered: {0}")]
    Unanswered(String),
}

/// What a group holds for the partitions of one of its members: an offset and metadata for each, which outlive the member.
/// Changed by the partition's owner only.
///
/// # What is compared
/// Every bus refuses a change by a member that does not own the partition, with [`CommitError::NotOwner`].
/// - The embedded bus compares [`Commit::expected`] too, in the transaction that makes the change.
/// - Kafka compares the member and the group's generation, and nothing else: a commit replaces whatever offset and metadata
///   the group holds, so that an operator's reset of a group with a running member is overwritten, and
///   [`CommitError::Changed`] never comes. Who needs the comparison there keeps to what Kafka does promise, that no other
///   member commits a partition while this one owns it.
pub trait GroupState {
    /// What the group holds for these partitions; waits for a change that is under way.
    fn get(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BusError>;

    /// Starts changes; [`GroupEvent::Committed`](crate::GroupEvent::Committed) answers each. One call at a time.
    fn compare_and_set(&mut self, commits: &[Commit]) -> Result<(), BusError>;

    /// The same, and waits for the answers.
    fn compare_and_set_now(
        &mut self,
        commits: &[Commit],
        timeout: Duration,
    ) -> Vec<(TopicPartition, Result<(), CommitError>)>;

    /// How many bytes of metadata the bus takes. With Kafka it is the brokers' default of `offset.metadata.max.bytes`:
    /// brokers with a lower one refuse longer metadata with [`CommitError::Unanswered`].
    fn metadata_limit(&self) -> usize;
}
