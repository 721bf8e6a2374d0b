//! Workers over a real (embedded) bus against a scripted backend: whatever it answers, and whichever workers come and
//! go, every event is written once, is a dead letter, or is still on the bus.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise, in its helpers too")]

mod bus_changes;
mod faults;
mod fixture;
mod ledger;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use tallybus_bus::{Bus, TopicOptions};
use tallybus_sdk::testkit::Step;
use tallybus_sdk::{BatchLimits, Rejection, Rng, SealMetadata, Shape, StartAt, WriteOutcome};
use tallybus_worker::{PartitionState, PartitionStatus, WorkerError, WorkerOptions};

use self::fixture::{Fixture, Running, TOPIC, event, events, sum, until};

#[test]
fn whatever_the_backend_answers_every_event_is_written_or_a_dead_letter() {
    let fixture = Fixture::new(3);
    let mut records = events(0..3_000, 3);
    for place in (0..records.len()).step_by(100) {
        records[place].1 = format!("garbage {place}");
    }
    fixture.publish(&records);
    let (mut rng, mut taken) = (Rng::new(42), HashSet::new());
    fixture.backend.decide(move |batch| {
        let reason = || "by the script".to_owned();
        Some(match rng.below(12) {
            0 | 1 => {
                Step::WriteOutcome(WriteOutcome::Retry { after: Some(Duration::from_millis(1)), reason: reason() })
            }
            2 => {
                taken.insert(batch.key());
                Step::TakeAndLoseTheAnswer
            }
            // A backend splits only batches of which it stored nothing.
            3 if batch.part.len() < 3 && !taken.contains(&batch.key()) => {
                Step::WriteOutcome(WriteOutcome::Split { reason: reason() })
            }
            4 if !taken.contains(&batch.key()) => {
                Step::WriteOutcome(WriteOutcome::Rejected(vec![Rejection { point: 0, reason: reason() }]))
            }
            _ => Step::Take,
        })
    });
    let outcome = fixture.catch_up(fixture.options());
    fixture.assert_sound();
    assert!(outcome.drained && outcome.status.retries > 0 && outcome.status.dead_letters > 30, "{:?}", outcome.status);
    assert_eq!(outcome.status.events, 3_000 - 30);

    let dead_letters = fixture.dead_letters();
    let keys: BTreeSet<&String> = dead_letters.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), dead_letters.len(), "no crash, so no dead letter is in the topic twice");
    let garbage: Vec<_> = dead_letters.iter().filter(|(_, payload)| payload.starts_with("garbage")).collect();
    assert_eq!(garbage.len(), 30);
    for (key, payload) in garbage {
        let place: usize = payload[8..].parse().unwrap();
        assert_eq!(*key, format!("{TOPIC}/{}/{}", place % 3, place / 3), "the coordinate names the record");
    }
    let value = |payload: &str| serde_json::from_str::<serde_json::Value>(payload).unwrap()["value"].as_u64().unwrap();
    let rejected: u64 =
        dead_letters.iter().filter(|(_, payload)| payload.starts_with('{')).map(|(_, payload)| value(payload)).sum();
    let lost_as_garbage: u64 = (0..3_000).step_by(100).map(|place| place + 1).sum();
    assert_eq!(fixture.backend.total() + rejected + lost_as_garbage, sum(3_000));
}

#[test]
fn workers_come_and_go_and_nothing_is_written_twice() {
    let fixture = Fixture::new(4);
    fixture.backend.set_pause(Duration::from_millis(3));
    let mut workers: Vec<Running> = vec![fixture.start(fixture.options())];
    for round in 0..10_u64 {
        fixture.publish(&events(round * 400..(round + 1) * 400, 4));
        if round % 3 == 2 {
            workers.remove(0).stop();
        } else {
            workers.push(fixture.start(fixture.options()));
        }
        let before = fixture.backend.writes().len();
        until("some of it is written", || {
            fixture.backend.writes().len() > before + 5 || fixture.backend.total() == sum((round + 1) * 400)
        });
    }
    until("everything written", || fixture.backend.total() == sum(4_000));
    for worker in workers {
        assert!(worker.stop().drained);
    }
    fixture.assert_sound();
    assert_eq!(fixture.backend.total(), sum(4_000));
    let before = fixture.backend.writes().len();
    fixture.catch_up(fixture.options());
    assert_eq!(fixture.backend.writes().len(), before, "everything was settled: nothing is written again");
}

