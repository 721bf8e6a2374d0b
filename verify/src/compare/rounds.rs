//! One run of one sink over the whole copy, into a destination of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::Bus;
use tallybus_sdk::clock::Clock;
use tallybus_sdk::{BackendVersion, ShadowName, Sink, Storage, Usage};
use tallybus_worker::settings::{BusSettings, SinkSettings};
use tallybus_worker::supervisor::{Ended, Running, Stop};
use tallybus_worker::{OnRefusal, prepare_topics};
use tallybus_worker::{WorkerOptions, WorkerStatus};
use tokio::runtime::Handle;

use super::destinations::Destinations;
use super::measured::Writes;
use super::{CompareError, Completeness, Known, Round, StorageTaken, StreamState, UsageFigure, Watch};
use crate::audit::{self, Audit, AuditedSink, Demands};

/// How often the worker's state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a worker may stand still.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a worker that is halted may take to recover.
const HALT_PATIENCE: Duration = Duration::from_secs(3);
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a backend may take to say how much storage it takes.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);

/// What a sink calls its requests, in its usage.
const REQUESTS: &[&str] = &["requests", "round trips", "inserts", "files"];
/// What it calls the bytes that it sends.
const BYTES: &[&str] = &["bytes", "bytes sent", "SQL bytes", "staged bytes"];

/// What every run needs.
pub(super) struct Stage<'a> {
    /// The bus with the copy.
    pub(super) bus: Arc<dyn Bus>,
    /// Its settings.
    pub(super) settings: &'a BusSettings,
    pub(super) runtime: &'a Handle,
    pub(super) clock: Arc<dyn Clock>,
}

/// A sink with a destination of its own.
pub(super) struct Shadow {
    pub(super) settings: SinkSettings,
    pub(super) name: ShadowName,
    pub(super) writes: Writes,
}

/// What a run came to.
pub(super) struct Ran {
    pub(super) round: Round,
    pub(super) completeness: Completeness,
    pub(super) storage: Known<StorageTaken>,
    pub(super) version: Known<String>,
}

/// Why a run has no result.
pub(super) enum RunError {
    /// The sink could not do it.
    Sink(String),
    /// The comparison cannot go on.
    Compare(CompareError),
}

impl From<CompareError> for RunError {
    fn from(error: CompareError) -> Self {
        Self::Compare(error)
    }
}

impl Shadow {
    /// Creates the destination. `namespace` makes its groups new ones.
    pub(super) fn create(
        make: &dyn Fn(&ShadowName) -> Result<SinkSettings, String>,
        namespace: &str,
        destinations: &mut Destinations,
    ) -> Result<Self, RunError> {
        let name = destinations.next_name()?;
        let mut settings = make(&name).map_err(RunError::Sink)?;
        namespace.clone_into(&mut settings.namespace);
        let writes = Writes::default();
        let build = std::mem::replace(&mut settings.build, Box::new(|_| Err(unbuilt())));
        settings.build = writes.wrap(build);
        let sink = settings.make().map_err(|error| RunError::Sink(error.to_string()))?;
        destinations.create(&settings.name, &name, sink).map_err(RunError::Sink)?;
        Ok(Self { settings, name, writes })
    }

    /// Starts its worker.
    pub(super) fn start(&self, stage: &Stage<'_>, until_caught_up: bool) -> Result<Running, CompareError> {
        prepare_topics(&stage.bus, stage.settings, &[&self.settings], &stage.clock, &Stop::default(), OnRefusal::Fail)?;
        let options = WorkerOptions { until_caught_up, ..self.settings.worker_options() };
        let (bus, clock) = (Arc::clone(&stage.bus), Arc::clone(&stage.clock));
        Ok(Running::start(&self.settings, options, bus, stage.runtime, clock))
    }

    /// A connection of its own to its destination.
    pub(super) fn connect(&self) -> Result<Arc<dyn Sink>, String> {
        self.settings.make().map_err(|error| error.to_string())
    }
}

fn unbuilt() -> tallybus_sdk::SinkError {
    tallybus_sdk::SinkError::Halt("this sink is not built again".to_owned())
}

