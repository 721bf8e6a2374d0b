//! Several workers in one process: each on its own thread, with its backend checked beside it, stopped by signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, Observer};
use tallybus_sdk::clock::Clock;
use tallybus_sdk::progress::{GroupProgress, ProgressError};
use tallybus_sdk::{Sink, Usage};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::AbortHandle;

use crate::readiness::{ReadinessSender, gate};
use crate::retry_now::RetryNow;
use crate::settings::SinkSettings;
use crate::stop_signals::{StopSignal, StopSignals};
use crate::{Outcome, Worker, WorkerError, WorkerHandle, WorkerOptions};

/// Interval between checks of a backend that is not ready.
const CHECK_AGAIN: Duration = Duration::from_secs(5);
/// How long a stop waits for a worker whose bus does not answer.
const AWAY_GRACE: Duration = Duration::from_millis(700);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

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

    /// Listens for SIGTERM, SIGHUP and Ctrl-C; a second signal, at least a second after the first, ends the process at once. A
    /// SIGHUP that the process was started to ignore, as by `nohup`, stays ignored.
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
            let mut signals = StopSignals::default();
            loop {
                let status = tokio::select! {
                    _ = terminate.recv() => 143,
                    _ = interrupt.recv() => 130,
                    () = received(hangup.as_mut()) => 129,
                };
                match signals.next(Instant::now()) {
                    StopSignal::Finish => {
                        tracing::info!(
                            "stopping: finishing batches in flight; another signal, a second from now or later, terminates \
                             immediately"
                        );
                        stop.ask();
                    }
                    StopSignal::Repeated => {}
                    StopSignal::Terminate => {
                        tracing::warn!("terminating immediately; the next worker finishes the sealed batches");
                        std::process::exit(status);
                    }
                }
            }
        });
        Ok(())
    }

    /// Asks the workers to stop, as a signal does.
    pub fn ask(&self) {
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

/// Makes a worker.
type MakeWorker = fn(Arc<dyn Bus>, Arc<dyn Sink>, Handle, WorkerOptions, Arc<dyn Clock>) -> Result<Worker, WorkerError>;

/// A worker on its own thread.
pub struct Running {
    name: String,
    kind: &'static str,
    group: String,
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
        Self::start_as(settings, options, bus, runtime, clock, Worker::with_clock)
    }

    /// Starts a worker that waits until it knows what operators want, and follows that.
    pub fn start_controlled(
        settings: &SinkSettings,
        options: WorkerOptions,
        bus: Arc<dyn Bus>,
        runtime: &Handle,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self::start_as(settings, options, bus, runtime, clock, Worker::controlled)
    }

    fn start_as(
        settings: &SinkSettings,
        options: WorkerOptions,
        bus: Arc<dyn Bus>,
        runtime: &Handle,
        clock: Arc<dyn Clock>,
        make: MakeWorker,
    ) -> Self {
        let mut running = Self {
            name: settings.name.clone(),
            kind: settings.kind.name,
            group: options.group.clone(),
            sink: None,
            check: None,
            handle: None,
            thread: Err("not started".to_owned()),
        };
        running.thread = running.try_start(settings, options, bus, runtime, clock, make);
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
        make: MakeWorker,
    ) -> Result<JoinHandle<Result<Outcome, WorkerError>>, String> {
        let sink = settings.make().map_err(|error| error.to_string())?;
        tracing::info!(
            sink = settings.name,
            kind = settings.kind.name,
            delivery_guarantee = ?sink.delivery_guarantee().to_string(),
            "worker started"
        );
        self.sink = Some(Arc::clone(&sink));
        let (readiness, gate) = gate();
        let made = make(bus, Arc::clone(&sink), runtime.clone(), options, Arc::clone(&clock));
        let retries = made.as_ref().map_or_else(|_| RetryNow::default(), |worker| worker.handle().retries().clone());
        let checking = check(settings.name.clone(), sink, Arc::new(retries.clock(clock)), readiness);
        self.check = Some(runtime.spawn(checking));
        let mut worker = made.map_err(|error| error.reason())?;
        worker.set_gate(gate);
        let handle = worker.handle();
        self.handle = Some(handle.clone());
        let name = settings.name.clone();
        let run = move || {
            let ended = worker.run();
            if let Err(error) = &ended {
                let reason = error.reason();
                tracing::error!(sink = name, error = reason, "worker ended; its records stay on the bus");
                handle.ended(reason);
            }
            ended
        };
        thread::Builder::new().name(settings.name.clone()).spawn(run).map_err(|error| format!("no thread: {error}"))
    }

    /// The sink's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sink's kind.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The worker's consumer group.
    pub fn group(&self) -> &str {
        &self.group
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

    /// Waits until all workers have ended and closes their sinks. Once a stop is asked for, workers whose bus does not
    /// answer are given less than a second, together: their threads are left in their calls, and the process may end.
    /// That is safe, as a kill is: what they had sealed is written again by the next worker.
    pub fn wait_for_all(workers: Vec<Self>, runtime: &Handle, stop: &Stop) -> Vec<Ended> {
        let mut failing_since = vec![None; workers.len()];
        loop {
            let mut is_waiting = false;
            for (worker, since) in workers.iter().zip(&mut failing_since) {
                let may_end = worker.has_ended() || (stop.is_asked() && worker.has_failed_for(AWAY_GRACE, since));
                is_waiting |= !may_end;
            }
            if !is_waiting {
                break;
            }
            thread::sleep(LOOK_AGAIN);
        }
        workers.into_iter().map(|worker| worker.wait_or_abandon(runtime)).collect()
    }

    /// Whether the worker's bus has not answered since `since` for that long; keeps `since`.
    fn has_failed_for(&self, length: Duration, since: &mut Option<Instant>) -> bool {
        if !self.handle.as_ref().is_some_and(|handle| handle.status().is_bus_failing) {
            *since = None;
            return false;
        }
        since.get_or_insert_with(Instant::now).elapsed() >= length
    }

    fn wait_or_abandon(self, runtime: &Handle) -> Ended {
        let status = match &self.handle {
            Some(handle) if !self.has_ended() => handle.status(),
            _ => return self.wait(runtime),
        };
        // The worker has warned of it.
        tracing::info!(
            sink = self.name,
            "stopping without a final commit, because the bus does not answer; the next worker writes what was sealed \
             again (no data lost)"
        );
        let usage = self.sink.map(|sink| sink.usage()).unwrap_or_default();
        Ended { name: self.name, outcome: Ok(Outcome { status, drained: false }), usage }
    }

    /// Waits until the worker has ended and closes its sink.
    pub fn wait(self, runtime: &Handle) -> Ended {
        let outcome = match self.thread {
            Err(reason) => Err(reason),
            Ok(thread) => match thread.join() {
                Ok(outcome) => outcome.map_err(|error| error.reason()),
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
async fn check(name: String, sink: Arc<dyn Sink>, clock: Arc<dyn Clock>, readiness: ReadinessSender) {
    let mut is_told = false;
    let prepare = async || match sink.admin() {
        Some(admin) => admin.prepare().await,
        None => sink.check().await,
    };
    while let Err(error) = prepare().await {
        readiness.checked(Err(&error));
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
    readiness.checked(Ok(()));
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
    use std::time::SystemTime;

    use tallybus_sdk::clock::ManualClock;
    use tallybus_sdk::testkit::{FakeBackend, FakeSink};

    use super::*;

    #[tokio::test]
    async fn a_backend_that_is_away_is_checked_again_on_the_clock() {
        let (backend, clock) = (FakeBackend::new(), ManualClock::at(SystemTime::UNIX_EPOCH));
        backend.set_away(true);
        let sink = Arc::new(FakeSink::new(Arc::clone(&backend)));
        let checking = tokio::spawn(check("s".to_owned(), sink, Arc::new(clock.clone()), gate().0));
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
