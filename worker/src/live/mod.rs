//! What a worker process shows of itself: endpoints over HTTP, and heartbeats on the bus. Neither takes part in counting, and
//! both go on while the bus or a backend hangs: each has a thread of its own.

mod addressee;
mod document;
mod endpoints;
mod heartbeat;
mod respond;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tallybus_sdk::text::clip;
use tokio::task::AbortHandle;

pub(crate) use self::addressee::Addressee;
pub use self::document::{
    ControlDocument, DOCUMENT_VERSION, HaltedPartition, PartitionDocument, ProcessState, SinkDocument, SinkState,
    StatusDocument, millis,
};
pub(crate) use self::document::{Lag, split_place};
pub use self::endpoints::{Endpoints, EndpointsError};
pub use self::heartbeat::{HEARTBEAT_EVERY, Heartbeat};
use crate::control::ControlCounts;
use crate::counters::CounterValues;
use crate::duty::Duty;
use crate::settings::ControlMode;
use crate::status::WorkerStatus;
use crate::supervisor::{Running, Stop};
use crate::worker::WorkerHandle;

/// How long a worker's loop may be silent before it counts as hanging. A healthy one waits up to two minutes in one place, for a
/// broker that does not answer a commit while a partition is given up.
pub const MAX_SILENCE: Duration = Duration::from_secs(180);

/// The most bytes of the reason for which a worker does not run.
const MAX_REASON: usize = 500;

/// What a process was built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildInfo {
    /// The version.
    pub version: &'static str,
    /// The commit; `unknown` where that is not known.
    pub commit: &'static str,
}

/// A process that runs workers. Cheap to share.
#[derive(Debug, Clone)]
pub struct Process(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    id: String,
    host: String,
    name: String,
    /// From whom it takes commands, in a word.
    control: &'static str,
    control_counts: ControlCounts,
    build: BuildInfo,
    bus: String,
    started: SystemTime,
    started_at: Instant,
    stop: Stop,
    workers: Mutex<Option<Vec<Watched>>>,
    heartbeats: HeartbeatCounts,
}

/// A worker of the process.
#[derive(Debug, Clone)]
struct Watched {
    name: String,
    kind: &'static str,
    group: String,
    /// `None` when it could not start.
    handle: Option<WorkerHandle>,
    /// The check of its backend, which ends once the backend is ready.
    check: Option<AbortHandle>,
}

/// What a worker of the process looks like at one moment.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) group: String,
    pub(crate) is_ready: bool,
    /// `None` when the worker could not start.
    pub(crate) worker: Option<WorkerView>,
}

#[derive(Debug)]
pub(crate) struct WorkerView {
    pub(crate) status: WorkerStatus,
    pub(crate) counters: CounterValues,
    /// Since its loop last ran.
    pub(crate) silent: Duration,
}

impl View {
    pub(crate) fn is_up(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.silent <= MAX_SILENCE && worker.status.ended.is_none())
    }
}

/// How many heartbeats there were.
#[derive(Debug, Default)]
struct HeartbeatCounts {
    published: AtomicU64,
    failed: AtomicU64,
}

impl Process {
    /// A process that has not started its workers yet. `bus`: as the bus describes itself, without secrets.
    pub fn new(build: BuildInfo, bus: &str, stop: Stop) -> Self {
        Self::controlled(build, bus, stop, None, &ControlMode::Off)
    }

    /// The same, of a process that takes commands from these, under this name or else under that of its host.
    pub fn controlled(build: BuildInfo, bus: &str, stop: Stop, name: Option<&str>, mode: &ControlMode) -> Self {
        let (id, host) = (new_id(), host_name());
        // A process without a host's name is addressed by its id.
        let of_host = || if host.is_empty() { id.clone() } else { host.clone() };
        Self(Arc::new(Shared {
            name: name.map_or_else(of_host, ToOwned::to_owned),
            control: mode.name(),
            control_counts: ControlCounts::default(),
            id,
            host,
            build,
            bus: bus.to_owned(),
            started: SystemTime::now(),
            started_at: Instant::now(),
            stop,
            workers: Mutex::new(None),
            heartbeats: HeartbeatCounts::default(),
        }))
    }

    /// Names this life of the process: random, because a process id is used again.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The name under which operators address it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Commands and desired states that were taken and refused.
    pub(crate) fn control_counts(&self) -> &ControlCounts {
        &self.0.control_counts
    }

