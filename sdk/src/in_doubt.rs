use std::collections::HashMap;

use tallybus_bus::TopicPartition;

use crate::{Batch, LedgerFloor};

/// For each partition, the batch that this process last started to write. Until the backend answers, and after an
/// answer that was lost, only the backend's ledger shows whether such a batch was applied: it is *in doubt*.
#[derive(Debug, Default)]
pub struct InDoubt {
    last: HashMap<TopicPartition, String>,
    floor: LedgerFloor,
}

impl InDoubt {
    /// Whether the batch may have been applied before: this worker found it sealed, or this process has started to
    /// write it.
    pub fn contains(&self, batch: &Batch) -> bool {
        batch.recovered || self.last.get(&batch.id.at()) == Some(&batch.key())
    }

    /// The floor of the ledger of the batch's partition ([`LedgerFloor::of`]).
    pub fn least(&self, batch: &Batch) -> u64 {
        self.floor.of(&batch.id.at())
    }

    /// Records that the ledger is at the batch's end or after it.
    pub fn applied(&mut self, batch: &Batch) {
        self.floor.raise(batch.id.at(), batch.id.end);
    }

    /// Records where the ledger is when a worker takes the partition over ([`LedgerFloor::found`]).
    pub fn found(&mut self, at: TopicPartition, end: u64) {
        self.floor.found(at, end);
    }

    /// Records that this process starts to write the batch.
    pub fn begin(&mut self, batch: &Batch) {
        self.last.insert(batch.id.at(), batch.key());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::BatchId;

    #[test]
    fn a_batch_is_in_doubt_from_its_first_write_or_when_it_was_found_sealed() {
        let batch = |partition, first, recovered| Batch {
            id: BatchId { topic: "t".into(), partition, first, end: first + 5 },
            topic_index: 0,
            series: Arc::default(),
            points: Vec::new(),
            window: 1,
            part: String::new(),
            stream: None,
            recovered,
        };
        let mut in_doubt = InDoubt::default();
        assert!(!in_doubt.contains(&batch(0, 0, false)));
        assert!(in_doubt.contains(&batch(0, 0, true)));
        in_doubt.begin(&batch(0, 0, false));
        assert!(in_doubt.contains(&batch(0, 0, false)));
        assert!(
            !in_doubt.contains(&Batch { part: "0".to_owned(), ..batch(0, 0, false) }),
            "a part is a write of its own"
        );
        assert!(!in_doubt.contains(&batch(1, 0, false)));
        in_doubt.begin(&batch(0, 5, false));
        assert!(!in_doubt.contains(&batch(0, 0, false)), "only the last batch of a partition");
        assert_eq!(in_doubt.least(&batch(0, 5, false)), 0, "nothing was applied yet");
        in_doubt.applied(&batch(0, 5, false));
        in_doubt.applied(&batch(0, 0, true));
        assert_eq!(in_doubt.least(&batch(0, 10, false)), 10);
        assert_eq!(in_doubt.least(&batch(1, 10, false)), 0);
        in_doubt.found(batch(1, 10, false).id.at(), 10);
        in_doubt.found(batch(0, 10, false).id.at(), 5);
        assert_eq!((in_doubt.least(&batch(1, 10, false)), in_doubt.least(&batch(0, 10, false))), (10, 5));
    }
}
