use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::counters::{Counters, labels};
use crate::duty::Duty;
use crate::failure_log::{HALTED, Reason, without_retry};
use crate::scale::ScaleHint;

/// What a worker is doing, for status pages, `top` and the final summary. Cheap to read at any time.
#[derive(Debug, Clone, Default)]
pub struct WorkerStatus {
    /// Events in batches that are settled, selected or not.
    pub events: u64,
    /// The sum of the points of those batches, refused ones too.
    pub value: u128,
    /// Offsets that those batches cover: their messages, and the markers of transactions among them.
    pub messages: u64,
    /// Points written.
    pub points: u64,
    /// Batches settled.
    pub batches: u64,
    /// Requests sent to the backend, including retries and parts of split batches.
    pub requests: u64,
    /// Writes that the backend deferred.
    pub retries: u64,
    /// Dead letters published.
    pub dead_letters: u64,
    /// Commits refused or unanswered.
    pub failed_commits: u64,
    /// The memory that the batches of all partitions used when the status was last refreshed, in bytes.
    pub memory: usize,
    /// Whether more workers would help.
    pub scale_hint: ScaleHint,
    /// Whether the bus does not answer.
    pub is_bus_failing: bool,
    /// The last error of a persistent failure; `None` when nothing fails.
    pub last_error: Option<String>,
    /// Each reason for which the backend does not accept the batches of some partitions.
    pub backend_failures: Vec<BackendFailure>,
    /// The partitions that this worker owns, by `topic/partition`.
    pub partitions: BTreeMap<String, PartitionStatus>,
    /// The batches that it holds in memory, by `topic/partition`.
    pub batches_in_memory: BTreeMap<String, BatchesInMemory>,
    /// What operators want of it, and how far it is with that.
    pub duty: Duty,
    /// Whether it is a member of its consumer group.
    pub is_member: bool,
    /// When a batch was last settled.
    pub last_settled: Option<Instant>,
    /// When the worker last completed an iteration of its loop, whatever it waits for: if this stops advancing, the
    /// worker hangs.
    pub last_run: Option<Instant>,
    /// Why the worker has ended by itself, while its process goes on; `None` while it runs.
    pub ended: Option<String>,
}

impl WorkerStatus {
    /// Messages of this worker's partitions that are not settled; `None` while the number is unknown for any of them, and
    /// while it owns none: then it cannot say what is unsettled.
    pub fn lag(&self) -> Option<u64> {
        if self.partitions.is_empty() {
            return None;
        }
        self.partitions.values().map(PartitionStatus::lag).sum()
    }

    /// How old the oldest message of this worker's partitions is that is not settled, at this time of the wall clock; zero
    /// when all are settled. `None` while it is unknown: the lag is, or a message that is behind was not read yet.
    pub fn lag_time(&self, now: SystemTime) -> Option<Duration> {
        if self.lag()? == 0 {
            return Some(Duration::ZERO);
        }
        self.oldest().map(|oldest| age_of(oldest, now))
    }

