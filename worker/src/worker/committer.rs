//! Sealing and settling: the commits.
//!
//! A commit takes about 6 ms with a broker's defaults, and nothing of a batch may be sent before its seal is
//! acknowledged. Three measures hide that latency:
//! - One commit settles written batches and seals closed ones, of all partitions at once.
//! - Sealing runs ahead: while a commit is in flight, each partition writes batches sealed by earlier commits and
//!   collects the next ones, up to [`SEAL_AHEAD`](tallybus_sdk::SEAL_AHEAD).
//! - Nothing waits for a timer: a completed batch ends the poll; an answer or a written batch ends the wait for records.
//!
//! A commit is planned ([`Committer::commit`]), answered ([`Committer::answered`]), and, if the answer leaves the result
//! open, read back ([`Committer::read_back`]) before the next one is planned. With two in flight, the second could
//! succeed although the first was given up, and the group's offset would not show which batches are sealed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::{BusError, Commit, CommitError, Committed, Subscriber, TopicPartition};
use tallybus_sdk::SealMetadata;
use tallybus_sdk::clock::Clock;

use crate::counters::Stage;
use crate::partition_tasks::PartitionTasks;
#[cfg(feature = "simulation")]
use crate::simulation::Mutant;

/// An unanswered commit is read back after this delay, when the broker has certainly processed or dropped it.
const READ_BACK_AFTER: Duration = Duration::from_secs(1);

/// Sends a worker's commits, and determines their results.
pub(super) struct Committer {
    clock: Arc<dyn Clock>,
    in_flight: Option<Vec<Sent>>,
    /// When the commit in flight was sent.
    sent_at: Instant,
    /// Commits without an answer, to be read back at that time.
    in_doubt: Option<(Instant, Vec<Sent>)>,
    /// Whether the last answer said that this member does not own a partition.
    is_refused: bool,
}

/// A commit in flight.
struct Sent {
    epoch: u64,
    commit: Commit,
    /// What its answer says, when it has one that leaves the result open.
    answer: Answer,
}

/// What the answer to a commit says while its result is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Nothing: it may have been made.
    None,
    /// The member does not own the partition.
    NotOwner,
    /// The group holds something other than expected, although the member owns the partition.
    Changed,
}

/// Why a partition cannot continue.
pub(super) enum Lost {
    /// Another worker has taken it over; the bus announces that, or makes this member rejoin.
    Taken(TopicPartition),
    /// It cannot continue on this worker, and why.
    Stopped(TopicPartition, String),
}

/// Why sending a commit failed.
pub(super) enum CommitFailure {
    /// The bus refused it, or may have accepted it; it is read back.
    Unsent(BusError),
    /// The client has failed for good and must be replaced.
    Fatal(BusError),
}

