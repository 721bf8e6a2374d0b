//! Partitions that are given up, and the end of a worker.

use super::*;

/// One worker has both partitions, and another one joins.
fn a_second_one_joins(world: &World, first: &mut Process) -> Process {
    let mut second = world.start();
    for _ in 0..MOST_STEPS {
        if second.owns(0) || second.owns(1) {
            return second;
        }
        first.step();
        second.step();
    }
    panic!("the second worker gets no partition");
}

#[test]
fn a_partition_that_is_revoked_is_settled_before_it_is_released() {
    let world = World::new(2);
    world.bus.set_ownership(Ownership::Unchecked);
    let mut first = world.start();
    first.until("it has both", |process| process.owns(0) && process.owns(1));
    world.publish(0, 15);
    world.publish(1, 15);
    first.until("both are read", |process| process.worker.tasks.iter().all(|task| task.next() == 15));
    let second = a_second_one_joins(&world, &mut first);
    let moved = u32::from(second.owns(1));
    assert!(!first.owns(moved) && first.owns(1 - moved));
    // The batch that was sealed, and not the open one.
    assert_eq!(world.offset(moved), Some(10));
    assert_eq!(world.noted(moved), Some(10), "the next owner may never note it");
    drop(second);
}

#[test]
fn what_is_revoked_while_the_backend_is_away_stays_sealed_and_is_not_waited_for() {
    let world = World::new(2);
    let mut first = world.start();
    first.until("both begin", |_| world.offset(0) == Some(0) && world.offset(1) == Some(0));
    world.backend.decide(|_| Some(retry()));
    world.publish(0, 20);
    world.publish(1, 20);
    first.until("both are refused", |process| process.status().retries > 2);
    let before = world.now();
    let mut second = a_second_one_joins(&world, &mut first);
    assert!(world.now() - before < Duration::from_secs(10), "{:?}", world.now() - before);
    let moved = u32::from(second.owns(1));
    let held = world.held(moved).unwrap();
    let seal = SealMetadata::parse(held.offset, &held.metadata).unwrap();
    assert_eq!((held.offset, seal.ends), (0, vec![10, 20]));
    world.backend.decide(|_| None);
    second.until("it is settled by the next one", |_| world.offset(moved) == Some(20));
    assert!(world.backend.writes().iter().any(|write| write.recovered));
    assert_eq!(world.backend.violations(), [""; 0]);
}

#[test]
fn a_worker_that_ends_writes_what_is_sealed_commits_and_notes_it() {
    let world = World::new(1);
    world.bus.set_ownership(Ownership::Unchecked);
    let mut process = world.start();
    process.until("the beginning is committed", |_| world.offset(0) == Some(0));
    world.backend.decide(|_| Some(retry()));
    world.publish(0, 20);
    process.until("both are sealed", |process| process.sealed(0) == 2);
    process.until("the open batch is read", |process| {
        if process.next(0) == 20 {
            world.publish(0, 5);
        }
        process.next(0) == 25
    });
    world.backend.decide(|_| None);
    let outcome = process.finish();
    assert!(outcome.drained);
    assert_eq!(world.backend.total(), 20, "the open batch stays on the bus");
    assert_eq!((world.offset(0), world.noted(0)), (Some(20), Some(20)));
    assert_eq!(outcome.status.events, 20);
    // Its member is gone at once.
    let mut next = world.start();
    let before = world.now();
    next.until("the next one has the partition", |process| process.owns(0));
    assert!(world.now() - before < Duration::from_secs(2));
}

