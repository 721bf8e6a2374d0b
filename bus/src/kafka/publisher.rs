use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use tracing::{error, info};

use super::config::Settings;
use super::lookup::Lookup;
use super::raw;
use super::state::{Connection, is_refusal, lock, refusal};
use crate::{BusError, Delivery, NewRecord, Placed, PublishError, Publisher, count_of};

/// How long a topic's known number of partitions is cached.
const FRESH: Duration = Duration::from_secs(10);
/// How soon the query for a missing topic, or to an unavailable bus, is repeated.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The longest that such a query may block the publisher.
const ASKING: Duration = Duration::from_millis(1000);

/// An idempotent producer, acknowledged by all replicas. It never gives up a record, so only a failure of the client
/// itself leaves a record in doubt.
pub(super) struct KafkaPublisher {
    settings: Settings,
    /// `None` while the records of a failed producer are being answered.
    producer: Option<BaseProducer<Context>>,
    shared: Arc<Shared>,
    lookup: Lookup,
    topics: HashMap<String, Known>,
    in_flight: usize,
    failed: Option<String>,
}

struct Shared {
    connection: Connection,
    deliveries: Mutex<Vec<Delivery>>,
}

struct Known {
    partitions: Option<u32>,
    asked: Instant,
    /// Why the last query failed, if it did: the bus was unavailable.
    failure: Option<BusError>,
}

struct Context(Arc<Shared>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.connection.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.connection.error(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, token: Box<u64>) {
        let outcome = match result {
            Ok(message) => {
                self.0.connection.alive();
                stored_at(message.partition(), message.offset())
            }
            Err((error, message)) if raw::certainly_not_stored(message) => Err(not_stored(error)),
            Err((error, _)) => Err(PublishError::Unknown(error.to_string())),
        };
        lock(&self.0.deliveries).push(Delivery { token: *token, outcome });
    }
}

/// Why the brokers did not store a message. Their limit is the topic's `max.message.bytes`, which they do not report.
fn not_stored(error: &KafkaError) -> PublishError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => PublishError::TooLarge { limit: None },
        _ => PublishError::Refused(error.to_string()),
    }
}

/// The offset is missing where the broker had the message already, from an attempt whose answer was lost.
fn stored_at(partition: i32, offset: i64) -> Result<Placed, PublishError> {
    let Ok(known) = u32::try_from(partition) else {
        return Err(PublishError::Unknown(format!("the broker confirmed partition {partition}, offset {offset}")));
    };
    Ok(Placed::new(known, u64::try_from(offset).ok()))
}

impl KafkaPublisher {
    pub(super) fn new(settings: &Settings) -> Result<Self, BusError> {
        let shared = Arc::new(Shared { connection: Connection::new("publisher"), deliveries: Mutex::default() });
        Ok(Self {
            settings: settings.clone(),
            producer: Some(producer(settings, &shared)?),
            shared,
            lookup: Lookup::new(&settings.lookup(), "publisher-lookup")?,
            topics: HashMap::new(),
            in_flight: 0,
            failed: None,
        })
    }

    /// Whether the topic is known to exist. Nothing is sent before, because sending would create the topic where the
    /// brokers auto-create topics.
    fn known_partitions(&mut self, topic: &str) -> Result<u32, BusError> {
        if let Some(known) = self.topics.get(topic) {
            let due = if known.partitions.is_some() && known.failure.is_none() { FRESH } else { ASK_AGAIN };
            if known.asked.elapsed() < due {
                return known.answer(topic);
            }
        }
        let answer = self.lookup.partitions(topic, ASKING);
        let earlier = self.topics.get(topic).and_then(|known| known.partitions);
        let (partitions, failure) = match answer {
            Ok(partitions) => (partitions, None),
            Err(error) if error.is_refusal() => return Err(error),
            // A topic's partitions only grow: the earlier answer is good enough to publish by, and is checked again.
            Err(error) => (earlier, Some(error)),
        };
        let known = Known { partitions, asked: Instant::now(), failure };
        let answer = known.answer(topic);
        self.topics.insert(topic.to_owned(), known);
        answer
    }

    /// Gives up on a producer that failed for good: its open records are reported as refused or unknown, and the next
    /// producer begins once all of them are reported.
    fn replace_when_failed(&mut self) {
        if let Some(producer) = &self.producer
            && self.failed.is_none()
            && let Some((code, reason)) = producer.client().fatal_error()
        {
            error!(target: "kafka", %code, reason, "the producer failed for good and is replaced");
            producer.purge(PurgeConfig::default().queue().inflight());
            self.failed = Some(reason);
        }
        if self.failed.is_none() {
            return;
        }
        if let Some(producer) = &self.producer {
            producer.poll(Duration::ZERO);
            if producer.in_flight_count() > 0 {
                return;
            }
        }
        self.producer = None;
        match producer(&self.settings, &self.shared) {
            Ok(fresh) => {
                self.producer = Some(fresh);
                self.failed = None;
                info!(target: "kafka", "a new producer took over");
            }
            Err(error) => {
                if let Some(more) = self.shared.connection.due("remake") {
                    error!(target: "kafka", more, "the producer cannot be replaced: {error}");
                }
            }
        }
    }
}

