//! Flow control, the topics' incarnations, dead letters, records that cannot be read, and the status.

use super::*;

#[test]
fn a_partition_whose_backend_takes_nothing_is_paused_and_resumed() {
    let world = World::new(2);
    let mut process = world.start();
    process.until("both begin", |_| world.offset(0) == Some(0) && world.offset(1) == Some(0));
    world.backend.decide(|batch| (batch.id.partition == 0).then(retry));
    world.publish(0, 1_000);
    world.publish(1, 1_000);
    process.until("the other is settled", |_| world.offset(1) == Some(1_000));
    process.steps(50);
    assert!(process.worker.tasks.iter().any(|task| task.paused && task.at == at(0)));
    assert!(process.worker.tasks.iter().any(|task| !task.paused && task.at == at(1)));
    // Sixteen batches, and what came with the poll that completed the last one.
    assert!((160..=170).contains(&process.next(0)), "{}", process.next(0));
    // It is resumed with half as many, and not only when all are settled.
    world.backend.decide(|batch| (batch.id.partition == 0 && batch.id.end > 100).then(retry));
    process.until("it reads on", |process| process.next(0) > 200);
    assert_eq!(world.offset(0), Some(100));
    world.backend.decide(|_| None);
    process.until("all is settled", |_| world.offset(0) == Some(1_000));
    assert!(process.worker.tasks.iter().all(|task| !task.paused));
    assert_eq!(world.backend.total(), 2_000);
}

#[test]
fn the_status_has_the_ends_of_the_partitions_and_the_counts_of_what_is_settled() {
    let world = World::new(2);
    world.backend.refuse(|series| series.name() == "bad");
    let mut process = world.start();
    process.until("both begin", |_| world.offset(0) == Some(0) && world.offset(1) == Some(0));
    world.publish(0, 10);
    world.send(1, r#"{"name":"bad","ts":1,"value":1}"#);
    world.send(1, "garbage");
    process.until("all is settled", |_| world.offset(0) == Some(10) && world.offset(1) == Some(2));
    let settled = world.now();
    process.until("the status is fresh", |_| world.now() - settled > REFRESH_EVERY);
    let status = process.status();
    let partitions: Vec<_> = status
        .partitions
        .iter()
        .map(|(at, partition)| (at.as_str(), partition.settled, partition.next, partition.end))
        .collect();
    assert_eq!(partitions, [("counters/0", 10, 10, Some(10)), ("counters/1", 2, 2, Some(2))]);
    assert_eq!((status.events, status.batches, status.dead_letters, status.retries), (11, 2, 2, 0));
    assert_eq!((status.points, status.requests), (2, 2));
    assert_eq!((status.lag(), status.last_error), (Some(0), None));
    assert_eq!(world.dead_letters(), 2);
    assert!(status.last_run.is_some_and(|run| world.now() - run < Duration::from_secs(1)));
    assert!(status.last_settled.is_some_and(|then| then <= settled));
}

#[test]
fn the_ends_of_the_partitions_are_looked_at_twice_a_second() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    world.backend.decide(|_| Some(retry()));
    let mut changes = Vec::new();
    let mut seen = None;
    let began = world.now();
    while world.now() - began < Duration::from_secs(5) {
        world.publish(0, 1);
        process.step();
        let end = process.status().partitions.get("counters/0").and_then(|partition| partition.end);
        if end != seen {
            changes.push(world.now());
            seen = end;
        }
    }
    assert!((9..=11).contains(&changes.len()), "{}", changes.len());
}

#[test]
fn the_ends_are_looked_at_again_when_they_are_due_and_later_after_a_failure() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    let end = |process: &Process| process.status().partitions["counters/0"].end;
    process.worker.refresh_status(true);
    world.publish(0, 1);
    world.time.advance(REFRESH_EVERY - Duration::from_nanos(1));
    process.worker.refresh_status(false);
    assert_eq!(end(&process), Some(0));
    world.time.advance(Duration::from_nanos(1));
    process.worker.refresh_status(false);
    assert_eq!(end(&process), Some(1));
    world.bus.set_away(true);
    process.worker.refresh_status(true);
    world.bus.set_away(false);
    world.publish(0, 1);
    world.time.advance(REFRESH_AFTER_FAILURE - Duration::from_nanos(1));
    process.worker.refresh_status(false);
    assert_eq!(end(&process), Some(1));
    world.time.advance(Duration::from_nanos(1));
    process.worker.refresh_status(false);
    assert_eq!(end(&process), Some(2));
}

