//! A lane against a model of the group: whatever fails in between, the batches that were ever written tile the
//! partition, and a batch written twice is the same batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::{NoHeaders, Record, TopicPartition};
use tallybus_sdk::{Batch, Rng};

use super::*;

const TOPIC: &str = "counters";

struct Model {
    log: Vec<String>,
    group: (u64, String),
    written: BTreeMap<(u64, u64), Arc<Batch>>,
    /// What former owners may still be writing.
    zombies: Vec<Arc<Batch>>,
    epoch: u64,
    shape: Shape,
}

impl Model {
    fn new(records: u64, dice: &mut Rng) -> Self {
        let event = |offset: u64, dice: &mut Rng| match dice.below(20) {
            0 => "garbage".to_owned(),
            1 => format!(r#"[{{"name":"a","ts":{offset},"value":3}},{{"name":"b","ts":{offset},"value":4}}]"#),
            which => format!(r#"{{"name":"n{}","ts":{},"value":{}}}"#, which % 3, offset * 1_000, offset + 1),
        };
        let log = (0..records).map(|offset| event(offset, dice)).collect();
        let shape = Shape { window: 100_000, ..Shape::everything() };
        Self { log, group: (0, String::new()), written: BTreeMap::new(), zombies: Vec::new(), epoch: 0, shape }
    }

    /// A new owner, from what the group holds, with its ledger confirmed.
    fn owner(&mut self) -> Lane {
        let mut lane = self.unconfirmed_owner();
        lane.confirm_ledger();
        lane
    }

    fn unconfirmed_owner(&mut self) -> Lane {
        self.epoch += 1;
        let (offset, metadata) = self.group.clone();
        let note = SealNote::parse(offset, &metadata).unwrap();
        let under = note.shape.as_ref().unwrap_or(&self.shape);
        let builder = BatchBuilder::new(TOPIC.into(), 0, 0, under.selector().unwrap());
        let at = TopicPartition::new(TOPIC, 0);
        let committed = (!metadata.is_empty()).then_some(Committed { offset, metadata });
        let start = LaneStart { at, epoch: self.epoch, offset, end: self.log.len() as u64, note, committed };
        let limits = BatchLimits { max_events: 7, max_bytes: 400, max_delay: Duration::from_secs(1) };
        Lane::new(start, builder, limits, self.shape.clone())
    }

    fn feed(&self, lane: &mut Lane, count: u64, now: Instant) {
        for _ in 0..count {
            let offset = lane.next();
            let Some(payload) = self.log.get(usize::try_from(offset).unwrap()) else {
                lane.reached_end().unwrap();
                return;
            };
            let record = Record {
                topic: TOPIC,
                partition: 0,
                offset,
                time_ms: 5,
                key: None,
                payload: payload.as_bytes(),
                headers: &NoHeaders,
            };
            lane.accept(&record, now).unwrap();
        }
    }

    fn write(&mut self, batch: &Arc<Batch>) {
        let key = (batch.id.first, batch.id.end);
        let known = self.written.entry(key).or_insert_with(|| batch.clone());
        let (known, again) =
            (Batch { recovered: false, ..(**known).clone() }, Batch { recovered: false, ..(**batch).clone() });
        assert_eq!(known, again, "a batch written again is the same batch");
    }

    fn commit(&mut self, commit: &Commit) {
        assert!(commit.offset >= self.group.0, "the group never goes back");
        self.group = (commit.offset, commit.metadata.clone());
    }

    fn step(&mut self, lane: &mut Lane, dice: &mut Rng) {
        let now = Instant::now();
        match dice.below(12) {
            0..=3 => {
                let count = dice.below(9);
                self.feed(lane, count, now);
            }
            4 => lane.close_if_due(now + Duration::from_secs(2)),
            5 | 6 => {
                if let Some(commit) = lane.plan_commit() {
                    match dice.below(4) {
                        0 => lane.commit_not_made(),
                        _ => {
                            self.commit(&commit);
                            lane.commit_made(commit.offset, commit.metadata);
                        }
                    }
                }
            }
            7..=9 => {
                if let Some(front) = lane.sealed().front() {
                    let batch = front.batch.clone();
                    self.write(&batch);
                    if dice.below(3) > 0 {
                        lane.settle_front(batch.id.end).unwrap();
                    }
                }
            }
            10 if dice.below(3) == 0 => self.hand_over(lane, dice),
            11 => {
                if let Some(batch) = self.zombies.pop() {
                    self.write(&batch);
                }
            }
            _ => {}
        }
    }

    /// The partition gets a new owner: after a crash (a commit on its way may or may not have been made), or politely.
    fn hand_over(&mut self, lane: &mut Lane, dice: &mut Rng) {
        self.zombies = lane.sealed().iter().map(|closed| closed.batch.clone()).collect();
        match dice.below(4) {
            0 => {
                if let Some(commit) = lane.plan_commit() {
                    self.commit(&commit);
                }
            }
            1 => {
                lane.discard_unsealed();
                if let Some(commit) = lane.farewell() {
                    self.commit(&commit);
                }
            }
            _ => {}
        }
        if dice.below(4) == 0 {
            self.shape.window = if self.shape.window == 100_000 { 30_000 } else { 100_000 };
        }
        *lane = self.owner();
    }

    fn finish(&mut self, lane: &mut Lane) {
        for _ in 0..10_000 {
            self.feed(lane, 5, Instant::now());
            lane.close_if_due(Instant::now() + Duration::from_secs(2));
            if let Some(commit) = lane.plan_commit() {
                self.commit(&commit);
                lane.commit_made(commit.offset, commit.metadata);
            }
            while let Some(front) = lane.sealed().front() {
                let batch = front.batch.clone();
                self.write(&batch);
                lane.settle_front(batch.id.end).unwrap();
            }
            if lane.is_caught_up() {
                return;
            }
        }
        panic!("the lane never catches up");
    }
}

#[test]
fn batches_ever_written_tile_the_partition() {
    for seed in 1..=400 {
        let mut dice = Rng::new(seed * 0x9E37_79B9);
        let records = 50 + dice.below(200);
        let mut model = Model::new(records, &mut dice);
        let mut lane = model.owner();
        for _ in 0..600 {
            model.step(&mut lane, &mut dice);
        }
        model.finish(&mut lane);
        let mut next = 0;
        for &(first, end) in model.written.keys() {
            assert_eq!(first, next, "seed {seed}: no gap, no overlap");
            next = end;
        }
        assert_eq!(next, records, "seed {seed}");
        assert_eq!(model.group.0, records, "seed {seed}: everything is settled");
        let counted: u128 = model.written.values().map(|batch| batch.total()).sum();
        let emitted: u128 = (0..records)
            .zip(&model.log)
            .map(|(offset, text)| match text.as_bytes()[0] {
                b'g' => 0,
                b'[' => 7,
                _ => u128::from(offset) + 1,
            })
            .sum();
        assert_eq!(counted, emitted, "seed {seed}");
    }
}

#[test]
fn a_sealed_batch_is_finished_under_its_own_shape() {
    let mut dice = Rng::new(77);
    let mut model = Model::new(40, &mut dice);
    let mut lane = model.owner();
    model.feed(&mut lane, 20, Instant::now());
    let commit = lane.plan_commit().unwrap();
    model.commit(&commit);
    model.shape.window = 7_000;
    let mut next = model.owner();
    model.feed(&mut next, 40, Instant::now());
    assert!(!next.sealed().is_empty());
    assert!(next.sealed().iter().all(|closed| closed.batch.window == 100_000 && closed.batch.recovered));
    assert!(next.plan_commit().is_none(), "one note names one shape: nothing new is sealed before the old is settled");
    model.finish(&mut next);
    let windows: Vec<i64> = model.written.values().map(|batch| batch.window).collect();
    assert!(windows.contains(&7_000) && windows[0] == 100_000, "{windows:?}");
}

#[test]
fn nothing_is_sealed_before_the_ledger_is_confirmed() {
    let mut dice = Rng::new(7);
    let mut model = Model::new(60, &mut dice);
    model.group = (0, SealNote::new(vec![4, 9], &model.shape).to_metadata());
    let mut lane = model.unconfirmed_owner();
    let check = LedgerCheck { at: TopicPartition::new(TOPIC, 0), sealed_end: 9 };
    assert_eq!(lane.ledger_check(), Some(check));
    model.feed(&mut lane, 60, Instant::now());
    assert!(lane.closed() > 0 && lane.sealed().len() == 2);
    let metadata = |lane: &Lane| lane.farewell().map(|commit| commit.metadata);
    assert_eq!(lane.plan_commit(), None, "there is nothing to settle, and nothing may be sealed");
    assert_eq!(metadata(&lane), None, "what was found sealed stays so");
    lane.confirm_ledger();
    assert_eq!(lane.ledger_check(), None);
    let commit = lane.plan_commit().expect("a seal");
    assert!(SealNote::parse(commit.offset, &commit.metadata).unwrap().ends.len() > 2);
    // Without a seal the group's offset is what the ledger is compared with.
    model.group = (11, String::new());
    assert_eq!(model.unconfirmed_owner().ledger_check().map(|check| check.sealed_end), Some(11));
}

#[test]
fn a_partition_is_not_caught_up_before_its_ledger_is_confirmed() {
    let mut model = Model::new(0, &mut Rng::new(7));
    let mut lane = model.unconfirmed_owner();
    lane.reached_end().unwrap();
    let commit = lane.plan_commit().expect("where the partition begins");
    lane.commit_made(commit.offset, commit.metadata);
    assert!(!lane.is_caught_up());
    lane.confirm_ledger();
    assert!(lane.is_caught_up());
}

#[test]
fn a_gap_in_the_offsets_does_not_hide_the_end_of_a_sealed_batch() {
    let mut dice = Rng::new(5);
    let mut model = Model::new(30, &mut dice);
    let note = SealNote::new(vec![4, 9], &model.shape);
    model.group = (0, note.to_metadata());
    let mut lane = model.owner();
    let record = |offset: u64| Record {
        topic: TOPIC,
        partition: 0,
        offset,
        time_ms: 5,
        key: None,
        payload: br#"{"name":"a","ts":1}"#,
        headers: &NoHeaders,
    };
    lane.accept(&record(1), Instant::now()).unwrap();
    // Offsets 2 to 9 are gone: compacted, or a transaction's marker.
    assert_eq!(lane.accept(&record(10), Instant::now()), Ok(Some(2)));
    let ids: Vec<String> = lane.sealed().iter().map(|closed| closed.batch.id.to_string()).collect();
    assert_eq!(ids, ["counters/0/0-4", "counters/0/4-9"]);
}

#[test]
fn a_batch_that_cannot_be_closed_is_not_waited_for() {
    let mut dice = Rng::new(9);
    let mut model = Model::new(20 * SEAL_AHEAD as u64, &mut dice);
    let mut lane = model.owner();
    let now = Instant::now();
    model.feed(&mut lane, 3, now);
    assert_eq!(lane.due_at(), Some(now + Duration::from_secs(1)));
    while lane.closed.len() < SEAL_AHEAD || lane.builder.is_empty() {
        model.feed(&mut lane, 1, now);
    }
    assert_eq!(lane.due_at(), None, "a worker would spin until the backend takes a batch");
}

#[test]
fn whoever_leaves_knows_what_stays_sealed() {
    let mut dice = Rng::new(3);
    let mut model = Model::new(40, &mut dice);
    let mut lane = model.owner();
    assert!(!lane.leaves_sealed());
    model.feed(&mut lane, 20, Instant::now());
    let commit = lane.plan_commit().unwrap();
    assert!(lane.leaves_sealed(), "the commit under way may seal it");
    model.commit(&commit);
    let mut next = model.owner();
    assert!(next.leaves_sealed(), "found sealed, and not yet collected");
    model.finish(&mut next);
    assert!(!next.leaves_sealed());
}
