//! Events with their own time: published as JSON lines, each series in the partition that a collector uses for it.

use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Delivery, NewRecord, PublishError, Publisher, TopicOptions};
use tallybus_schemas::{ENCODING_HEADER, Encoding, Event, Series, json};

use super::lines::Given;
use crate::failure::Failure;

/// A message of this size in bytes is sent.
const FULL: usize = 256 << 10;
const POLL: Duration = Duration::from_millis(100);

/// The outcome for all events; sums of their values, except `messages`.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Fate {
    pub(super) delivered: u64,
    pub(super) undelivered: u64,
    pub(super) unknown: u64,
    pub(super) messages: u64,
}

impl Fate {
    pub(super) fn is_complete(&self) -> bool {
        self.undelivered == 0 && self.unknown == 0
    }
}

#[derive(Debug, Default)]
struct Message {
    bytes: Vec<u8>,
    sum: u64,
}

pub(super) struct Timed {
    publisher: Box<dyn Publisher>,
    topic: String,
    open: Vec<Message>,
    /// The sums of the messages in flight, by token.
    in_flight: HashMap<u64, u64>,
    next_token: u64,
    fate: Fate,
}

impl Timed {
    /// Creates the topic if it does not exist; waits for it, and for the bus, until the deadline at most.
    pub(super) fn start(bus: Box<dyn Bus>, topic: &str, partitions: u32, until: Instant) -> Result<Self, Failure> {
        let mut publisher = bus.publisher()?;
        let mut failure = create_topic(bus, topic, partitions, until)?;
        let partitions = loop {
            // The request takes its time too.
            let is_late = failure.is_some() && Instant::now() >= until;
            if !is_late {
                match publisher.partitions(topic) {
                    Ok(Some(partitions)) => break partitions,
                    Ok(None) => {}
                    Err(error) if error.is_transient() => failure = Some(error.to_string()),
                    Err(error) => return Err(cannot_publish(topic, &error.to_string())),
                }
            }
            if Instant::now() >= until {
                return Err(cannot_publish(topic, failure.as_deref().unwrap_or("no answer before the deadline")));
            }
            publisher.poll(POLL, &mut Vec::new());
        };
        let open = (0..partitions.max(1)).map(|_| Message::default()).collect();
        Ok(Self {
            publisher,
            topic: topic.to_owned(),
            open,
            in_flight: HashMap::new(),
            next_token: 0,
            fate: Fate::default(),
        })
    }

    pub(super) fn add(&mut self, given: &Given) -> Result<(), Failure> {
        let tags: Vec<(&str, &str)> = given.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let place = partition_of(&given.name, &tags, self.open.len());
        let series = Series::from_sorted(&given.name, &tags);
        let event = Event { series, value: given.value, time: given.time.unwrap_or_default() };
        let message = &mut self.open[place];
        json::write_event(&mut message.bytes, &event);
        message.bytes.push(b'\n');
        message.sum = message.sum.saturating_add(given.value);
        if message.bytes.len() >= FULL { self.send(place, None) } else { Ok(()) }
    }

    pub(super) fn send_waiting(&mut self) -> Result<(), Failure> {
        for place in 0..self.open.len() {
            self.send(place, None)?;
        }
        self.poll(Duration::ZERO);
        Ok(())
    }

    /// Sends the remaining messages and waits for the answers.
    pub(super) fn finish(mut self, until: Instant) -> Fate {
        for place in 0..self.open.len() {
            // Messages that are not sent by then are counted below.
            let _ = self.send(place, Some(until));
        }
        while !self.in_flight.is_empty() && Instant::now() < until {
            self.poll(POLL);
        }
        let mut deliveries = Vec::new();
        self.publisher.withdraw(&mut deliveries);
        self.settle(deliveries);
        self.fate.unknown += self.in_flight.values().sum::<u64>();
        self.fate.undelivered += self.open.iter().map(|message| message.sum).sum::<u64>();
        self.fate
    }

    fn send(&mut self, place: usize, until: Option<Instant>) -> Result<(), Failure> {
        if self.open[place].bytes.is_empty() {
            return Ok(());
        }
        loop {
            let record = NewRecord {
                topic: &self.topic,
                partition: u32::try_from(place).ok(),
                key: None,
                payload: self.open[place].bytes.trim_ascii_end(),
                headers: &[(ENCODING_HEADER, Encoding::Json.name().as_bytes())],
            };
            match self.publisher.publish(record, self.next_token) {
                Ok(()) => break,
                Err(error) if error.is_transient() && until.is_none_or(|until| Instant::now() < until) => {
                    self.poll(POLL)
                }
                Err(error) => return Err(Failure::failed(error)),
            }
        }
        let sent = std::mem::take(&mut self.open[place]);
        self.in_flight.insert(self.next_token, sent.sum);
        self.next_token += 1;
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) {
        let mut deliveries = Vec::new();
        self.publisher.poll(timeout, &mut deliveries);
        self.settle(deliveries);
    }

    fn settle(&mut self, deliveries: Vec<Delivery>) {
        for Delivery { token, outcome } in deliveries {
            let Some(sum) = self.in_flight.remove(&token) else { continue };
            match outcome {
                Ok(_) => {
                    self.fate.delivered += sum;
                    self.fate.messages += 1;
                }
                Err(error @ (PublishError::TooLarge { .. } | PublishError::Refused(_))) => {
                    tracing::error!(%error, "the bus refused a message; its events count as not delivered");
                    self.fate.undelivered += sum;
                }
                Err(_) => self.fate.unknown += sum,
            }
        }
    }
}

fn cannot_publish(topic: &str, reason: &str) -> Failure {
    Failure::failed(format!("cannot publish to the topic {topic}: {reason}"))
}

/// Creates the topic if it is missing. The request may take longer than the time left, so it runs beside; returns the
/// error while it may be transient.
fn create_topic(bus: Box<dyn Bus>, topic: &str, partitions: u32, until: Instant) -> Result<Option<String>, Failure> {
    let (send, created) = channel();
    let (name, place) = (topic.to_owned(), bus.describe());
    std::thread::spawn(move || send.send(bus.create_topic(&name, &TopicOptions::new(partitions))));
    match created.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(Ok(_) | Err(BusError::PartitionCount { .. })) => Ok(None),
        Ok(Err(error)) if error.is_transient() => Ok(Some(error.to_string())),
        Ok(Err(error)) => Err(Failure::failed(error)),
        Err(_) => Ok(Some(format!("{place} does not answer"))),
    }
}

/// The partition that a collector uses for the series: FNV-1a over name and tags, each text followed by a zero byte.
fn partition_of(name: &str, tags: &[(&str, &str)], partitions: usize) -> usize {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let texts = std::iter::once(name).chain(tags.iter().flat_map(|&(key, value)| [key, value]));
    for byte in texts.flat_map(|text| text.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    usize::try_from(hash % partitions.max(1) as u64).unwrap_or_default()
}
