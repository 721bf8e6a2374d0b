use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tallybus_bus::{Bus, BusError};
use tallybus_sinks::runtime::{Outcome, StopHandle, Worker, WorkerError, WorkerOptions};
use tallybus_sinks::settings::{BusSettings, Settings, SinkSettings, parse_duration};
use tallybus_sinks::{Sink, Usage};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use super::health::{HealthFile, Watched};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{count_of, grouped};
use crate::{Global, config};

/// A backend that is not as it must be is looked at again so often.
const CHECK_AGAIN: Duration = Duration::from_secs(5);
/// A bus that is away is asked again so often.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Run the workers of a configuration, or some of them.
///
/// They run until SIGTERM or Ctrl-C. A second signal ends at once; nothing is lost by that either.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Only this sink; repeatable.
    #[arg(long = "sink", value_name = "NAME")]
    sinks: Vec<String>,
    /// End once everything on the bus is written and settled.
    #[arg(long)]
    until_caught_up: bool,
    /// How long a stop waits for the batches in flight.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    drain: Duration,
    /// Write here every second how the workers are, for `tallybus health`.
    #[arg(long, value_name = "PATH")]
    health_file: Option<std::path::PathBuf>,
}

impl Run {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load_for(global, &self.sinks)?;
        let chosen = super::audit::select(&settings, &self.sinks)?;
        if chosen.is_empty() {
            return Err(Failure::could_not_look("there is nothing to run: add a table [sinks.NAME] to the settings"));
        }
        let runtime = super::start_runtime()?;
        let stop = Stop::default();
        stop.listen(runtime.handle())?;
        let health = self.health_file.as_deref().map(HealthFile::start).transpose()?;
        let bus = config::open_bus(&settings)?;
        if !prepare_topics(bus.as_ref(), &settings.bus, &chosen, &|| stop.is_asked())? {
            output.say("stopped before the bus could be reached: nothing was written");
            if output.json {
                output.report(&json!({ "sinks": [] }).to_string())?;
            }
            return Ok(if self.until_caught_up { Verdict::Bad } else { Verdict::Good });
        }

        let mut running = Vec::with_capacity(chosen.len());
        for &sink in &chosen {
            let mut options = sink.worker_options();
            options.drain = self.drain;
            options.until_caught_up = self.until_caught_up;
            running.push(Running::start(sink, options, Arc::clone(&bus), runtime.handle()));
        }
        if let Some(health) = &health {
            health.watch(running.iter().map(Running::watched).collect());
        }
        stop.watch(running.iter().filter_map(|running| running.handle.clone()).collect());

        let mut ended = Vec::with_capacity(running.len());
        for worker in running {
            ended.push(worker.wait(runtime.handle()));
        }
        self.summarise(&ended, output)?;
        let mut all_well = ended.iter().all(|ended| ended.outcome.is_ok());
        if self.until_caught_up && stop.is_asked() && all_well {
            let unfinished = unfinished(bus.as_ref(), &chosen);
            all_well = unfinished.is_none();
            if let Some(text) = unfinished {
                output.say(&text);
            }
        }
        Ok(if all_well { Verdict::Good } else { Verdict::Bad })
    }

    fn summarise(&self, ended: &[Ended], output: &Output) -> Result<(), Failure> {
        if output.json {
            let sinks: Vec<Value> = ended.iter().map(Ended::as_json).collect();
            return output.report(&json!({ "sinks": sinks }).to_string());
        }
        for ended in ended {
            output.say(&ended.line());
        }
        Ok(())
    }
}

/// Asks the workers to stop when a signal comes.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
    workers: Arc<std::sync::Mutex<Vec<StopHandle>>>,
}

