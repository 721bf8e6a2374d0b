//! Answers, on their way to the topic of commands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Delivery, NewRecord, Publisher, TopicOptions};
use tallybus_control::{Answer, HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, Key, MAX_ANSWER, VERSION, answer_key};

/// For how long the topic of commands keeps a record: longer than any command lives.
const KEPT_FOR: Duration = Duration::from_secs(86_400);
/// The most answers that wait for the bus; of more, the oldest are dropped: those who asked see silence.
const MOST: usize = 1_000;
/// How soon the bus is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Creates the topic of commands where it is missing.
///
/// # Errors
/// The bus does not answer, or refuses it.
pub fn create_commands_topic(bus: &dyn Bus, topic: &str) -> Result<(), BusError> {
    match bus.create_topic(topic, &TopicOptions::new(1).kept_for(KEPT_FOR)) {
        Ok(_) | Err(BusError::PartitionCount { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The headers of a record that a key signs.
pub fn signature(key: &Key, id: &str, time_ms: i64, payload: &[u8]) -> [(&'static str, String); 3] {
    let timestamp = time_ms.div_euclid(1_000);
    [
        (HEADER_ID, id.to_owned()),
        (HEADER_TIMESTAMP, timestamp.to_string()),
        (HEADER_SIGNATURE, key.sign(id, timestamp, payload)),
    ]
}

/// See the module.
pub(super) struct Answers {
    bus: Arc<dyn Bus>,
    topic: String,
    key: Option<Key>,
    process: String,
    waiting: VecDeque<Answer>,
    publisher: Option<Box<dyn Publisher>>,
    is_created: bool,
    try_at: Option<Instant>,
}

impl Answers {
    /// `process`: the id of this life of the process. Signed with the key, where there is one.
    pub(super) fn new(bus: Arc<dyn Bus>, topic: &str, key: Option<Key>, process: &str) -> Self {
        Self {
            bus,
            topic: topic.to_owned(),
            key,
            process: process.to_owned(),
            waiting: VecDeque::new(),
            publisher: None,
            is_created: false,
            try_at: None,
        }
    }

    /// Hands an answer over; it names this version and process.
    pub(super) fn send(&mut self, answer: Answer) {
        if self.waiting.len() >= MOST {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Answer { version: VERSION, process: self.process.clone(), ..answer });
    }

    /// Publishes what waits, one at a time, in order. Waits for this time at most.
    ///
    /// # Errors
    /// The bus did not take one; it is tried again later.
    pub(super) fn publish(&mut self, at_most: Duration) -> Result<(), String> {
        let until = Instant::now() + at_most;
        while !self.waiting.is_empty() {
            if self.try_at.is_some_and(|at| Instant::now() < at) {
                return Ok(());
            }
            let outcome = self.publish_next(until);
            if let Err(reason) = outcome {
                self.try_at = Some(Instant::now() + TRY_AGAIN);
                return Err(reason);
            }
            self.try_at = None;
            if Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }

    fn publish_next(&mut self, until: Instant) -> Result<(), String> {
        let Some(answer) = self.waiting.front() else { return Ok(()) };
        if !self.is_created {
            create_commands_topic(self.bus.as_ref(), &self.topic).map_err(|error| error.to_string())?;
            self.is_created = true;
        }
        let publisher = match self.publisher.take() {
            Some(publisher) => publisher,
            None => self.bus.publisher().map_err(|error| error.to_string())?,
        };
        let publisher = self.publisher.insert(publisher);
        if publisher.in_flight() == 0 {
            let payload = encoded(answer).map_err(|error| error.to_string())?;
            let signed = self.key.as_ref().map(|key| signature(key, &answer.answers, answer.time_ms, &payload));
            let headers: Vec<(&str, &[u8])> =
                signed.iter().flatten().map(|(name, value)| (*name, value.as_bytes())).collect();
            let key = answer_key(&answer.answers, &answer.addressee);
            let (topic, key) = (self.topic.as_str(), Some(key.as_bytes()));
            let record = NewRecord { topic, partition: Some(0), key, payload: &payload, headers: &headers };
            publisher.publish(record, 0).map_err(|error| error.to_string())?;
        }
        let mut deliveries = Vec::new();
        while deliveries.is_empty() && Instant::now() < until {
            publisher.poll(until.saturating_duration_since(Instant::now()), &mut deliveries);
        }
        for Delivery { outcome, .. } in deliveries {
            if let Err(error) = outcome {
                self.is_created = false;
                return Err(error.to_string());
            }
            self.waiting.pop_front();
        }
        Ok(())
    }
}

/// An answer as it is published: without its data where that is larger than readers read.
fn encoded(answer: &Answer) -> serde_json::Result<Vec<u8>> {
    let payload = serde_json::to_vec(answer)?;
    if payload.len() <= MAX_ANSWER {
        return Ok(payload);
    }
    let text = format!("{} (its data of {} bytes is left out: too large for a record)", answer.text, payload.len());
    serde_json::to_vec(&Answer { text, data: serde_json::Value::Null, ..answer.clone() })
}
