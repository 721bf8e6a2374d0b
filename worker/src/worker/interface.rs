//! What a worker is started with, how it ends, and the handle to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tallybus_bus::BusError;
use tallybus_sdk::{BatchLimits, Shape, Sink, StartAt};
use thiserror::Error;

use crate::claims::Owner;
use crate::counters::CounterValues;
use crate::duty::{Wanted, WantedCell};
use crate::retry_now::RetryNow;
use crate::settings::names;
use crate::status::{SharedStatus, WorkerStatus};

/// The options of a worker.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The sink's name.
    pub sink: String,
    /// Its consumer group.
    pub group: String,
    /// Its topics, in the order of the settings.
    pub topics: Vec<String>,
    /// The topic of its dead letters.
    pub dead_letter_topic: String,
    /// When a batch is full.
    pub limits: BatchLimits,
    /// How events become points. [`Shape::sink`] is filled in from the sink.
    pub shape: Shape,
    /// Where to start in a partition for which the group never committed.
    pub start_at: StartAt,
    /// Lost offset ranges that the operator accepts, as `topic/partition/first-end`.
    pub accept_gaps: Vec<String>,
    /// The topic on which the group's progress is noted, where the bus may forget groups.
    pub progress_topic: String,
    /// How long a stop waits for sealed batches.
    pub drain: Duration,
    /// End once everything on the bus is settled.
    pub until_caught_up: bool,
    /// The only topic holds dead letters to be replayed; its index, behind the sink's topics, is
    /// [`Batch::topic_index`].
    ///
    /// [`Batch::topic_index`]: tallybus_sdk::Batch::topic_index
    pub replays: Option<u32>,
}

impl WorkerOptions {
    /// Who the sink is in the claims of its destination.
    pub(crate) fn owner(&self, sink: &dyn Sink) -> Owner {
        let group = match self.replays {
            Some(_) => names::group_of_replay_group(&self.group),
            None => &self.group,
        };
        Owner { group: group.to_owned(), tags: self.shape.tags.clone(), layout: sink.lasting_layout() }
    }

    /// Those of a sink `fake` in a unit test.
    #[cfg(test)]
    pub(crate) fn of_a_test(group: &str, topics: &[&str]) -> Self {
        Self {
            sink: "fake".to_owned(),
            group: group.to_owned(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            dead_letter_topic: "dead".to_owned(),
            limits: BatchLimits::default(),
            shape: Shape::everything(),
            start_at: StartAt::Oldest,
            accept_gaps: Vec::new(),
            progress_topic: "progress".to_owned(),
            drain: Duration::ZERO,
            until_caught_up: false,
            replays: None,
        }
    }
}

/// How a worker ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its last state.
    pub status: WorkerStatus,
    /// Whether everything that it had sealed was written and settled. If not, no data is lost: the next owner writes
    /// the same batches.
    pub drained: bool,
}

impl WorkerError {
    /// The error without the sink's name, for where that stands beside it.
    pub fn reason(&self) -> String {
        match self {
            Self::Bus { source, .. } => source.to_string(),
            Self::Settings { reason, .. } => reason.clone(),
            Self::Descriptors { .. } => NO_DESCRIPTORS.to_owned(),
            Self::Stopped { partition, reason, .. } => format!("{partition} is stopped: {reason}"),
            Self::Resting { state, reason, .. } => format!("it is {state} {reason}{RESUME}"),
        }
    }
}

const RESUME: &str = ": nothing more is written, and its records stay on the bus; `tallybus ctl resume` ends that";
const NO_DESCRIPTORS: &str = "this process has run out of file descriptors, so it cannot connect; its records stay on the bus: \
                              raise the limit of open files (`ulimit -n`, or `LimitNOFILE=` in a systemd unit)";

/// Why a worker cannot run.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// An error of the bus.
    #[error("sink {sink}: {source}")]
    Bus {
        /// The sink's name.
        sink: String,
        /// The cause.
        source: BusError,
    },
    /// The settings are invalid.
    #[error("sink {sink}: {reason}")]
    Settings {
        /// The sink's name.
        sink: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A worker that shall run until caught up cannot open another file or connection.
    #[error("sink {sink}: {NO_DESCRIPTORS}")]
    Descriptors {
        /// The sink's name.
        sink: String,
    },
    /// A worker that shall run until caught up is to rest.
    #[error("sink {sink}: it is {state} {reason}{RESUME}")]
    Resting {
        /// The sink's name.
        sink: String,
        /// `paused` or `drained`.
        state: &'static str,
        /// By whom, since when, and why.
        reason: String,
    },
    /// A worker that shall run until caught up has a partition that cannot continue.
    #[error("sink {sink}: {partition} is stopped: {reason}")]
    Stopped {
        /// The sink's name.
        sink: String,
        /// Which partition.
        partition: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// Stops a worker and shows its status, from another thread.
#[derive(Debug, Clone, Default)]
pub struct WorkerHandle {
    stop: Arc<AtomicBool>,
    pub(super) status: SharedStatus,
    wanted: Arc<WantedCell>,
    pub(super) retries: RetryNow,
}

impl WorkerHandle {
    /// Says what operators want of the worker, which follows it from its next iteration on.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.set(wanted);
    }

    /// What is wanted, when that has changed since `seen`, which is updated.
    pub(super) fn news(&self, seen: &mut u64) -> Option<Wanted> {
        self.wanted.news(seen)
    }

    /// Ends the waits before backends are asked again.
    pub(crate) fn retries(&self) -> &RetryNow {
        &self.retries
    }

    /// The worker has ended by itself, for this reason.
    pub(crate) fn ended(&self, reason: String) {
        self.status.update(|status| status.ended = Some(reason));
    }

    /// Requests a graceful stop: sealed batches are written and settled, everything else stays on the bus.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// The worker's current status.
    pub fn status(&self) -> WorkerStatus {
        self.status.snapshot()
    }

    /// What the worker has counted.
    pub fn counters(&self) -> CounterValues {
        self.status.counters().values()
    }

    /// Shows this status, as a worker does.
    #[cfg(test)]
    pub(crate) fn show(&self, status: WorkerStatus) {
        self.status.update(|shown| *shown = status);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_sink_once_and_its_reason_does_not() {
        let sink = || "a".to_owned();
        for error in [
            WorkerError::Bus { sink: sink(), source: BusError::Unavailable("no broker".to_owned()) },
            WorkerError::Settings { sink: sink(), reason: "no such topic".to_owned() },
            WorkerError::Descriptors { sink: sink() },
            WorkerError::Resting { sink: sink(), state: "drained", reason: "by ada@desk".to_owned() },
            WorkerError::Stopped { sink: sink(), partition: "t/0".to_owned(), reason: "it is gone".to_owned() },
        ] {
            assert_eq!(error.to_string(), format!("sink a: {}", error.reason()));
        }
    }
}