#[test]
fn a_stop_while_answers_are_lost_leaves_sealed_batches_to_the_next_worker() {
    let fixture = Fixture::new(2);
    fixture.publish(&events(0..500, 2));
    fixture.backend.decide(|_| Some(Step::TakeAndLoseTheAnswer));
    let worker = fixture.start(WorkerOptions { drain: Duration::from_millis(300), ..fixture.options() });
    until("a batch is attempted", || !fixture.backend.writes().is_empty());
    let outcome = worker.stop();
    assert!(!outcome.drained, "what is sealed is not yet acknowledged");
    let committed = fixture.bus().observer().unwrap().committed_by("tallybus.fake", TOPIC).unwrap();
    let note = |held: &tallybus_bus::Committed| SealMetadata::parse(held.offset, &held.metadata).unwrap();
    let sealed = committed.iter().flatten().filter(|held| note(held).sealed_end().is_some()).count();
    assert!(sealed > 0, "the group knows what may have been written");

    fixture.backend.decide(|_| None);
    // Other limits: if the batches had not been sealed, their ends would differ now.
    let limits = BatchLimits { max_events: 33, ..fixture.options().limits };
    fixture.catch_up(WorkerOptions { limits, ..fixture.options() });
    fixture.assert_sound();
    assert_eq!(fixture.backend.total(), sum(500));
    assert!(fixture.backend.writes().iter().any(|write| write.recovered));
}

#[test]
fn a_backend_that_is_away_delays_few_batches_and_is_reported_once() {
    let fixture = Fixture::new(2);
    fixture.publish(&events(0..20_000, 2));
    fixture.backend.set_away(true);
    let worker = fixture.start(fixture.options());
    until("the partitions are full", || {
        let status = worker.handle.status();
        status.partitions.len() == 2
            && status.partitions.values().all(|partition| partition.next > 0)
            && status.last_error.is_some()
    });
    until("they hold sixteen batches, and all is seen", || {
        let is_full = |partition: &PartitionStatus| {
            partition.next - partition.settled >= 16 * 20 && partition.end == Some(10_000)
        };
        worker.handle.status().partitions.values().all(is_full)
    });
    worker.turns(30);
    for (at, partition) in &worker.handle.status().partitions {
        assert_eq!(partition.state, PartitionState::Running);
        assert!(
            partition.next - partition.settled < 5_000,
            "{at} holds {} records",
            partition.next - partition.settled
        );
        assert_eq!(partition.end, Some(10_000));
    }
    fixture.backend.set_away(false);
    until("everything written", || fixture.backend.total() == sum(20_000));
    until("no failure is left", || worker.handle.status().last_error.is_none());
    assert!(worker.stop().drained);
    fixture.assert_sound();
}

#[test]
fn a_halt_advances_nothing_and_ends_after_operator_action() {
    let fixture = Fixture::new(1);
    fixture.publish(&events(0..100, 1));
    fixture.backend.set_locked(Some("the token is not valid"));
    let worker = fixture.start(fixture.options());
    until("the halt is reported", || {
        worker.handle.status().last_error.is_some_and(|failure| failure.contains("token"))
    });
    assert_eq!(fixture.committed_offset(), None, "nothing is committed before the destination was read");
    assert_eq!(fixture.backend.total(), 0);
    fixture.backend.set_locked(None);
    until("everything written", || fixture.backend.total() == sum(100));
    assert!(worker.stop().drained);
    fixture.assert_sound();
}

#[test]
fn a_script_that_waits_for_the_end_gets_a_halt_as_an_error() {
    let fixture = Fixture::new(1);
    fixture.publish(&events(0..100, 1));
    fixture.backend.set_locked(Some("the token is not valid"));
    let running = fixture.start(WorkerOptions { until_caught_up: true, ..fixture.options() });
    let Err(error) = running.end() else { panic!("it caught up with a backend that denies access") };
    assert!(error.to_string().contains("the token is not valid"), "{error}");
    fixture.backend.set_locked(None);
    fixture.catch_up(fixture.options());
    assert_eq!(fixture.backend.total(), sum(100));
    fixture.assert_sound();
}

#[test]
fn batches_wait_for_their_dead_letters() {
    let fixture = Fixture::new(1);
    let options = WorkerOptions { dead_letter_topic: "not.there.yet".to_owned(), ..fixture.options() };
    let mut records = events(0..60, 1);
    records[30].1 = "garbage".to_owned();
    fixture.publish(&records);
    let worker = fixture.start(options);
    until("the batches are written", || fixture.backend.total() == sum(60) - 31);
    worker.turns(30);
    let offset = fixture.committed_offset().unwrap();
    assert!(offset <= 30, "no offset passes a dead letter that is not on the bus: {offset}");
    fixture.bus().create_topic("not.there.yet", &TopicOptions::new(1)).unwrap();
    until("the dead letter is published", || fixture.committed_offset() == Some(60));
    assert!(worker.stop().drained);
    fixture.assert_sound();
}