impl Committer {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { sent_at: clock.now(), clock, in_flight: None, in_doubt: None, is_refused: false }
    }

    /// Whether no commit is in flight, and none in doubt.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.in_doubt.is_none()
    }

    /// The member that sent the commits is gone: its partitions are read again when they are assigned.
    pub(super) fn forget(&mut self) {
        self.in_flight = None;
        self.in_doubt = None;
        self.is_refused = false;
    }

    /// Sends one commit for all partitions that have something to commit, unless one is in flight. Returns the
    /// partitions that cannot continue.
    pub(super) fn commit(
        &mut self,
        tasks: &mut PartitionTasks,
        subscriber: &mut dyn Subscriber,
    ) -> Result<Vec<Lost>, CommitFailure> {
        if self.in_flight.is_some() || self.in_doubt.is_some() {
            return Ok(Vec::new());
        }
        let (mut planned, mut lost) = (Vec::new(), Vec::new());
        for task in tasks.iter_mut() {
            match task.plan_commit() {
                Ok(Some(commit)) => planned.push(Sent { epoch: task.epoch, commit, answer: Answer::None }),
                Ok(None) => {}
                Err(error) => lost.push(Lost::Stopped(task.at.clone(), error.to_string())),
            }
        }
        if planned.is_empty() {
            return Ok(lost);
        }
        let commits: Vec<Commit> = planned.iter().map(|sent| sent.commit.clone()).collect();
        match subscriber.state().compare_and_set(&commits) {
            Ok(()) => {
                #[cfg(feature = "simulation")]
                if Mutant::WriteBeforeTheSealIsAnswered.is_on() {
                    planned.into_iter().for_each(|sent| made(sent, tasks));
                    return Ok(lost);
                }
                (self.in_flight, self.sent_at) = (Some(planned), self.clock.now());
                Ok(lost)
            }
            Err(error) if error.is_transient() => {
                self.doubt(planned);
                Err(CommitFailure::Unsent(error))
            }
            Err(error) => Err(CommitFailure::Fatal(error)),
        }
    }

    /// Processes the answer to the commit in flight: successful parts are sealed and settled, refused or unanswered
    /// ones are read back. Returns how many were not successful, and the errors that nothing else reports: the bus announces
    /// the loss of a partition, so the first refusal because of one is no failure.
    pub(super) fn answered(
        &mut self,
        answers: Vec<(TopicPartition, Result<(), CommitError>)>,
        tasks: &mut PartitionTasks,
    ) -> (u64, Vec<CommitError>) {
        let Some(in_flight) = self.in_flight.take() else { return (0, Vec::new()) };
        let was_refused = std::mem::take(&mut self.is_refused);
        tasks.counters().took(Stage::Seal, self.clock.now() - self.sent_at);
        let mut answers: HashMap<TopicPartition, Result<(), CommitError>> = answers.into_iter().collect();
        let (mut in_doubt, mut failed, mut count) = (Vec::new(), Vec::new(), 0);
        for mut sent in in_flight {
            match answers.remove(&sent.commit.at) {
                Some(Ok(())) => made(sent, tasks),
                #[cfg(feature = "simulation")]
                Some(Err(CommitError::Unanswered(_))) if Mutant::UnansweredMeansMade.is_on() => made(sent, tasks),
                #[cfg(feature = "simulation")]
                Some(Err(CommitError::Unanswered(_))) if Mutant::UnansweredMeansNotMade.is_on() => {
                    if let Some(owned) = tasks.by_epoch(sent.epoch) {
                        owned.task.commit_not_made();
                    }
                }
                // The group's offset decides. Loss of a partition is announced as such.
                Some(Err(error)) => {
                    sent.answer = match error {
                        CommitError::NotOwner(_) => Answer::NotOwner,
                        CommitError::Changed(_) => Answer::Changed,
                        _ => Answer::None,
                    };
                    count += 1;
                    self.is_refused |= sent.answer == Answer::NotOwner;
                    if sent.answer != Answer::NotOwner || was_refused {
                        failed.push(error);
                    }
                    in_doubt.push(sent);
                }
                None => in_doubt.push(sent),
            }
        }
        self.doubt(in_doubt);
        (count, failed)
    }

    fn doubt(&mut self, commits: Vec<Sent>) {
        if !commits.is_empty() {
            self.in_doubt = Some((self.clock.now() + READ_BACK_AFTER, commits));
        }
    }

    /// Reads back the commits in doubt: the group's offset shows whether they succeeded. Returns the partitions that
    /// cannot continue.
    ///
    /// # Errors
    /// The group's offsets could not be read; they are read again later.
    pub(super) fn read_back(
        &mut self,
        tasks: &mut PartitionTasks,
        subscriber: &mut dyn Subscriber,
    ) -> Result<Vec<Lost>, BusError> {
        let now = self.clock.now();
        let Some((_, in_doubt)) = self.in_doubt.take_if(|(at, _)| now >= *at) else { return Ok(Vec::new()) };
        let partitions: Vec<TopicPartition> = in_doubt.iter().map(|sent| sent.commit.at.clone()).collect();
        let held = match subscriber.state().get(&partitions) {
            Ok(held) if held.len() == in_doubt.len() => held,
            Ok(_) => {
                self.doubt(in_doubt);
                return Ok(Vec::new());
            }
            Err(error) => {
                self.doubt(in_doubt);
                return Err(error);
            }
        };
        let found = in_doubt.into_iter().zip(held);
        Ok(found.filter_map(|(sent, held)| judge(sent, held.as_ref(), tasks)).collect())
    }
}

fn made(sent: Sent, tasks: &mut PartitionTasks) {
    if let Some(owned) = tasks.by_epoch(sent.epoch) {
        let sealed = owned.task.commit_made(sent.commit.offset, sent.commit.metadata);
        owned.hand_over();
        tasks.counters().sealed(sealed);
    }
}

/// Determines the result of a commit in doubt from the group's offset.
fn judge(sent: Sent, held: Option<&Committed>, tasks: &mut PartitionTasks) -> Option<Lost> {
    let owned = tasks.by_epoch(sent.epoch)?;
    if held.is_some_and(|held| held.offset == sent.commit.offset && held.metadata == sent.commit.metadata) {
        made(sent, tasks);
        return None;
    }
    if held == owned.task.committed_before() {
        owned.task.commit_not_made();
        return None;
    }
    let at = owned.task.at.clone();
    // Another worker committed, while this one was suspended or cut off: it owns the partition, whatever this member
    // believes.
    let is_workers = held.is_some_and(|held| SealMetadata::parse(held.offset, &held.metadata).is_ok());
    if sent.answer == Answer::NotOwner || is_workers && sent.answer == Answer::None {
        return Some(Lost::Taken(at));
    }
    let found = held.map_or("it is gone".to_owned(), |held| format!("it is {} now", held.offset));
    let reason = format!(
        "the group's offset for {at} was changed by another program: {found}, the last commit of this worker was {}. Nothing was \
         written under the changed offset. To start there, or to go back, stop the group's workers and run `tallybus group \
         reset`",
        owned.task.settled()
    );
    Some(Lost::Stopped(at, reason))
}

#[cfg(test)]
mod tests;