impl Stop {
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(crate) fn listen(&self, runtime: &Handle) -> Result<(), Failure> {
        let _inside = runtime.enter();
        let failed = |error| Failure::failed(format!("cannot listen for signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let stop = self.clone();
        runtime.spawn(async move {
            loop {
                let status = tokio::select! {
                    _ = terminate.recv() => 143,
                    _ = interrupt.recv() => 130,
                };
                if stop.is_asked() {
                    tracing::warn!("ending at once; sealed batches are finished by the next worker");
                    std::process::exit(status);
                }
                tracing::info!("stopping: batches in flight are finished; another signal ends at once");
                stop.ask();
            }
        });
        Ok(())
    }

    fn ask(&self) {
        let workers = self.workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.asked.store(true, Ordering::Release);
        workers.iter().for_each(StopHandle::stop);
    }

    pub(crate) fn watch(&self, handles: Vec<StopHandle>) {
        let mut workers = self.workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.is_asked() {
            handles.iter().for_each(StopHandle::stop);
        }
        workers.extend(handles);
    }
}

/// A worker on its thread.
pub(crate) struct Running {
    name: String,
    sink: Option<Arc<dyn Sink>>,
    check: Option<tokio::task::JoinHandle<()>>,
    pub(crate) handle: Option<StopHandle>,
    thread: Result<JoinHandle<Result<Outcome, WorkerError>>, String>,
}

impl Running {
    /// Starts a worker; one that cannot start is told by [`Running::wait`] and hurts no other.
    pub(crate) fn start(settings: &SinkSettings, options: WorkerOptions, bus: Arc<dyn Bus>, runtime: &Handle) -> Self {
        let mut running = Self {
            name: settings.name.clone(),
            sink: None,
            check: None,
            handle: None,
            thread: Err("not started".to_owned()),
        };
        running.thread = running.try_start(settings, options, bus, runtime);
        if let Err(reason) = &running.thread {
            tracing::error!(sink = settings.name, reason, "the worker could not start");
        }
        running
    }

    fn try_start(
        &mut self,
        settings: &SinkSettings,
        options: WorkerOptions,
        bus: Arc<dyn Bus>,
        runtime: &Handle,
    ) -> Result<JoinHandle<Result<Outcome, WorkerError>>, String> {
        let sink = settings.make().map_err(|error| error.to_string())?;
        tracing::info!(sink = settings.name, kind = settings.kind.name, effect = %sink.effect(), "worker starts");
        self.sink = Some(Arc::clone(&sink));
        self.check = Some(runtime.spawn(check(settings.name.clone(), Arc::clone(&sink))));
        let worker = Worker::new(bus, sink, runtime.clone(), options).map_err(|error| error.to_string())?;
        self.handle = Some(worker.handle());
        let name = settings.name.clone();
        let run = move || {
            let ended = worker.run();
            if let Err(error) = &ended {
                tracing::error!(sink = name, %error, "the worker has ended; the others go on");
            }
            ended
        };
        thread::Builder::new().name(settings.name.clone()).spawn(run).map_err(|error| format!("no thread: {error}"))
    }

    fn watched(&self) -> Watched {
        let check = self.check.as_ref().map(tokio::task::JoinHandle::abort_handle);
        Watched { name: self.name.clone(), handle: self.handle.clone(), check }
    }

    /// Whether there is nothing more to come of it.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().map_or(true, JoinHandle::is_finished)
    }

    /// Waits for the worker's end and closes its sink.
    pub(crate) fn wait(self, runtime: &Handle) -> Ended {
        let outcome = match self.thread {
            Err(reason) => Err(reason),
            Ok(thread) => match thread.join() {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err("the worker panicked; what it had sealed is written by the next".to_owned()),
            },
        };
        if let Some(check) = self.check {
            check.abort();
        }
        let mut usage = Vec::new();
        if let Some(sink) = self.sink {
            runtime.block_on(sink.close());
            usage = sink.usage();
        }
        Ended { name: self.name, outcome, usage }
    }
}

/// Checks the backend beside the worker, which creates there what the settings ask for, and tells what is wrong before the
/// first event comes. Waits for a backend that is away.
async fn check(name: String, sink: Arc<dyn Sink>) {
    let mut is_told = false;
    while let Err(error) = sink.prepare().await {
        if !is_told {
            tracing::warn!(sink = name, %error, "the backend cannot be written; events wait on the bus meanwhile");
        }
        is_told = true;
        tokio::time::sleep(CHECK_AGAIN).await;
    }
    if is_told {
        tracing::info!(sink = name, "the backend can be written now");
    }
}

/// How a worker ended.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) outcome: Result<Outcome, String>,
    /// What it used of its backend.
    pub(crate) usage: Vec<Usage>,
}

impl Ended {
    fn line(&self) -> String {
        match &self.outcome {
            Err(reason) => format!("{}: failed: {reason}", self.name),
            Ok(Outcome { status, drained }) => {
                let behind: u64 = status.lanes.values().map(|lane| lane.end.saturating_sub(lane.settled)).sum();
                let left = if *drained { "" } else { "; batches in flight are left sealed for the next worker" };
                let letters = match status.dead_letters {
                    0 => String::new(),
                    count => format!(", {}", count_of(count, "dead letter")),
                };
                format!(
                    "{}: {} in {} and {} written{letters}, {} behind{left}{}",
                    self.name,
                    count_of(status.events, "event"),
                    count_of(status.points, "point"),
                    count_of(status.batches, "batch"),
                    grouped(behind),
                    usage_line(&self.usage),
                )
            }
        }
    }