#[test]
fn selection_merges_series_and_keeps_totals() {
    let fixture = Fixture::new(1);
    let line = |name: &str, host: u64| format!(r#"{{"name":"{name}","ts":5,"tags":{{"host":"{host}","keep":"k"}}}}"#);
    let name = |number: u64| if number.is_multiple_of(3) { "http.a" } else { "jobs" };
    let records: Vec<_> = (0..300).map(|number| (0, line(name(number), number))).collect();
    fixture.publish(&records);
    let mut shape = Shape::everything();
    shape.names = vec!["http.*".to_owned()];
    shape.drop_tags = vec!["host".to_owned()];
    shape.tags = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let outcome = fixture.catch_up(WorkerOptions { shape, ..fixture.options() });
    let series: BTreeSet<String> = fixture.backend.rows().keys().map(|(series, _)| series.to_string()).collect();
    assert_eq!(series.into_iter().collect::<Vec<_>>(), [r#"http.a{env="prod",keep="k"}"#]);
    assert_eq!(fixture.backend.total(), 100);
    assert_eq!(outcome.status.events, 300, "what is left out is settled too");
}

#[test]
fn values_that_no_backend_can_hold_are_dead_letters() {
    let fixture = Fixture::new(1);
    let line = |value: u64| (0, format!(r#"{{"name":"big","ts":5,"value":{value}}}"#));
    let most = i64::MAX.unsigned_abs();
    fixture.publish(&[line(u64::MAX), line(most - 1), line(1), line(1), line(most)]);
    fixture.catch_up(fixture.options());
    assert_eq!(fixture.backend.total(), most);
    let keys: Vec<String> = fixture.dead_letters().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["counters/0/0/0", "counters/0/3/0", "counters/0/4/0"]);
}

#[test]
fn starting_with_the_newest_is_remembered() {
    let fixture = Fixture::new(1);
    fixture.publish(&events(0..10, 1));
    let options = WorkerOptions { start_at: StartAt::Newest, ..fixture.options() };
    fixture.catch_up(options.clone());
    assert_eq!(fixture.backend.total(), 0);
    fixture.publish(&[(0, event(99))]);
    fixture.catch_up(options);
    assert_eq!(fixture.backend.total(), 100, "what came while no worker ran is not skipped");
}

#[test]
fn a_partition_that_cannot_go_on_says_why() {
    let other_sink = Shape { sink: "slots=64".to_owned(), ..Shape::everything() };
    let seal = |ends: &[u64], shape: &Shape| {
        let (ends, shape) = (ends.to_vec(), shape.clone());
        move |fixture: &Fixture| fixture.seal(ends, &shape)
    };
    let text = |text: &'static str| move |_: &Fixture| text.to_owned();
    let everything = Shape::everything();
    type Metadata = Box<dyn FnOnce(&Fixture) -> String>;
    let cases: [(u64, Metadata, &str); 6] = [
        (11, Box::new(seal(&[], &everything)), "was the topic deleted"),
        (3, Box::new(text("someone else's note")), "another program"),
        (3, Box::new(text(r#"{"v":9,"ends":[]}"#)), "newer tallybus"),
        (3, Box::new(seal(&[6], &other_sink)), "start once with the old settings"),
        (3, Box::new(seal(&[2], &everything)), "do not follow offset 3"),
        (3, Box::new(seal(&[6, 11], &everything)), "was the topic deleted"),
    ];
    for (offset, metadata, expected) in cases {
        let fixture = Fixture::new(1);
        fixture.publish(&events(0..10, 1));
        let metadata = metadata(&fixture);
        fixture.commit(offset, &metadata);
        let running = fixture.start(WorkerOptions { until_caught_up: true, ..fixture.options() });
        let Err(error) = running.end() else { panic!("{expected}: it went on") };
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(fixture.backend.total(), 0);
    }
}

#[test]
fn a_selection_too_long_for_the_metadata_is_refused_at_once() {
    let fixture = Fixture::new(1);
    let names = (0..500).map(|number| format!("a.rather.long.counter.name.{number}.*")).collect();
    let shape = Shape { names, ..Shape::everything() };
    let refused = fixture.try_worker(WorkerOptions { shape, ..fixture.options() });
    assert!(matches!(refused, Err(WorkerError::Settings { .. })));
}

#[test]
fn an_empty_topic_is_caught_up_at_once() {
    let fixture = Fixture::new(2);
    let outcome = fixture.catch_up(fixture.options());
    assert_eq!((outcome.status.batches, outcome.drained), (0, true));
}