/// Writes the whole copy, and audits it.
pub(super) fn run(stage: &Stage<'_>, shadow: &Shadow, number: u64, watch: &mut dyn Watch) -> Result<Ran, RunError> {
    let running = shadow.start(stage, true)?;
    let ended = wait(running, stage.runtime, watch)?;
    let status = match &ended.outcome {
        Ok(outcome) => &outcome.status,
        Err(reason) => return Err(RunError::Sink(reason.clone())),
    };
    let sink = shadow.connect().map_err(RunError::Sink)?;
    let completeness = audit(stage, &shadow.settings, Arc::clone(&sink), Some(number));
    let storage = storage(stage.runtime, sink.as_ref());
    let version = version(stage.runtime, sink.as_ref());
    stage.runtime.block_on(sink.close());
    let sent = Sent::of(&ended.usage, sink.without_network());
    let round = round(number, shadow, status, &ended.usage, sent, &storage);
    Ok(Ran { round, completeness: completeness?, storage, version })
}

/// Waits until the worker has caught up.
fn wait(running: Running, runtime: &Handle, watch: &mut dyn Watch) -> Result<Ended, RunError> {
    let status = || running.handle().map(tallybus_worker::WorkerHandle::status).unwrap_or_default();
    let progress = |status: &WorkerStatus| (status.batches, status.requests, status.events);
    let (mut last, mut since, mut halted_since) = (progress(&status()), Instant::now(), None);
    let failure = loop {
        if running.has_ended() {
            break None;
        }
        if watch.is_stopped() {
            break Some(RunError::Compare(CompareError::Interrupted));
        }
        let status = status();
        if progress(&status) != last {
            (last, since) = (progress(&status), Instant::now());
        }
        let halts = status.halts();
        match halts.is_empty() {
            true => halted_since = None,
            false if halted_since.get_or_insert_with(Instant::now).elapsed() >= HALT_PATIENCE => {
                break Some(RunError::Sink(format!("halted: {}", halts.join("; "))));
            }
            false => {}
        }
        if since.elapsed() >= PATIENCE {
            let why = status.failure().map(|failure| format!(": {failure}")).unwrap_or_default();
            break Some(RunError::Sink(format!("it did not advance for {} s{why}", PATIENCE.as_secs())));
        }
        std::thread::sleep(LOOK_EVERY);
    };
    running.handle().into_iter().for_each(tallybus_worker::WorkerHandle::stop);
    let ended = running.wait(runtime);
    failure.map_or(Ok(ended), Err)
}

/// What a worker has sent to its backend.
#[derive(Debug, PartialEq)]
struct Sent {
    requests: Known<f64>,
    bytes: Known<f64>,
}

impl Sent {
    /// `without_network`: why nothing was sent.
    fn of(usage: &[Usage], without_network: Option<&str>) -> Self {
        let counted = |names: &[&str], uncounted: &str| {
            let amounts: Vec<f64> =
                usage.iter().filter(|usage| names.contains(&usage.what)).map(|usage| usage.amount).collect();
            match amounts.is_empty() {
                true => Known::unknown(without_network.unwrap_or(uncounted)),
                false => Known::Is(amounts.iter().sum()),
            }
        };
        Self {
            requests: counted(REQUESTS, "this kind of sink does not count its requests"),
            bytes: counted(BYTES, "this kind of sink does not count the bytes that it sends"),
        }
    }
}

fn round(
    number: u64,
    shadow: &Shadow,
    status: &WorkerStatus,
    usage: &[Usage],
    sent: Sent,
    storage: &Known<StorageTaken>,
) -> Round {
    let writes = &shadow.writes;
    let counts = writes.counts();
    let lasted = status.last_settled.and_then(|settled| writes.lasted_until(settled));
    let none = "nothing was written";
    Round {
        number,
        seconds: lasted.map_or_else(|| Known::unknown(none), |lasted| Known::Is(lasted.as_secs_f64())),
        events: writes.events(),
        events_per_second: writes.pace().and_then(|pace| pace.rate()).map_or_else(|| Known::unknown(none), Known::Is),
        batches: status.batches,
        writes: counts.writes,
        points: counts.points,
        write_seconds: writes.write_seconds(),
        write_points: writes.write_points(),
        retries: counts.retries,
        splits: counts.splits,
        rejections: counts.rejections,
        halts: counts.halts,
        requests: sent.requests,
        bytes: sent.bytes,
        usage: usage.iter().map(|usage| UsageFigure { what: usage.what.to_owned(), amount: usage.amount }).collect(),
        storage: storage.clone().map(|storage| storage.bytes),
    }
}

