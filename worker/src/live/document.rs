//! The status of a worker process as JSON: the page `/status`, and the heartbeats on the bus. `docs/status.schema.json`
//! describes it.

mod control;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tallybus_sdk::text::clip;

pub use self::control::ControlDocument;
use self::control::of_duty;
use super::{Process, View, WorkerView};
use crate::counters::{Answer, GroupChange, Label, RetryReason, Values};
use crate::status::{HaltCause, PartitionState, PartitionStatus, WorkerStatus};

/// The version of the document. Keys may be added to a version; readers ignore those that they do not know.
pub const DOCUMENT_VERSION: u32 = 1;

/// The most partitions of a process that are listed; the others are counted. With them a document has less than 1 MB, which a
/// broker takes by default.
const MAX_PARTITIONS: usize = 1_000;
/// The most bytes of an error that are shown.
const MAX_TEXT: usize = 500;
/// The most bytes of a reason that are shown beside a partition; the beginning of the same reason is in `halts`.
const MAX_REASON: usize = 300;
/// The most reasons of halts that are listed.
const MAX_HALTS: usize = 10;

/// The status of a worker process at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// [`DOCUMENT_VERSION`].
    pub version: u32,
    /// Names this life of the process; random.
    pub worker: String,
    /// What the process is doing.
    pub state: ProcessState,
    /// The host or pod that it runs on; empty where it is unknown.
    pub host: String,
    /// The name under which operators address it: `sink/NAME@name`.
    #[serde(default)]
    pub name: String,
    /// From whom it takes commands: `off`, `unsigned` or `signed`.
    #[serde(default)]
    pub control: String,
    /// Its process id on that host.
    pub pid: u32,
    /// The version that it was built from.
    pub build: String,
    /// The commit that it was built from; `unknown` where that is not known.
    pub commit: String,
    /// When it started: milliseconds since the Unix epoch, by its own clock.
    pub started_ms: i64,
    /// When this was written, by the same clock.
    pub time_ms: i64,
    /// Its bus and the bus's place, without secrets.
    pub bus: String,
    /// Its sinks, in the order of their names.
    pub sinks: Vec<SinkDocument>,
    /// Partitions that are not listed, because there are too many.
    #[serde(default)]
    pub partitions_left_out: u64,
}

/// What a worker process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It waits for the bus; no worker was started.
    Starting,
    /// Its workers run.
    Running,
    /// It was asked to stop.
    Stopping,
    /// It has stopped its workers and ends: the last document of this process.
    Left,
}

/// The status of a sink's worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkDocument {
    /// The sink's name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its consumer group.
    pub group: String,
    /// What the worker is doing.
    pub state: SinkState,
    /// Whether the backend was ready once since the start.
    pub ready: bool,
    /// Milliseconds since the worker's loop last ran; absent when the worker could not start.
    pub silent_ms: Option<u64>,
    /// Messages of its partitions that are not settled; absent while it is unknown.
    pub lag_messages: Option<u64>,
    /// Age of the oldest of them in seconds, 0 without any; absent while it is unknown.
    pub lag_seconds: Option<f64>,
    /// Its timestamp: milliseconds since the Unix epoch; absent without any, and while it is unknown.
    pub oldest_unsettled_ms: Option<i64>,
    /// Events settled since the start.
    pub events: u64,
    /// Their value, as a decimal number: it may be larger than JSON's numbers.
    pub value: String,
    /// Offsets settled since the start.
    pub messages: u64,
    /// Points settled since the start.
    pub points: u64,
    /// Batches settled since the start.
    pub batches: u64,
    /// Batches sealed since the start.
    pub seals: u64,
    /// Dead letters published since the start.
    pub dead_letters: u64,
    /// The backend's answers since the start, by kind.
    pub answers: BTreeMap<String, u64>,
    /// Repeated requests since the start, by reason.
    pub retries: BTreeMap<String, u64>,
    /// Changes of what the worker owns in its group since the start, by kind.
    pub rebalances: BTreeMap<String, u64>,
    /// Commits refused or unanswered since the start.
    pub failed_commits: u64,
    /// Approximate size of the batches encoded since the start.
    pub encoded_bytes: u64,
    /// Memory of the batches now, in bytes.
    pub memory_bytes: u64,
    /// What keeps the worker from advancing; absent when nothing does.
    pub last_error: Option<String>,
    /// What operators want of it, and how far it is with that; absent while nothing is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlDocument>,
    /// Why it is halted, each reason once; the first ten.
    pub halts: Vec<String>,
    /// Workers wanted for the partitions of this worker.
    pub wanted_workers: u32,
    /// Why the number of workers should stay as it is; absent while more or fewer would serve.
    pub hold: Option<String>,
    /// Its partitions.
    pub partitions: Vec<PartitionDocument>,
}

