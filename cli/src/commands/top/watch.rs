//! Looks at the bus at intervals, on a thread of its own: what draws does not wait for a bus that is slow or does not answer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Observer};
use tallybus_verify::heartbeats::Heartbeats;
use tallybus_verify::live::{Forgotten, History, Look, Picture, Tick, Watched, WorkerReport};
use tallybus_worker::SystemClock;
use tallybus_worker::settings::names;

use crate::failure::Failure;

/// How often the bus is asked for its groups, where no settings name the sinks.
const LIST_EVERY: Duration = Duration::from_secs(30);

/// How long a look waits for heartbeats: until all that there were have been read once, and from then on.
const HEARTBEATS_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(100));

/// What to look at.
pub(super) enum Target {
    /// The sinks of the settings.
    Known(Watched),
    /// The sinks that have groups on the bus.
    Discovered { topic: String, namespace: String },
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
    let watched = match &target {
        Target::Known(watched) => watched.clone(),
        Target::Discovered { .. } => Watched::default(),
    };
    let watcher = Watcher {
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
    };
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

struct Watcher {
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
    fn run(mut self, interval: Duration, send: &SyncSender<Tick>) {
        loop {
            let due = Instant::now() + interval;
            let tick = self.look().unwrap_or_else(|error| Tick::failed(now_ms(), error));
            if let Err(TrySendError::Disconnected(_)) = send.try_send(tick) {
                return;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    fn look(&mut self) -> Result<Tick, BusError> {
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
        Ok(picture.map_or_else(|| Tick::failed(now_ms(), "nothing was looked at"), Tick::Seen))
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
