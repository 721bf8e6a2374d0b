//! The thread that takes what has been counted and publishes it, once per interval.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tallybus_bus::{Bus, BusError, Delivery, NewRecord, PublishError, Publisher, TopicOptions};
use tallybus_schemas::{ENCODING_HEADER, Encoding, NativeEncoder};

use crate::builder::Settings;
use crate::lane::{Lane, Refusal, Round};
use crate::ledger;
use crate::notices::{self, Notice};
use crate::own::OwnCounters;
use crate::partition::Places;
use crate::registry::{self, Spread};
use crate::session::{self, Orders, Session};

/// How long a call into the bus's client may wait while orders may come.
const TURN: Duration = Duration::from_millis(20);
/// How often a bus that is away is asked again while somebody waits, and otherwise.
const URGENT_RETRY: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);
/// How long the last answers of a client that failed for good are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What a round that somebody waits for is good for: whoever asked before it took the counts.
#[derive(Debug, Clone, Copy)]
struct Serving {
    flush: u64,
    stop: bool,
}

/// See the module.
pub(crate) struct Worker {
    settings: Settings,
    session: Arc<Session>,
    bus: Box<dyn Bus>,
    publisher: Option<Box<dyn Publisher>>,
    encoder: NativeEncoder,
    places: Places,
    lanes: Vec<Lane>,
    deliveries: Vec<Delivery>,
    own: OwnCounters,
    started: i64,
    last_time: i64,
    next_token: u64,
    next_tick: Instant,
    /// When a missing client or topic is tried for again.
    next_try: Instant,
    is_topic_seen: bool,
    serving: Option<Serving>,
    /// Whether the round under way has left nothing out so far.
    is_clean: bool,
    is_in_trouble: bool,
}

impl Worker {
    pub(crate) fn new(
        settings: Settings,
        session: Arc<Session>,
        bus: Box<dyn Bus>,
        publisher: Option<Box<dyn Publisher>>,
    ) -> Self {
        let common = settings.common_tags();
        let tags: Vec<(&str, &str)> = common.iter().map(|(key, value)| (&**key, &**value)).collect();
        let (now, started) = (Instant::now(), wall_clock());
        Self {
            encoder: NativeEncoder::new(&tags),
            own: OwnCounters::new(settings.self_counters),
            next_tick: now + settings.flush_interval,
            settings,
            session,
            bus,
            publisher,
            places: Places::new(common),
            lanes: Vec::new(),
            deliveries: Vec::new(),
            started,
            last_time: started,
            next_token: 0,
            next_try: now,
            is_topic_seen: false,
            serving: None,
            is_clean: true,
            is_in_trouble: false,
        }
    }

    /// Publishes until told to stop.
    pub(crate) fn run(mut self) {
        session::enter_publisher();
        loop {
            let orders = self.session.orders();
            let now = Instant::now();
            if orders.stop.is_some_and(|deadline| now >= deadline) {
                break;
            }
            let urgent = orders.stop.is_some() || orders.is_flushing(now);
            self.begin_rounds(&orders, now, urgent);
            self.send();
            if self.end_round() {
                break;
            }
            self.wait(&orders, urgent);
        }
        self.log_notices();
        let log = self.session.orders().log;
        let report = self.session.end();
        match (report.is_complete(), log) {
            (true, true) => tracing::info!(%report, "the collector has stopped"),
            (false, true) => tracing::error!(%report, bus = self.bus.describe(), "the collector has stopped too early"),
            (_, false) => tracing::debug!(%report, "the collector has stopped"),
        }
    }