    fn as_json(&self) -> Value {
        match &self.outcome {
            Err(reason) => json!({ "name": self.name, "error": reason }),
            Ok(Outcome { status, drained }) => json!({
                "name": self.name,
                "events": status.events,
                "points": status.points,
                "batches": status.batches,
                "requests": status.requests,
                "retries": status.retries,
                "dead_letters": status.dead_letters,
                "drained": drained,
                "usage": usage_json(&self.usage),
            }),
        }
    }
}

/// `; used 12 requests, 3.5 write units`; nothing where the sink counts nothing.
fn usage_line(usage: &[Usage]) -> String {
    let amount = |usage: &Usage| match format!("{:.1}", usage.amount) {
        text if text.ends_with(".0") => text[..text.len() - 2].parse::<u128>().map_or(text, grouped),
        text => text,
    };
    let parts: Vec<String> = usage.iter().map(|usage| format!("{} {}", amount(usage), usage.what)).collect();
    if parts.is_empty() { String::new() } else { format!("; used {}", parts.join(", ")) }
}

fn usage_json(usage: &[Usage]) -> Value {
    usage.iter().map(|usage| (usage.what.to_owned(), json!(usage.amount))).collect()
}

/// Sees to it that the topics are there; waits for a bus that is away, until `stop` says so.
pub(crate) fn prepare_topics(
    bus: &dyn Bus,
    settings: &BusSettings,
    sinks: &[&SinkSettings],
    stop: &dyn Fn() -> bool,
) -> Result<bool, Failure> {
    let mut topics: Vec<(String, u32, bool)> =
        vec![(settings.topic.clone(), settings.partitions, settings.partitions_given)];
    for sink in sinks {
        topics.extend(sink.topics.iter().map(|topic| (topic.clone(), settings.partitions, false)));
        topics.push((sink.dead_topic(), 1, false));
    }
    let mut done: Vec<&str> = Vec::new();
    for (topic, partitions, exactly) in &topics {
        if done.contains(&topic.as_str()) {
            continue;
        }
        done.push(topic);
        if !prepare_topic(bus, topic, *partitions, *exactly, stop)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn prepare_topic(
    bus: &dyn Bus,
    topic: &str,
    partitions: u32,
    exactly: bool,
    stop: &dyn Fn() -> bool,
) -> Result<bool, Failure> {
    let mut away = false;
    loop {
        match bus.create_topic(topic, partitions) {
            Ok(created) => {
                if created {
                    tracing::info!(topic, partitions, "topic created");
                }
                return Ok(true);
            }
            Err(BusError::PartitionCount { .. }) if !exactly => return Ok(true),
            Err(error) if error.is_transient() => {
                if !away {
                    tracing::warn!(bus = bus.describe(), reason = %error, "the bus is away; waiting for it");
                }
                away = true;
            }
            Err(error) => return Err(error.into()),
        }
        if stop() {
            return Ok(false);
        }
        thread::sleep(ASK_AGAIN);
    }
}

/// What to say of a stop before these sinks have settled everything; `None` when they have.
fn unfinished(bus: &dyn Bus, sinks: &[&SinkSettings]) -> Option<String> {
    for sink in sinks {
        match is_caught_up(bus, sink) {
            Ok(true) => {}
            Ok(false) => return Some("stopped before everything was written and settled".to_owned()),
            Err(error) => {
                return Some(format!(
                    "stopped; whether sink {} has written and settled everything is unknown: {error}",
                    sink.name
                ));
            }
        }
    }
    None
}

/// Whether a group has settled everything that its topics hold.
pub(crate) fn is_caught_up(bus: &dyn Bus, sink: &SinkSettings) -> Result<bool, BusError> {
    for topic in &sink.topics {
        let committed = bus.committed(&sink.group(), topic)?;
        for (partition, range) in bus.offsets(topic)?.iter().enumerate() {
            let settled = committed.get(partition).and_then(Option::as_ref).map_or(0, |committed| committed.offset);
            if settled < range.end && range.first < range.end {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The settings' sinks, all of them.
pub(crate) fn all(settings: &Settings) -> Vec<&SinkSettings> {
    settings.sinks.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broken_bus::{BrokenBus, settings};

    #[test]
    fn after_a_stop_what_the_bus_does_not_answer_is_unknown() {
        let settings = settings();
        let told = unfinished(&BrokenBus::after(0), &all(&settings)).unwrap();
        assert!(told.contains("whether sink a has written and settled everything is unknown"), "{told}");
        assert!(told.contains("the broker does not answer"), "{told}");
    }
}
