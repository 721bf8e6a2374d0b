//! A destination that is ahead of the consumer group: the partition halts with nothing sealed, and still halts after a
//! restart and a rebalance, until the operator has decided.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tallybus_bus::{Bus, TopicPartition};
use tallybus_sdk::testkit::Step;
use tallybus_sdk::{Claim, SealMetadata, Shape, WriteOutcome};
use tallybus_worker::WorkerOptions;

use crate::fixture::{Fixture, Running, TOPIC, events, sum, until};

/// The destination has the data of an earlier incarnation of the topic.
fn recreated(partitions: u32) -> Fixture {
    let fixture = Fixture::new(partitions);
    for partition in 0..partitions {
        fixture.backend.set_ledger_end(TOPIC, partition, 100 / u64::from(partitions));
    }
    fixture.publish(&events(0..100, u64::from(partitions)));
    fixture
}

fn is_halted(worker: &Running) -> bool {
    let failure = worker.handle.status().last_error;
    failure.is_some_and(|failure| failure.contains("halted") && failure.contains("is past this group"))
}

fn assert_nothing_was_sealed_or_written(fixture: &Fixture) {
    assert_eq!(fixture.backend.writes(), []);
    for held in fixture.bus().observer().unwrap().committed_by("tallybus.fake", TOPIC).unwrap().iter().flatten() {
        assert_eq!(held.offset, 0);
        assert_eq!(SealMetadata::parse(held.offset, &held.metadata).unwrap().sealed_end(), None);
    }
}

#[test]
fn a_halt_for_a_ledger_that_is_ahead_is_one_again_after_each_restart() {
    let fixture = recreated(1);
    for _ in 0..2 {
        let worker = fixture.start(fixture.options());
        until("the partition halts", || is_halted(&worker));
        let failure = worker.handle.status().last_error.unwrap();
        for expected in
            ["the fake backend", "counters/0 up to offset 100", "sealed it up to offset 0 only", "new destination"]
        {
            assert!(failure.contains(expected), "no {expected:?} in {failure}");
        }
        worker.stop();
        assert_nothing_was_sealed_or_written(&fixture);
    }
    let Err(error) = fixture.start(WorkerOptions { until_caught_up: true, ..fixture.options() }).end() else {
        panic!("it caught up over a halt")
    };
    assert!(error.to_string().contains("is past this group"), "{error}");
    assert_nothing_was_sealed_or_written(&fixture);
    // The operator has named a new destination.
    fixture.backend.set_ledger_end(TOPIC, 0, 0);
    fixture.catch_up(fixture.options());
    assert_eq!(fixture.backend.total(), sum(100));
    fixture.assert_sound();
}

#[test]
fn a_halt_for_a_ledger_that_is_ahead_is_one_again_after_a_rebalance() {
    let fixture = recreated(2);
    let one = fixture.start(fixture.options());
    until("one halts with both partitions", || is_halted(&one) && one.handle.status().partitions.len() == 2);
    let two = fixture.start(fixture.options());
    until("two takes a partition over and halts", || is_halted(&two) && two.handle.status().partitions.len() == 1);
    until("one keeps the other", || one.handle.status().partitions.len() == 1);
    one.stop();
    until("two has both and halts", || is_halted(&two) && two.handle.status().partitions.len() == 2);
    assert_nothing_was_sealed_or_written(&fixture);
    // The operator has fixed the destination: the worker continues by itself.
    for partition in 0..2 {
        fixture.backend.set_ledger_end(TOPIC, partition, 0);
    }
    until("everything is written", || fixture.backend.total() == sum(100));
    until("no failure is left", || two.handle.status().last_error.is_none());
    assert!(two.stop().drained);
    fixture.assert_sound();
}

/// Another sink takes the destination between the comparison and the claim.
#[test]
fn a_worker_that_is_refused_the_claim_has_sealed_nothing() {
    let fixture = Fixture::new(1);
    fixture.publish(&events(0..100, 1));
    let stream = fixture.bus().observer().unwrap().stream_id_of(TOPIC).unwrap();
    let theirs = Claim::new("tallybus.other", &TopicPartition::new(TOPIC, 0), &stream, &BTreeMap::new());
    fixture.backend.claim_before_the_next(&theirs.to_entry().unwrap());
    let worker = fixture.start(fixture.options());
    until("the worker is refused", || {
        worker.handle.status().last_error.is_some_and(|failure| failure.contains("group tallybus.other writes"))
    });
    worker.stop();
    assert_nothing_was_sealed_or_written(&fixture);
    assert_eq!(fixture.committed_offset(), Some(0), "the group knows the partition");
}