impl Known {
    fn answer(&self, topic: &str) -> Result<u32, BusError> {
        match (self.partitions, &self.failure) {
            (Some(partitions), _) => Ok(partitions),
            (None, Some(failure)) if failure.is_transient() => Err(failure.clone()),
            // It is asked for again.
            (None, Some(failure)) => Err(BusError::Unavailable(format!("asking for topic {topic:?}: {failure}"))),
            (None, None) => Err(BusError::NoTopic(topic.to_owned())),
        }
    }
}

fn producer(settings: &Settings, shared: &Arc<Shared>) -> Result<BaseProducer<Context>, BusError> {
    let context = Context(Arc::clone(shared));
    settings.producer().create_with_context(context).map_err(|error| BusError::Settings(error.to_string()))
}

impl Publisher for KafkaPublisher {
    fn publish(&mut self, record: NewRecord<'_>, token: u64) -> Result<(), BusError> {
        let partitions = self.known_partitions(record.topic)?;
        if let Some(wanted) = record.partition
            && wanted >= partitions
        {
            let topic = record.topic;
            return Err(BusError::Settings(format!(
                "topic {topic:?} has {} and no partition {wanted}",
                count_of(partitions, "partition")
            )));
        }
        if self.failed.is_some() {
            return Err(BusError::Unavailable("the producer is being replaced".to_owned()));
        }
        let Some(producer) = &self.producer else {
            return Err(BusError::Unavailable("the producer is being replaced".to_owned()));
        };
        if record.headers.iter().any(|(name, _)| name.contains('\0')) {
            return Err(BusError::Settings("a header's name cannot hold a zero byte".to_owned()));
        }
        let mut message =
            BaseRecord::<[u8], [u8], Box<u64>>::with_opaque_to(record.topic, Box::new(token)).payload(record.payload);
        message.key = record.key;
        message.partition = record.partition.and_then(|partition| i32::try_from(partition).ok());
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            let add = |headers: OwnedHeaders, (key, value): &(&str, &[u8])| {
                headers.insert(Header { key, value: Some(*value) })
            };
            message.headers = Some(record.headers.iter().fold(headers, add));
        }
        match producer.send(message) {
            Ok(()) => {
                self.in_flight += 1;
                Ok(())
            }
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                let outcome = Err(PublishError::TooLarge { limit: self.settings.largest_record() });
                self.in_flight += 1;
                lock(&self.shared.deliveries).push(Delivery { token, outcome });
                Ok(())
            }
            Err((error, _)) => Err(not_taken(&error, record.topic)),
        }
    }

    fn poll(&mut self, timeout: Duration, deliveries: &mut Vec<Delivery>) {
        let until = Instant::now() + timeout;
        // The wrapper's poll lasts its whole timeout even after a delivery.
        let mut step = Duration::from_millis(1);
        self.lookup.serve();
        loop {
            if let Some(producer) = &self.producer {
                producer.poll(Duration::ZERO);
            }
            self.replace_when_failed();
            let mut fresh = lock(&self.shared.deliveries);
            if !fresh.is_empty() {
                self.in_flight = self.in_flight.saturating_sub(fresh.len());
                deliveries.append(&mut fresh);
                return;
            }
            drop(fresh);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match &self.producer {
                Some(producer) => producer.poll(step.min(left)),
                None => std::thread::sleep(step.min(left)),
            }
            step = (step * 2).min(Duration::from_millis(if self.in_flight > 0 { 8 } else { 100 }));
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn partitions(&mut self, topic: &str) -> Result<Option<u32>, BusError> {
        match self.known_partitions(topic) {
            Ok(partitions) => Ok(Some(partitions)),
            Err(BusError::NoTopic(_)) => Ok(None),
            Err(error) => {
                if is_worth_telling(&error)
                    && let Some(more) = self.shared.connection.due("partitions")
                {
                    error!(target: "kafka", more, "{error}");
                }
                Err(error)
            }
        }
    }
}

fn is_worth_telling(error: &BusError) -> bool {
    !error.is_transient()
}

/// Why librdkafka did not take a record.
fn not_taken(error: &KafkaError, topic: &str) -> BusError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => {
            BusError::Unavailable("the producer's queue is full; wait for deliveries".to_owned())
        }
        Some(RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::UnknownTopic) => {
            BusError::Unavailable(format!("topic {topic:?} is not known to the producer yet"))
        }
        Some(code) if is_refusal(code) => refusal(code, code.to_string()),
        // The next poll replaces a producer that failed.
        _ => BusError::Unavailable(error.to_string()),
    }
}
