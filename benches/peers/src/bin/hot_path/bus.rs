//! A bus that takes every message and keeps none, so that what is measured is the collector.

use std::time::Duration;

use tallybus_bus::{
    Bus, BusError, Committed, Delivery, GroupOptions, NewRecord, Observer, Placed, Publisher, Reader, Subscriber, TopicOptions,
    TopicPartition,
};

/// Any topic has this many partitions.
pub const PARTITIONS: u32 = 4;

#[derive(Debug)]
pub struct NullBus;

#[derive(Debug, Default)]
struct NullPublisher {
    taken: Vec<u64>,
    offset: u64,
}

impl Publisher for NullPublisher {
    fn publish(&mut self, record: NewRecord<'_>, token: u64) -> Result<(), BusError> {
        std::hint::black_box(record.payload);
        self.taken.push(token);
        Ok(())
    }

    fn poll(&mut self, _timeout: Duration, deliveries: &mut Vec<Delivery>) {
        for token in self.taken.drain(..) {
            deliveries.push(Delivery { token, outcome: Ok(Placed::new(0, Some(self.offset))) });
            self.offset += 1;
        }
    }

    fn in_flight(&self) -> usize {
        self.taken.len()
    }

    fn partitions(&mut self, _topic: &str) -> Result<Option<u32>, BusError> {
        Ok(Some(PARTITIONS))
    }
}

fn nothing<T>() -> Result<T, BusError> {
    Err(BusError::Settings("this bus keeps nothing".to_owned()))
}

impl Bus for NullBus {
    fn describe(&self) -> String {
        "a bus that keeps nothing".to_owned()
    }

    fn create_topic(&self, _topic: &str, _options: &TopicOptions) -> Result<bool, BusError> {
        Ok(false)
    }

    fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
        nothing()
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>, BusError> {
        Ok(Box::new(NullPublisher::default()))
    }

    fn subscriber(&self, _: &str, _: &[String], _: &GroupOptions) -> Result<Box<dyn Subscriber>, BusError> {
        nothing()
    }

    fn reset_group(&self, _group: &str, _to: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
        Err(BusError::Unavailable("this bus has no groups".to_owned()))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        nothing()
    }
}
