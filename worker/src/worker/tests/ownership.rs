//! Where a partition begins: groups that the bus forgot, topics that were recreated, clients that failed, sinks that panic.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A group that has settled ten records and noted it, on a bus that has forgotten it since.
fn forgotten(ownership: Ownership) -> World {
    let world = World::new(1);
    world.bus.set_ownership(Ownership::Unchecked);
    let mut process = world.start();
    world.publish(0, 10);
    process.until("all is settled", |_| world.offset(0) == Some(10));
    assert!(process.finish().drained);
    assert_eq!(world.noted(0), Some(10));
    world.bus.set_ownership(ownership);
    world.bus.forget_group(GROUP).unwrap();
    world
}

#[test]
fn a_group_that_the_bus_forgot_is_recognised_by_its_note() {
    let world = forgotten(Ownership::Unchecked);
    let mut process = world.start();
    process.until("it is stopped", |process| process.stopped(0).is_some());
    let reason = process.stopped(0).unwrap();
    assert!(reason.contains("everything before offset 10") && reason.contains("`tallybus group restore`"), "{reason}");
    assert_eq!((world.backend.total(), world.offset(0)), (10, None));
}

#[test]
fn notes_are_not_read_on_a_bus_that_forgets_no_group() {
    let world = forgotten(Ownership::Checked);
    let sink = || FakeSink::new(Arc::clone(&world.backend)).without_claims();
    let mut process = world.start_sink(sink(), World::options());
    process.until("it begins", |process| process.owns(0));
    assert_eq!(process.stopped(0), None);
}

#[test]
fn a_recreated_topic_is_begun_only_where_what_is_written_names_its_incarnation() {
    let world = forgotten(Ownership::Unchecked);
    world.bus.recreate_topic(TOPIC, Offsets::Deleted).unwrap();
    let mut process = world.start();
    process.until("it is stopped", |process| process.stopped(0).is_some());
    let reason = process.stopped(0).unwrap();
    assert!(
        reason.contains("topic counters was recreated") && reason.contains("up to offset 10 of the old"),
        "{reason}"
    );
    drop(process);
    let sink = FakeSink::new(Arc::clone(&world.backend)).without_claims();
    let mut process = world.start_sink(sink, World::options());
    process.until("it begins", |process| process.owns(0));
    assert_eq!(process.stopped(0), None);
}

#[test]
fn an_offset_that_no_worker_has_committed_is_not_begun_and_names_the_group() {
    let world = World::new(1);
    let committed = Committed { offset: 3, metadata: "a note".to_owned() };
    world.bus.commit_as_another_program(GROUP, &at(0), committed).unwrap();
    let mut process = world.start();
    process.until("it is stopped", |process| process.stopped(0).is_some());
    let reason = process.stopped(0).unwrap();
    assert!(reason.starts_with("counters/0, group tallybus.fake: "), "{reason}");
}

#[test]
fn progress_is_noted_while_a_worker_runs() {
    let world = World::new(1);
    world.bus.set_ownership(Ownership::Unchecked);
    let mut process = world.start();
    world.publish(0, 10);
    process.until("all is settled", |_| world.offset(0) == Some(10));
    let began = world.now();
    process.until("some seconds pass", |_| world.now() - began > Duration::from_secs(15));
    assert_eq!(world.noted(0), Some(10));
}

#[test]
fn a_client_that_failed_is_replaced_and_its_commits_are_forgotten() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    world.bus.take_commits();
    process.bus.fault_next_commit(CommitFault::AnswerLate(1_000_000));
    world.publish(0, 10);
    process.until("it is sealed", |_| !world.bus.take_commits().is_empty());
    let before = world.now();
    process.worker.rejoin("the client failed").unwrap();
    assert!(!process.owns(0) && world.now() - before >= Duration::from_secs(1));
    process.until("the new member settles it", |_| world.offset(0) == Some(10));
    assert!(world.backend.writes().iter().all(|write| write.recovered));
    assert_eq!(world.backend.total(), 10);
}

#[test]
fn a_partition_that_was_stopped_runs_again_when_it_is_assigned_again() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    process.worker.stop_partition(&at(0), HaltCause::Start, "no place".to_owned());
    world.publish(0, 10);
    process.steps(20);
    assert_eq!(world.backend.total(), 0);
    process.bus.evict();
    process.until("all is settled", |_| world.offset(0) == Some(10));
    assert_eq!(process.stopped(0), None);
}

#[test]
fn a_sink_that_panics_is_started_again_ever_less_often() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    let panics = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&panics);
    world.backend.refuse(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        std::panic::resume_unwind(Box::new("a sink's error"))
    });
    world.publish(0, 10);
    let began = world.now();
    process.until("half a minute passes", |_| world.now() - began > Duration::from_secs(30));
    let seen = panics.load(Ordering::Relaxed);
    // 0.2 seconds, doubled until 30 seconds, with some chance in it.
    assert!((5..=12).contains(&seen), "{seen}");
    assert_eq!(process.status().retries, seen as u64);
    assert!(process.status().last_error.is_some_and(|error| error.contains("panicked")));
    world.backend.refuse(|_| false);
    process.until("it is settled", |_| world.offset(0) == Some(10));
    process.until("nothing fails", |process| process.status().last_error.is_none());
}

#[test]
fn each_batch_waits_for_its_own_dead_letters() {
    let world = World::new(2);
    let mut process = world.start();
    process.until("both begin", |_| world.offset(0) == Some(0) && world.offset(1) == Some(0));
    world.bus.set_refusing(DEAD, true);
    world.send(0, "garbage");
    world.send(1, "garbage");
    process.until("both wait", |process| {
        process.worker.tasks.iter().flat_map(PartitionTask::awaited_dead_letters).count() == 2
    });
    let mut tokens: Vec<u64> = process.worker.tasks.iter().flat_map(PartitionTask::awaited_dead_letters).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 2);
    world.bus.set_refusing(DEAD, false);
    process.until("both are settled", |_| world.offset(0) == Some(1) && world.offset(1) == Some(1));
    assert_eq!(world.dead_letters(), 2);
}
