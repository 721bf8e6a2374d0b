//! Commits whose results are late, lost or not what was expected.

use tallybus_bus::Committed;

use super::*;

#[test]
fn a_commit_without_an_answer_is_read_back_after_a_second_whether_it_was_made_or_not() {
    for fault in [CommitFault::LoseTheAnswer, CommitFault::Drop] {
        let world = World::new(1);
        let mut process = world.start();
        process.until("the beginning is committed", |_| world.offset(0) == Some(0));
        world.publish(0, 10);
        process.bus.fault_next_commit(fault);
        process.until("an answer is missing", |process| process.status().failed_commits == 1);
        let (missed, total) = (world.now(), world.backend.total());
        assert_eq!(total, 0, "nothing is written before the seal is known");
        world.bus.take_commits();
        process.until("another commit", |_| !world.bus.take_commits().is_empty());
        assert!(world.now() - missed >= Duration::from_secs(1), "{fault:?}: {:?}", world.now() - missed);
        process.until("all is settled", |_| world.offset(0) == Some(10));
        assert_eq!((world.backend.total(), process.status().failed_commits), (10, 1), "{fault:?}");
        assert_eq!(world.backend.violations(), [""; 0]);
    }
}

#[test]
fn while_a_commit_is_in_flight_no_other_one_is_sent() {
    let world = World::new(2);
    let mut process = world.start();
    process.until("both begin", |_| world.offset(0) == Some(0) && world.offset(1) == Some(0));
    world.bus.take_commits();
    process.bus.fault_next_commit(CommitFault::AnswerLate(40));
    world.publish(0, 30);
    process.until("it is made", |_| !world.bus.take_commits().is_empty());
    for _ in 0..30 {
        world.publish(0, 1);
        world.publish(1, 1);
        process.step();
        assert_eq!((world.bus.take_commits().len(), world.backend.total()), (0, 0));
    }
    process.until("all is settled", |_| world.offset(0) == Some(60) && world.offset(1) == Some(30));
    assert_eq!((world.backend.total(), process.status().failed_commits), (90, 0));
}

/// A worker whose commit was lost, and what the group holds when it reads it back.
fn after_a_lost_commit(held: impl FnOnce(&World)) -> (World, Process) {
    let world = World::new(1);
    let mut process = world.start();
    world.publish(0, 10);
    process.until("the first batch is settled", |_| world.offset(0) == Some(10));
    world.publish(0, 10);
    process.bus.fault_next_commit(CommitFault::Drop);
    process.until("an answer is missing", |process| process.status().failed_commits == 1);
    held(&world);
    process.until("it is judged", |process| !process.owns(0));
    assert_eq!(world.backend.total(), 10, "nothing is written that is not sealed");
    (world, process)
}

#[test]
fn an_offset_that_another_program_changed_stops_the_partition() {
    for (offset, metadata, found) in [(3, "a note", "it is 3 now"), (10, "", "it is 10 now")] {
        let (world, process) = after_a_lost_commit(|world| {
            let committed = Committed { offset, metadata: metadata.to_owned() };
            world.bus.commit_as_another_program(GROUP, &at(0), committed).unwrap();
        });
        let reason = process.stopped(0).unwrap();
        assert!(reason.contains("was changed by another program"), "{reason}");
        assert!(reason.contains(found) && reason.contains("the last commit of this worker was 10"), "{reason}");
        assert_eq!(world.offset(0), Some(offset), "it is left as it is");
    }
    let (_world, process) = after_a_lost_commit(|world| world.bus.forget_group(GROUP).unwrap());
    assert!(process.stopped(0).unwrap().contains("it is gone"));
}

#[test]
fn an_offset_that_another_worker_committed_shows_that_it_has_the_partition() {
    let (_world, process) = after_a_lost_commit(|world| {
        let stream = world.bus.inspect(TOPIC).unwrap().0;
        let metadata = SealMetadata::new(stream, Vec::new(), &Shape::everything()).to_metadata().unwrap();
        world.bus.commit_as_another_program(GROUP, &at(0), Committed { offset: 20, metadata }).unwrap();
    });
    assert_eq!(process.stopped(0), None);
}

#[test]
fn a_member_that_was_evicted_writes_nothing_more_and_begins_again_where_the_group_is() {
    let world = World::new(1);
    let mut process = world.start();
    world.publish(0, 10);
    process.until("the first batch is settled", |_| world.offset(0) == Some(10));
    process.bus.evict();
    world.publish(0, 10);
    process.until("it has the partition again, and all is settled", |_| world.offset(0) == Some(20));
    assert_eq!((world.backend.total(), process.stopped(0)), (20, None));
    assert_eq!(world.backend.violations(), [""; 0]);
}

#[test]
fn a_bus_that_is_away_loses_no_commit() {
    let world = World::new(1);
    let mut process = world.start();
    world.publish(0, 10);
    process.until("the first batch is settled", |_| world.offset(0) == Some(10));
    world.publish(0, 10);
    process.until("it is read", |process| process.next(0) == 20);
    world.bus.set_away(true);
    process.until("the failure is reported", |process| process.status().last_error.is_some());
    assert!(process.status().is_bus_failing);
    process.steps(50);
    world.bus.set_away(false);
    process.until("all is settled", |_| world.offset(0) == Some(20));
    process.until("the failure is over", |process| process.status().last_error.is_none());
    assert!(!process.status().is_bus_failing);
    assert_eq!((world.backend.total(), process.stopped(0)), (20, None));
}

#[test]
fn a_commit_that_the_bus_does_not_take_is_read_back_and_the_member_stays() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    world.publish(0, 10);
    process.until("it is sealed", |process| process.sealed(0) == 1);
    run_tasks(&process.runtime, None);
    // It is to be settled, and that committed.
    assert_eq!((world.backend.total(), world.offset(0)), (10, Some(0)));
    world.bus.set_away(true);
    process.steps(3);
    assert!(process.owns(0));
    world.bus.set_away(false);
    let back = world.now();
    process.until("it is settled", |_| world.offset(0) == Some(10));
    assert!(process.owns(0) && world.now() - back < Duration::from_secs(2));
}