#[test]
fn the_end_of_a_partition_that_comes_back_is_not_known_before_it_was_looked_at() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    process.worker.refresh_status(true);
    let end = |process: &Process| process.status().partitions["counters/0"].end;
    assert_eq!(end(&process), Some(0));
    process.bus.evict();
    process.until("it is lost", |process| !process.owns(0));
    process.until("it is back", |process| process.owns(0));
    world.bus.set_away(true);
    process.worker.refresh_status(true);
    assert_eq!(end(&process), None);
}

#[test]
fn a_partition_without_finished_batches_goes_on_although_the_memory_is_used_up() {
    let world = World::new(2);
    let mut process = world.start();
    process.until("both begin", |_| world.offset(0) == Some(0) && world.offset(1) == Some(0));
    world.backend.decide(|_| Some(retry()));
    world.bus.set_refusing(DEAD, true);
    // It waits in memory as a dead letter.
    let garbage = "x".repeat(12 << 20);
    world.send(0, &garbage);
    world.send(0, &garbage);
    process.until("both are read", |process| process.next(0) == 2);
    process.steps(20);
    let paused = |process: &Process| {
        process.worker.tasks.iter().map(|task| (task.at.partition, task.paused)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(paused(&process), BTreeMap::from([(0, true), (1, false)]));
    world.bus.set_refusing(DEAD, false);
    world.backend.decide(|_| None);
    process.until("all is settled", |_| world.offset(0) == Some(2));
    process.steps(2);
    assert_eq!(paused(&process), BTreeMap::from([(0, false), (1, false)]));
}

#[test]
fn a_topic_that_is_recreated_is_noticed_within_seconds_although_nothing_is_read() {
    let world = World::new(1);
    let mut process = world.start();
    world.publish(0, 10);
    process.until("all is settled", |_| world.offset(0) == Some(10));
    process.steps(20);
    world.bus.recreate_topic(TOPIC, Offsets::Kept).unwrap();
    let before = world.now();
    process.until("it is stopped", |process| process.stopped(0).is_some());
    let after = world.now() - before;
    assert!(after < Duration::from_secs(6), "{after:?}");
    assert!(process.stopped(0).unwrap().contains("was recreated"));
}

#[test]
fn an_idle_worker_asks_for_the_topics_incarnations_every_five_seconds() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    let answered = |process: &Process| match process.worker.stream_check {
        StreamCheck::Answered(then) => Some(then),
        _ => None,
    };
    process.until("the first answer", |process| answered(process).is_some());
    let first = answered(&process);
    process.until("the next one", |process| answered(process).is_some_and(|then| Some(then) != first));
    let between = answered(&process).unwrap() - first.unwrap();
    assert!(between >= Duration::from_secs(5) && between < Duration::from_secs(6), "{between:?}");
    // One that waits for an answer is told at once.
    world.publish(0, 10);
    let before = world.now();
    process.until("it is settled", |_| world.offset(0) == Some(10));
    assert!(world.now() - before < Duration::from_secs(1));
}

#[test]
fn a_query_for_the_incarnation_that_failed_is_repeated_soon() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    process.worker.streams_answered(Err(tallybus_bus::BusError::Unavailable("a broker is away".to_owned())));
    let failed = world.now();
    assert!(matches!(process.worker.stream_check, StreamCheck::Failed(_)));
    world.time.advance(Duration::from_millis(300) - Duration::from_nanos(1));
    process.worker.query_streams();
    assert!(matches!(process.worker.stream_check, StreamCheck::Failed(_)));
    world.time.advance(Duration::from_nanos(1));
    process.worker.query_streams();
    assert!(matches!(process.worker.stream_check, StreamCheck::InFlight), "{:?}", world.now() - failed);
}

