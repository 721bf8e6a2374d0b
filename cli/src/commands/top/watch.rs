//! Looks at the bus at intervals, on a thread of its own: what draws does not wait for a bus that is slow or does not answer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Observer};
use tallybus_verify::heartbeats::Heartbeats;
use tallybus_verify::live::{Forgotten, History, Look, Picture, Tick, Watched, WatchedSink, WorkerReport};
use tallybus_worker::SystemClock;
use tallybus_worker::settings::{Settings, SinkSettings, names};

use crate::failure::Failure;

/// How often the bus is asked for its groups, where no settings name the sinks.
const LIST_EVERY: Duration = Duration::from_secs(30);

/// How long a look waits for heartbeats: until all that there were have been read once, and from then on.
const HEARTBEATS_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(100));

/// What to look at.
#[derive(Clone)]
pub(in crate::commands) enum Target {
    /// The sinks of the settings.
    Known(Watched),
    /// The sinks that have groups on the bus.
    Discovered { topic: String, namespace: String },
}

impl Target {
    /// The sinks of the settings; without any there, those that have groups on the bus.
    pub(in crate::commands) fn of(settings: &Settings) -> Self {
        let topic = settings.bus.topic.clone();
        if settings.sinks.is_empty() {
            return Self::Discovered { topic, namespace: settings.bus.namespace.clone() };
        }
        Self::Known(Watched { topic, sinks: settings.sinks.iter().map(watched).collect() })
    }
}

fn watched(sink: &SinkSettings) -> WatchedSink {
    WatchedSink {
        name: sink.name.clone(),
        kind: Some(sink.kind.name.to_owned()),
        group: sink.group(),
        topics: sink.topics.clone(),
        dead_letter_topic: sink.dead_letter_topic(),
        replay_topic: sink.replay_topic(),
    }
}

/// What one look came to.
pub(in crate::commands) struct Looked {
    pub(in crate::commands) tick: Tick,
    /// What the workers said, of which the tick has the parts that it prints; `None` where it is not known.
    pub(in crate::commands) reports: Option<Vec<WorkerReport>>,
}

/// Looks at once and then at every interval, until nothing receives the looks any more. `namespace`: that of the topics on which
/// workers publish heartbeats and note how far their groups have come.
///
/// # Errors
/// The system has no thread for it.
pub(super) fn start(
    bus: Arc<dyn Bus>,
    target: Target,
    namespace: &str,
    interval: Duration,
) -> Result<Receiver<Tick>, Failure> {
    // A reader that is slower than the looks sees the one that waits for it, and then the next one: those between are dropped.
    let (send, ticks) = sync_channel(1);
    let watcher = Watcher::new(bus, target, namespace);
    thread::Builder::new()
        .name("top".to_owned())
        .spawn(move || watcher.run(interval, &send))
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
    Ok(ticks)
}

/// Why nothing is looked at any more.
pub(super) fn ended() -> Failure {
    Failure::failed("the thread that looks at the bus has ended; this is a fault of tallybus")
}

/// Looks at the bus whenever it is asked to.
pub(in crate::commands) struct Watcher {
    bus: Arc<dyn Bus>,
    target: Target,
    observer: Option<Box<dyn Observer>>,
    watched: Watched,
    /// When the groups were listed.
    listed: Option<Instant>,
    history: History,
    heartbeats: Heartbeats,
    /// Whether all heartbeats that there were have been read once.
    has_heartbeats: bool,
    forgotten: Forgotten,
    began: Instant,
}

impl Watcher {
    /// Asks the bus nothing yet. `namespace`: as for [`start`].
    pub(in crate::commands) fn new(bus: Arc<dyn Bus>, target: Target, namespace: &str) -> Self {
        let watched = match &target {
            Target::Known(watched) => watched.clone(),
            Target::Discovered { .. } => Watched::default(),
        };
        Self {
            heartbeats: Heartbeats::new(Arc::clone(&bus), &names::control_topic(namespace), Arc::new(SystemClock)),
            has_heartbeats: false,
            forgotten: Forgotten::new(&names::progress_topic(namespace)),
            bus,
            target,
            observer: None,
            watched,
            listed: None,
            history: History::default(),
            began: Instant::now(),
        }
    }

    fn run(mut self, interval: Duration, send: &SyncSender<Tick>) {
        loop {
            let due = Instant::now() + interval;
            if let Err(TrySendError::Disconnected(_)) = send.try_send(self.look().tick) {
                return;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    /// Asks the bus a few questions, whatever the number of sinks; waits until it has answered or its client gives up.
    pub(in crate::commands) fn look(&mut self) -> Looked {
        self.ask().unwrap_or_else(|error| Looked { tick: Tick::failed(now_ms(), error), reports: None })
    }

    fn ask(&mut self) -> Result<Looked, BusError> {
        let observer = match self.observer.take() {
            Some(observer) => observer,
            None => self.bus.observer()?,
        };
        let observer = &**self.observer.insert(observer);
        match &self.target {
            Target::Known(_) => {}
            Target::Discovered { topic, namespace } => {
                if self.listed.is_none_or(|listed| listed.elapsed() >= LIST_EVERY) {
                    self.watched = Watched::discover(observer, topic, namespace)?;
                    self.listed = Some(Instant::now());
                }
            }
        }
        let began = self.began;
        let mut look = Look::read(observer, &self.watched, || (began.elapsed(), now_ms()))?;
        self.forgotten.add_to(&mut look, &self.watched, &*self.bus, observer);
        let is_first = self.history.is_empty();
        self.history.add(look);
        // The first picture does not wait for another client's connection.
        let (reports, error) = if is_first { (None, None) } else { self.reports() };
        let picture = self.history.picture(&self.watched, &self.bus.describe(), reports.as_deref());
        let picture = picture.map(|picture| Picture { heartbeats_error: error, ..picture });
        let tick = picture.map_or_else(|| Tick::failed(now_ms(), "nothing was looked at"), Tick::Seen);
        Ok(Looked { tick, reports })
    }

    /// What the workers said, `None` where it is not known, and why heartbeats could not be read: without them the bus is looked
    /// at all the same.
    fn reports(&mut self) -> (Option<Vec<WorkerReport>>, Option<String>) {
        let wait = if self.has_heartbeats { HEARTBEATS_WAIT.1 } else { HEARTBEATS_WAIT.0 };
        let error = match self.heartbeats.refresh(wait) {
            Ok(is_complete) => {
                self.has_heartbeats |= is_complete;
                None
            }
            Err(error) => Some(format!("heartbeats of workers cannot be read: {error}")),
        };
        let reports: Vec<WorkerReport> = self.heartbeats.workers().flat_map(|seen| WorkerReport::of(&seen)).collect();
        ((self.has_heartbeats || !reports.is_empty()).then_some(reports), error)
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