#[test]
fn partitions_that_halt_for_different_reasons_are_each_shown() {
    let fixture = recreated(2);
    fixture.backend.set_ledger_end(TOPIC, 1, 0);
    let reason = "the table is read-only".to_owned();
    fixture.backend.decide(move |_| Some(Step::WriteOutcome(WriteOutcome::Halt { reason: reason.clone() })));
    let worker = fixture.start(fixture.options());
    until("both partitions halt", || worker.handle.status().halts().len() == 2);
    let halts = worker.handle.status().halts();
    assert!(
        halts[0].starts_with("counters/0: ") && halts[0].contains("is past this group: it holds counters/0"),
        "{halts:?}"
    );
    assert_eq!(halts[1], "counters/1: the table is read-only");
    worker.stop();
}

#[test]
fn a_partition_that_halts_holds_up_no_other() {
    let fixture = recreated(2);
    fixture.backend.set_ledger_end(TOPIC, 0, 0);
    let worker = fixture.start(fixture.options());
    until("the other partition is written", || fixture.committed_offset() == Some(50));
    until("this one halts", || is_halted(&worker));
    let partitions: HashSet<u32> = fixture.backend.writes().iter().map(|write| write.id.partition).collect();
    assert_eq!(partitions, HashSet::from([0]));
    worker.stop();
}

#[test]
fn a_ledger_inside_what_is_sealed_names_batches_that_were_written() {
    let fixture = Fixture::new(1);
    fixture.publish(&events(0..60, 1));
    fixture.commit(0, &fixture.seal(vec![20, 40], &Shape::everything()));
    fixture.backend.set_ledger_end(TOPIC, 0, 20);
    fixture.catch_up(fixture.options());
    assert_eq!(fixture.backend.total(), sum(60) - sum(20), "the first batch was written before");
    fixture.assert_sound();
}

#[test]
fn nothing_is_sealed_while_the_ledger_cannot_be_read() {
    let fixture = Fixture::new(1);
    fixture.publish(&events(0..100, 1));
    fixture.backend.set_away(true);
    let worker = fixture.start(fixture.options());
    until("the failure is reported", || {
        worker.handle.status().last_error.is_some_and(|failure| failure.contains("unavailable"))
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_nothing_was_sealed_or_written(&fixture);
    fixture.backend.set_away(false);
    until("everything is written", || fixture.backend.total() == sum(100));
    assert!(worker.stop().drained);
}

#[test]
fn a_restored_backup_without_a_ledger_halts_by_its_mark_until_the_operator_decides() {
    let fixture = Fixture::without_ledger(1);
    fixture.publish(&events(0..100, 1));
    fixture.catch_up(fixture.options());
    let backup = fixture.backend.marks();
    assert_eq!(backup.len(), 1, "the partition is marked with its first batch: {backup:?}");
    fixture.publish(&events(100..200, 1));
    fixture.catch_up(fixture.options());
    assert!(fixture.backend.marks()[0].1 > backup[0].1, "and marked again by the next worker");
    assert_eq!(fixture.backend.total(), sum(200));

    fixture.backend.set_marks(backup.clone());
    fixture.publish(&events(200..300, 1));
    for _ in 0..2 {
        let worker = fixture.start(fixture.options());
        let is_halted = || {
            let failure = worker.handle.status().last_error;
            failure.is_some_and(|failure| failure.contains("halted") && failure.contains("from an older backup"))
        };
        until("the partition halts", is_halted);
        worker.stop();
        assert_eq!((fixture.backend.total(), fixture.committed_offset()), (sum(200), Some(200)));
    }
    // `tallybus group reset --to 200`: the group says nothing about the destination any more.
    fixture.commit(200, &fixture.seal(Vec::new(), &Shape::everything()));
    fixture.catch_up(fixture.options());
    assert_eq!(fixture.backend.total(), sum(300));
    fixture.assert_sound();
}