#[test]
fn a_batch_waits_for_its_dead_letters_and_others_do_not() {
    let world = World::new(2);
    let mut process = world.start();
    process.until("both begin", |_| world.offset(0) == Some(0) && world.offset(1) == Some(0));
    world.bus.set_refusing(DEAD, true);
    world.publish(0, 9);
    world.send(0, "garbage");
    world.publish(1, 10);
    process.until("the other is settled", |_| world.offset(1) == Some(10));
    process.until("the reason is reported", |process| process.status().last_error.is_some());
    assert!(process.status().last_error.unwrap().contains("dead letters cannot be published"));
    assert_eq!((world.offset(0), world.backend.total()), (Some(0), 19));
    world.bus.set_refusing(DEAD, false);
    process.until("it is settled", |_| world.offset(0) == Some(10));
    process.until("nothing fails", |process| process.status().last_error.is_none());
    assert_eq!((world.dead_letters(), process.status().dead_letters), (1, 1));
}

#[test]
fn what_comes_before_a_record_that_cannot_be_read_is_settled_first() {
    let world = World::new(1);
    let mut process = world.start();
    world.publish(0, 15);
    process.until("all is read", |process| process.next(0) == 15);
    process.worker.found_unreadable(at(0), 15, "too large");
    process.step();
    assert_eq!(process.stopped(0), None);
    process.until("it is stopped", |process| process.stopped(0).is_some());
    assert_eq!((world.offset(0), world.backend.total(), process.owns(0)), (Some(15), 15, false));
    let reason = process.stopped(0).unwrap();
    assert!(reason.contains("counters/0/15 cannot be read: too large"), "{reason}");
    assert!(reason.contains("--partition counters/0 --to 16"), "{reason}");
    // One of a partition that is not owned any more is no one's.
    process.worker.found_unreadable(at(7), 15, "too large");
    process.steps(3);
    assert!(process.worker.unreadable.is_empty() && process.worker.membership.stopped().len() == 1);
}

#[test]
fn a_poll_waits_until_a_batch_is_due_and_less_while_dead_letters_are_on_their_way() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    assert_eq!(process.worker.poll_timeout(), IDLE_WAIT);
    world.publish(0, 1);
    process.until("it is read", |process| process.next(0) == 1);
    let due = process.worker.tasks.iter().find_map(PartitionTask::due_at).unwrap();
    assert_eq!(process.worker.poll_timeout(), due.saturating_duration_since(world.now()).min(IDLE_WAIT));
    assert!(process.worker.poll_timeout() <= Duration::from_millis(50));
    process.until("it is settled", |_| world.offset(0) == Some(1));
    world.bus.set_refusing(DEAD, true);
    world.send(0, "garbage");
    process.until("a dead letter waits", |process| !process.worker.dead_letters.is_idle());
    assert_eq!(process.worker.poll_timeout(), BUSY_WAIT);
}