/// What a sink's worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkState {
    /// It could not start.
    Failed,
    /// Its loop does not run: it hangs or has ended.
    Silent,
    /// It does not know yet whether it may run.
    Waiting,
    /// It shall be drained, and something of it is not settled yet.
    Draining,
    /// It has left its group, with everything settled that it had sealed.
    Drained,
    /// It shall be paused, and something of it is not settled yet.
    Pausing,
    /// It keeps its partitions, seals nothing, and everything is settled that it had sealed.
    Paused,
    /// Something does not advance before an operator has acted.
    Halted,
    /// Something fails and is retried.
    Retrying,
    /// It owns no partition: all belong to other workers, or none was assigned yet.
    Idle,
    /// It reads and writes.
    Running,
    /// A state of a later version.
    #[serde(other)]
    Unknown,
}

impl SinkState {
    /// The state in a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Silent => "silent",
            Self::Waiting => "waiting",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Halted => "halted",
            Self::Retrying => "retrying",
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it seals nothing because an operator wants it so.
    pub fn is_resting(self) -> bool {
        matches!(self, Self::Draining | Self::Drained | Self::Pausing | Self::Paused)
    }
}

/// A partition that a worker owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionDocument {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Everything below this offset is settled; absent for a halted partition, which the worker does not read.
    pub settled: Option<u64>,
    /// The next offset to be read; absent as `settled` is.
    pub next: Option<u64>,
    /// The next offset to be written by producers; absent while it is unknown.
    pub end: Option<u64>,
    /// The timestamp of the oldest message that is not settled: milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// Why it is halted; absent while it is not.
    pub halted: Option<HaltedPartition>,
}

/// Why a partition is halted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaltedPartition {
    /// The kind of reason.
    pub cause: String,
    /// Why, what is safe and what to do.
    pub reason: String,
}

impl Process {
    /// The status now.
    pub fn document(&self) -> StatusDocument {
        let views = self.views();
        let state = match &views {
            _ if self.0.stop.is_asked() => ProcessState::Stopping,
            None => ProcessState::Starting,
            Some(_) => ProcessState::Running,
        };
        let now = SystemTime::now();
        let mut budget = MAX_PARTITIONS;
        let mut document = StatusDocument { time_ms: millis(now), ..self.empty(state) };
        for view in views.iter().flatten() {
            let sink = sink(view, now, &mut budget);
            let owned = view.worker.as_ref().map_or(0, |worker| worker.status.partitions.len());
            document.partitions_left_out += (owned - sink.partitions.len()) as u64;
            document.sinks.push(sink);
        }
        document.sinks.sort_by(|a, b| a.name.cmp(&b.name));
        document
    }

    /// The last document of the process.
    pub(super) fn farewell(&self) -> StatusDocument {
        self.empty(ProcessState::Left)
    }

    fn empty(&self, state: ProcessState) -> StatusDocument {
        let shared = &self.0;
        StatusDocument {
            version: DOCUMENT_VERSION,
            worker: shared.id.clone(),
            state,
            host: shared.host.clone(),
            name: shared.name.clone(),
            control: shared.control.to_owned(),
            pid: std::process::id(),
            build: shared.build.version.to_owned(),
            commit: shared.build.commit.to_owned(),
            started_ms: millis(shared.started),
            time_ms: millis(SystemTime::now()),
            bus: shared.bus.clone(),
            sinks: Vec::new(),
            partitions_left_out: 0,
        }
    }
}

