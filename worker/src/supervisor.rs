//! Several workers in one process: each on its own thread, with its backend checked beside it, stopped by signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Observer, TopicOptions};
use tallybus_sdk::clock::Clock;
use tallybus_sdk::progress::{GroupProgress, ProgressError};
use tallybus_sdk::{Sink, Usage};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::AbortHandle;

use crate::settings::{BusSettings, SinkSettings, names};
use crate::{Outcome, Worker, WorkerError, WorkerHandle, WorkerOptions};

/// Interval between checks of a backend that is not ready.
const CHECK_AGAIN: Duration = Duration::from_secs(5);
/// Interval between attempts to reach an unavailable bus.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Stops the workers when a signal is received.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    workers: Arc<std::sync::Mutex<Vec<WorkerHandle>>>,
}

impl Stop {
    /// Whether a signal was received.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Listens for SIGTERM, SIGHUP and Ctrl-C; a second signal ends the process at once. A SIGHUP that the process was
    /// started to ignore, as by `nohup`, stays ignored.
    ///
    /// # Errors
    /// The operating system does not let this process listen for signals.
    pub fn listen(&self, runtime: &Handle) -> std::io::Result<()> {
        let _inside = runtime.enter();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
        let stop = self.clone();
        runtime.spawn(async move {
            loop {
                let status = tokio::select! {
                    _ = terminate.recv() => 143,
                    _ = interrupt.recv() => 130,
                    () = received(hangup.as_mut()) => 129,
                };
                if stop.is_asked() {
                    tracing::warn!("terminating immediately; the next worker finishes the sealed batches");
                    std::process::exit(status);
                }
                tracing::info!("stopping: finishing batches in flight; another signal terminates immediately");
                stop.ask();
            }
        });
        Ok(())
    }

    fn ask(&self) {
        let workers = self.workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.asked.store(true, Ordering::Release);
        workers.iter().for_each(WorkerHandle::stop);
    }

    /// Adds workers to stop when a signal is received.
    pub fn watch(&self, handles: Vec<WorkerHandle>) {
        let mut workers = self.workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.is_asked() {
            handles.iter().for_each(WorkerHandle::stop);
        }
        workers.extend(handles);
    }
}

/// The next of these signals; never, when the process does not listen for them.
async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether SIGHUP is ignored, as the system reports it; on a system that does not, it is not.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is signal 1, SIGHUP.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// A worker on its own thread.
pub struct Running {
    name: String,
    sink: Option<Arc<dyn Sink>>,
    check: Option<tokio::task::JoinHandle<()>>,
    handle: Option<WorkerHandle>,
    thread: Result<JoinHandle<Result<Outcome, WorkerError>>, String>,
}

impl Running {
    /// Starts a worker. If it cannot start, [`Running::wait`] returns the error, and other workers are not affected.
    pub fn start(
        settings: &SinkSettings,
        options: WorkerOptions,
        bus: Arc<dyn Bus>,
        runtime: &Handle,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut running = Self {
            name: settings.name.clone(),
            sink: None,
            check: None,
            handle: None,
            thread: Err("not started".to_owned()),
        };
        running.thread = running.try_start(settings, options, bus, runtime, clock);
        if let Err(reason) = &running.thread {
            tracing::error!(sink = settings.name, reason, "worker could not start; its records stay on the bus");
        }
        running
    }

