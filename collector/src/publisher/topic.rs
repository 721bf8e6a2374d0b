//! The topic: looked for, and created where the settings allow it.

use std::time::{Duration, Instant};

use tallybus_bus::{BusError, TopicOptions};

use super::{RETRY, URGENT_RETRY, Worker};
use crate::builder::TopicCreation;
use crate::session;

/// A cluster's brokers know a new topic within this time.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);

/// What is known of the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopicState {
    /// Not looked for yet.
    Sought,
    /// This collector, or another process, created it at this time; a bus may show it a little later.
    Created(Instant),
    /// It was there when it was last looked for.
    Found,
    /// It was not, or the bus did not answer.
    Missing,
}

impl Worker {
    /// The topic's partitions, as soon as there are a client and a topic.
    pub(super) fn partitions(&mut self, now: Instant, urgent: bool) -> Option<u32> {
        if self.publisher.is_none() || self.topic != TopicState::Found {
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
                    self.failed(&error.to_string());
                    return None;
                }
            }
        }
        let reason = match self.publisher.as_mut()?.partitions(&self.settings.topic) {
            Ok(Some(count)) if count > 0 => {
                if self.topic != TopicState::Found {
                    self.note_partitions(count);
                }
                self.topic = TopicState::Found;
                return Some(count);
            }
            Ok(_) => {
                // A topic that was just created is looked for at once, and is no failure.
                if self.create_topic() {
                    self.next_try = now;
                    match self.topic {
                        TopicState::Sought => {
                            self.topic = TopicState::Created(now);
                            return None;
                        }
                        TopicState::Created(at) if now.saturating_duration_since(at) < SHOWN_WITHIN => return None,
                        _ => {}
                    }
                }
                format!("topic {:?} does not exist", self.settings.topic)
            }
            Err(error) => error.to_string(),
        };
        // Retried at its own interval, and recreated if necessary.
        self.topic = TopicState::Missing;
        self.note_failure(&reason);
        None
    }

    /// Creates the topic, unless told not to. Returns whether it exists now.
    fn create_topic(&mut self) -> bool {
        let Some(partitions) = self.settings.topic_creation.partitions() else { return false };
        match self.bus.create_topic(&self.settings.topic, &TopicOptions::new(partitions)) {
            Ok(true) => {
                tracing::info!(topic = self.settings.topic, partitions, "topic created");
                true
            }
            // Another process has created it in the meantime.
            Ok(false) | Err(BusError::PartitionCount { .. }) => true,
            Err(error) => {
                self.failed(&error.to_string());
                false
            }
        }
    }

    fn note_partitions(&self, actual: u32) {
        if let TopicCreation::With(wanted) = self.settings.topic_creation
            && wanted != actual
        {
            let topic = &self.settings.topic;
            tracing::warn!(topic, actual, wanted, "the topic has another number of partitions and is used as it is");
        }
    }
}
