//! The thread that publishes answers and heartbeats.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Delivery, NewRecord, PublishError, Publisher};
use tallybus_control::{INSTANCE_HEARTBEAT, InstanceState};

use super::listener::{FailureLog, Stop};
use super::presence::Presence;

/// The most answers that are under way. Others wait in the channel, which is bounded too.
const MAX_UNDER_WAY: usize = 1_000;
/// How long one poll of the publisher waits, and so how long an answer may wait behind another one that the bus has not confirmed.
const POLL: Duration = Duration::from_millis(5);
/// How long a wait may be, so that a stop is noticed.
const TURN: Duration = Duration::from_millis(50);
/// How soon a bus that does not take records is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How long the last status may take: what is left of the time to stop, but no less and no more than these.
const SHORTEST_FAREWELL: Duration = Duration::from_millis(500);
const LONGEST_FAREWELL: Duration = Duration::from_secs(5);

/// What gets to know whether the bus has taken a record.
pub(super) type Done = Box<dyn FnOnce(bool) + Send>;

/// A record on its way to the bus.
pub(super) struct Parcel {
    pub(super) topic: Arc<str>,
    pub(super) key: String,
    pub(super) payload: Vec<u8>,
    pub(super) headers: Vec<(&'static str, Vec<u8>)>,
    /// When it is given up.
    pub(super) until: Instant,
    pub(super) done: Option<Done>,
}

impl Parcel {
    /// Says what came of it.
    pub(super) fn end(self, is_taken: bool) {
        if let Some(done) = self.done {
            done(is_taken);
        }
    }
}

/// See the module.
pub(super) struct Outbox {
    bus: Arc<dyn Bus>,
    control: Arc<str>,
    presence: Arc<Presence>,
    parcels: Receiver<Parcel>,
    stop: Arc<Stop>,
    publisher: Option<Box<dyn Publisher>>,
    waiting: VecDeque<Parcel>,
    /// By their tokens; the token 0 is a heartbeat.
    under_way: BTreeMap<u64, Parcel>,
    is_beating: bool,
    next_token: u64,
    next_beat: Instant,
    next_try: Instant,
    failures: FailureLog,
}

impl Outbox {
    pub(super) fn new(
        bus: Arc<dyn Bus>,
        control: Arc<str>,
        presence: Arc<Presence>,
        parcels: Receiver<Parcel>,
        stop: Arc<Stop>,
    ) -> Self {
        let now = Instant::now();
        Self {
            bus,
            control,
            presence,
            parcels,
            stop,
            publisher: None,
            waiting: VecDeque::new(),
            under_way: BTreeMap::new(),
            is_beating: false,
            next_token: 1,
            next_beat: now,
            next_try: now,
            failures: FailureLog::new("publishing answers and the status of this instance"),
        }
    }

    /// Publishes until there is nobody left who could answer, or the time to stop has come.
    pub(super) fn run(mut self) {
        while self.take() && self.stop.left().is_none_or(|left| !left.is_zero()) {
            self.beat();
            self.send();
            self.poll(POLL);
        }
        self.say_farewell();
    }

    /// Takes what is to be published; returns whether there may be more.
    fn take(&mut self) -> bool {
        while self.waiting.len() + self.under_way.len() < MAX_UNDER_WAY {
            let is_idle = self.waiting.is_empty() && self.under_way.is_empty() && !self.is_beating;
            let must_beat = self.presence.is_due(self.next_beat) && Instant::now() >= self.next_try;
            let taken = if is_idle && !must_beat {
                self.parcels.recv_timeout(TURN)
            } else {
                self.parcels.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            };
            match taken {
                Ok(parcel) => self.waiting.push_back(parcel),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return !is_idle && !self.is_settled(),
            }
        }
        true
    }

    fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    fn beat(&mut self) {
        if self.is_beating || !self.presence.is_due(self.next_beat) || Instant::now() < self.next_try {
            return;
        }
        self.next_beat = Instant::now() + INSTANCE_HEARTBEAT;
        self.publish_status(InstanceState::Running);
    }