#[test]
fn a_worker_is_caught_up_when_its_whole_group_has_settled_everything() {
    let world = World::new(2);
    let mut process = world.start();
    assert!(!process.worker.is_caught_up().unwrap(), "it has no partition yet");
    process.until("both begin", |_| world.offset(0) == Some(0) && world.offset(1) == Some(0));
    process.steps(5);
    world.time.advance(ASK_GROUP_EVERY);
    assert!(process.worker.is_caught_up().unwrap());
    assert!(!process.worker.is_caught_up().unwrap(), "the group is not asked again at once");
    world.time.advance(ASK_GROUP_EVERY);
    assert!(process.worker.is_caught_up().unwrap());
    world.publish(0, 10);
    world.send(1, "garbage");
    world.bus.set_refusing(DEAD, true);
    process.until("the other is settled", |_| world.offset(0) == Some(10));
    world.time.advance(ASK_GROUP_EVERY);
    assert!(!process.worker.is_caught_up().unwrap());
    world.bus.set_refusing(DEAD, false);
    process.until("both are settled", |_| world.offset(1) == Some(1));
    process.steps(5);
    world.time.advance(ASK_GROUP_EVERY);
    assert!(process.worker.is_caught_up().unwrap());

    world.bus.set_away(true);
    world.time.advance(ASK_GROUP_EVERY);
    assert!(!process.worker.is_caught_up().unwrap(), "it is not known, and asked again");
    world.bus.set_away(false);

    // Another member's partition counts too.
    let mut second = world.start();
    for _ in 0..200 {
        process.step();
        second.step();
    }
    let theirs = u32::from(second.owns(1));
    assert!(second.owns(theirs) && process.owns(1 - theirs));
    world.publish(theirs, 5);
    process.steps(5);
    world.time.advance(ASK_GROUP_EVERY);
    assert!(!process.worker.is_caught_up().unwrap());
    // One that cannot continue is an error.
    process.worker.stop_partition(&at(1 - theirs), HaltCause::Start, "no place".to_owned());
    let error = process.worker.is_caught_up().unwrap_err().to_string();
    assert!(error.contains("is stopped: no place"), "{error}");
}

#[test]
fn a_backend_that_needs_operator_action_is_an_error_for_a_worker_that_shall_catch_up() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    world.backend.decide(|_| Some(Step::WriteOutcome(WriteOutcome::Halt { reason: "no place for it".to_owned() })));
    world.publish(0, 10);
    process.until("it is reported", |process| process.status().last_error.is_some());
    assert!(process.status().halts()[0].contains("no place for it"));
    assert!(!process.worker.is_caught_up().unwrap(), "it may be over at once");
    process.until("it has lasted", |process| process.worker.tasks.halted().is_some());
    let error = process.worker.is_caught_up().unwrap_err().to_string();
    assert!(error.contains("counters/0 is stopped: ") && error.contains("no place for it"), "{error}");
    assert!(!error.contains("retrying"), "{error}");
    world.backend.decide(|_| None);
    process.until("it is settled", |_| world.offset(0) == Some(10));
    process.until("nothing fails", |process| process.status().last_error.is_none());
    assert_eq!(process.worker.tasks.halted(), None);
}

#[test]
fn a_recreated_topic_and_a_forgotten_group_are_recognised_by_what_the_worker_has_seen() {
    let world = World::new(1);
    let mut process = world.start();
    world.publish(0, 10);
    process.until("all is settled", |_| world.offset(0) == Some(10));
    // The offsets go with the topic; the worker is assigned the new one.
    world.bus.recreate_topic(TOPIC, Offsets::Deleted).unwrap();
    process.bus.evict();
    world.publish(0, 10);
    process.until("it is stopped", |process| process.stopped(0).is_some());
    assert!(process.stopped(0).unwrap().contains("was recreated"), "{:?}", process.stopped(0));
    assert_eq!((world.offset(0), world.backend.total()), (None, 10));
}

#[test]
fn a_backend_that_has_not_answered_the_check_is_not_halted() {
    let world = World::new(1);
    let mut process = world.start();
    let (check, gate) = crate::readiness::gate();
    process.worker.set_gate(gate);
    process.until("it begins", |_| world.offset(0) == Some(0));
    world.backend.decide(|_| Some(Step::WriteOutcome(WriteOutcome::Halt { reason: "no place for it".to_owned() })));
    world.publish(0, 10);
    process.until("it is reported", |process| process.status().last_error.is_some());
    assert_eq!(process.status().halts(), [""; 0]);
    check.checked(Ok(()));
    process.until("it is halted", |process| !process.status().halts().is_empty());
}

#[test]
fn a_handle_stops_the_worker_and_shows_its_status() {
    let world = World::new(1);
    let mut process = world.start();
    world.publish(0, 10);
    process.until("all is settled", |_| world.offset(0) == Some(10));
    let handle = process.worker.handle();
    assert_eq!((handle.status().events, handle.is_stopped()), (10, false));
    handle.stop();
    assert!(process.worker.handle.is_stopped());
    assert_eq!(process.worker.run().unwrap().status.events, 10);
}