    /// The time of the oldest message of this worker's partitions that is not settled. `None` where there is none, and while
    /// it is unknown.
    pub fn oldest(&self) -> Option<SystemTime> {
        let behind = self.partitions.values().filter(|partition| partition.end != Some(partition.settled));
        behind.map(|partition| partition.oldest).collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Partitions whose batches the backend does not accept before an operator has acted.
    pub fn halted_by_backend(&self) -> usize {
        let halted = self.backend_failures.iter().filter(|failure| failure.halt().is_some());
        halted.map(|failure| failure.partitions.len()).sum()
    }

    /// Why the backend does not accept this partition's batches before an operator has acted; `None` while it is not halted so.
    pub fn halt_by_backend(&self, at: &str) -> Option<&str> {
        let of_this = self.backend_failures.iter().find(|failure| failure.partitions.iter().any(|other| other == at));
        of_this?.halt()
    }

    /// Whether the worker owns partitions and every one of them is halted: it does nothing before an operator has acted.
    pub fn is_wholly_halted(&self) -> bool {
        let is_halted = |(at, partition): (&String, &PartitionStatus)| {
            partition.state != PartitionState::Running || self.halt_by_backend(at).is_some()
        };
        !self.partitions.is_empty() && self.partitions.iter().all(is_halted)
    }

    /// Why the worker is halted, one reason for each cause: a backend that needs operator action, or a partition that
    /// cannot continue, which is named. Where the backend has several reasons, each names its partitions. Empty while nothing
    /// needs operator action.
    pub fn halts(&self) -> Vec<String> {
        let stopped = self.partitions.iter().filter_map(|(at, partition)| match &partition.state {
            PartitionState::Running => None,
            PartitionState::Stopped { reason, .. } => Some(format!("{at}: {reason}")),
        });
        let is_one_of_several = self.backend_failures.len() > 1;
        let backend = self.backend_failures.iter().filter_map(|failure| {
            let reason = failure.halt()?;
            Some(match is_one_of_several {
                true => format!("{}: {reason}", failure.partitions.join(", ")),
                false => reason.to_owned(),
            })
        });
        backend.chain(stopped).collect()
    }

    /// What kept the worker from advancing when its status was last refreshed, and no operator need act on; `None` while
    /// nothing fails.
    pub fn failure(&self) -> Option<&str> {
        self.last_error.as_deref().filter(|error| !error.starts_with(HALTED)).map(without_retry)
    }
}

/// One reason for which the backend does not accept batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendFailure {
    /// What failed, as it was last noted.
    pub reason: String,
    /// The partitions, as `topic/partition`.
    pub partitions: Vec<String>,
}

impl BackendFailure {
    /// The reason where an operator has to act before the backend accepts them.
    pub fn halt(&self) -> Option<&str> {
        Some(without_retry(self.reason.strip_prefix(HALTED)?.trim_start_matches(": ")))
    }

    pub(crate) fn of(reason: &Reason) -> Self {
        let partitions = reason.partitions.iter().map(ToString::to_string).collect();
        Self { reason: reason.text.clone(), partitions }
    }
}

/// The batches of one partition in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct BatchesInMemory {
    /// Sealed and not settled, those among them that were found sealed and are collected again.
    pub sealed: usize,
    /// Closed and not sealed.
    pub closed: usize,
    /// Events in the open one.
    pub open_events: usize,
    /// Bytes of all of them.
    pub memory: usize,
}

/// The state of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Everything below this offset is written.
    pub settled: u64,
    /// Next offset to be read.
    pub next: u64,
    /// The end of the partition when it was last queried; `None` while it is unknown.
    pub end: Option<u64>,
    /// The timestamp of the oldest record that is not settled, to within a second; `None` where there is none, or while it
    /// was not read yet.
    pub oldest: Option<SystemTime>,
    /// What the partition is doing.
    pub state: PartitionState,
}

impl PartitionStatus {
    /// Messages that are not settled; `None` while the end is unknown.
    pub fn lag(&self) -> Option<u64> {
        Some(self.end?.saturating_sub(self.settled))
    }

    /// How old its oldest message is that is not settled, as [`WorkerStatus::lag_time`] has it for all partitions.
    pub fn lag_time(&self, now: SystemTime) -> Option<Duration> {
        if self.lag()? == 0 {
            return Some(Duration::ZERO);
        }
        self.oldest.map(|oldest| age_of(oldest, now))
    }
}

/// A record from the future, by a producer whose clock is ahead, has no age.
fn age_of(oldest: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(oldest).unwrap_or_default()
}

/// What one partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionState {
    /// Reading and writing.
    Running,
    /// Owned, but not processed: needs operator action.
    Stopped {
        /// What kind of reason.
        cause: HaltCause,
        /// Why, what is safe, and what to do.
        reason: String,
    },
}

labels! {
    /// What kind of reason halts a partition.
    HaltCause {
        /// It cannot be begun: its group's offset, its records, its topic or the settings do not allow it.
        Start => "start",
        /// Its next records are gone or cannot be read.
        Records => "records",
        /// Another program changed the group's offset.
        GroupOffset => "group_offset",
        /// Its topic was deleted and recreated.
        Recreated => "recreated",
        /// Its backend needs operator action.
        Backend => "backend",
    }
}

