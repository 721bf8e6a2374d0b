use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What a worker is doing, for status pages, `top` and the final summary. Cheap to read at any time.
#[derive(Debug, Clone, Default)]
pub struct WorkerStatus {
    /// Events in batches that are settled, selected or not.
    pub events: u64,
    /// Points written.
    pub points: u64,
    /// Batches settled.
    pub batches: u64,
    /// Requests made of the backend, retries and halves included.
    pub requests: u64,
    /// Writes that the backend put off.
    pub retries: u64,
    /// Dead letters published.
    pub dead_letters: u64,
    /// Commits refused or unanswered.
    pub failed_commits: u64,
    /// What fails now, if anything: the last error of a failure that lasts.
    pub last_error: Option<String>,
    /// The partitions that this worker owns, by `topic/partition`.
    pub partitions: BTreeMap<String, PartitionStatus>,
    /// When a batch was settled last.
    pub last_settled: Option<Instant>,
    /// When the worker went round its loop last, whatever it waits for: one that does not any more hangs.
    pub last_run: Option<Instant>,
}

impl WorkerStatus {
    /// Messages of this worker's partitions that are not settled; `None` while that is not known of one of them.
    pub fn lag(&self) -> Option<u64> {
        self.partitions.values().map(|partition| Some(partition.end?.saturating_sub(partition.settled))).sum()
    }
}

/// What one partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Everything below is written.
    pub settled: u64,
    /// Next offset to be read.
    pub next: u64,
    /// Where the partition ended when it was asked last; `None` while that is not known.
    pub end: Option<u64>,
    /// What it is doing.
    pub state: PartitionState,
}

/// What one partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionState {
    /// Reading and writing.
    Running,
    /// Owned, but nothing of it is read: needs operator action.
    Stopped(String),
}

/// Shared between the worker and those that show it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedStatus(Arc<Mutex<WorkerStatus>>);

impl SharedStatus {
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut WorkerStatus) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn snapshot(&self) -> WorkerStatus {
        self.update(|status| status.clone())
    }
}
