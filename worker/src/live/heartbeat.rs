//! Heartbeats: the status of the process on a compacted topic of the bus, so that commands can watch workers without a way into
//! them. A process is one key; its last record says that it has left. No count depends on them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Delivery, NewRecord, Publisher, TopicOptions};
use tallybus_sdk::clock::Clock;

use super::{Process, StatusDocument};
use crate::failure_log::FailureLog;

/// How often a process publishes its status.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);
/// How long one poll of the publisher waits, and so how soon a stop is noticed while a heartbeat is under way.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long the bus may take to confirm a heartbeat. Meanwhile there is no other one.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// How long a process that ends waits for its last heartbeat.
const LEAVE_WAIT: Duration = Duration::from_secs(1);

/// The heartbeats of a process, until dropped.
#[derive(Debug)]
pub struct Heartbeat {
    end: Option<Sender<()>>,
    ended: Receiver<()>,
}

impl Heartbeat {
    /// Publishes the status of a process from now on. `sinks`: the names of its sinks, for the log. Never waits for the bus: the
    /// calls to it have a thread of their own.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(
        bus: Arc<dyn Bus>,
        topic: &str,
        process: Process,
        sinks: &str,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let (end, stop) = channel();
        let (done, ended) = channel();
        let beating = Beating {
            bus,
            topic: topic.to_owned(),
            process,
            publisher: None,
            sent: Instant::now(),
            topic_state: TopicState::Unknown,
            failures: FailureLog::new(sinks, "publishing heartbeats", clock),
        };
        let run = move || {
            beating.run(&stop);
            let _abandoned = done.send(());
        };
        thread::Builder::new().name("heartbeat".to_owned()).spawn(run)?;
        Ok(Self { end: Some(end), ended })
    }

    /// Publishes that the process has left, and waits for it for a second at most: its thread is left behind in a bus that does
    /// not answer.
    pub fn leave(mut self) {
        drop(self.end.take());
        let _unanswered = self.ended.recv_timeout(LEAVE_WAIT);
    }
}

struct Beating {
    bus: Arc<dyn Bus>,
    topic: String,
    process: Process,
    publisher: Option<Box<dyn Publisher>>,
    /// When the last heartbeat was handed to the publisher.
    sent: Instant,
    topic_state: TopicState,
    failures: FailureLog,
}

/// Whether the topic is there.
enum TopicState {
    /// It was not asked for yet, or the bus did not answer.
    Unknown,
    /// It exists.
    Exists,
    /// It cannot be created, and why; it may exist all the same.
    NotCreated(String),
}

impl Beating {
    fn run(mut self, stop: &Receiver<()>) {
        loop {
            let due = Instant::now() + HEARTBEAT_EVERY;
            let status = self.process.document();
            let published = self.publish(&status);
            self.note(published);
            if self.wait(due, stop) {
                break;
            }
        }
        let until = Instant::now() + LEAVE_WAIT;
        self.await_confirmation(until);
        if !self.is_sending() && self.publish(&self.process.farewell()).is_ok() {
            self.await_confirmation(until);
        }
    }

    /// Waits until the bus has confirmed the last heartbeat, or has not by then.
    fn await_confirmation(&mut self, until: Instant) {
        while self.is_sending() && Instant::now() < until {
            // The process ends: what failed is of no use to it any more.
            let _failed = self.poll();
        }
    }

    /// Waits until the next heartbeat is due; returns whether the process ends.
    fn wait(&mut self, due: Instant, stop: &Receiver<()>) -> bool {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            if self.is_sending() {
                let outcome = self.poll();
                self.note(outcome);
                if !matches!(stop.try_recv(), Err(TryRecvError::Empty)) {
                    return true;
                }
                continue;
            }
            match stop.recv_timeout(left) {
                Err(RecvTimeoutError::Timeout) => return false,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    fn is_sending(&self) -> bool {
        self.publisher.as_ref().is_some_and(|publisher| publisher.in_flight() > 0)
    }

    /// Hands a document to the bus.
    fn publish(&mut self, document: &StatusDocument) -> Result<(), String> {
        if self.is_sending() {
            // One at a time: an older status is of no use behind it once the bus answers again.
            return if self.sent.elapsed() < CONFIRM_WITHIN { Ok(()) } else { self.withdraw() };
        }
        self.prepare().map_err(|error| error.to_string())?;
        let payload = serde_json::to_vec(document).map_err(|error| error.to_string())?;
        let publisher = match self.publisher.take() {
            Some(publisher) => publisher,
            None => self.bus.publisher().map_err(|error| error.to_string())?,
        };
        let (topic, key) = (self.topic.as_str(), document.worker.as_bytes());
        let record = NewRecord { topic, partition: None, key: Some(key), payload: &payload, headers: &[] };
        self.sent = Instant::now();
        self.publisher.insert(publisher).publish(record, 0).map_err(|error| error.to_string())
    }

    /// Gives up the heartbeat that is not confirmed, where it is certainly not on the bus.
    fn withdraw(&mut self) -> Result<(), String> {
        let mut deliveries = Vec::new();
        if let Some(publisher) = &mut self.publisher {
            publisher.withdraw(&mut deliveries);
        }
        self.take(deliveries)?;
        Err(format!("not confirmed within {} s", self.sent.elapsed().as_secs()))
    }

    /// Creates the topic, once it is known that it is not there.
    fn prepare(&mut self) -> Result<(), BusError> {
        if !matches!(self.topic_state, TopicState::Unknown) {
            return Ok(());
        }
        self.topic_state = match self.bus.create_topic(&self.topic, &TopicOptions::new(1).compacted()) {
            Ok(_) | Err(BusError::PartitionCount { .. }) => TopicState::Exists,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => TopicState::NotCreated(error.to_string()),
        };
        Ok(())
    }

    /// The outcome of heartbeats under way.
    fn poll(&mut self) -> Result<(), String> {
        let Some(publisher) = &mut self.publisher else { return Ok(()) };
        let mut deliveries = Vec::new();
        publisher.poll(LOOK_AGAIN, &mut deliveries);
        self.take(deliveries)
    }

    fn take(&mut self, deliveries: Vec<Delivery>) -> Result<(), String> {
        for Delivery { outcome, .. } in deliveries {
            outcome.map_err(|error| error.to_string())?;
            self.process.heartbeat_ended(true);
            self.topic_state = TopicState::Exists;
            self.failures.over();
        }
        Ok(())
    }

    /// Counts a failure, logs it when it begins, and reminds of it while it lasts. While the bus does not answer, the workers say
    /// so.
    fn note(&mut self, outcome: Result<(), String>) {
        let Err(reason) = outcome else {
            self.failures.remind();
            return;
        };
        self.process.heartbeat_ended(false);
        let state = std::mem::replace(&mut self.topic_state, TopicState::Unknown);
        if !self.failures.is_failing() && self.process.is_bus_failing() {
            return;
        }
        let create = match state {
            TopicState::NotCreated(why) => format!("; it could not be created either: {why}"),
            TopicState::Unknown | TopicState::Exists => String::new(),
        };
        let topic = &self.topic;
        // All reasons are of one kind for the log: a topic that fails in turns in several ways is one warning.
        self.failures.note(&format!(
            "topic {topic} ({reason}{create}). Commands that watch workers do not see this process. Create the topic with one \
             partition and cleanup.policy=compact and allow this user to write it, or set heartbeats = false in [status]"
        ));
        self.failures.remind();
    }
}