/// Shared between the worker and the readers of its status.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedStatus {
    status: Arc<Mutex<WorkerStatus>>,
    counters: Arc<Counters>,
}

impl SharedStatus {
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut WorkerStatus) -> T) -> T {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub(crate) fn snapshot(&self) -> WorkerStatus {
        self.update(|status| status.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure_log::RETRYING;

    #[test]
    fn lag_in_time_is_the_oldest_messages_age_and_unknown_while_one_is_unread() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let partition = |settled, end, oldest: Option<u64>| PartitionStatus {
            settled,
            next: settled,
            end,
            oldest: oldest.map(at),
            state: PartitionState::Running,
        };
        let lag_time = |partitions: &[PartitionStatus]| {
            let named = (0..).map(|number| format!("t/{number}")).zip(partitions.iter().cloned());
            WorkerStatus { partitions: named.collect(), ..WorkerStatus::default() }.lag_time(at(100))
        };
        assert_eq!(lag_time(&[]), None, "no partition is assigned yet");
        let done = partition(5, Some(5), None);
        assert_eq!(lag_time(&[done.clone(), done.clone()]), Some(Duration::ZERO));
        let behind = partition(5, Some(9), Some(70));
        assert_eq!(lag_time(&[done.clone(), behind.clone()]), Some(Duration::from_secs(30)));
        assert_eq!(lag_time(&[partition(1, Some(2), Some(60)), behind.clone()]), Some(Duration::from_secs(40)));
        assert_eq!(lag_time(&[behind.clone(), partition(5, Some(9), None)]), None, "one is not read yet");
        assert_eq!(lag_time(&[behind, partition(5, None, Some(60))]), None, "an end is unknown");
        assert_eq!(lag_time(&[partition(5, Some(9), Some(500))]), Some(Duration::ZERO), "a record of the future");
    }

    #[test]
    fn the_lag_of_a_worker_without_partitions_is_unknown() {
        assert_eq!(WorkerStatus::default().lag(), None);
    }

    #[test]
    fn a_halt_is_the_backends_or_a_partitions_and_a_failure_is_neither() {
        let stopped = PartitionStatus {
            settled: 0,
            next: 0,
            end: None,
            oldest: None,
            state: PartitionState::Stopped { cause: HaltCause::Start, reason: "offsets are gone".to_owned() },
        };
        let failure = |reason: &str, partitions: &[&str]| BackendFailure {
            reason: format!("{HALTED}: {reason}{RETRYING}4 s)"),
            partitions: partitions.iter().map(|at| (*at).to_owned()).collect(),
        };
        let mut halted = WorkerStatus {
            last_error: Some(format!("{HALTED}: no such table{RETRYING}4 s)")),
            backend_failures: vec![failure("no such table", &["t/1"])],
            partitions: [("t/0".to_owned(), stopped)].into(),
            ..WorkerStatus::default()
        };
        assert_eq!(halted.halts(), ["no such table", "t/0: offsets are gone"]);
        assert_eq!(halted.failure(), None);
        assert!(halted.is_wholly_halted());
        let running = PartitionStatus { state: PartitionState::Running, ..halted.partitions["t/0"].clone() };
        halted.partitions.insert("t/2".to_owned(), running);
        assert!(!halted.is_wholly_halted(), "one partition goes on");
        halted.backend_failures.push(failure("it was emptied", &["t/2", "t/3"]));
        assert!(halted.is_wholly_halted(), "each for a reason of its own");
        assert_eq!(halted.halts(), ["t/1: no such table", "t/2, t/3: it was emptied", "t/0: offsets are gone"]);
        assert!(!WorkerStatus::default().is_wholly_halted(), "a worker in reserve is none that is halted");
        let failing =
            WorkerStatus { last_error: Some(format!("no answer{RETRYING}0.1 s)")), ..WorkerStatus::default() };
        assert_eq!((failing.halts(), failing.failure()), (Vec::new(), Some("no answer")));
        assert_eq!(WorkerStatus::default().failure(), None);
    }
}
