//! Checkpoints: what this producer says of itself on the topic of the producers. The first one is there before its first message,
//! so that a reader that does not know a producer knows that none of its messages is on the bus.
//!
//! Counting does not depend on it: a topic that cannot be written is one warning, and the counts are published all the same.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tallybus_bus::{BusError, Delivery, NewRecord, StreamId, TopicOptions};
use tallybus_schemas::checkpoint::{Checkpoint, End, MAX_CHECKPOINT_TEXT};

use super::{TURN, Worker};
use crate::builder::Settings;
use crate::completeness::Completeness;
use crate::time::nanos_of;
use crate::{ledger, registry, sys, text};

/// How long the first message waits for the first checkpoint; the second while a caller waits in `flush` or `shutdown`.
const REGISTER_WITHIN: Duration = Duration::from_secs(2);
const REGISTER_WITHIN_URGENT: Duration = Duration::from_millis(500);
/// How soon the first checkpoint with counts follows the one without.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// How soon a checkpoint that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How soon a topic that was just created is looked for again.
const SHOWN_AFTER: Duration = Duration::from_millis(100);
/// The longest wait for the last checkpoint, when everything else is done.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Whether the bus knows this producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registration {
    /// No message was published yet. The time since when one waits.
    Pending(Option<Instant>),
    /// Its first checkpoint is on the bus, or it was not waited for any longer.
    Over,
}

/// Which incarnation of the topic of the counts the offsets belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stream {
    /// Not known yet.
    Unasked,
    Known(StreamId),
    /// The bus has no stream ids.
    Nameless,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Checkpoints {
    pub(super) completeness: Completeness,
    topic: String,
    creates_topic: bool,
    interval: Duration,
    service: String,
    instance: String,
    host: String,
    registration: Registration,
    stream: Stream,
    /// Of the last checkpoint handed to the bus.
    number: u64,
    /// The token of the checkpoint that is not answered yet, and when it was handed over.
    in_flight: Option<(u64, Instant)>,
    next: Instant,
    previous: Option<(i64, u64)>,
    is_failing: bool,
}

impl Checkpoints {
    /// `None` when the settings say that there are none.
    pub(super) fn new(settings: &Settings, now: Instant) -> Option<Self> {
        let interval = settings.checkpoint_interval;
        if interval.is_zero() {
            return None;
        }
        let clip = |value: &str| text::clean(value, MAX_CHECKPOINT_TEXT).into_owned();
        let (service, instance) = settings.names();
        Some(Self {
            completeness: Completeness::default(),
            topic: settings.producers_topic(),
            creates_topic: settings.topic_creation.partitions().is_some(),
            interval,
            service: clip(&service),
            instance: clip(&instance),
            host: clip(&sys::host_name().unwrap_or_default()),
            registration: Registration::Pending(None),
            stream: Stream::Unasked,
            number: 0,
            in_flight: None,
            next: now,
            previous: None,
            is_failing: false,
        })
    }

    /// The number of the next checkpoint.
    pub(super) fn next_number(&self) -> u64 {
        self.number + 1
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The client was replaced: its checkpoint may or may not be on the bus, and the next one replaces it.
    pub(super) fn client_dropped(&mut self) {
        self.in_flight = None;
    }
}

impl Worker {
    /// Whether the first message may be published: the bus knows this producer, or has had its time. Counts stay in the counters
    /// until then.
    pub(super) fn is_registered(&mut self, now: Instant, urgent: bool) -> bool {
        let Some(checkpoints) = &mut self.checkpoints else { return true };
        let Registration::Pending(since) = checkpoints.registration else { return true };
        let within = if urgent { REGISTER_WITHIN_URGENT } else { REGISTER_WITHIN };
        if since.is_some_and(|since| now.saturating_duration_since(since) >= within) {
            checkpoints.registration = Registration::Over;
            self.checkpoint_failed("not confirmed in time");
            return true;
        }
        if !checkpoints.is_in_flight() && now >= checkpoints.next {
            self.write_checkpoint(now, None);
        }
        let Some(checkpoints) = &mut self.checkpoints else { return true };
        if let Registration::Pending(None) = checkpoints.registration {
            // Not before: creating the topic may take as long as it takes.
            checkpoints.registration = Registration::Pending(Some(Instant::now()));
        }
        checkpoints.registration == Registration::Over
    }

