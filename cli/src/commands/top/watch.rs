//! Looks at the bus at intervals, on a thread of its own: what draws does not wait for a bus that is slow or does not answer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Observer};
use tallybus_verify::live::{History, Look, Tick, Watched};

use crate::failure::Failure;

/// How often the bus is asked for its groups, where no settings name the sinks.
const LIST_EVERY: Duration = Duration::from_secs(30);

/// What to look at.
pub(super) enum Target {
    /// The sinks of the settings.
    Known(Watched),
    /// The sinks that have groups on the bus.
    Discovered { topic: String, namespace: String },
}

/// Looks at once and then at every interval, until nothing receives the looks any more.
///
/// # Errors
/// The system has no thread for it.
pub(super) fn start(bus: Arc<dyn Bus>, target: Target, interval: Duration) -> Result<Receiver<Tick>, Failure> {
    // A reader that is slower than the looks sees the next one, and none of the past.
    let (send, ticks) = sync_channel(1);
    let watched = match &target {
        Target::Known(watched) => watched.clone(),
        Target::Discovered { .. } => Watched::default(),
    };
    let watcher = Watcher {
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

struct Watcher {
    bus: Arc<dyn Bus>,
    target: Target,
    observer: Option<Box<dyn Observer>>,
    watched: Watched,
    /// When the groups were listed.
    listed: Option<Instant>,
    history: History,
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
        let look = Look::read(observer, &self.watched, || (began.elapsed(), now_ms()))?;
        self.history.add(look);
        let picture = self.history.picture(&self.watched, &self.bus.describe(), None);
        Ok(picture.map_or_else(|| Tick::failed(now_ms(), "nothing was looked at"), Tick::Seen))
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
