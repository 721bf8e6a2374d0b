use std::collections::BTreeMap;
use std::time::SystemTime;

use tallybus_bus::{NoHeaders, StreamId};
use tallybus_sdk::clock::ManualClock;
use tallybus_sdk::testkit::{FakeBackend, FakeSink};
use tallybus_sdk::{BatchLimits, SealMetadata, Shape};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::unbounded_channel;

use super::*;
use crate::builder::BatchBuilder;
use crate::partition_task::TaskStart;
use crate::records::RecordSource;

/// Partitions whose writers never run.
fn tasks(partitions: u32) -> (Runtime, PartitionTasks) {
    let runtime = Builder::new_current_thread().build().unwrap();
    let sink = Arc::new(FakeSink::new(FakeBackend::new()));
    let owner = Owner { group: "g".to_owned(), tags: BTreeMap::new(), layout: None };
    let events = EventSender::new(unbounded_channel().0, PollWaker::new(|| {}));
    let clock = Arc::new(ManualClock::at(SystemTime::UNIX_EPOCH));
    let mut tasks = PartitionTasks::new(runtime.handle().clone(), sink, "a", owner, events, Arc::default(), clock);
    for partition in 0..partitions {
        tasks.add(task(partition));
    }
    (runtime, tasks)
}

fn at(partition: u32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

/// Of 100 records at most, however large.
fn task(partition: u32) -> PartitionTask {
    let (stream, shape): (StreamId, Shape) = ("sim:1".parse().unwrap(), Shape::everything());
    let start = TaskStart {
        at: at(partition),
        epoch: u64::from(partition) + 10,
        stream: stream.clone(),
        offset: 0,
        end: 0,
        seal: SealMetadata::new(stream, Vec::new(), &shape),
        committed: None,
        destination: None,
        accept_gaps: Arc::from([]),
    };
    let builder = BatchBuilder::new("t".into(), partition, 0, shape.selector().unwrap());
    let limits = BatchLimits { max_events: 100, max_bytes: usize::MAX, max_delay: Duration::from_secs(1) };
    PartitionTask::new(start, RecordSource::Events, builder, limits, shape)
}

/// Adds a record that cannot be decoded: it stays in memory as it is. Returns whether the poll is to end.
fn add(tasks: &mut PartitionTasks, partition: u32, offset: u64, bytes: usize) -> bool {
    add_to(tasks, "t", partition, offset, bytes)
}

fn add_to(tasks: &mut PartitionTasks, topic: &str, partition: u32, offset: u64, bytes: usize) -> bool {
    let payload = vec![b'x'; bytes];
    let record = Record {
        topic,
        partition,
        offset,
        time_ms: 0,
        key: None,
        payload: &payload,
        is_tombstone: false,
        unreadable: None,
        headers: &NoHeaders,
    };
    tasks.accept(&record, Instant::now()).unwrap().is_break()
}

fn memory(tasks: &PartitionTasks) -> usize {
    tasks.iter().map(PartitionTask::memory).sum()
}

#[test]
fn half_of_the_memory_is_shared_out_among_the_partitions() {
    for partitions in [1, 2, 3] {
        let (_runtime, mut tasks) = tasks(partitions);
        assert_eq!(tasks.share, MAX_MEMORY / 2 / partitions as usize);
        assert!(!tasks.is_empty());
        assert!(tasks.remove(&at(7)).is_none());
        assert_eq!(tasks.remove(&at(partitions - 1)).unwrap().at, at(partitions - 1));
        assert_eq!(tasks.share, MAX_MEMORY / 2 / (partitions as usize - 1).max(1));
    }
    let (_runtime, mut tasks) = tasks(2);
    tasks.add(task(1));
    assert_eq!(tasks.iter().count(), 2, "one that is assigned again replaces the old one");
    assert!(tasks.by_epoch(10).is_some() && tasks.by_epoch(9).is_none());
    assert!(tasks.get_mut(&at(1)).is_some() && tasks.get_mut(&at(2)).is_none());
}

#[test]
fn open_batches_that_have_used_up_their_share_are_closed_when_all_exceed_the_limit() {
    let (_runtime, mut tasks) = tasks(2);
    add(&mut tasks, 0, 0, 1_000);
    let overhead = memory(&tasks) - 1_000;
    add(&mut tasks, 0, 1, MAX_MEMORY - 1_000 - 2 * overhead);
    add(&mut tasks, 1, 0, 0);
    let over = memory(&tasks) - MAX_MEMORY;
    assert!(over < 1_000);
    // Exactly at the limit, and one byte beyond.
    for (bytes, is_over) in [(0, false), (1, true)] {
        let (_runtime, mut tasks) = self::tasks(2);
        add(&mut tasks, 0, 0, MAX_MEMORY - overhead + bytes);
        assert_eq!(memory(&tasks), MAX_MEMORY + bytes);
        assert_eq!(tasks.is_over(), is_over);
        assert_eq!(tasks.iter().map(PartitionTask::closed).collect::<Vec<_>>(), [usize::from(is_over), 0]);
    }
}

#[test]
fn a_poll_ends_with_a_batch_that_is_complete_and_when_an_open_one_has_used_up_another_share() {
    let (_runtime, mut tasks) = tasks(2);
    let share = tasks.share;
    let mut ends = |offset, bytes| add(&mut tasks, 0, offset, bytes);
    assert!(!ends(0, share / 2));
    assert!(ends(1, share / 2), "one share");
    assert!(!ends(2, share / 2));
    assert!(ends(3, share / 2), "two shares");
    for offset in 4..99 {
        assert!(!ends(offset, 1), "{offset}");
    }
    assert!(ends(99, 1), "the batch is complete");
    assert!(!ends(100, 1));
    assert!(!add(&mut tasks, 1, 0, 1), "another partition begins with nothing");
}

#[test]
fn a_record_goes_to_its_partition_and_is_dropped_where_that_is_not_owned() {
    let (_runtime, mut tasks) = tasks(2);
    for (topic, partition, offset) in [("t", 1, 0), ("t", 0, 0), ("t", 1, 1), ("t", 1, 2), ("u", 1, 3), ("t", 2, 3)] {
        assert!(!add_to(&mut tasks, topic, partition, offset, 1));
    }
    assert_eq!(tasks.iter().map(PartitionTask::next).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_backend_is_halted_after_more_than_two_halts_in_a_row_of_one_partition() {
    let (_runtime, mut tasks) = tasks(2);
    for (halts, is_halted) in [(0, false), (2, false), (3, true), (4, true)] {
        tasks.get_mut(&at(1)).unwrap().halts = halts;
        assert_eq!(tasks.halted(), is_halted.then_some(&at(1)), "{halts}");
    }
    let owned = tasks.get_mut(&at(1)).unwrap();
    owned.is_failing = true;
    owned.backend_answered();
    assert_eq!((owned.halts, tasks.is_failing()), (0, false));
}