    fn try_start(
        &mut self,
        settings: &SinkSettings,
        options: WorkerOptions,
        bus: Arc<dyn Bus>,
        runtime: &Handle,
        clock: Arc<dyn Clock>,
    ) -> Result<JoinHandle<Result<Outcome, WorkerError>>, String> {
        let sink = settings.make().map_err(|error| error.to_string())?;
        tracing::info!(
            sink = settings.name,
            kind = settings.kind.name,
            delivery_guarantee = ?sink.delivery_guarantee().to_string(),
            "worker started"
        );
        self.sink = Some(Arc::clone(&sink));
        self.check = Some(runtime.spawn(check(settings.name.clone(), Arc::clone(&sink), Arc::clone(&clock))));
        let worker =
            Worker::with_clock(bus, sink, runtime.clone(), options, clock).map_err(|error| error.to_string())?;
        self.handle = Some(worker.handle());
        let name = settings.name.clone();
        let run = move || {
            let ended = worker.run();
            if let Err(error) = &ended {
                tracing::error!(sink = name, %error, "worker ended; its records stay on the bus");
            }
            ended
        };
        thread::Builder::new().name(settings.name.clone()).spawn(run).map_err(|error| format!("no thread: {error}"))
    }

    /// The sink's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The handle that stops the worker and shows its status; `None` when it could not start.
    pub fn handle(&self) -> Option<&WorkerHandle> {
        self.handle.as_ref()
    }

    /// The check of its backend, which ends once the backend is ready.
    pub fn check(&self) -> Option<AbortHandle> {
        self.check.as_ref().map(tokio::task::JoinHandle::abort_handle)
    }

