use std::time::Duration;

use super::SimBus;
use super::state::{State, Stored};
use crate::rules::{self, MAX_RECORD, hash, millis_of};
use crate::{BusError, Delivery, NewRecord, PublishError, Publisher, StreamId, TopicPartition};

/// A record that was handed over; refused already, or on its way.
struct Queued {
    token: u64,
    record: Result<(TopicPartition, Stored), PublishError>,
}

pub(super) struct SimPublisher {
    bus: SimBus,
    queue: Vec<Queued>,
}

impl SimPublisher {
    pub(super) fn new(bus: SimBus) -> Self {
        Self { bus, queue: Vec::new() }
    }
}

impl Publisher for SimPublisher {
    fn publish(&mut self, record: NewRecord<'_>, token: u64) -> Result<(), BusError> {
        let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if record.payload.len() + record.key.map_or(0, <[u8]>::len) + headers > MAX_RECORD {
            let refused = PublishError::TooLarge { limit: Some(MAX_RECORD as u64) };
            self.queue.push(Queued { token, record: Err(refused) });
            return Ok(());
        }
        let time_ms = millis_of(self.bus.shared.time.wall_time())?;
        let mut state = self.bus.ask()?;
        let count = state.count(record.topic).ok_or_else(|| BusError::NoTopic(record.topic.to_owned()))?;
        let place = match (record.partition, record.key) {
            (Some(partition), _) => u64::from(partition),
            (None, Some(key)) => hash(key) % u64::from(count),
            (None, None) => state.choose(u64::from(count)),
        };
        let record = match u32::try_from(place).ok().filter(|partition| *partition < count) {
            Some(partition) => {
                let stored = Stored {
                    time_ms,
                    key: record.key.map(<[u8]>::to_vec),
                    headers: record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
                    payload: record.payload.to_vec(),
                };
                Ok((TopicPartition::new(record.topic, partition), stored))
            }
            None => Err(PublishError::Refused(rules::no_partition(record.topic, place, count.into()))),
        };
        drop(state);
        self.queue.push(Queued { token, record });
        Ok(())
    }

    fn poll(&mut self, _timeout: Duration, deliveries: &mut Vec<Delivery>) {
        // Records wait while the bus is unavailable.
        let Ok(mut state) = self.bus.ask() else { return };
        for Queued { token, record } in self.queue.drain(..) {
            let outcome = record.and_then(|(at, stored)| {
                if state.refusing.contains(&*at.topic) {
                    return Err(PublishError::Refused(format!("topic {} refuses every record", at.topic)));
                }
                let lost = loses_acknowledgement(&mut state, &at);
                let placed = state.append(&at, stored).map_err(|error| PublishError::Refused(error.to_string()))?;
                match lost {
                    true => Err(PublishError::Unknown("the acknowledgement was lost".to_owned())),
                    false => Ok(placed),
                }
            });
            deliveries.push(Delivery { token, outcome });
        }
    }

    fn in_flight(&self) -> usize {
        self.queue.len()
    }

    fn partitions(&mut self, topic: &str) -> Result<Option<u32>, BusError> {
        Ok(self.bus.ask()?.count(topic))
    }

    fn stream_id(&mut self, topic: &str) -> Result<Option<StreamId>, BusError> {
        Ok(self.bus.ask()?.topic(topic).ok().map(|topic| topic.stream.clone()))
    }
}

fn loses_acknowledgement(state: &mut State, at: &TopicPartition) -> bool {
    match state.unacknowledged.get_mut(&*at.topic) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}