    fn publish_status(&mut self, state: InstanceState) {
        let Some(payload) = self.presence.status(state).and_then(|status| serde_json::to_vec(&status).ok()) else {
            return;
        };
        let (topic, key) = (Arc::clone(&self.control), self.presence.key());
        let record =
            NewRecord { topic: &topic, partition: None, key: Some(key.as_bytes()), payload: &payload, headers: &[] };
        let published = self.publisher().and_then(|publisher| publisher.publish(record, 0));
        self.is_beating = published.is_ok();
        self.note(published);
    }

    fn publisher(&mut self) -> Result<&mut Box<dyn Publisher>, BusError> {
        let publisher = match self.publisher.take() {
            Some(publisher) => publisher,
            None => self.bus.publisher()?,
        };
        Ok(self.publisher.insert(publisher))
    }

    /// Hands over what waits, and gives up what has waited too long.
    fn send(&mut self) {
        let now = Instant::now();
        let (kept, late): (VecDeque<Parcel>, VecDeque<Parcel>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|parcel| now < parcel.until);
        self.waiting = kept;
        late.into_iter().for_each(|parcel| parcel.end(false));
        if now < self.next_try {
            return;
        }
        while let Some(parcel) = self.waiting.pop_front() {
            let token = self.next_token;
            self.next_token += 1;
            let headers: Vec<(&str, &[u8])> =
                parcel.headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
            let record = NewRecord {
                topic: &parcel.topic,
                partition: None,
                key: Some(parcel.key.as_bytes()),
                payload: &parcel.payload,
                headers: &headers,
            };
            let published = self.publisher().and_then(|publisher| publisher.publish(record, token));
            let failed = published.is_err();
            if failed {
                self.waiting.push_front(parcel);
            } else {
                self.under_way.insert(token, parcel);
            }
            self.note(published);
            if failed {
                return;
            }
        }
    }

    /// Waits for the bus to confirm records.
    fn poll(&mut self, at_most: Duration) {
        let mut deliveries = Vec::new();
        match &mut self.publisher {
            Some(publisher) if self.is_beating || !self.under_way.is_empty() => {
                publisher.poll(at_most, &mut deliveries)
            }
            _ if self.waiting.is_empty() => {}
            // The bus takes nothing now.
            _ => std::thread::sleep(at_most),
        }
        for Delivery { token, outcome } in deliveries {
            self.settle(token, outcome.map(drop));
        }
    }

    fn settle(&mut self, token: u64, outcome: Result<(), PublishError>) {
        self.is_beating &= token != 0;
        let parcel = self.under_way.remove(&token);
        match outcome {
            Ok(()) => {
                self.failures.over();
                if let Some(parcel) = parcel {
                    parcel.end(true);
                }
            }
            // It would be refused again.
            Err(PublishError::TooLarge { .. }) => {
                if let Some(parcel) = parcel {
                    parcel.end(false);
                }
            }
            Err(error) => {
                // One that may be on the bus is published again too: a second answer of an addressee changes nothing.
                self.waiting.extend(parcel);
                self.failures.begin(&error);
                self.next_try = Instant::now() + RETRY;
            }
        }
    }

    fn note(&mut self, published: Result<(), BusError>) {
        let Err(error) = published else { return };
        self.failures.begin(&error);
        self.next_try = Instant::now() + RETRY;
        if !error.is_transient() {
            // Its records come back by no other way.
            self.publisher = None;
            self.is_beating = false;
            self.waiting.extend(std::mem::take(&mut self.under_way).into_values());
        }
    }

    fn say_farewell(&mut self) {
        let left = self.stop.left().unwrap_or_default();
        let until = Instant::now() + left.clamp(SHORTEST_FAREWELL, LONGEST_FAREWELL);
        while self.is_beating && Instant::now() < until {
            self.poll(POLL);
        }
        if !self.is_beating {
            self.publish_status(InstanceState::Left);
        }
        while (self.is_beating || !self.under_way.is_empty()) && Instant::now() < until {
            self.poll(POLL);
        }
        let left = std::mem::take(&mut self.under_way).into_values().chain(std::mem::take(&mut self.waiting));
        left.for_each(|parcel| parcel.end(false));
    }
}
