use std::time::Duration;

use thiserror::Error;

use crate::{BusError, TopicPartition};

/// The offset and metadata that a group committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The offset where a new owner starts.
    pub offset: u64,
    /// As written.
    pub metadata: String,
}

/// A change of the offset and metadata that the group holds for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Which partition.
    pub at: TopicPartition,
    /// The offset where a new owner would start.
    pub offset: u64,
    /// At most [`GroupState::metadata_limit`] bytes.
    pub metadata: String,
    /// The offset and metadata that the group must hold before the change.
    pub expected: Expected,
}

/// What a [`Commit`] expects the group to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Replace whatever the group holds.
    Anything,
    /// Replace exactly this; `None` for a partition that the group never committed.
    Exactly(Option<Committed>),
}

/// Why a commit was not made.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// This member no longer owns the partition, or is no longer a member: drop all state of the partition.
    #[error("the commit was refused, the partition belongs to another member now: {0}")]
    NotOwner(String),
    /// Not made: this member owns the partition, but the group holds something other than [`Commit::expected`]. Read it
    /// back before continuing.
    #[error("the commit was refused, the group's offset was changed meanwhile: {0}")]
    Changed(String),
    /// No answer, or an inconclusive one: the commit may have been made. Read it back before continuing.
    #[error("the commit was not answered: {0}")]
    Unanswered(String),
}

/// What a group holds for the partitions of one of its members: an offset and metadata for each, which outlive the member.
/// Only the partition's owner changes it.
///
/// # What is compared
/// Every bus refuses a change by a member that does not own the partition, with [`CommitError::NotOwner`].
/// - The embedded bus compares [`Commit::expected`] too, in the transaction that makes the change.
/// - Kafka compares the member and the group's generation, and nothing else: a commit replaces whatever offset and metadata
///   the group holds, so that an operator's reset of a group with a running member is overwritten, and
///   [`CommitError::Changed`] never occurs. Code that needs the comparison must rely on what Kafka does guarantee: no
///   other member commits a partition while this one owns it.
pub trait GroupState {
    /// Returns what the group holds for these partitions; waits for a change that is under way.
    fn get(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BusError>;

    /// Starts changes; [`GroupEvent::Committed`](crate::GroupEvent::Committed) answers each. One call at a time.
    fn compare_and_set(&mut self, commits: &[Commit]) -> Result<(), BusError>;

    /// Makes changes and waits for the answers.
    fn compare_and_set_now(
        &mut self,
        commits: &[Commit],
        timeout: Duration,
    ) -> Vec<(TopicPartition, Result<(), CommitError>)>;

    /// The most bytes of metadata that the bus accepts. With Kafka it is the brokers' default of
    /// `offset.metadata.max.bytes`: brokers with a lower limit refuse longer metadata with [`CommitError::Unanswered`].
    fn metadata_limit(&self) -> usize;
}
