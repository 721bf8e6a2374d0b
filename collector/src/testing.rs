//! Tests of services: a bus in memory, and what was counted on it.
//!
//! ```
//! use std::time::Duration;
//! use tallybus::count;
//! use tallybus::testing::MemoryBus;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = MemoryBus::new();
//! let guard = tallybus::builder().service("api").start(bus.connection())?;
//!
//! // What the service does:
//! count!("http.requests", 1, route = "/v1/sites", status = 200);
//! count!("http.requests", 2, route = "/v1/sites", status = 500);
//!
//! assert!(guard.flush(Duration::from_secs(5)));
//! assert_eq!(bus.total("http.requests"), 3);
//! assert_eq!(bus.total_with("http.requests", &[("status", "500")]), 2);
//! assert_eq!(bus.total_with("http.requests", &[("service", "api"), ("status", "404")]), 0);
//! # Ok(())
//! # }
//! ```
//! A process has one collector and one set of counters. Tests in threads of one process either share a bus and tell their
//! counts apart by name or tag, or take turns; a collector also delivers what was counted before it started.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tallybus_bus::{
    Bus, BusError, Committed, Delivery, GroupOptions, NewRecord, Observer, Placed, Publisher, Reader, Subscriber,
    TopicOptions, TopicPartition,
};
use tallybus_schemas::{Decoder, Encoding, Events, Series};

use crate::Connection;

/// A bus in the memory of this process, to which a collector publishes. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct MemoryBus(Arc<Mutex<Contents>>);

/// A series on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counted {
    /// The counter's name.
    pub name: String,
    /// Key and value, sorted by key.
    pub tags: Vec<(String, String)>,
    /// The sum of its counts.
    pub sum: u64,
}

#[derive(Debug, Default)]
struct Contents {
    /// The number of partitions of each topic.
    topics: BTreeMap<String, u32>,
    records: u64,
    sums: BTreeMap<Series, u64>,
}

impl MemoryBus {
    /// An empty bus without topics; the collector creates its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection for [`Builder::start`](crate::Builder::start).
    pub fn connection(&self) -> Connection {
        Connection::from_bus(Box::new(self.clone()))
    }

    /// The sum of all series of this counter that are on the bus. Call [`Guard::flush`](crate::Guard::flush) before.
    pub fn total(&self, name: &str) -> u64 {
        self.total_with(name, &[])
    }

    /// The sum of the series of this counter that have all these tags, and perhaps others.
    pub fn total_with(&self, name: &str, tags: &[(&str, &str)]) -> u64 {
        let contents = self.lock();
        let has_all = |series: &Series| tags.iter().all(|(key, value)| series.tag(key) == Some(value));
        let sums = contents.sums.iter().filter(|(series, _)| series.name() == name && has_all(series));
        sums.fold(0, |total, (_, sum)| total.wrapping_add(*sum))
    }

    /// Every series on the bus, sorted, with the tags that the collector adds.
    pub fn series(&self) -> Vec<Counted> {
        let owned = |(series, sum): (&Series, &u64)| Counted {
            name: series.name().to_owned(),
            tags: series.tags().iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            sum: *sum,
        };
        self.lock().sums.iter().map(owned).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn only_published_to() -> BusError {
    BusError::Settings("a bus in memory is only published to: its counts are read from `MemoryBus` itself".to_owned())
}

impl Bus for MemoryBus {
    fn describe(&self) -> String {
        "a bus in memory".to_owned()
    }

    fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<bool, BusError> {
        let mut contents = self.lock();
        if let Some(&actual) = contents.topics.get(topic) {
            let wanted = options.partitions;
            if actual != wanted {
                return Err(BusError::PartitionCount { topic: topic.to_owned(), wanted, actual });
            }
            return Ok(false);
        }
        contents.topics.insert(topic.to_owned(), options.partitions);
        Ok(true)
    }

    fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
        Err(only_published_to())
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>, BusError> {
        Ok(Box::new(MemoryPublisher { bus: self.clone(), deliveries: Vec::new() }))
    }

    fn subscriber(&self, _: &str, _: &[String], _: &GroupOptions) -> Result<Box<dyn Subscriber>, BusError> {
        Err(only_published_to())
    }

    fn reset_group(&self, _: &str, _: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
        Err(only_published_to())
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        Err(only_published_to())
    }
}

struct MemoryPublisher {
    bus: MemoryBus,
    deliveries: Vec<Delivery>,
}

impl Publisher for MemoryPublisher {
    fn publish(&mut self, record: NewRecord<'_>, token: u64) -> Result<(), BusError> {
        // A checkpoint, which counts nothing.
        if record.key.is_some() {
            self.deliveries.push(Delivery { token, outcome: Ok(Placed::new(0, None)) });
            return Ok(());
        }
        let mut events = Events::new();
        let decoded = Decoder::new().decode(Some(Encoding::Native), record.payload, 0, &mut events);
        decoded.map_err(|error| BusError::Settings(format!("a message that is not native: {error}")))?;
        let mut contents = self.bus.lock();
        for (series, value, _) in events.iter() {
            let sum = contents.sums.entry(series.clone()).or_default();
            *sum = sum.wrapping_add(value);
        }
        let placed = Placed::new(record.partition.unwrap_or(0), Some(contents.records));
        contents.records += 1;
        self.deliveries.push(Delivery { token, outcome: Ok(placed) });
        Ok(())
    }

    fn poll(&mut self, _: Duration, deliveries: &mut Vec<Delivery>) {
        deliveries.append(&mut self.deliveries);
    }

    fn in_flight(&self) -> usize {
        self.deliveries.len()
    }

    fn partitions(&mut self, topic: &str) -> Result<Option<u32>, BusError> {
        Ok(self.bus.lock().topics.get(topic).copied())
    }
}
