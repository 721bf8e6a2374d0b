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
    /// What is wrong now, if anything.
    pub trouble: Option<String>,
    /// The partitions that this worker owns, by `topic/partition`.
    pub lanes: BTreeMap<String, LaneStatus>,
    /// When a batch was settled last.
    pub last_settled: Option<Instant>,
    /// When the worker went round its loop last, whatever it waits for: one that does not any more hangs.
    pub turned: Option<Instant>,
}

/// What one partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStatus {
    /// Everything below is written.
    pub settled: u64,
    /// Next offset to be read.
    pub next: u64,
    /// Where the partition ended when last looked.
    pub end: u64,
    /// What it is doing.
    pub state: LaneState,
}

/// What one partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneState {
    /// Reading and writing.
    Running,
    /// Owned, but nothing of it is read until somebody acts.
    Stopped(String),
}

/// Shared with whoever wants to look.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedStatus(Arc<Mutex<WorkerStatus>>);

impl SharedStatus {
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut WorkerStatus) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn turned(&self) {
        self.update(|status| status.turned = Some(Instant::now()));
    }

    pub(crate) fn snapshot(&self) -> WorkerStatus {
        self.update(|status| status.clone())
    }
}
