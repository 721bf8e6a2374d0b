//! The group's commits of this member's partitions.

use std::time::{Duration, Instant};

use super::super::commits::Outcome;
use super::super::lookup;
use super::{ASKING, KafkaSubscriber};
use crate::{BusError, Commit, CommitError, Committed, GroupEvent, GroupState, TopicPartition};

/// The brokers' default of `offset.metadata.max.bytes`.
const METADATA_LIMIT: usize = 4_096;

impl GroupState for KafkaSubscriber {
    fn get(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BusError> {
        if !self.settle_commit(ASKING) {
            return Err(BusError::Unavailable("a commit is under way; its outcome is not known yet".to_owned()));
        }
        let wanted: Vec<(&str, u32)> = partitions.iter().map(|at| (&*at.topic, at.partition)).collect();
        lookup::committed(&self.consumer, self.connection(), &wanted, ASKING)
    }

    fn compare_and_set(&mut self, commits: &[Commit]) -> Result<(), BusError> {
        let (mine, refused) = self.mine(commits);
        if mine.is_empty() {
            self.events.push_back(GroupEvent::Committed(refused));
            return Ok(());
        }
        self.commits.send(&self.consumer, &mine, refused)
    }

    fn compare_and_set_now(&mut self, commits: &[Commit], timeout: Duration) -> Outcome {
        let until = Instant::now() + timeout;
        let (mine, mut outcome) = self.mine(commits);
        if mine.is_empty() {
            return outcome;
        }
        let unanswered = |reason: &str| {
            mine.iter().map(|commit| (commit.at.clone(), Err(CommitError::Unanswered(reason.to_owned())))).collect()
        };
        if !self.settle_commit(timeout) {
            let open: Outcome = unanswered("not sent: the previous commit is still unanswered");
            outcome.extend(open);
            return outcome;
        }
        if let Err(error) = self.commits.send(&self.consumer, &mine, Vec::new()) {
            let open: Outcome = unanswered(&error.to_string());
            outcome.extend(open);
            return outcome;
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(answer) = self.commits.poll(&self.consumer, left) {
                if let GroupEvent::Committed(answer) = self.told(answer) {
                    outcome.extend(answer);
                }
                return outcome;
            }
            if left.is_zero() {
                outcome.extend(self.commits.give_up(timeout));
                return outcome;
            }
        }
    }

    fn metadata_limit(&self) -> usize {
        METADATA_LIMIT
    }
}

impl KafkaSubscriber {
    pub(super) fn told(&mut self, outcome: Outcome) -> GroupEvent {
        for (at, result) in &outcome {
            let Some(owned) = self.partitions.get(at) else { continue };
            match result {
                Ok(()) => owned.disowned = None,
                Err(CommitError::NotOwner(_)) => {
                    owned.disowned.get_or_insert_with(Instant::now);
                }
                Err(CommitError::Changed(_) | CommitError::Unanswered(_)) => {}
            }
        }
        GroupEvent::Committed(outcome)
    }

    /// Waits until no commit is under way, keeping its answer for the owner.
    pub(super) fn settle_commit(&mut self, timeout: Duration) -> bool {
        if !self.commits.is_open() {
            return true;
        }
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(outcome) = self.commits.poll(&self.consumer, left.min(Duration::from_millis(100))) {
                let event = self.told(outcome);
                self.events.push_back(event);
            }
            if !self.commits.is_open() {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    /// Separates commits that may be sent from those refused here: the broker would accept them from any member.
    fn mine(&self, commits: &[Commit]) -> (Vec<Commit>, Outcome) {
        let (mine, others): (Vec<&Commit>, Vec<&Commit>) =
            commits.iter().partition(|commit| self.partitions.may_commit(&commit.at));
        let refused = others.into_iter().map(|commit| {
            let reason = "the partition was released, lost or never assigned".to_owned();
            (commit.at.clone(), Err(CommitError::NotOwner(reason)))
        });
        (mine.into_iter().cloned().collect(), refused.collect())
    }
}