    /// The workers as operators address them; none before they were started.
    pub(crate) fn addressees(&self) -> Vec<Addressee> {
        let workers = self.workers();
        workers.iter().flatten().map(|watched| Addressee::of(self, watched)).collect()
    }

    /// Shows these workers from now on.
    pub fn watch<'r>(&self, workers: impl IntoIterator<Item = &'r Running>) {
        let workers = workers.into_iter().map(|running| Watched {
            name: running.name().to_owned(),
            kind: running.kind(),
            group: running.group().to_owned(),
            handle: running.handle().cloned(),
            check: running.check(),
        });
        *self.workers() = Some(workers.collect());
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, Option<Vec<Watched>>> {
        self.0.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workers now; `None` before they were started.
    pub(crate) fn views(&self) -> Option<Vec<View>> {
        let workers = self.workers().clone()?;
        let view = |watched: Watched| {
            let worker = watched.handle.map(|handle| {
                let status = handle.status();
                let silent = status.last_run.unwrap_or(self.0.started_at).elapsed();
                WorkerView { counters: handle.counters(), silent, status }
            });
            View {
                name: watched.name,
                kind: watched.kind,
                group: watched.group,
                is_ready: watched.check.is_some_and(|check| check.is_finished()),
                worker,
            }
        };
        Some(workers.into_iter().map(view).collect())
    }

    pub(crate) fn build(&self) -> BuildInfo {
        self.0.build
    }

    pub(crate) fn started(&self) -> SystemTime {
        self.0.started
    }

    /// Whether the bus does not answer one of the workers, which that worker reports.
    fn is_bus_failing(&self) -> bool {
        let workers = self.workers();
        workers
            .iter()
            .flatten()
            .filter_map(|watched| watched.handle.as_ref())
            .any(|handle| handle.status().is_bus_failing)
    }

    /// Heartbeats confirmed, and failed.
    pub(crate) fn heartbeats(&self) -> (u64, u64) {
        let counts = &self.0.heartbeats;
        (counts.published.load(Ordering::Relaxed), counts.failed.load(Ordering::Relaxed))
    }

    fn heartbeat_ended(&self, is_published: bool) {
        let counts = &self.0.heartbeats;
        let counter = if is_published { &counts.published } else { &counts.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Why the process is not alive, as a liveness probe asks; empty when it is. One that waits for its bus or its backend is
    /// alive: a restart would not help.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.views().map(|views| faults_of(&views)).unwrap_or_default()
    }

    /// What keeps the process from being ready: the faults, a bus that is waited for, backends that were not ready once since the
    /// start, and sinks of which every partition here is halted: they do nothing before an operator has acted. A sink whose other
    /// partitions go on is ready.
    pub(crate) fn obstacles(&self) -> Vec<String> {
        let Some(views) = self.views() else { return vec![WAITING_FOR_BUS.to_owned()] };
        let mut found = faults_of(&views);
        let waits = views.iter().filter(|view| view.worker.is_some() && !view.is_ready);
        found.extend(waits.map(|view| not_ready(&view.name)));
        let halted = views.iter().filter_map(|view| {
            let status = &view.worker.as_ref()?.status;
            status.is_wholly_halted().then(|| all_halted(&view.name, &status.halts()))
        });
        found.extend(halted);
        // One that is paused keeps its partitions: nothing else would take its work over.
        let resting = views.iter().filter_map(|view| {
            let duty = &view.worker.as_ref()?.status.duty;
            let is_out = duty.is_drained() || matches!(duty, Duty::Waiting(_));
            let reason = duty.reason().filter(|_| is_out)?;
            Some(format!("{}: {}", view.name, clip(&reason, MAX_REASON)))
        });
        found.extend(resting);
        found
    }
}

/// Why workers are not alive.
fn faults_of(views: &[View]) -> Vec<String> {
    let fault = |view: &View| match &view.worker {
        None => Some(could_not_start(&view.name)),
        Some(_) if view.is_up() => None,
        Some(WorkerView { status: WorkerStatus { ended: Some(reason), .. }, .. }) => {
            Some(format!("{}: has ended: {}", view.name, clip(reason, MAX_REASON)))
        }
        Some(worker) => Some(is_silent(&view.name, worker.silent)),
    };
    views.iter().filter_map(fault).collect()
}

/// Why a process whose bus has not answered yet is not ready.
pub const WAITING_FOR_BUS: &str = "waiting for the bus";

/// Why a worker that could not start is not alive.
pub fn could_not_start(sink: &str) -> String {
    format!("{sink}: could not start; see its log")
}

/// Why a worker whose loop has not run for so long is not alive.
pub fn is_silent(sink: &str, silent: Duration) -> String {
    format!("{sink}: silent for {} s: it hangs or has ended; see its log", silent.as_secs())
}

/// Why a worker whose backend was not ready once is not ready.
pub fn not_ready(sink: &str) -> String {
    format!("{sink}: the backend is not ready yet; see its log")
}

/// Why a sink of which every partition is halted is not ready.
pub fn all_halted(sink: &str, reasons: &[String]) -> String {
    format!("{sink}: every partition is halted and needs operator action: {}", reasons.join("; "))
}

/// 64 random bits, in hexadecimal.
fn new_id() -> String {
    let random = std::hash::RandomState::new();
    format!("{:016x}", random.hash_one((std::process::id(), SystemTime::now())))
}

/// The name of the host, or of the pod; empty where it is unknown.
pub fn host_name() -> String {
    let variable = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let of_system = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    variable.or_else(of_system).map(|name| name.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::status::{HaltCause, PartitionState, PartitionStatus};

    pub(crate) const BUILD: BuildInfo = BuildInfo { version: "1.2.3", commit: "abc" };

    /// A process with one worker in this state, whose loop ran just now.
    pub(crate) fn process(status: WorkerStatus) -> Process {
        let process = Process::new(BUILD, "embedded bus x", Stop::default());
        let handle = WorkerHandle::default();
        handle.show(WorkerStatus { last_run: Some(Instant::now()), ..status });
        let watched = Watched {
            name: "influx".to_owned(),
            kind: "influxdb",
            group: "tallybus.influx".to_owned(),
            handle: Some(handle),
            check: None,
        };
        *process.workers() = Some(vec![watched]);
        process
    }

    /// A worker that is behind in one partition, and halted in another.
    pub(crate) fn status() -> WorkerStatus {
        let oldest = SystemTime::now() - Duration::from_secs(30);
        let behind = PartitionStatus {
            settled: 5,
            next: 9,
            end: Some(12),
            oldest: Some(oldest),
            state: PartitionState::Running,
        };
        let state = PartitionState::Stopped { cause: HaltCause::Recreated, reason: "was recreated".to_owned() };
        let halted = PartitionStatus { settled: 0, next: 0, end: None, oldest: None, state };
        WorkerStatus {
            events: 70,
            value: u128::from(u64::MAX) + 1,
            messages: 5,
            partitions: [("a/b.c/0".to_owned(), behind), ("a/b.c/1".to_owned(), halted)].into(),
            ..WorkerStatus::default()
        }
    }

    #[test]
    fn a_process_is_ready_when_its_bus_and_its_backends_were_and_alive_while_its_loops_run() {
        let waiting = Process::new(BUILD, "x", Stop::default());
        assert_eq!((waiting.faults(), waiting.obstacles()), (vec![], vec!["waiting for the bus".to_owned()]));
        let working = process(status());
        assert_eq!(working.faults(), [""; 0]);
        assert_eq!(working.obstacles(), ["influx: the backend is not ready yet; see its log"]);
        if let Some(workers) = working.workers().as_mut() {
            workers[0].handle = None;
        }
        assert_eq!(working.faults(), ["influx: could not start; see its log"]);
        let mut halted = status();
        halted.partitions.retain(|_, partition| partition.state != PartitionState::Running);
        assert_eq!(process(halted.clone()).faults(), [""; 0], "a restart would not help");
        let obstacle = "influx: every partition is halted and needs operator action: a/b.c/1: was recreated";
        assert_eq!(process(halted).obstacles()[1..], [obstacle]);
        let hangs = process(status());
        if let Some(handle) = hangs.workers().as_ref().and_then(|workers| workers[0].handle.clone()) {
            let long_ago = Instant::now().checked_sub(MAX_SILENCE + Duration::from_secs(2)).unwrap();
            handle.show(WorkerStatus { last_run: Some(long_ago), ..status() });
        }
        assert!(hangs.faults()[0].starts_with("influx: silent for 182 s"), "{:?}", hangs.faults());
    }

    #[test]
    fn every_life_of_a_process_has_another_id() {
        let ids: std::collections::BTreeSet<String> = (0..100).map(|_| new_id()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.len() == 16));
    }
}
