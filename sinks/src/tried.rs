use std::collections::HashMap;

use tallybus_bus::TopicPartition;
use tallybus_sdk::Batch;

/// The batch of each partition that this process last began to write: from then on it may be in.
#[derive(Debug, Default)]
pub(crate) struct Tried(HashMap<TopicPartition, String>);

impl Tried {
    /// Whether somebody may have written the batch before: it was found sealed, or this process has begun it.
    pub(crate) fn may_be_in(&self, batch: &Batch) -> bool {
        batch.recovered || self.0.get(&batch.id.at()) == Some(&batch.key())
    }

    /// This process begins to write it.
    pub(crate) fn begin(&mut self, batch: &Batch) {
        self.0.insert(batch.id.at(), batch.key());
    }
}