/// What the destination holds against everything that its bus has.
pub(super) fn audit(
    stage: &Stage<'_>,
    settings: &SinkSettings,
    sink: Arc<dyn Sink>,
    round: Option<u64>,
) -> Result<Completeness, RunError> {
    let audited = [AuditedSink::of(settings, sink)];
    let observer = stage.bus.observer().map_err(CompareError::from)?;
    let topic = settings.topics.first().map_or(stage.settings.topic.as_str(), String::as_str);
    let input = Audit {
        bus: stage.bus.as_ref(),
        observer: observer.as_ref(),
        topic,
        encodings: &stage.settings.encodings,
        sinks: &audited,
        range: tallybus_sdk::TimeRange::default(),
        window: 0,
        details: 0,
        now: super::wall_nanos(stage.clock.as_ref())?,
        stall_timeout: STALL_TIMEOUT,
        runtime: stage.runtime,
    };
    let report = audit::run(&input, &mut |_, _| {}).map_err(CompareError::from)?;
    let Some(sink) = report.sinks.first() else { return Err(RunError::Sink("it was not audited".to_owned())) };
    match &sink.outcome {
        Ok(findings) => Ok(Completeness::of(findings, &sink.verdicts(&Demands::default()), round, StreamState::AtRest)),
        Err(reason) => Err(RunError::Sink(format!("it could not be audited: {reason}"))),
    }
}

/// The storage that the destination takes now; something was written to it.
pub(super) fn storage(runtime: &Handle, sink: &dyn Sink) -> Known<StorageTaken> {
    let Some(read_back) = sink.read_back() else { return Known::unknown("this kind of sink cannot be read back") };
    match runtime.block_on(async { tokio::time::timeout(ASK_TIMEOUT, read_back.storage()).await }) {
        // What was written takes some: a backend that counts late has not counted it.
        Ok(Ok(Storage::Bytes { bytes: 0, what })) => Known::unknown(format!("not counted yet: {what}")),
        Ok(Ok(Storage::Bytes { bytes, what })) => Known::Is(StorageTaken { bytes, what: what.to_owned() }),
        Ok(Ok(Storage::NotOffered(reason))) => Known::unknown(reason),
        Ok(Ok(_)) => Known::unknown("an answer that this version does not know"),
        Ok(Err(error)) => Known::unknown(error),
        Err(_) => Known::unknown(format!("no answer within {} s", ASK_TIMEOUT.as_secs())),
    }
}

/// The backend's version.
pub(super) fn version(runtime: &Handle, sink: &dyn Sink) -> Known<String> {
    let Some(read_back) = sink.read_back() else { return Known::unknown("this kind of sink cannot be read back") };
    match runtime.block_on(async { tokio::time::timeout(ASK_TIMEOUT, read_back.version()).await }) {
        Ok(Ok(BackendVersion::Is(version))) => Known::Is(version),
        Ok(Ok(BackendVersion::NotOffered(reason))) => Known::unknown(reason),
        Ok(Ok(_)) => Known::unknown("an answer that this version does not know"),
        Ok(Err(error)) => Known::unknown(error),
        Err(_) => Known::unknown(format!("no answer within {} s", ASK_TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sink_does_not_count_is_unknown_and_without_a_network_not_offered_but_never_nothing() {
        let usage = [Usage::of("round trips", 7), Usage::of("transactions", 2), Usage::of("bytes sent", 0)];
        assert_eq!(Sent::of(&usage, None), Sent { requests: Known::Is(7.0), bytes: Known::Is(0.0) });
        let uncounted = Sent::of(&[Usage::of("rows", 5)], None);
        assert!(uncounted.requests.reason().unwrap().contains("requests"), "{uncounted:?}");
        assert!(uncounted.bytes.reason().unwrap().contains("bytes"), "{uncounted:?}");
        let file = Sent::of(&[], Some("not offered: a file"));
        assert_eq!(
            (file.requests.reason(), file.bytes.reason()),
            (Some("not offered: a file"), Some("not offered: a file"))
        );
    }
}