    /// Writes the next checkpoint when it is due.
    pub(super) fn checkpoint(&mut self, now: Instant) {
        let Some(checkpoints) = &self.checkpoints else { return };
        let is_due = checkpoints.registration == Registration::Over && now >= checkpoints.next;
        if is_due && !checkpoints.is_in_flight() {
            self.write_checkpoint(now, None);
        }
    }

    /// Writes the last checkpoint and waits for it, if this producer has ever published anything. `deadline`: until when a caller
    /// waits.
    pub(super) fn last_checkpoint(&mut self, deadline: Instant) {
        let is_known = self.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.number > 0);
        let now = Instant::now();
        // Without it the producer will be silent, which holds a watermark back as much as one that says what it did not deliver.
        if !is_known || self.publisher.is_none() || now >= deadline {
            return;
        }
        let deadline = deadline.min(now + LAST_WAIT);
        self.await_checkpoint(deadline);
        let stats = self.session.stats();
        let left = stats.waiting.wrapping_add(stats.in_flight);
        let last_event = self.last_round.map_or(0, |round| round.time);
        let Some(checkpoints) = &mut self.checkpoints else { return };
        let is_covered = left == 0 && checkpoints.completeness.finish(last_event.saturating_add(1)).is_some();
        let end = if is_covered { End::Complete } else { End::Incomplete };
        checkpoints.client_dropped();
        self.write_checkpoint(Instant::now(), Some(end));
        self.await_checkpoint(deadline);
    }

    fn await_checkpoint(&mut self, deadline: Instant) {
        while self.checkpoints.as_ref().is_some_and(Checkpoints::is_in_flight) && Instant::now() < deadline {
            self.poll(TURN);
        }
    }

    /// Hands a checkpoint to the bus; a failure is noted, and tried again later.
    fn write_checkpoint(&mut self, now: Instant, end: Option<End>) {
        // The messages in flight show when the bus answers again; a question here would keep them waiting.
        if end.is_none() && self.outage.lasts() && self.is_in_flight() {
            if let Some(checkpoints) = &mut self.checkpoints {
                checkpoints.next = now + AGAIN;
            }
            return;
        }
        let outcome = self.try_checkpoint(now, end);
        let Some(checkpoints) = &mut self.checkpoints else { return };
        match outcome {
            Ok(next) => checkpoints.next = now + next,
            Err(error) => {
                let is_first = checkpoints.registration != Registration::Over;
                checkpoints.next = now + if error.is_transient() { AGAIN } else { checkpoints.interval };
                if error.is_transient() && is_first {
                    // Nothing was published yet: it is the bus that does not answer.
                    return self.note_failure(&error.to_string());
                }
                checkpoints.registration = Registration::Over;
                self.checkpoint_failed(&error.to_string());
            }
        }
    }