fn sink(view: &View, now: SystemTime, budget: &mut usize) -> SinkDocument {
    let none = WorkerStatus::default();
    let worker = view.worker.as_ref();
    let status = worker.map_or(&none, |worker| &worker.status);
    let lag = Lag::of(status, now);
    let partitions: Vec<PartitionDocument> = status
        .partitions
        .iter()
        .take(*budget)
        .map(|(at, partition)| partition_document(status, at, partition))
        .collect();
    *budget -= partitions.len();
    let counted = |of: fn(&WorkerView) -> BTreeMap<String, u64>| worker.map(of).unwrap_or_default();
    SinkDocument {
        name: view.name.clone(),
        kind: view.kind.to_owned(),
        group: view.group.clone(),
        state: state(view),
        ready: view.is_ready,
        silent_ms: worker.map(|worker| u64::try_from(worker.silent.as_millis()).unwrap_or(u64::MAX)),
        lag_messages: lag.messages,
        lag_seconds: lag.time.map(|time| (time.as_secs_f64() * 1e3).round() / 1e3),
        oldest_unsettled_ms: lag.oldest.map(millis),
        events: status.events,
        value: status.value.to_string(),
        messages: status.messages,
        points: status.points,
        batches: status.batches,
        seals: worker.map_or(0, |worker| worker.counters.seals),
        dead_letters: status.dead_letters,
        answers: counted(|worker| by_label::<Answer>(&worker.counters.answers)),
        retries: counted(|worker| by_label::<RetryReason>(&worker.counters.retries)),
        rebalances: counted(|worker| by_label::<GroupChange>(&worker.counters.group_changes)),
        failed_commits: status.failed_commits,
        encoded_bytes: worker.map_or(0, |worker| worker.counters.encoded_bytes),
        memory_bytes: status.memory as u64,
        last_error: status.ended.as_ref().or(status.last_error.as_ref()).map(|error| clipped(error)),
        control: ControlDocument::of(&status.duty),
        halts: status.halts().iter().take(MAX_HALTS).map(|reason| clipped(reason)).collect(),
        wanted_workers: status.scale_hint.wanted,
        hold: status.scale_hint.hold.map(|hold| hold.name().to_owned()),
        partitions,
    }
}

fn state(view: &View) -> SinkState {
    let Some(worker) = &view.worker else { return SinkState::Failed };
    if !view.is_up() {
        SinkState::Silent
    } else if let Some(resting) = of_duty(&worker.status.duty) {
        resting
    } else if !worker.status.halts().is_empty() {
        SinkState::Halted
    } else if worker.status.last_error.is_some() {
        SinkState::Retrying
    } else if worker.status.partitions.is_empty() {
        SinkState::Idle
    } else {
        SinkState::Running
    }
}

/// How far a worker is behind, as far as that is known: while the bus does not answer, the ends of the partitions are not.
pub(crate) struct Lag {
    pub(crate) messages: Option<u64>,
    pub(crate) time: Option<Duration>,
    pub(crate) oldest: Option<SystemTime>,
}

impl Lag {
    const UNKNOWN: Self = Self { messages: None, time: None, oldest: None };

    pub(crate) fn of(status: &WorkerStatus, now: SystemTime) -> Self {
        if status.is_bus_failing {
            return Self::UNKNOWN;
        }
        Self { messages: status.lag(), time: status.lag_time(now), oldest: status.oldest() }
    }

    /// The lag in one partition.
    pub(crate) fn of_partition(status: &WorkerStatus, partition: &PartitionStatus, now: SystemTime) -> Self {
        if status.is_bus_failing {
            return Self::UNKNOWN;
        }
        Self { messages: partition.lag(), time: partition.lag_time(now), oldest: partition.oldest }
    }
}

/// Topic and number of a partition that is named `topic/partition`.
pub(crate) fn split_place(at: &str) -> (&str, &str) {
    at.rsplit_once('/').unwrap_or((at, "0"))
}

fn partition_document(status: &WorkerStatus, at: &str, partition: &PartitionStatus) -> PartitionDocument {
    let (topic, number) = split_place(at);
    let is_running = partition.state == PartitionState::Running;
    let halt = match &partition.state {
        PartitionState::Running => status.halt_by_backend(at).map(|reason| (HaltCause::Backend, reason)),
        PartitionState::Stopped { cause, reason } => Some((*cause, reason.as_str())),
    };
    let halted = halt.map(|(cause, reason)| HaltedPartition {
        cause: cause.name().to_owned(),
        reason: clip(reason, MAX_REASON).to_owned(),
    });
    PartitionDocument {
        topic: topic.to_owned(),
        partition: number.parse().unwrap_or_default(),
        settled: is_running.then_some(partition.settled),
        next: is_running.then_some(partition.next),
        end: partition.end,
        oldest_ms: partition.oldest.map(millis),
        halted,
    }
}

fn by_label<L: Label>(values: &Values) -> BTreeMap<String, u64> {
    values.iter::<L>().map(|(label, count)| (label.name().to_owned(), count)).collect()
}

fn clipped(text: &str) -> String {
    clip(text, MAX_TEXT).to_owned()
}

/// Milliseconds since the Unix epoch; negative before it.
pub fn millis(time: SystemTime) -> i64 {
    let of = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => of(since),
        Err(before) => -of(before.duration()),
    }
}

#[cfg(test)]
mod tests;
