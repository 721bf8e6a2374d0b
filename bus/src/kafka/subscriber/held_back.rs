//! Records that the brokers do not deliver, because a transaction is open before them.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use tracing::{debug, warn};

use super::super::lookup;
use super::{KafkaSubscriber, LOOKING};
use crate::{OffsetRange, TopicPartition};

/// How often the cause is looked for and logged.
const EVERY: Duration = Duration::from_secs(30);

impl KafkaSubscriber {
    /// Logs where records are held back. `ranges` are the offsets that the partitions hold, whether they may be read yet or
    /// not.
    pub(super) fn note_held_back(&mut self, partitions: &[TopicPartition], ranges: &[OffsetRange]) {
        let now = Instant::now();
        let mut held = Vec::new();
        for (at, range) in partitions.iter().zip(ranges) {
            let client = self.consumer.client();
            if self.partitions.get(at).is_some_and(|owned| owned.is_held_back(client, range.end, now)) {
                held.push((at, range.end));
            }
        }
        if held.is_empty() || now < self.ask_why_held_back {
            return;
        }
        self.ask_why_held_back = now + EVERY;
        let wanted: Vec<(&str, u32)> = held.iter().map(|(at, _)| (&*at.topic, at.partition)).collect();
        // For a client that reads committed records only, a partition ends where its first open transaction begins.
        let readable = match lookup::ranges(&self.consumer, self.connection(), &wanted, LOOKING) {
            Ok(readable) => readable,
            Err(error) => {
                // Asked again at the next turn.
                debug!(target: "kafka", %error, "why records are not delivered is not known");
                return;
            }
        };
        for ((at, end), readable) in held.iter().zip(readable).filter(|((_, end), readable)| readable.end < *end) {
            warn!(
                target: "kafka", partition = %at, from = readable.end, end,
                "records are not delivered yet: a producer's transaction is open before them. They come once it is \
                 committed or aborted, at the latest when the broker ends it (the producer's `transaction.timeout.ms`)"
            );
        }
    }
}