    /// Returns after what time the next checkpoint is due: at once where the topic was created and is not shown yet.
    fn try_checkpoint(&mut self, now: Instant, end: Option<End>) -> Result<Duration, BusError> {
        self.look_at_streams()?;
        let (Some(checkpoints), Some(publisher)) = (&mut self.checkpoints, &mut self.publisher) else {
            return Ok(AGAIN);
        };
        if publisher.partitions(&checkpoints.topic)?.is_none() {
            if !checkpoints.creates_topic {
                return Err(BusError::Settings("it does not exist, and this service may not create topics".to_owned()));
            }
            match self.bus.create_topic(&checkpoints.topic, &TopicOptions::new(1).compacted()) {
                Ok(_) | Err(BusError::PartitionCount { .. }) => {}
                Err(error) => return Err(error),
            }
            if publisher.partitions(&checkpoints.topic)?.is_none() {
                return Ok(SHOWN_AFTER);
            }
        }
        let emitted = self.last_round.map_or(0, |round| round.emitted);
        let numbers = &self.session.numbers;
        // Not from the clock that dates the counts: a jump is that clock's to handle, when the next counts are taken.
        let time = nanos_of((self.settings.wall_clock.0)()).unwrap_or(0);
        let interval = i64::try_from(checkpoints.interval.as_nanos()).unwrap_or(i64::MAX);
        let number = checkpoints.next_number();
        let stream = match &checkpoints.stream {
            Stream::Known(id) => Some(id.to_string()),
            Stream::Unasked | Stream::Nameless => None,
        };
        let checkpoint = Checkpoint {
            producer: hex(&self.session.producer),
            number,
            service: checkpoints.service.clone(),
            instance: checkpoints.instance.clone(),
            host: checkpoints.host.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            topic: self.settings.topic.clone(),
            stream,
            started: self.started.unwrap_or(time),
            time,
            interval_ms: u64::try_from(checkpoints.interval.as_millis()).unwrap_or(u64::MAX),
            marks: checkpoints.completeness.marks(interval),
            doubts: checkpoints.completeness.doubts().to_vec(),
            end,
            emitted,
            delivered: numbers.delivered.load(Ordering::Relaxed),
            unknown: numbers.unknown.load(Ordering::Relaxed),
            messages: numbers.messages.load(Ordering::Relaxed),
            give_backs: numbers.give_backs.load(Ordering::Relaxed),
            series: registry::len() as u64,
            overflowed: ledger::counted_in(&registry::overflows()),
            previous: checkpoints.previous,
        };
        let payload = checkpoint.encode().map_err(|error| BusError::Settings(error.to_string()))?;
        let key = Some(checkpoint.producer.as_bytes());
        let record = NewRecord { topic: &checkpoints.topic, partition: None, key, payload: &payload, headers: &[] };
        publisher.publish(record, self.next_token)?;
        checkpoints.in_flight = Some((self.next_token, now));
        checkpoints.number = number;
        checkpoints.previous = Some((time, emitted));
        self.next_token += 1;
        Ok(checkpoints.interval)
    }

    /// Asks which incarnation of the topic it is that has acknowledged the messages so far: the one that it was before they were
    /// sent, if it still is.
    fn look_at_streams(&mut self) -> Result<(), BusError> {
        let (Some(checkpoints), Some(publisher)) = (&mut self.checkpoints, &mut self.publisher) else { return Ok(()) };
        let number = checkpoints.next_number();
        match publisher.stream_id(&self.settings.topic) {
            Ok(Some(id)) => {
                let found = Stream::Known(id);
                if found != checkpoints.stream {
                    // Counts that were acknowledged before it was known belong to an unknown one.
                    checkpoints.completeness.recreated(number);
                    checkpoints.stream = found;
                }
                Ok(())
            }
            Ok(None) => Err(BusError::NoTopic(self.settings.topic.clone())),
            Err(BusError::Settings(_)) => {
                checkpoints.stream = Stream::Nameless;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The answer to a checkpoint. Returns whether it was one.
    pub(super) fn settle_checkpoint(&mut self, delivery: &Delivery) -> bool {
        let Some(checkpoints) = &mut self.checkpoints else { return false };
        if checkpoints.in_flight.is_none_or(|(token, _)| token != delivery.token) {
            return false;
        }
        checkpoints.in_flight = None;
        if let Err(error) = &delivery.outcome {
            self.checkpoint_failed(&error.to_string());
            return true;
        }
        if checkpoints.registration != Registration::Over {
            checkpoints.registration = Registration::Over;
            checkpoints.next = Instant::now() + FIRST_AFTER.min(checkpoints.interval);
        }
        if std::mem::take(&mut checkpoints.is_failing) {
            tracing::info!(topic = checkpoints.topic, "checkpoints are written again");
        }
        if !self.is_in_flight() {
            self.recovered();
        }
        true
    }

    fn checkpoint_failed(&mut self, reason: &str) {
        self.session.numbers.checkpoint_failures.fetch_add(1, Ordering::Relaxed);
        let Some(checkpoints) = &mut self.checkpoints else { return };
        // While the bus does not answer, the log says so.
        if checkpoints.is_failing || self.outage.lasts() {
            return;
        }
        checkpoints.is_failing = true;
        tracing::warn!(
            topic = checkpoints.topic,
            reason,
            "this service's checkpoints cannot be written, retrying (no count is lost): it is not known whether its counts are \
             complete. Create the topic with one partition and cleanup.policy=compact and allow this user to describe and write \
             it, or set the checkpoint interval to 0"
        );
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
