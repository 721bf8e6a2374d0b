//! Giving partitions up.

use std::time::Duration;

use tallybus_bus::{Commit, TopicPartition};

use super::committer::Lost;
use super::{COMMIT_TIMEOUT, COMMIT_TIMEOUT_AWAY, REVOKE_GRACE, Worker, WorkerError};
use crate::status::HaltCause;

/// Polling interval for writes in flight while a partition is given up.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

impl Worker {
    /// Gives writes in flight a short time to finish, then sends the final commit. Batches that may have been written
    /// stay sealed, so that the next owner repeats exactly those. Returns whether nothing is left sealed.
    pub(super) fn settle_before_leaving(&mut self, partitions: &[TopicPartition], grace: Duration) -> bool {
        for at in partitions {
            if let Some(owned) = self.tasks.get_mut(at) {
                owned.task.discard_unsealed();
            }
        }
        let deadline = self.clock.now() + grace;
        let (mut left, mut progress) = (usize::MAX, self.clock.now());
        while self.clock.now() < deadline {
            self.note_run();
            self.take_events();
            self.take_published_dead_letters();
            let unsettled = self.unsettled(partitions);
            if unsettled < left {
                (left, progress) = (unsettled, self.clock.now());
            }
            // There is no point in waiting for a backend that accepts nothing: sealed batches stay sealed.
            let is_hopeless = self.tasks.is_failing() && self.clock.now() - progress > REVOKE_GRACE;
            if unsettled == 0 || is_hopeless {
                break;
            }
            self.clock.sleep(LOOK_AGAIN);
        }
        let is_committed = self.final_commit(partitions);
        self.note_last_progress(partitions, is_committed);
        is_committed && !self.tasks.iter().any(|task| partitions.contains(&task.at) && task.leaves_sealed())
    }

    /// Sends the final commit of partitions that are given up. Returns whether all of it was acknowledged.
    fn final_commit(&mut self, partitions: &[TopicPartition]) -> bool {
        let mut is_committed = true;
        let mut commits: Vec<Commit> = Vec::new();
        for task in self.tasks.iter().filter(|task| partitions.contains(&task.at)) {
            match task.final_commit() {
                Ok(commit) => commits.extend(commit),
                Err(error) => {
                    is_committed = false;
                    tracing::error!(
                        sink = self.options.sink,
                        partition = %task.at,
                        %error,
                        "the final commit cannot be created; the next owner writes the unsettled batches again"
                    );
                }
            }
        }
        if commits.is_empty() {
            return is_committed;
        }
        // Without the commit the next owner writes the same batches again: not worth a wait for a bus that is away.
        let timeout = if self.bus_failures.is_failing() { COMMIT_TIMEOUT_AWAY } else { COMMIT_TIMEOUT };
        let Some(subscriber) = self.membership.subscriber() else { return is_committed };
        for (at, answer) in subscriber.state().compare_and_set_now(&commits, timeout) {
            if let Err(error) = answer {
                is_committed = false;
                self.handle.status.update(|status| status.failed_commits += 1);
                tracing::warn!(
                    sink = self.options.sink,
                    partition = %at,
                    %error,
                    "the final commit before giving a partition up failed; the next owner writes its batches again"
                );
            }
        }
        is_committed
    }

    /// The number of batches of these partitions that are sealed and not settled.
    fn unsettled(&self, partitions: &[TopicPartition]) -> usize {
        let tasks = self.tasks.iter().filter(|task| partitions.contains(&task.at));
        tasks.map(|task| task.sealed()).sum()
    }

    pub(super) fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), WorkerError> {
        for at in partitions {
            self.drop_task(at);
            self.membership.forget(at);
            self.view.forget(at);
        }
        self.bus_call(|subscriber| subscriber.release(partitions))
    }

    /// Ends work on partitions that cannot continue.
    pub(super) fn give_up(&mut self, lost: Vec<Lost>) {
        for lost in lost {
            match lost {
                Lost::Taken(at) => {
                    tracing::info!(
                        sink = self.options.sink,
                        partition = %at,
                        "another worker has taken the partition over"
                    );
                    self.drop_task(&at);
                }
                Lost::Stopped(at, reason) => self.stop_partition(&at, HaltCause::GroupOffset, reason),
            }
        }
    }

    /// Stops work on a partition; it stays owned, so that no other worker fails in the same way.
    pub(super) fn stop_partition(&mut self, at: &TopicPartition, cause: HaltCause, reason: String) {
        tracing::error!(sink = self.options.sink, partition = %at, reason, "partition halted: needs operator action");
        self.drop_task(at);
        self.membership.stop(at.clone(), cause, reason);
    }

    /// Drops a partition's task; its sealed batches stay sealed.
    pub(super) fn drop_task(&mut self, at: &TopicPartition) {
        let Some(task) = self.tasks.remove(at) else { return };
        self.owe(&task);
        // The next owner writes the batch again and finds the same dead letters.
        task.awaited_dead_letters().for_each(|token| self.dead_letters.forget(token));
    }
}