#[test]
fn a_worker_that_ends_waits_for_a_slow_backend_and_not_for_one_that_takes_nothing() {
    // How long the backend takes nothing: seconds.
    for (away, drained, most) in [(1, true, 3), (1_000, false, 5)] {
        let world = World::new(1);
        let mut process = world.start();
        process.until("the beginning is committed", |_| world.offset(0) == Some(0));
        world.backend.decide(|_| Some(retry()));
        world.publish(0, 10);
        process.until("a write is tried", |process| process.status().retries == 1);
        let (time, back) = (world.time.clone(), world.now() + Duration::from_secs(away));
        world.backend.decide(move |_| {
            // The moments at which the worker looks are no whole seconds apart.
            time.advance(Duration::from_micros(700));
            (time.now() < back).then(retry)
        });
        let before = world.now();
        let outcome = process.finish();
        let waited = world.now() - before;
        assert_eq!(outcome.drained, drained, "{waited:?}");
        let least = if drained { 0 } else { 3 };
        assert!(waited >= Duration::from_secs(least) && waited < Duration::from_secs(most), "{away}: {waited:?}");
        assert_eq!(world.offset(0), Some(if drained { 10 } else { 0 }));
    }
}

#[test]
fn a_worker_that_ends_waits_as_long_as_it_is_told_and_no_longer_than_the_grace_without_progress() {
    for (drain, least, most) in [(1_000, 1_000, 1_000), (60_000, 3_001, 3_010)] {
        let (drain, least, most) =
            (Duration::from_millis(drain), Duration::from_millis(least), Duration::from_millis(most));
        let world = World::new(1);
        let mut process = world.start_with(WorkerOptions { drain, ..World::options() });
        process.until("the beginning is committed", |_| world.offset(0) == Some(0));
        world.backend.decide(|_| Some(retry()));
        world.publish(0, 10);
        process.until("a write is tried", |process| process.status().retries == 1);
        let before = world.now();
        assert!(!process.finish().drained);
        let waited = world.now() - before;
        assert!((least..=most).contains(&waited), "{drain:?}: {waited:?}");
    }
}

#[test]
fn a_final_commit_that_is_lost_leaves_the_batches_to_the_next_worker() {
    let world = World::new(1);
    world.bus.set_ownership(Ownership::Unchecked);
    let mut process = world.start();
    process.until("the beginning is committed", |_| world.offset(0) == Some(0));
    world.backend.decide(|_| Some(retry()));
    world.publish(0, 10);
    process.until("a write is tried", |process| process.status().retries == 1);
    world.backend.decide(|_| None);
    process.bus.fault_next_commit(CommitFault::Drop);
    let outcome = process.finish();
    assert!(!outcome.drained);
    assert_eq!(outcome.status.failed_commits, 1);
    assert_eq!((world.offset(0), world.noted(0)), (Some(0), Some(0)), "a note is never ahead of the group");
    let mut next = world.start();
    next.until("the next one settles it", |_| world.offset(0) == Some(10));
    assert_eq!(world.backend.total(), 10);
}

#[test]
fn a_worker_that_ends_waits_while_batches_are_settled_although_others_cannot_be() {
    let world = World::new(2);
    let options = WorkerOptions { drain: Duration::from_secs(60), ..World::options() };
    let mut process = world.start_with(options);
    process.until("both begin", |_| world.offset(0) == Some(0) && world.offset(1) == Some(0));
    world.backend.decide(|_| Some(retry()));
    world.publish(0, 40);
    world.publish(1, 10);
    process.until("all is sealed", |process| process.sealed(0) == 4 && process.sealed(1) == 1);
    // One batch of partition 0 at a time, a second after the one before it.
    let (time, began) = (world.time.clone(), world.now());
    world.backend.decide(move |batch| {
        let due = began + Duration::from_secs(batch.id.end / 10);
        (batch.id.partition == 1 || time.now() < due).then(retry)
    });
    let outcome = process.finish();
    assert!(!outcome.drained);
    assert_eq!((world.offset(0), world.offset(1)), (Some(40), Some(0)));
    assert!(world.now() - began < Duration::from_secs(20), "{:?}", world.now() - began);
}

#[test]
fn the_last_status_has_the_ends_of_the_partitions() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    process.steps(5);
    world.publish(0, 3);
    let status = process.finish().status;
    assert_eq!(status.partitions["counters/0"].end, Some(3));
}
