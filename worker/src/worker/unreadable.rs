//! Records that the bus cannot deliver.

use tallybus_bus::TopicPartition;

use super::Worker;
use crate::status::HaltCause;

impl Worker {
    /// Nothing more comes of this partition. What came before is written and settled first.
    pub(super) fn found_unreadable(&mut self, at: TopicPartition, offset: u64, reason: &str) {
        let next = offset.saturating_add(1);
        let reason = format!(
            "the record at {at}/{offset} cannot be read: {reason}. It stays on the bus, and so does everything after it. \
             To read it, raise `receive.message.max.bytes` in [bus.kafka] and start again. To go on without it, stop the \
             sink's workers and run `tallybus group reset {sink} --partition {at} --to {next}` (records that were \
             compressed together are unreadable together: take an offset after all of them)",
            sink = self.options.sink
        );
        tracing::error!(sink = self.options.sink, partition = %at, reason, "a record cannot be read");
        self.unreadable.insert(at, reason);
    }

    /// Stops the partitions whose next record cannot be read, as soon as everything before it is settled.
    pub(super) fn stop_unreadable(&mut self) {
        let waits = |at: &TopicPartition| self.tasks.iter().any(|task| task.at == *at && !task.is_finished());
        let due: Vec<TopicPartition> = self.unreadable.keys().filter(|at| !waits(at)).cloned().collect();
        for at in due {
            let is_owned = self.tasks.get_mut(&at).is_some();
            if let Some(reason) = self.unreadable.remove(&at).filter(|_| is_owned) {
                self.stop_partition(&at, HaltCause::Records, reason);
            }
        }
    }
}