    /// Whether the worker has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().map_or(true, JoinHandle::is_finished)
    }

    /// Waits until the worker has ended and closes its sink.
    pub fn wait(self, runtime: &Handle) -> Ended {
        let outcome = match self.thread {
            Err(reason) => Err(reason),
            Ok(thread) => match thread.join() {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err("the worker panicked; the next worker writes the batches that it had sealed".to_owned()),
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

/// Checks the backend beside the worker: creates what the settings allow, and reports problems before the first event
/// arrives. Waits for an unavailable backend.
async fn check(name: String, sink: Arc<dyn Sink>, clock: Arc<dyn Clock>) {
    let mut is_told = false;
    let prepare = async || match sink.admin() {
        Some(admin) => admin.prepare().await,
        None => sink.check().await,
    };
    while let Err(error) = prepare().await {
        if !is_told {
            tracing::warn!(
                sink = name,
                %error,
                "backend not ready, checking again (events wait on the bus, no data lost)"
            );
        }
        is_told = true;
        clock.sleep_async(CHECK_AGAIN).await;
    }
    if is_told {
        tracing::info!(sink = name, "backend ready");
    }
}

/// How a worker ended.
#[derive(Debug)]
pub struct Ended {
    /// The sink's name.
    pub name: String,
    /// How it ended, or why it could not run.
    pub outcome: Result<Outcome, String>,
    /// What it consumed of its backend.
    pub usage: Vec<Usage>,
}

/// Creates missing topics; waits for an unavailable bus until `stop` is set. Returns whether the topics exist.
///
/// # Errors
/// An error that waiting does not resolve.
pub fn prepare_topics(
    bus: &dyn Bus,
    settings: &BusSettings,
    sinks: &[&SinkSettings],
    clock: &dyn Clock,
    stop: &dyn Fn() -> bool,
) -> Result<bool, BusError> {
    let counters = TopicOptions::new(settings.partitions);
    let mut topics: Vec<(String, TopicOptions, bool)> =
        vec![(settings.topic.clone(), counters, settings.partitions_given)];
    for sink in sinks {
        topics.extend(sink.topics.iter().map(|topic| (topic.clone(), counters, false)));
        topics.push((sink.dead_letter_topic(), TopicOptions::new(1), false));
    }
    if bus.forgets_groups() {
        topics.push((names::progress_topic(&settings.namespace), TopicOptions::new(1).compacted(), false));
    }
    let mut done: Vec<&str> = Vec::new();
    for (topic, options, exactly) in &topics {
        if done.contains(&topic.as_str()) {
            continue;
        }
        done.push(topic);
        if !prepare_topic(bus, topic, options, *exactly, clock, stop)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn prepare_topic(
    bus: &dyn Bus,
    topic: &str,
    options: &TopicOptions,
    exactly: bool,
    clock: &dyn Clock,
    stop: &dyn Fn() -> bool,
) -> Result<bool, BusError> {
    let mut away = false;
    loop {
        match bus.create_topic(topic, options) {
            Ok(created) => {
                if created {
                    tracing::info!(topic, partitions = options.partitions, "topic created");
                }
                return Ok(true);
            }
            Err(BusError::PartitionCount { .. }) if !exactly => return Ok(true),
            Err(error) if error.is_transient() => {
                if !away {
                    tracing::warn!(bus = bus.describe(), reason = %error, "bus unavailable, waiting for it");
                }
                away = true;
            }
            Err(error) => return Err(error),
        }
        if stop() {
            return Ok(false);
        }
        clock.sleep(ASK_AGAIN);
    }
}

/// Whether a group has settled everything in its topics.
///
/// # Errors
/// The bus did not respond.
pub fn is_caught_up(observer: &dyn Observer, sink: &SinkSettings) -> Result<bool, ProgressError> {
    let topics: Vec<&str> = sink.topics.iter().map(String::as_str).collect();
    Ok(GroupProgress::read(observer, &sink.group(), &topics)?.is_settled())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::time::SystemTime;

    use tallybus_bus::{Committed, GroupOptions, Publisher, Reader, Subscriber, TopicPartition};
    use tallybus_sdk::clock::ManualClock;
    use tallybus_sdk::testkit::{FakeBackend, FakeSink};

    use super::*;

    /// A bus that does not answer the first requests to create a topic, and nothing else ever.
    struct Away(AtomicU32);

    fn away<T>() -> Result<T, BusError> {
        Err(BusError::Unavailable("for the test".to_owned()))
    }

    impl Bus for Away {
        fn describe(&self) -> String {
            "a bus that is away".to_owned()
        }
        fn create_topic(&self, _topic: &str, _options: &TopicOptions) -> Result<bool, BusError> {
            let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_ok() { away() } else { Ok(true) }
        }
        fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
            away()
        }
        fn publisher(&self) -> Result<Box<dyn Publisher>, BusError> {
            away()
        }
        fn subscriber(&self, _: &str, _: &[String], _: &GroupOptions) -> Result<Box<dyn Subscriber>, BusError> {
            away()
        }
        fn reset_group(&self, _group: &str, _to: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
            away()
        }
        fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
            away()
        }
    }

    #[test]
    fn an_unavailable_bus_is_waited_for_on_the_clock_until_it_answers_or_a_stop() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        assert!(
            prepare_topic(&Away(AtomicU32::new(3_600)), "t", &TopicOptions::new(1), false, &clock, &|| false).unwrap()
        );
        assert_eq!(clock.passed(), ASK_AGAIN * 3_600);
        let stop = || clock.passed() >= ASK_AGAIN * 3_610;
        assert!(
            !prepare_topic(&Away(AtomicU32::new(u32::MAX)), "t", &TopicOptions::new(1), false, &clock, &stop).unwrap()
        );
        assert_eq!(clock.passed(), ASK_AGAIN * 3_610);
    }

    #[tokio::test]
    async fn a_backend_that_is_away_is_checked_again_on_the_clock() {
        let (backend, clock) = (FakeBackend::new(), ManualClock::at(SystemTime::UNIX_EPOCH));
        backend.set_away(true);
        let sink = Arc::new(FakeSink::new(Arc::clone(&backend)));
        let checking = tokio::spawn(check("s".to_owned(), sink, Arc::new(clock.clone())));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        backend.set_away(false);
        clock.advance(CHECK_AGAIN - Duration::from_millis(1));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!checking.is_finished(), "checked again too soon");
        clock.advance(Duration::from_millis(1));
        // Less than the interval: a check that waits for real time fails here.
        tokio::time::timeout(CHECK_AGAIN / 2, checking).await.unwrap().unwrap();
    }
}
