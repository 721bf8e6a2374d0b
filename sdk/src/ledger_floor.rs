use std::collections::HashMap;

use tallybus_bus::TopicPartition;

/// For each partition, the offset that the destination's ledger had at least when this process last read it or advanced it. A
/// ledger only advances, so that one behind its floor has lost batches: a backup was restored, or a failover lost commits.
#[derive(Debug, Default)]
pub struct LedgerFloor {
    least: HashMap<TopicPartition, u64>,
}

impl LedgerFloor {
    /// The floor; 0 for a partition that this process has neither read nor written.
    pub fn of(&self, at: &TopicPartition) -> u64 {
        self.least.get(at).copied().unwrap_or(0)
    }

    /// Records that the ledger is at this offset or after it.
    pub fn raise(&mut self, at: TopicPartition, end: u64) {
        let least = self.least.entry(at).or_default();
        *least = (*least).max(end);
    }

    /// Records where the ledger is when a worker takes the partition over. It is compared with the group then, so that it
    /// replaces what this process knew.
    pub fn found(&mut self, at: TopicPartition, end: u64) {
        self.least.insert(at, end);
    }
}