    /// Takes what waits in the counters: all of it for whoever waits, otherwise once per interval for the partitions
    /// that have nothing under way.
    fn begin_rounds(&mut self, orders: &Orders, now: Instant, urgent: bool) {
        if !urgent {
            self.serving = None;
        }
        let is_tick = now >= self.next_tick;
        if is_tick {
            self.next_tick = (self.next_tick + self.settings.flush_interval).max(now);
            self.log_notices();
            if orders.stop.is_none() {
                self.own.count(&self.session.numbers);
            }
        }
        let is_due = if urgent { self.serving.is_none() && self.lanes.iter().all(Lane::is_idle) } else { is_tick };
        if !is_due {
            return;
        }
        let Some(count) = self.partitions(now, urgent) else { return };
        while self.lanes.len() < count as usize {
            self.lanes.push(Lane::new(u32::try_from(self.lanes.len()).unwrap_or(u32::MAX), self.started));
        }
        let ready: Vec<bool> = self.lanes.iter().map(|lane| lane.is_ready(now, urgent)).collect();
        let (lanes, places) = (&mut self.lanes, &mut self.places);
        places.set_partitions(count);
        let mut left_out = false;
        let counted = ledger::scan(|share| {
            let partition = places.of(share.0) as usize;
            if ready[partition] {
                lanes[partition].give(share);
            } else {
                left_out = true;
            }
        });
        // The wall clock may be set back; the time of a producer's messages never falls.
        self.last_time = wall_clock().max(self.last_time + 1);
        let round = Round { time: self.last_time, emitted: counted.wrapping_sub(self.session.base) };
        for (lane, _) in self.lanes.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            lane.begin(round);
        }
        if urgent {
            self.serving = Some(Serving { flush: orders.flush_wanted, stop: orders.stop.is_some() });
            self.is_clean = !left_out;
        }
    }

    /// The topic's partitions, as soon as there are a client and a topic.
    fn partitions(&mut self, now: Instant, urgent: bool) -> Option<u32> {
        if self.publisher.is_none() || !self.is_topic_seen {
            if now < self.next_try {
                return None;
            }
            self.next_try = now + if urgent { URGENT_RETRY } else { RETRY.min(self.settings.flush_interval) };
        }
        if self.publisher.is_none() {
            match self.bus.publisher() {
                Ok(publisher) => {
                    self.publisher = Some(publisher);
                    session::watch_exit();
                }
                Err(error) => {
                    self.trouble(&error.to_string());
                    return None;
                }
            }
        }
        if !self.is_topic_seen {
            self.create_topic();
        }
        let count = self.publisher.as_mut()?.partitions(&self.settings.topic).filter(|count| *count > 0);
        match count {
            Some(_) => self.is_topic_seen = true,
            None => {
                // Asked again at its own pace, and made again if need be.
                self.is_topic_seen = false;
                let topic = &self.settings.topic;
                self.note_trouble(&format!("topic {topic:?} is not there yet, or the bus does not answer"));
            }
        }
        count
    }

    fn create_topic(&mut self) {
        let Some(partitions) = self.settings.create_topic else { return };
        match self.bus.create_topic(&self.settings.topic, &TopicOptions::new(partitions)) {
            Ok(true) => tracing::info!(topic = self.settings.topic, partitions, "topic created"),
            Ok(false) => {}
            Err(error @ BusError::PartitionCount { .. }) => {
                tracing::warn!(%error, "the topic is used as it is");
                self.settings.create_topic = None;
            }
            Err(error) => self.trouble(&error.to_string()),
        }
    }

    /// Gives every partition that has nothing under way its next message.
    fn send(&mut self) {
        let Some(publisher) = self.publisher.as_mut() else { return };
        let mut failed = None;
        for lane in &mut self.lanes {
            let Some(payload) = lane.pack(&mut self.encoder, self.session.producer, self.next_token) else { continue };
            let record = NewRecord {
                topic: &self.settings.topic,
                partition: Some(lane.partition),
                key: None,
                payload: &payload,
                headers: &[(ENCODING_HEADER, Encoding::Native.name().as_bytes())],
            };
            match publisher.publish(record, self.next_token) {
                Ok(()) => {
                    let value = lane.under_way().map_or(0, |(_, value)| value);
                    self.session.numbers.in_flight.fetch_add(value, Ordering::Relaxed);
                }
                Err(error) => {
                    lane.refuse(Refusal::Other, Instant::now());
                    self.is_clean = false;
                    failed = Some(error);
                }
            }
            self.next_token += 1;
        }
        let Some(error) = failed else { return };
        self.trouble(&error.to_string());
        if matches!(error, BusError::Fatal(_)) {
            self.drop_client();
        }
    }

    /// A client that failed for good is replaced; what it still had is delivered, refused, or never to be known.
    fn drop_client(&mut self) {
        let until = Instant::now() + LAST_ANSWERS;
        while self.is_under_way() && Instant::now() < until {
            self.poll(TURN);
        }
        for lane in &mut self.lanes {
            if lane.under_way().is_some() {
                let value = lane.settle();
                self.session.numbers.in_flight.fetch_sub(value, Ordering::Relaxed);
                self.session.numbers.unknown.fetch_add(value, Ordering::Relaxed);
                tracing::error!(value, partition = lane.partition, "a message was lost sight of; it is not sent again");
            }
        }
        self.publisher = None;
        self.next_try = Instant::now() + RETRY;
    }

    fn is_under_way(&self) -> bool {
        self.lanes.iter().any(|lane| lane.under_way().is_some())
    }

    /// Ends a round that somebody waits for once it is over. Whether it was the last one, and delivered everything.
    fn end_round(&mut self) -> bool {
        let Some(serving) = self.serving else { return false };
        if !self.lanes.iter().all(Lane::is_idle) {
            return false;
        }
        self.serving = None;
        if self.is_clean {
            self.session.flushed(serving.flush);
        }
        self.is_clean && serving.stop
    }

    /// Waits for answers of the bus, for orders, and for the next interval.
    fn wait(&mut self, orders: &Orders, urgent: bool) {
        let until_tick = self.next_tick.saturating_duration_since(Instant::now());
        if self.is_under_way() {
            return self.poll(TURN.min(until_tick));
        }
        // Lets the client see to its own affairs.
        self.poll(Duration::ZERO);
        let timeout = if urgent { TURN } else { until_tick };
        self.session.wait(orders, timeout);
    }

    fn poll(&mut self, timeout: Duration) {
        let Some(publisher) = self.publisher.as_mut() else { return };
        let mut deliveries = std::mem::take(&mut self.deliveries);
        publisher.poll(timeout, &mut deliveries);
        for delivery in deliveries.drain(..) {
            self.settle(delivery);
        }
        self.deliveries = deliveries;
    }

    fn settle(&mut self, delivery: Delivery) {
        let of_token = |lane: &&mut Lane| lane.under_way().is_some_and(|(token, _)| token == delivery.token);
        let Some(lane) = self.lanes.iter_mut().find(of_token) else { return };
        let partition = lane.partition;
        let numbers = &self.session.numbers;
        let one = |number: &AtomicU64| number.fetch_add(1, Ordering::Relaxed);
        // The new state is complete before `in_flight` falls: nobody finds a count nowhere.
        match delivery.outcome {
            Ok(_) => {
                let value = lane.settle();
                numbers.delivered.fetch_add(value, Ordering::Relaxed);
                numbers.in_flight.fetch_sub(value, Ordering::Relaxed);
                one(&numbers.messages);
                self.recovered();
            }
            Err(error @ (PublishError::TooLarge { .. } | PublishError::Refused(_))) => {
                let is_too_large = matches!(error, PublishError::TooLarge { .. });
                let why = if is_too_large { Refusal::TooLarge } else { Refusal::Other };
                let value = lane.refuse(why, Instant::now());
                numbers.in_flight.fetch_sub(value, Ordering::Relaxed);
                one(&numbers.give_backs);
                self.is_clean = false;
                self.trouble(&format!("partition {partition}: {error}"));
            }
            Err(PublishError::Unknown(why)) => {
                let value = lane.settle();
                numbers.unknown.fetch_add(value, Ordering::Relaxed);
                numbers.in_flight.fetch_sub(value, Ordering::Relaxed);
                one(&numbers.flush_errors);
                tracing::error!(value, partition, why, "a message was lost sight of; it is not sent again");
            }
        }
    }

    fn trouble(&mut self, what: &str) {
        self.session.numbers.flush_errors.fetch_add(1, Ordering::Relaxed);
        self.note_trouble(what);
    }

    /// Logs the beginning of an outage, and no more of it.
    fn note_trouble(&mut self, what: &str) {
        if !self.is_in_trouble {
            self.is_in_trouble = true;
            let bus = self.bus.describe();
            tracing::warn!(bus, topic = self.settings.topic, what, "cannot publish; counts stay in the counters");
        }
    }

    fn recovered(&mut self) {
        if self.is_in_trouble && !self.lanes.iter().any(Lane::is_refused) {
            self.is_in_trouble = false;
            tracing::info!(bus = self.bus.describe(), topic = self.settings.topic, "publishing again");
        }
    }

    fn log_notices(&self) {
        for notice in notices::take() {
            match notice {
                Notice::Sanitised { name } => tracing::warn!(
                    name,
                    "a counter's name or tags were made to fit: control characters, empty or too long"
                ),
                Notice::Ignored { kind, name } => {
                    tracing::warn!(name, "a {kind} was ignored: only counters are carried");
                }
                Notice::Overflowed { name, max_series } => {
                    let (own, worst) = registry::widest(&name);
                    let mut spreads: Vec<_> = own.into_iter().chain(worst).collect();
                    spreads.dedup();
                    let tell = |spread: &Spread| {
                        format!("; tag `{}` of `{}` has {} values", spread.key, spread.name, spread.values)
                    };
                    let why: String = spreads.iter().map(tell).collect();
                    tracing::error!("more than {max_series} series: new ones of `{name}` are counted together{why}");
                }
            }
        }
    }
}

/// Nanoseconds since the Unix epoch; never negative.
fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
