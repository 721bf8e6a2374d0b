//! The thread that takes the counts from the counters and publishes them, once per interval.

mod checkpoints;
mod topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Delivery, NewRecord, PublishError, Publisher};
use tallybus_schemas::{ENCODING_HEADER, Encoding, NativeEncoder};

use crate::builder::Settings;
use crate::clock::Clock;
use crate::ledger;
use crate::outage::Outage;
use crate::partition_queue::{PartitionQueue, Refusal, Round};
use crate::partitioner::Partitioner;
use crate::self_metrics::SelfMetrics;
use crate::session::{self, Orders, Session};
use crate::warnings;

use self::checkpoints::Checkpoints;
use self::topic::TopicState;

/// The longest wait in a call into the bus's client, so that requests to flush or stop are seen in time.
const TURN: Duration = Duration::from_millis(20);
/// How often a bus that does not answer is retried: while a caller waits in `flush` or `shutdown`, and otherwise.
const URGENT_RETRY: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);
/// How long to wait for the last answers of a client that failed for good.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The requests that a round answers when it is done: those made before it took the counts.
#[derive(Debug, Clone, Copy)]
struct Serving {
    flush: u64,
    stop: bool,
}

/// See the module.
pub(crate) struct Worker {
    settings: Settings,
    session: Arc<Session>,
    bus: Arc<dyn Bus>,
    publisher: Option<Box<dyn Publisher>>,
    encoder: NativeEncoder,
    partitioner: Partitioner,
    queues: Vec<PartitionQueue>,
    deliveries: Vec<Delivery>,
    self_metrics: SelfMetrics,
    clock: Clock,
    /// When this publisher started; `None` until the system clock shows a valid time.
    started: Option<i64>,
    next_token: u64,
    next_tick: Instant,
    /// When a missing client or topic is checked again.
    next_try: Instant,
    topic: TopicState,
    serving: Option<Serving>,
    /// Whether the current round has left nothing out so far.
    is_clean: bool,
    outage: Outage,
    /// `None` when the settings want none.
    checkpoints: Option<Checkpoints>,
    last_round: Option<Round>,
}

impl Worker {
    pub(crate) fn new(
        settings: Settings,
        session: Arc<Session>,
        bus: Arc<dyn Bus>,
        publisher: Option<Box<dyn Publisher>>,
    ) -> Self {
        let common = settings.common_tags();
        let tags: Vec<(&str, &str)> = common.iter().map(|(key, value)| (&**key, &**value)).collect();
        let (now, mut clock) = (Instant::now(), Clock::new(settings.wall_clock));
        Self {
            encoder: NativeEncoder::new(&tags),
            self_metrics: SelfMetrics::new(settings.self_metrics),
            checkpoints: Checkpoints::new(&settings, now),
            last_round: None,
            next_tick: now + settings.flush_interval,
            settings,
            session,
            bus,
            publisher,
            partitioner: Partitioner::new(common),
            queues: Vec::new(),
            deliveries: Vec::new(),
            started: clock.now(),
            clock,
            next_token: 0,
            next_try: now,
            topic: TopicState::Sought,
            serving: None,
            is_clean: true,
            outage: Outage::default(),
        }
    }

