//! The threads of an instance that serves commands, from its start to its end.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tallybus_bus::Bus;
use tallybus_control::{Guard, Identity};

use super::answerer::{Answerer, Outgoing};
use super::clock::random_id;
use super::counts::{CommandCounts, Counters};
use super::executor;
use super::outbox::Outbox;
use super::pool::{Orders, Pool};
use super::presence::Presence;
use super::reading::Reading;
use super::settings::{Commands, CommandsError};
use super::topics::Topics;
use crate::fork;

/// The most answers that wait for the thread that publishes them.
const MAX_ANSWERS: usize = 1_000;
/// How much longer an end waits for the last status.
const GRACE: Duration = Duration::from_millis(600);

/// When the threads have to end.
#[derive(Debug, Default)]
pub(super) struct Stop(Mutex<Option<Instant>>);

impl Stop {
    pub(super) fn set(&self, until: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// How much time is left; `None` while nothing has to end.
    pub(super) fn left(&self) -> Option<Duration> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

/// Logs a failure when it begins, and when it is over.
pub(super) struct FailureLog {
    what: &'static str,
    is_failing: bool,
}

impl FailureLog {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, is_failing: false }
    }

    pub(super) fn begin(&mut self, error: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(%error, "{} failed, retrying (no count is affected)", self.what);
        }
    }

    pub(super) fn over(&mut self) {
        if std::mem::replace(&mut self.is_failing, false) {
            tracing::info!("{} works again", self.what);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Listener {
    identity: Identity,
    counters: Arc<Counters>,
    stop: Arc<Stop>,
    answerer: Option<Arc<Answerer>>,
    /// Ends when the threads that answer have ended.
    working: Receiver<()>,
    /// Ends when the thread that publishes has ended.
    publishing: Receiver<()>,
    /// See [`fork::generation`].
    generation: u32,
}

impl std::fmt::Debug for Answerer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answerer").field("addressee", &self.addressee).finish_non_exhaustive()
    }
}

impl Listener {
    /// Starts the threads.
    pub(super) fn start(
        bus: &Arc<dyn Bus>,
        service: &str,
        instance: &str,
        commands: Commands,
    ) -> Result<Self, CommandsError> {
        let identity = Identity::Service { service: service.to_owned(), instance: instance.to_owned() };
        let topics = Topics::of(&commands.namespace);
        let names = commands.commands.names();
        let presence = Arc::new(Presence::new(service, instance, names.clone(), commands.tasks.names()));
        let (counters, stop) = (Arc::<Counters>::default(), Arc::<Stop>::default());
        let (parcels, to_publish) = sync_channel(MAX_ANSWERS);
        let (work, working) = channel();
        let (publish, publishing) = channel();
        let answerer = Arc::new(Answerer {
            outgoing: Outgoing {
                topic: Arc::clone(&topics.commands),
                key: commands.keys.first().cloned(),
                parcels,
                counters: Arc::clone(&counters),
            },
            addressee: identity.to_string(),
            process: random_id(),
            #[cfg(feature = "callbacks")]
            callbacks: commands.callbacks.map(tallybus_control::callback::Callbacks::start).transpose()?,
        });
        let outbox = Outbox::new(
            Arc::clone(bus),
            Arc::clone(&topics.control),
            Arc::clone(&presence),
            to_publish,
            Arc::clone(&stop),
        );
        spawn("tallybus-answers", publish, move || outbox.run())?;
        let mut pool = None;
        if !commands.tasks.is_empty() {
            let orders = Orders::default();
            pool = Some(orders.clone());
            let pool = Pool::new(
                Arc::clone(bus),
                topics.tasks(service),
                commands.create_topics.then_some(commands.task_partitions),
                service,
                Guard::new(commands.keys.clone()),
                orders,
                Arc::clone(&answerer),
                Arc::clone(&presence),
                Arc::clone(&counters),
                Arc::clone(&stop),
            );
            let (tasks, work_of_tasks) = (commands.tasks, work.clone());
            spawn("tallybus-tasks", work.clone(), move || pool.run(tasks, work_of_tasks))?;
        }
        let (to_executor, to_do) = sync_channel(executor::MAX_WAITING);
        let (handlers, its_answerer) = (commands.commands, Arc::clone(&answerer));
        let (its_counters, its_stop) = (Arc::clone(&counters), Arc::clone(&stop));
        spawn("tallybus-execute", work.clone(), move || {
            executor::run(handlers, &to_do, &its_answerer, &its_counters, &its_stop);
        })?;
        let reading = Reading {
            bus: Arc::clone(bus),
            topics,
            create_topics: commands.create_topics,
            identity: identity.clone(),
            guard: Guard::new(commands.keys),
            names,
            to_executor,
            pool,
            answerer: Arc::clone(&answerer),
            presence,
            counters: Arc::clone(&counters),
            stop: Arc::clone(&stop),
        };
        spawn("tallybus-commands", work, move || reading.run())?;
        let generation = fork::generation();
        Ok(Self { identity, counters, stop, answerer: Some(answerer), working, publishing, generation })
    }

    pub(super) fn address(&self) -> String {
        self.identity.to_string()
    }

    pub(super) fn counts(&self) -> CommandCounts {
        self.counters.counts()
    }

    /// Whether its threads run in the process from which this one was forked.
    pub(super) fn is_of_parent(&self) -> bool {
        self.generation != fork::generation()
    }

    /// Ends what is in hand, within this time, says on the bus that the instance leaves, and returns what came of everything.
    pub(super) fn stop(mut self, within: Duration) -> CommandCounts {
        if self.is_of_parent() {
            // Nothing of it may be touched here, not even to be dropped: its threads are the parent's.
            std::mem::forget(self);
            return CommandCounts::default();
        }
        let until = Instant::now() + within.min(Duration::from_secs(365 * 24 * 3_600));
        self.stop.set(until);
        let left = || until.saturating_duration_since(Instant::now());
        // Nothing is sent: it is waited for the end of the senders.
        let _ended = self.working.recv_timeout(left());
        if let Some(answerer) = self.answerer.take() {
            answerer.finish(left());
        }
        let _ended = self.publishing.recv_timeout(left() + GRACE);
        self.counters.counts()
    }
}

/// Runs a thread; the sender lives as long as it does.
pub(super) fn spawn(name: &str, alive: Sender<()>, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let run = move || {
        run();
        drop(alive);
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_says_how_much_time_is_left_and_never_less_than_none() {
        let stop = Stop::default();
        assert_eq!(stop.left(), None);
        stop.set(Instant::now());
        assert_eq!(stop.left(), Some(Duration::ZERO));
        stop.set(Instant::now() + Duration::from_secs(60));
        assert!(stop.left() > Some(Duration::from_secs(50)));
    }
}
