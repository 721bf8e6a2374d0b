//! What this process knows of the batch that each partition is at. Nothing of it is missed after a restart: the ledger and
//! the Data API's tokens know the rest.

use std::collections::HashMap;

use tallybus_bus::TopicPartition;
use tallybus_sdk::Batch;

/// Every partition's.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    known: HashMap<TopicPartition, Lane>,
}

/// One partition's.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Lane {
    first: u64,
    end: u64,
    part: String,
    /// Whether this process has asked for this batch, or a part of it: from then on it may be in, whoever wrote it.
    pub(super) may_be_in: bool,
    /// Whether this is the first batch of the partition that this process sees.
    pub(super) is_first: bool,
    /// The part's own.
    pub(super) attempt: Attempt,
}

/// The attempt at one part that is being made, or comes next.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Attempt {
    pub(super) number: u32,
    /// The statement that may still run.
    pub(super) running: Option<String>,
    /// Whether the ledger was asked before the first attempt, and when, by the service's clock.
    pub(super) asked: Option<f64>,
    /// Whether the ledger is to be asked before the next attempt: the last one halted.
    pub(super) ask_first: bool,
    /// The part is one that the table refuses, and why; what is left to do is to remember that.
    pub(super) refused: Option<String>,
}

impl Lanes {
    /// What is known of this batch or part; a batch that is new here makes all else forgotten.
    pub(super) fn of(&mut self, batch: &Batch) -> &mut Lane {
        let id = &batch.id;
        let at = id.at();
        let is_first = !self.known.contains_key(&at);
        let lane = self.known.entry(at).or_default();
        if is_first || (lane.first, lane.end) != (id.first, id.end) {
            *lane = Lane { first: id.first, end: id.end, part: batch.part.clone(), is_first, ..Lane::default() };
        } else if lane.part != batch.part {
            lane.part.clone_from(&batch.part);
            lane.attempt = Attempt::default();
        }
        lane
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tallybus_sdk::BatchId;

    use super::*;

    fn batch(first: u64, part: &str) -> Batch {
        Batch {
            id: BatchId { topic: "t".into(), partition: 0, first, end: first + 5 },
            topic_index: 0,
            series: Arc::default(),
            points: Vec::new(),
            window: 1,
            part: part.to_owned(),
            recovered: false,
        }
    }

    #[test]
    fn a_part_begins_anew_and_a_batch_forgets() {
        let mut lanes = Lanes::default();
        lanes.of(&batch(0, "")).may_be_in = true;
        lanes.of(&batch(0, "")).attempt.number = 3;
        assert_eq!(lanes.of(&batch(0, "")).attempt.number, 3);
        assert_eq!(lanes.of(&batch(0, "0")).attempt, Attempt::default());
        assert!(lanes.of(&batch(0, "0")).may_be_in);
        assert_eq!(*lanes.of(&batch(5, "")), Lane { first: 5, end: 10, ..Lane::default() });
        assert!(!lanes.of(&batch(0, "")).may_be_in, "only the last batch is known");
    }
}
