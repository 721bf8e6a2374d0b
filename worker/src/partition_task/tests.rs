//! A task against a model of the group: whatever fails in between, the batches that were ever written tile the
//! partition, and a batch written twice is the same batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tallybus_bus::{Commit, Expected, NoHeaders, Record, StreamId, TopicPartition};
use tallybus_sdk::clock::{Clock as _, ManualClock};
use tallybus_sdk::{Batch, Rng};

use super::*;

const TOPIC: &str = "counters";
const DESTINATION: &str = "0123456789abcdef";

fn stream() -> StreamId {
    "sim:1".parse().unwrap()
}

/// The metadata that seals batches with these ends.
fn seal_of(ends: &[u64], shape: &Shape) -> String {
    SealMetadata::new(stream(), ends.to_vec(), shape).to_metadata().unwrap()
}

struct Model {
    log: Vec<String>,
    group: (u64, String),
    written: BTreeMap<(u64, u64), Arc<Batch>>,
    /// Batches that former owners may still be writing.
    zombies: Vec<Arc<Batch>>,
    epoch: u64,
    shape: Shape,
    clock: ManualClock,
}

impl Model {
    fn new(records: u64, rng: &mut Rng) -> Self {
        let event = |offset: u64, rng: &mut Rng| match rng.below(20) {
            0 => "garbage".to_owned(),
            1 => format!(r#"[{{"name":"a","ts":{offset},"value":3}},{{"name":"b","ts":{offset},"value":4}}]"#),
            which => format!(r#"{{"name":"n{}","ts":{},"value":{}}}"#, which % 3, offset * 1_000, offset + 1),
        };
        let log = (0..records).map(|offset| event(offset, rng)).collect();
        let shape = Shape { window: 100_000, ..Shape::everything() };
        Self {
            log,
            group: (0, String::new()),
            written: BTreeMap::new(),
            zombies: Vec::new(),
            epoch: 0,
            shape,
            clock: ManualClock::at(SystemTime::UNIX_EPOCH),
        }
    }

    /// A new owner, from the group's offset, with its ledger confirmed.
    fn owner(&mut self) -> PartitionTask {
        let mut task = self.unconfirmed_owner();
        task.confirm_destination(None);
        task
    }

    fn unconfirmed_owner(&mut self) -> PartitionTask {
        self.epoch += 1;
        let (offset, metadata) = self.group.clone();
        let committed = (!metadata.is_empty()).then_some(Committed { offset, metadata });
        let seal = match &committed {
            Some(committed) => SealMetadata::parse(offset, &committed.metadata).unwrap(),
            None => SealMetadata::new(stream(), Vec::new(), &self.shape),
        };
        let under = seal.shape.as_ref().unwrap_or(&self.shape);
        let builder = BatchBuilder::new(TOPIC.into(), 0, 0, under.selector().unwrap());
        let at = TopicPartition::new(TOPIC, 0);
        let (epoch, end) = (self.epoch, self.log.len() as u64);
        let start = TaskStart {
            at,
            epoch,
            stream: stream(),
            offset,
            end,
            seal,
            committed,
            destination: Some(DESTINATION.to_owned()),
            accept_gaps: Arc::from([]),
        };
        let limits = BatchLimits { max_events: 7, max_bytes: 400, max_delay: Duration::from_secs(1) };
        PartitionTask::new(start, RecordSource::Events, builder, limits, self.shape.clone())
    }

    /// Feeds records, and confirms that they are of the topic's incarnation.
    fn feed_confirmed(&self, task: &mut PartitionTask, count: u64, now: Instant) {
        self.feed(task, count, now);
        confirm(task);
    }

    fn feed(&self, task: &mut PartitionTask, count: u64, now: Instant) {
        for _ in 0..count {
            let offset = task.next();
            let Some(payload) = self.log.get(usize::try_from(offset).unwrap()) else {
                task.reached_end(offset, now).unwrap();
                return;
            };
            let record = Record {
                topic: TOPIC,
                partition: 0,
                offset,
                time_ms: 5,
                key: None,
                payload: payload.as_bytes(),
                is_tombstone: false,
                unreadable: None,
                headers: &NoHeaders,
            };
            task.accept(&record, now).unwrap();
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

    /// The sink reports that a batch is written, possibly except dead letters.
    fn wrote(&mut self, task: &mut PartitionTask, batch: &Batch, has_dead_letters: bool) {
        assert!(task.wrote(batch.id.end, 1).is_some(), "{} was handed over and not written", batch.id);
        assert!(task.wrote(batch.id.end, 1).is_none(), "{} is written once", batch.id);
        if has_dead_letters {
            self.epoch += 1;
            task.await_dead_letters(batch.id.end, self.epoch);
        }
    }

    fn publish_dead_letters(&self, task: &mut PartitionTask) {
        let awaited: Vec<u64> = task.awaited_dead_letters().collect();
        assert!(awaited.into_iter().all(|token| task.dead_letters_published(token)));
        assert!(!task.dead_letters_published(u64::MAX));
    }

    fn step(&mut self, task: &mut PartitionTask, rng: &mut Rng) {
        let now = self.clock.now();
        match rng.below(14) {
            0..=3 => {
                let count = rng.below(9);
                self.feed(task, count, now);
            }
            4 => {
                self.clock.advance(Duration::from_millis(700));
                task.close_if_due(self.clock.now());
            }
            5 | 6 => {
                if let Some(commit) = task.plan_commit().unwrap() {
                    match rng.below(4) {
                        0 => task.commit_not_made(),
                        _ => {
                            self.commit(&commit);
                            task.commit_made(commit.offset, commit.metadata);
                        }
                    }
                }
            }
            7..=9 => {
                if rng.below(5) == 0 {
                    // The sink panicked: batches that were handed over and not written are written again.
                    task.hand_over_again();
                }
                if let Some(batch) = task.next_batch() {
                    self.write(&batch);
                    if rng.below(4) > 0 {
                        self.wrote(task, &batch, rng.below(3) == 0);
                    }
                }
                if rng.below(2) == 0 {
                    self.publish_dead_letters(task);
                }
                while rng.below(3) > 0 && task.settle().is_some() {}
            }
            12 => task.stream_query_started(),
            13 => match rng.below(4) {
                0 => task.stream_query_failed(),
                _ => task.stream_query_answered(Some(&stream())).unwrap(),
            },
            10 if rng.below(3) == 0 => self.hand_over(task, rng),
            11 => {
                if let Some(batch) = self.zombies.pop() {
                    self.write(&batch);
                }
            }
            _ => {}
        }
    }

    /// The partition gets a new owner: after a crash (a commit in flight may or may not succeed), or orderly.
    fn hand_over(&mut self, task: &mut PartitionTask, rng: &mut Rng) {
        self.zombies = sealed(task);
        match rng.below(4) {
            0 => {
                if let Some(commit) = task.plan_commit().unwrap() {
                    self.commit(&commit);
                }
            }
            1 => {
                task.discard_unsealed();
                if let Some(commit) = task.final_commit().unwrap() {
                    self.commit(&commit);
                }
            }
            _ => {}
        }
        if rng.below(4) == 0 {
            self.shape.window = if self.shape.window == 100_000 { 30_000 } else { 100_000 };
        }
        *task = self.owner();
    }

    fn finish(&mut self, task: &mut PartitionTask) {
        for _ in 0..10_000 {
            self.feed(task, 5, self.clock.now());
            self.clock.advance(Duration::from_secs(2));
            task.close_if_due(self.clock.now());
            confirm(task);
            if let Some(commit) = task.plan_commit().unwrap() {
                self.commit(&commit);
                task.commit_made(commit.offset, commit.metadata);
            }
            task.hand_over_again();
            while let Some(batch) = task.next_batch() {
                self.write(&batch);
                self.wrote(task, &batch, batch.id.end % 2 == 0);
            }
            self.publish_dead_letters(task);
            while task.settle().is_some() {}
            if task.is_caught_up() {
                return;
            }
        }
        panic!("the task never catches up");
    }
}

/// A query for the topic's incarnation, and its answer.
fn confirm(task: &mut PartitionTask) {
    task.stream_query_started();
    task.stream_query_answered(Some(&stream())).unwrap();
}

/// Batches that are sealed and not settled.
fn sealed(task: &PartitionTask) -> Vec<Arc<Batch>> {
    task.sealed.batches()
}

#[test]
fn batches_ever_written_tile_the_partition() {
    for seed in 1..=400 {
        let mut rng = Rng::new(seed * 0x9E37_79B9);
        let records = 50 + rng.below(200);
        let mut model = Model::new(records, &mut rng);
        let mut task = model.owner();
        for _ in 0..600 {
            model.step(&mut task, &mut rng);
        }
        model.finish(&mut task);
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
    let mut rng = Rng::new(77);
    let mut model = Model::new(40, &mut rng);
    let mut task = model.owner();
    model.feed_confirmed(&mut task, 20, model.clock.now());
    let commit = task.plan_commit().unwrap().unwrap();
    model.commit(&commit);
    model.shape.window = 7_000;
    let mut next = model.owner();
    model.feed_confirmed(&mut next, 40, model.clock.now());
    assert!(next.sealed() > 0);
    assert!(sealed(&next).iter().all(|batch| batch.window == 100_000 && batch.recovered));
    let commit = next.plan_commit().unwrap();
    assert!(commit.is_none(), "a commit names one shape: nothing new is sealed before the old is settled");
    model.finish(&mut next);
    let windows: Vec<i64> = model.written.values().map(|batch| batch.window).collect();
    assert!(windows.contains(&7_000) && windows[0] == 100_000, "{windows:?}");
}

#[test]
fn nothing_is_sealed_before_the_destination_is_confirmed() {
    let mut rng = Rng::new(7);
    let mut model = Model::new(60, &mut rng);
    model.group = (0, seal_of(&[4, 9], &model.shape));
    let mut task = model.unconfirmed_owner();
    let check = task.destination_check().unwrap();
    assert_eq!((check.sealed_end, check.is_known, check.stream, check.written), (9, true, stream(), None));
    model.feed_confirmed(&mut task, 60, model.clock.now());
    assert!(task.closed() > 0 && task.sealed() == 2);
    let metadata = |task: &PartitionTask| task.final_commit().unwrap().map(|commit| commit.metadata);
    assert_eq!(task.plan_commit().unwrap(), None, "there is nothing to settle, and nothing may be sealed");
    assert_eq!(metadata(&task), None, "what was found sealed stays so");
    task.confirm_destination(None);
    assert_eq!(task.destination_check(), None);
    let commit = task.plan_commit().unwrap().expect("a seal");
    assert!(SealMetadata::parse(commit.offset, &commit.metadata).unwrap().ends.len() > 2);
    // Without a seal, the destination is compared with the group's offset.
    model.group = (11, seal_of(&[], &model.shape));
    assert_eq!(model.unconfirmed_owner().destination_check().map(|check| check.sealed_end), Some(11));
}

#[test]
fn a_group_makes_no_first_commit_before_the_destination_is_confirmed() {
    let mut model = Model::new(0, &mut Rng::new(7));
    let mut task = model.unconfirmed_owner();
    task.reached_end(0, Instant::now()).unwrap();
    assert!(!task.destination_check().unwrap().is_known);
    assert_eq!(task.plan_commit().unwrap(), None);
    assert_eq!(task.final_commit().unwrap(), None, "a forgotten group is still recognised by the next worker");
    assert!(!task.is_caught_up());
    task.confirm_destination(None);
    let commit = task.plan_commit().unwrap().expect("where the partition begins");
    task.commit_made(commit.offset, commit.metadata);
    assert!(task.is_caught_up());
}

#[test]
fn offsets_without_records_at_the_end_are_settled_without_an_event() {
    let mut model = Model::new(0, &mut Rng::new(7));
    let now = Instant::now();
    for _ in 0..2 {
        let mut task = model.owner();
        let (first, end) = (task.next(), task.next() + 3);
        task.reached_end(end, now).unwrap();
        assert!(!task.is_caught_up(), "the group is still behind");
        task.close_if_due(now + Duration::from_secs(2));
        confirm(&mut task);
        let commit = task.plan_commit().unwrap().expect("a seal");
        model.commit(&commit);
        task.commit_made(commit.offset, commit.metadata);
        let batch = task.next_batch().unwrap();
        assert_eq!((batch.id.first, batch.id.end, batch.points.len()), (first, end, 0));
        model.wrote(&mut task, &batch, false);
        assert_eq!(task.settle().map(|settled| settled.events), Some(0));
        let commit = task.plan_commit().unwrap().expect("what is settled");
        model.commit(&commit);
        task.commit_made(commit.offset, commit.metadata);
        assert!(task.is_caught_up());
        assert_eq!(model.group.0, end);
    }
}

#[test]
fn a_commit_names_the_destination_and_up_to_where_it_was_written() {
    let mut model = Model::new(30, &mut Rng::new(7));
    let written = |commit: &Commit| SealMetadata::parse(commit.offset, &commit.metadata).unwrap().written;
    let here = |end: u64| Some(Written { to: DESTINATION.to_owned(), end, marked: None });
    let mut task = model.owner();
    model.feed_confirmed(&mut task, 30, model.clock.now());
    let commit = task.plan_commit().unwrap().unwrap();
    assert_eq!(written(&commit), None, "nothing was written yet");
    model.commit(&commit);
    task.commit_made(commit.offset, commit.metadata);
    let batches: Vec<Arc<Batch>> = std::iter::from_fn(|| task.next_batch()).collect();
    let (first, second) = (batches[0].id.end, batches[1].id.end);
    assert!(task.wrote(first, 1).is_some() && task.wrote(second, 0).is_some());
    assert!(task.settle().is_some() && task.settle().is_some() && task.settle().is_none());
    let commit = task.final_commit().unwrap().unwrap();
    assert_eq!(commit.offset, second);
    assert_eq!(written(&commit), here(first), "the second batch had nothing to write");
    model.commit(&commit);

    // The next owner knows it, and its ledger may be further.
    let mut next = model.unconfirmed_owner();
    assert_eq!(next.destination_check().unwrap().written, here(first));
    next.confirm_destination(Some(second));
    assert_eq!(written(&next.final_commit().unwrap().unwrap()), here(second));
    // A mark is committed with what was written, and stays when more is written.
    next.note_marked(second);
    next.note_written(second + 1);
    let marked = Written { to: DESTINATION.to_owned(), end: second + 1, marked: Some(second) };
    assert_eq!(written(&next.final_commit().unwrap().unwrap()), Some(marked));
    // Another destination, which is empty.
    let mut moved = model.unconfirmed_owner();
    moved.destination = Some("fedcba9876543210".to_owned());
    moved.confirm_destination(Some(0));
    assert_eq!(written(&moved.final_commit().unwrap().unwrap()), None);
}

#[test]
fn a_gap_in_the_offsets_does_not_hide_the_end_of_a_sealed_batch() {
    let mut rng = Rng::new(5);
    let mut model = Model::new(30, &mut rng);
    model.group = (0, seal_of(&[4, 9], &model.shape));
    let mut task = model.owner();
    let record = |offset: u64| Record {
        topic: TOPIC,
        partition: 0,
        offset,
        time_ms: 5,
        key: None,
        payload: br#"{"name":"a","ts":1}"#,
        is_tombstone: false,
        unreadable: None,
        headers: &NoHeaders,
    };
    task.accept(&record(1), model.clock.now()).unwrap();
    // Offsets 2 to 9 are gone: compacted, or a transaction's marker.
    task.accept(&record(10), model.clock.now()).unwrap();
    confirm(&mut task);
    let ids: Vec<String> = std::iter::from_fn(|| task.next_batch()).map(|batch| batch.id.to_string()).collect();
    assert_eq!(ids, ["counters/0/0-4", "counters/0/4-9"]);
}

#[test]
fn the_end_of_the_partition_completes_the_sealed_batches_before_it_and_none_beyond_it() {
    for (ends, complete) in [(vec![4, 9, 15], 3), (vec![4, 20], 2), (vec![4, 21], 1)] {
        let mut model = Model::new(20, &mut Rng::new(5));
        model.group = (0, seal_of(&ends, &model.shape));
        let mut task = model.owner();
        model.feed(&mut task, 3, model.clock.now());
        assert_eq!(task.sealed(), 0);
        // The other offsets hold no record.
        task.reached_end(15, model.clock.now()).unwrap();
        assert_eq!(task.sealed(), complete, "{ends:?}");
        assert_eq!(task.next(), if complete == ends.len() { *ends.last().unwrap() } else { 4 }, "{ends:?}");
    }
}

/// A task with so many sealed and so many closed batches.
fn with_batches(sealed: usize, closed: usize) -> (Model, PartitionTask) {
    let mut model = Model::new(20 * SEAL_AHEAD as u64, &mut Rng::new(9));
    let mut task = model.owner();
    let now = model.clock.now();
    let close = |task: &mut PartitionTask, count| {
        while task.closed() < count {
            model.feed(task, 1, now);
        }
    };
    close(&mut task, sealed);
    if sealed > 0 {
        confirm(&mut task);
        let commit = task.plan_commit().unwrap().unwrap();
        task.commit_made(commit.offset, commit.metadata);
    }
    close(&mut task, closed);
    assert_eq!((task.sealed(), task.closed()), (sealed, closed));
    (model, task)
}

#[test]
fn a_partition_is_crowded_with_the_most_batches_and_has_capacity_again_with_half_of_them() {
    for (sealed, closed) in
        [(0, 0), (0, 1), (1, 0), (1, 1), (3, 5), (3, 6), (8, 0), (9, 0), (7, 8), (7, 9), (15, 0), (16, 0), (0, 16)]
    {
        let (_model, task) = with_batches(sealed, closed);
        let all = sealed + closed;
        assert_eq!(task.is_idle(), all == 0, "{sealed} {closed}");
        assert_eq!(task.is_crowded(), all >= SEAL_AHEAD, "{sealed} {closed}");
        assert_eq!(task.has_capacity(), all <= SEAL_AHEAD / 2, "{sealed} {closed}");
    }
}

#[test]
fn an_open_batch_is_closed_early_when_it_uses_so_much_memory_and_another_may_be_closed() {
    let (model, mut task) = with_batches(0, 1);
    task.close_if_larger(0);
    assert_eq!(task.closed(), 1, "no batch is open");
    let closed = task.memory();
    model.feed(&mut task, 1, model.clock.now());
    let open = task.open_memory();
    assert!(open > 1);
    assert_eq!(task.memory(), closed + open);
    task.close_if_larger(open + 1);
    assert_eq!(task.closed(), 1);
    task.close_if_larger(open);
    assert_eq!((task.closed(), task.open_memory()), (2, 0));

    let (model, mut crowded) = with_batches(0, SEAL_AHEAD);
    model.feed(&mut crowded, 1, model.clock.now());
    crowded.close_if_larger(0);
    assert_eq!(crowded.closed(), SEAL_AHEAD);

    // The rest of a batch that was found sealed is on its way.
    let mut model = Model::new(20, &mut Rng::new(9));
    model.group = (0, seal_of(&[4], &model.shape));
    let mut found = model.owner();
    model.feed(&mut found, 2, model.clock.now());
    found.close_if_larger(0);
    assert_eq!((found.closed(), found.sealed()), (0, 0));
}

#[test]
fn the_memory_of_a_partition_is_that_of_its_closed_sealed_and_open_batches() {
    let (model, mut task) = with_batches(2, 3);
    model.feed(&mut task, 1, model.clock.now());
    let closed: usize = task.closed.iter().map(|closed| closed.memory).sum();
    assert!(closed > 1 && task.open_memory() > 1);
    let sealed = task.memory() - closed - task.open_memory();
    task.discard_unsealed();
    assert_eq!(task.memory(), sealed);
    assert!(sealed > 1);

    // A commit changes nothing of it.
    let (_model, mut task) = with_batches(0, 3);
    let closed = task.memory();
    confirm(&mut task);
    let commit = task.plan_commit().unwrap().unwrap();
    task.commit_made(commit.offset, commit.metadata);
    assert_eq!((task.sealed(), task.memory()), (3, closed));
}

#[test]
fn the_oldest_record_that_is_not_settled_is_known() {
    let mut model = Model::new(5, &mut Rng::new(9));
    let mut task = model.owner();
    assert_eq!(task.oldest(), None);
    model.feed(&mut task, 3, model.clock.now());
    let oldest = task.oldest().unwrap();
    assert!(oldest <= SystemTime::UNIX_EPOCH + Duration::from_millis(5), "{oldest:?}");
    model.finish(&mut task);
    assert_eq!(task.oldest(), None);
}

#[test]
fn a_commit_expects_what_the_group_held_and_one_that_only_settles_leaves_nothing_sealed() {
    let mut model = Model::new(40, &mut Rng::new(3));
    let mut task = model.owner();
    let first = task.plan_commit().unwrap().unwrap();
    assert_eq!(first.expected, Expected::Exactly(None));
    assert!(!task.leaves_sealed(), "it says where the partition begins");
    task.commit_made(first.offset, first.metadata.clone());
    model.feed_confirmed(&mut task, 20, model.clock.now());
    let second = task.plan_commit().unwrap().unwrap();
    let held = Committed { offset: first.offset, metadata: first.metadata };
    assert_eq!(second.expected, Expected::Exactly(Some(held)));
    assert!(task.leaves_sealed());
}

#[test]
fn batches_that_were_found_sealed_wait_for_a_query_and_for_another_one_after_it_failed() {
    let mut model = Model::new(9, &mut Rng::new(13));
    model.group = (0, seal_of(&[4, 9], &model.shape));
    let mut task = model.owner();
    assert!(!task.awaits_stream());
    model.feed(&mut task, 9, model.clock.now());
    assert_eq!((task.sealed(), task.closed()), (2, 0));
    assert!(task.awaits_stream());
    task.stream_query_started();
    assert!(!task.awaits_stream());
    task.stream_query_failed();
    assert!(task.awaits_stream());
    confirm(&mut task);
    assert!(!task.awaits_stream());
}

#[test]
fn only_what_no_commit_in_flight_seals_is_discarded() {
    let (model, mut task) = with_batches(2, 3);
    model.feed(&mut task, 1, model.clock.now());
    assert!(task.due_at().is_some());
    task.discard_unsealed();
    assert_eq!((task.sealed(), task.closed(), task.open_memory(), task.due_at()), (2, 0, 0, None));

    let (model, mut task) = with_batches(0, 3);
    confirm(&mut task);
    let commit = task.plan_commit().unwrap().unwrap();
    model.feed(&mut task, 30, model.clock.now());
    assert!(task.closed() > 3);
    task.discard_unsealed();
    assert_eq!((task.closed(), task.open_memory()), (3, 0));
    task.commit_made(commit.offset, commit.metadata);
    assert_eq!((task.closed(), task.sealed()), (0, 3));
}

#[test]
fn the_end_of_a_partition_is_reached_once_and_left_with_the_next_record() {
    let mut model = Model::new(20, &mut Rng::new(9));
    let mut task = model.owner();
    model.feed(&mut task, 5, model.clock.now());
    for (end, is_at_end) in [(6, false), (5, true), (6, true)] {
        task.observe_end(end);
        assert_eq!(task.at_end, is_at_end, "{end}");
    }
    model.feed(&mut task, 1, model.clock.now());
    assert!(!task.at_end);
    task.observe_end(3);
    assert!(task.at_end);
}

#[test]
fn a_batch_that_cannot_be_closed_is_not_waited_for() {
    let mut rng = Rng::new(9);
    let mut model = Model::new(20 * SEAL_AHEAD as u64, &mut rng);
    let mut task = model.owner();
    let now = model.clock.now();
    model.feed(&mut task, 3, now);
    assert_eq!(task.due_at(), Some(now + Duration::from_secs(1)));
    while task.closed.len() < SEAL_AHEAD || task.builder.is_empty() {
        model.feed(&mut task, 1, now);
    }
    assert_eq!(task.due_at(), None, "a worker would spin until the backend takes a batch");
}

#[test]
fn a_batch_waits_for_the_dead_letters_of_those_before_it() {
    let mut rng = Rng::new(11);
    let mut model = Model::new(60, &mut rng);
    model.group = (0, seal_of(&[4, 9, 15], &model.shape));
    let mut task = model.owner();
    model.feed_confirmed(&mut task, 20, model.clock.now());
    let batches: Vec<Arc<Batch>> = std::iter::from_fn(|| task.next_batch()).collect();
    assert_eq!(batches.len(), 3);
    assert!(task.settle().is_none(), "nothing is written");
    assert!(task.wrote(4, 1).is_some());
    task.await_dead_letters(4, 77);
    assert!(task.wrote(9, 2).is_some());
    assert!(task.settle().is_none());
    // A restarted writer gets the batches that are not written.
    task.hand_over_again();
    assert_eq!(task.next_batch().map(|batch| batch.id.end), Some(15));
    assert_eq!(task.awaited_dead_letters().collect::<Vec<_>>(), [77]);
    assert!(!task.dead_letters_published(76) && task.dead_letters_published(77));
    let settled: Vec<(u64, u64)> =
        std::iter::from_fn(|| task.settle()).map(|settled| (settled.batch.id.end, settled.requests)).collect();
    assert_eq!((settled, task.settled()), (vec![(4, 1), (9, 2)], 9));
}

#[test]
fn an_open_batch_is_closed_when_it_is_old_enough() {
    let mut model = Model::new(5, &mut Rng::new(3));
    let mut task = model.owner();
    model.feed(&mut task, 3, model.clock.now());
    model.clock.advance(Duration::from_millis(999));
    task.close_if_due(model.clock.now());
    assert_eq!(task.closed(), 0);
    model.clock.advance(Duration::from_millis(1));
    task.close_if_due(model.clock.now());
    assert_eq!((task.closed(), task.due_at()), (1, None));
}

#[test]
fn what_is_left_sealed_is_known_to_the_one_that_leaves() {
    let mut rng = Rng::new(3);
    let mut model = Model::new(40, &mut rng);
    let mut task = model.owner();
    assert!(!task.leaves_sealed());
    model.feed_confirmed(&mut task, 20, model.clock.now());
    let commit = task.plan_commit().unwrap().unwrap();
    assert!(task.leaves_sealed(), "the commit under way may seal it");
    model.commit(&commit);
    let mut next = model.owner();
    assert!(next.leaves_sealed(), "found sealed, and not yet collected");
    model.finish(&mut next);
    assert!(!next.leaves_sealed());
}

#[test]
fn nothing_is_sealed_or_written_before_a_query_confirms_the_topic() {
    let mut rng = Rng::new(13);
    let mut model = Model::new(60, &mut rng);
    model.group = (0, seal_of(&[4, 9], &model.shape));
    let mut task = model.owner();
    assert!(!task.awaits_stream());
    model.feed(&mut task, 30, model.clock.now());
    assert!(task.closed() > 0 && task.awaits_stream());
    assert_eq!((task.plan_commit().unwrap(), task.next_batch()), (None, None));
    // The query confirms the records that were delivered before it, and no later ones.
    task.stream_query_started();
    assert!(!task.awaits_stream());
    let (before, closed) = (task.next(), task.closed());
    model.feed(&mut task, 30, model.clock.now());
    assert!(task.closed() > closed && task.awaits_stream());
    assert_eq!((task.plan_commit().unwrap(), task.next_batch()), (None, None));
    task.stream_query_answered(Some(&stream())).unwrap();
    let recovered: Vec<u64> = std::iter::from_fn(|| task.next_batch()).map(|batch| batch.id.end).collect();
    assert_eq!(recovered, [4, 9]);
    let commit = task.plan_commit().unwrap().unwrap();
    let sealed_end = SealMetadata::parse(commit.offset, &commit.metadata).unwrap().sealed_end().unwrap();
    assert!(9 < sealed_end && sealed_end <= before, "{sealed_end} {before}");
}

#[test]
fn a_recreated_topic_leaves_the_sealed_batches_sealed_and_seals_nothing_else() {
    let mut rng = Rng::new(13);
    let mut model = Model::new(60, &mut rng);
    model.group = (0, seal_of(&[4, 9], &model.shape));
    let mut task = model.owner();
    model.feed(&mut task, 60, model.clock.now());
    task.stream_query_started();
    let reason = task.stream_query_answered(Some(&"sim:2".parse().unwrap())).unwrap_err();
    assert!(reason.contains("topic counters was recreated: it is sim:2 now and was sim:1"), "{reason}");
    assert_eq!((task.plan_commit().unwrap(), task.next_batch(), task.final_commit().unwrap()), (None, None, None));
}