    /// Publishes until it is asked to stop.
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
            self.checkpoint(now);
            self.wait(&orders, urgent);
        }
        self.last_checkpoint(self.session.orders().stop.unwrap_or_else(Instant::now));
        self.withdraw();
        warnings::log();
        let log = self.session.orders().log;
        let report = self.session.end();
        match (report.is_complete(), log) {
            (true, true) => tracing::info!(%report, "the collector has stopped"),
            (false, true) => {
                tracing::error!(%report, bus = self.bus.describe(), "the collector stopped before everything was delivered")
            }
            (_, false) => tracing::debug!(%report, "the collector has stopped"),
        }
    }

    /// Takes the unpublished counts: all of them while a caller waits for them, otherwise once per interval for the
    /// partitions that have nothing in flight.
    fn begin_rounds(&mut self, orders: &Orders, now: Instant, urgent: bool) {
        if !urgent {
            self.serving = None;
        }
        let is_tick = now >= self.next_tick;
        if is_tick {
            self.next_tick = (self.next_tick + self.settings.flush_interval).max(now);
            warnings::log();
            if orders.stop.is_none() {
                self.self_metrics.count(&self.session.numbers);
            }
        }
        let is_due =
            if urgent { self.serving.is_none() && self.queues.iter().all(PartitionQueue::is_idle) } else { is_tick };
        if !is_due {
            return;
        }
        let Some(count) = self.partitions(now, urgent) else { return };
        let Some(before) = self.clock.now() else {
            // Counts stay in the counters until they can be given a time.
            return self.note_failure("the system clock is wrong (before 1970): set it");
        };
        let started = *self.started.get_or_insert(before);
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.completeness.started(started);
        }
        if !self.is_registered(now, urgent) {
            self.next_tick = self.next_tick.min(now + TURN);
            return;
        }
        while self.queues.len() < count as usize {
            self.queues.push(PartitionQueue::new(u32::try_from(self.queues.len()).unwrap_or(u32::MAX), started));
        }
        let ready: Vec<bool> = self.queues.iter().map(|queue| queue.is_ready(now, urgent)).collect();
        let (queues, partitioner) = (&mut self.queues, &mut self.partitioner);
        partitioner.set_partitions(count);
        let mut left_out = false;
        let counted = ledger::scan(|share| {
            let partition = partitioner.of(share.0) as usize;
            if ready[partition] {
                queues[partition].give(share);
            } else {
                left_out = true;
            }
        });
        let time = self.clock.now().unwrap_or(before);
        let moved = self.clock.take_moved();
        self.started = self.started.map(|started| started.saturating_add(moved));
        self.queues.iter_mut().for_each(|queue| queue.move_times(moved));
        let round = Round { time, emitted: counted.wrapping_sub(self.session.base) };
        self.last_round = Some(round);
        if let Some(Checkpoints { completeness, .. }) = &mut self.checkpoints {
            completeness.begin_round(before, count, &ready);
            if moved < 0 {
                completeness.clock_set_back(before.min(time));
            }
        }
        for (queue, _) in self.queues.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            queue.begin(round);
            idle(&mut self.checkpoints, queue);
        }
        if urgent {
            self.serving = Some(Serving { flush: orders.flush_wanted, stop: orders.stop.is_some() });
            self.is_clean = !left_out;
        }
    }

    /// Publishes the next message of every partition that has nothing in flight.
    fn send(&mut self) {
        let Some(publisher) = self.publisher.as_mut() else { return };
        let mut failed = None;
        for queue in &mut self.queues {
            let Some(payload) = queue.pack(&mut self.encoder, self.session.producer, self.next_token) else { continue };
            let record = NewRecord {
                topic: &self.settings.topic,
                partition: Some(queue.partition),
                key: None,
                payload: &payload,
                headers: &[(ENCODING_HEADER, Encoding::Native.name().as_bytes())],
            };
            match publisher.publish(record, self.next_token) {
                Ok(()) => {
                    let value = queue.in_flight().map_or(0, |(_, value)| value);
                    self.session.numbers.in_flight.fetch_add(value, Ordering::Relaxed);
                }
                Err(error) => {
                    queue.refuse(Refusal::Other, Instant::now());
                    refused(&mut self.checkpoints);
                    self.is_clean = false;
                    failed = Some(error);
                }
            }
            self.next_token += 1;
        }
        let Some(error) = failed else { return };
        self.failed(&error.to_string());
        if matches!(error, BusError::Fatal(_)) {
            self.drop_client();
        }
    }

    /// Replaces a client that failed for good; each of its messages is delivered, refused, or permanently in doubt.
    fn drop_client(&mut self) {
        let until = Instant::now() + LAST_ANSWERS;
        while self.is_in_flight() && Instant::now() < until {
            self.poll(TURN);
        }
        self.withdraw();
        for queue in &mut self.queues {
            if queue.in_flight().is_some() {
                let value = queue.settle();
                self.session.numbers.in_flight.fetch_sub(value, Ordering::Relaxed);
                self.session.numbers.unknown.fetch_add(value, Ordering::Relaxed);
                in_doubt(&mut self.checkpoints, queue, value);
                tracing::error!(
                    value,
                    partition = queue.partition,
                    "a message was never answered: it may or may not be on the bus, and is not sent again, so that nothing is counted twice"
                );
            }
        }
        self.publisher = None;
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.client_dropped();
        }
        self.next_try = Instant::now() + RETRY;
    }

    fn is_in_flight(&self) -> bool {
        self.queues.iter().any(|queue| queue.in_flight().is_some())
    }

    /// Ends a round that a caller waits for once it is over. Returns whether it was the last one and delivered
    /// everything.
    fn end_round(&mut self) -> bool {
        let Some(serving) = self.serving else { return false };
        if !self.queues.iter().all(PartitionQueue::is_idle) {
            return false;
        }
        self.serving = None;
        if self.is_clean {
            self.session.flushed(serving.flush);
        }
        self.is_clean && serving.stop
    }

    /// Waits for answers of the bus, for requests, and for the next interval.
    fn wait(&mut self, orders: &Orders, urgent: bool) {
        let until_tick = self.next_tick.saturating_duration_since(Instant::now());
        if self.is_in_flight() || self.checkpoints.as_ref().is_some_and(Checkpoints::is_in_flight) {
            return self.poll(TURN.min(until_tick));
        }
        // Lets the client do its housekeeping.
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

    /// Takes back what is certainly not on the bus: it is undelivered, not in doubt.
    fn withdraw(&mut self) {
        let Some(publisher) = self.publisher.as_mut() else { return };
        let mut deliveries = Vec::new();
        publisher.withdraw(&mut deliveries);
        deliveries.into_iter().for_each(|delivery| self.settle(delivery));
    }

    fn settle(&mut self, delivery: Delivery) {
        if self.settle_checkpoint(&delivery) {
            return;
        }
        let of_token =
            |queue: &&mut PartitionQueue| queue.in_flight().is_some_and(|(token, _)| token == delivery.token);
        let Some(queue) = self.queues.iter_mut().find(of_token) else { return };
        let partition = queue.partition;
        let numbers = &self.session.numbers;
        let one = |number: &AtomicU64| number.fetch_add(1, Ordering::Relaxed);
        // The new state is complete before `in_flight` decreases, so that statistics never miss a count.
        match delivery.outcome {
            Ok(placed) => {
                let value = queue.settle();
                if let Some(Checkpoints { completeness, .. }) = &mut self.checkpoints {
                    completeness.acknowledged(partition, placed.offset);
                }
                idle(&mut self.checkpoints, queue);
                numbers.delivered.fetch_add(value, Ordering::Relaxed);
                numbers.in_flight.fetch_sub(value, Ordering::Relaxed);
                one(&numbers.messages);
                self.recovered();
            }
            Err(error @ (PublishError::TooLarge { .. } | PublishError::Refused(_))) => {
                let is_too_large = matches!(error, PublishError::TooLarge { .. });
                let why = if is_too_large { Refusal::TooLarge } else { Refusal::Other };
                let value = queue.refuse(why, Instant::now());
                refused(&mut self.checkpoints);
                numbers.in_flight.fetch_sub(value, Ordering::Relaxed);
                one(&numbers.give_backs);
                self.is_clean = false;
                self.failed(&format!("partition {partition}: {error}"));
            }
            // In doubt, or an error that this version does not know: sending it again could count it twice.
            Err(error) => {
                let value = queue.settle();
                in_doubt(&mut self.checkpoints, queue, value);
                numbers.unknown.fetch_add(value, Ordering::Relaxed);
                numbers.in_flight.fetch_sub(value, Ordering::Relaxed);
                one(&numbers.flush_errors);
                self.session.failed(&error.to_string());
                tracing::error!(value, partition, %error, "a message was never answered: it may or may not be on the bus, and is not sent again, so that nothing is counted twice");
            }
        }
    }

    fn failed(&mut self, error: &str) {
        self.session.numbers.flush_errors.fetch_add(1, Ordering::Relaxed);
        self.note_failure(error);
    }

    fn note_failure(&mut self, error: &str) {
        self.session.failed(error);
        self.outage.begin(self.bus.as_ref(), &self.settings.topic, error);
    }

    fn recovered(&mut self) {
        if !self.queues.iter().any(PartitionQueue::is_refused) {
            self.outage.end(self.bus.as_ref(), &self.settings.topic);
        }
    }
}

/// A queue whose round is complete is one partition less to wait for.
fn idle(checkpoints: &mut Option<Checkpoints>, queue: &PartitionQueue) {
    if let Some(Checkpoints { completeness, .. }) = checkpoints
        && queue.is_idle()
    {
        completeness.idle(queue.partition);
    }
}

fn refused(checkpoints: &mut Option<Checkpoints>) {
    if let Some(Checkpoints { completeness, .. }) = checkpoints {
        completeness.refused();
    }
}

fn in_doubt(checkpoints: &mut Option<Checkpoints>, queue: &PartitionQueue, value: u64) {
    if let Some(checkpoints) = checkpoints {
        let number = checkpoints.next_number();
        checkpoints.completeness.in_doubt(value, number);
    }
    idle(checkpoints, queue);
}
