//! Apache Kafka behind the seam, through librdkafka.
//!
//! # Membership
//! A member uses the cooperative protocol: partitions that stay with it are read without interruption through a
//! rebalance. Every assignment and revocation waits for its owner's answer ([`crate::Subscriber::start`],
//! [`crate::Subscriber::release`]), so that a commit answered before the release was made by the partition's owner.
//!
//! Kafka checks the member of a commit, not the partition's owner, so this module does:
//! - a commit for a partition that was released, lost or never owned is refused here;
//! - `release` waits until a commit that is under way has been answered, for librdkafka repeats a commit after an outage and
//!   would make it when the partition is another member's;
//! - for the same reason there is one commit at a time, and reading back waits for it.
//!
//! # Records
//! Each partition has a queue of its own, read a thousand records at a call. A partition that is paused is just not read:
//! librdkafka fetches as much as its queue may hold and then waits. One socket wakes the polling thread for records,
//! rebalances and answers to commits.

mod access;
mod admin;
mod cause;
mod commits;
mod config;
mod joining;
mod kind;
mod lookup;
mod member;
mod messages;
mod observer;
mod partitions;
mod publisher;
mod raw;
mod reader;
mod reset;
mod retention;
mod state;
mod streams;
mod subscriber;
mod unreadable;
mod waker;

use std::collections::BTreeMap;
use std::fmt;

use self::config::Settings;
pub(crate) use self::kind::KIND;
use self::lookup::Lookup;
use self::observer::KafkaObserver;
use self::publisher::KafkaPublisher;
use self::reader::KafkaReader;
use self::subscriber::KafkaSubscriber;
use crate::{
    Bus, BusError, Committed, GroupOptions, Observer, Publisher, Reader, Subscriber, TopicOptions, TopicPartition,
};

/// A Kafka cluster.
#[derive(Clone)]
pub struct KafkaBus {
    settings: Settings,
}

impl KafkaBus {
    /// Sets up a cluster's client; does not connect yet.
    ///
    /// `brokers` is a list such as `kafka-1:9092,kafka-2:9092`; `properties` are librdkafka's own and override the
    /// defaults here, except those on which a guarantee depends.
    ///
    /// # Errors
    /// [`BusError::Settings`], with every property that is unknown, wrong or fixed. No value is repeated in it.
    pub fn new(brokers: &str, properties: &BTreeMap<String, String>) -> Result<Self, BusError> {
        let settings = Settings::new(brokers, properties)?;
        // Properties that depend on each other (a key and its certificate, say) are checked when a client is created.
        Lookup::new(&settings.lookup(), "lookup")?;
        Ok(Self { settings })
    }
}

impl fmt::Debug for KafkaBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KafkaBus").field(&self.settings).finish()
    }
}

impl Bus for KafkaBus {
    fn describe(&self) -> String {
        format!("Kafka at {}", self.settings.brokers())
    }

    fn forgets_groups(&self) -> bool {
        true
    }

    fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<bool, BusError> {
        admin::create_topic(&self.settings, topic, options)
    }

    fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
        Ok(Box::new(KafkaObserver::new(&self.settings)?))
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>, BusError> {
        Ok(Box::new(KafkaPublisher::new(&self.settings)?))
    }

    fn subscriber(
        &self,
        group: &str,
        topics: &[String],
        options: &GroupOptions,
    ) -> Result<Box<dyn Subscriber>, BusError> {
        Ok(Box::new(KafkaSubscriber::new(&self.settings, group, topics, options)?))
    }

    fn reset_group(&self, group: &str, to: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
        reset::reset_group(&self.settings, group, to)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        Ok(Box::new(KafkaReader::new(&self.settings)?))
    }
}
