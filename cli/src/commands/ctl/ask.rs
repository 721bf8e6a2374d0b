//! What is asked, on its way to the bus.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tallybus_bus::{Bus, BusError, NewRecord, TopicOptions};
use tallybus_control::{Guard, Key};
use tallybus_worker::control::{From, TopicReader, create_commands_topic, signature};

use super::Place;
use super::addressees::Addressees;
use crate::failure::Failure;

/// A request, and the answers to it.
pub(super) struct Asking {
    bus: Arc<dyn Bus>,
    control_topic: String,
    commands_topic: String,
    key: Option<Key>,
    /// Knows which answers are signed with a key of ours.
    pub(super) guard: Guard,
    pub(super) answers: TopicReader,
    pub(super) addressees: Addressees,
}

impl Asking {
    /// Answers are read from now on: none to what is asked afterwards is missed.
    pub(super) fn begin(place: &Place, addressees: Addressees) -> Result<Self, Failure> {
        let (control_topic, commands_topic) = (place.control_topic(), place.commands_topic());
        create_commands_topic(place.bus.as_ref(), &commands_topic)?;
        let mut answers = TopicReader::new(Arc::clone(&place.bus), &commands_topic, From::End);
        answers.begin()?;
        Ok(Self {
            bus: Arc::clone(&place.bus),
            control_topic,
            commands_topic,
            key: place.keys.first().cloned(),
            guard: Guard::new(place.keys.clone()),
            answers,
            addressees,
        })
    }

    /// Publishes what is wanted, and waits until the bus has it.
    pub(super) fn publish_desired(
        &self,
        key: &str,
        id: &str,
        issued_ms: i64,
        payload: &[u8],
        within: Duration,
    ) -> Result<(), Failure> {
        match self.bus.create_topic(&self.control_topic, &TopicOptions::new(1).compacted()) {
            Ok(_) | Err(BusError::PartitionCount { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.publish(&self.control_topic, key, id, issued_ms, payload, within)
    }

    /// Publishes a command, and waits until the bus has it.
    pub(super) fn publish_command(
        &self,
        id: &str,
        issued_ms: i64,
        payload: &[u8],
        within: Duration,
    ) -> Result<(), Failure> {
        self.publish(&self.commands_topic, id, id, issued_ms, payload, within)
    }

    fn publish(
        &self,
        topic: &str,
        key: &str,
        id: &str,
        issued_ms: i64,
        payload: &[u8],
        within: Duration,
    ) -> Result<(), Failure> {
        let until = Instant::now() + within;
        let signed = self.key.as_ref().map(|signing| signature(signing, id, issued_ms, payload));
        let headers: Vec<(&str, &[u8])> =
            signed.iter().flatten().map(|(name, value)| (*name, value.as_bytes())).collect();
        let mut publisher = self.bus.publisher()?;
        let record = NewRecord { topic, partition: Some(0), key: Some(key.as_bytes()), payload, headers: &headers };
        publisher.publish(record, 0)?;
        let mut deliveries = Vec::new();
        while deliveries.is_empty() && Instant::now() < until {
            publisher.poll(until.saturating_duration_since(Instant::now()), &mut deliveries);
        }
        match deliveries.pop().map(|delivery| delivery.outcome) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(Failure::could_not_look(format!("topic {topic} did not take it: {error}"))),
            None => Err(Failure::could_not_look(format!(
                "topic {topic} did not confirm it within {} s: whether workers see it is not known; `tallybus ctl show` says \
                 what is wanted",
                within.as_secs()
            ))),
        }
    }
}

/// Names a request: random.
pub(super) fn new_id() -> String {
    let random = || std::hash::RandomState::new().hash_one((std::process::id(), SystemTime::now()));
    format!("{:016x}{:016x}", random(), random())
}
