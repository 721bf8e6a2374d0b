//! What a collector says of itself: never ahead of what the bus has, and never a reason for a count to wait for long.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test and its helpers")]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::{FakeBus, Fate, turn};
use tallybus::{Builder, Guard, count};
use tallybus_schemas::checkpoint::{Checkpoint, DoubtKind, End};
use tallybus_schemas::{Decoder, Encoding, Events};

const SOON: Duration = Duration::from_secs(60);

fn builder() -> Builder {
    tallybus::builder()
        .service("test")
        .instance("one")
        .flush_interval(Duration::from_millis(10))
        .checkpoint_interval(Duration::from_millis(100))
}

fn bus() -> FakeBus {
    let bus = FakeBus::with_partitions(3);
    bus.broker().stream = Some("fake:one".to_owned());
    bus
}

fn start(bus: &FakeBus) -> Guard {
    builder().start(bus.connection()).unwrap()
}

/// Waits for a checkpoint for which this holds.
fn wait_for(bus: &FakeBus, holds: impl Fn(&Checkpoint) -> bool) -> Checkpoint {
    let until = Instant::now() + SOON;
    loop {
        let found = bus.broker().checkpoints.iter().map(|(_, checkpoint)| checkpoint).find(|one| holds(one)).cloned();
        if let Some(found) = found {
            return found;
        }
        assert!(Instant::now() < until, "no such checkpoint in {:#?}", bus.broker().checkpoints.last());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Of every mark of every checkpoint: whatever is dated before it was on the bus by then, below its offsets, and is all that will
/// ever be dated so. The offsets of this bus are those of the log as a whole.
fn check(bus: &FakeBus) {
    let broker = bus.broker();
    let mut messages = Vec::new();
    for (partition, payload) in &broker.log {
        let mut events = Events::new();
        Decoder::new().decode(Some(Encoding::Native), payload, 0, &mut events).unwrap();
        messages.push((*partition as usize, events.last_origin().unwrap().interval_end));
    }
    let mut before = i64::MIN;
    for (there, checkpoint) in &broker.checkpoints {
        let certain = checkpoint.doubts.iter().map(|doubt| doubt.since).min().unwrap_or(i64::MAX);
        for mark in &checkpoint.marks {
            for (offset, (partition, time)) in messages.iter().enumerate() {
                if *time < mark.before.min(certain) {
                    let end = mark.ends.get(*partition).copied().unwrap_or(0);
                    assert!(
                        offset < *there && (offset as u64) < end,
                        "a message dated {time} at {offset}: {checkpoint:?}"
                    );
                }
            }
        }
        assert!(checkpoint.marks[0].before >= before, "a mark goes back");
        before = checkpoint.marks[0].before;
    }
}

#[test]
fn the_first_checkpoint_is_on_the_bus_before_the_first_message_and_the_last_one_covers_everything() {
    let _turn = turn();
    let bus = bus();
    count!("checkpoints.first", 5);
    let guard = start(&bus);
    for _ in 0..200 {
        count!("checkpoints.first");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(guard.shutdown(SOON).is_complete());
    check(&bus);
    let broker = bus.broker();
    let (messages, first) = broker.checkpoints.first().unwrap();
    assert_eq!((*messages, first.number, first.marks.len(), first.end), (0, 1, 1, None));
    assert_eq!((first.service.as_str(), first.instance.as_str(), first.pid), ("test", "one", std::process::id()));
    let (messages, last) = broker.checkpoints.last().unwrap();
    assert_eq!((*messages, last.end, last.emitted, last.delivered), (broker.log.len(), Some(End::Complete), 205, 205));
    assert_eq!(last.stream.as_deref(), Some("fake:one"));
    let numbers: Vec<u64> = broker.checkpoints.iter().map(|(_, checkpoint)| checkpoint.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(numbers.len() > 3, "{numbers:?}");
}

#[test]
fn refused_and_late_messages_and_an_outage_hold_the_mark_and_nothing_is_ever_ahead() {
    let _turn = turn();
    let bus = bus();
    let guard = start(&bus);
    wait_for(&bus, |checkpoint| checkpoint.marks[0].before > checkpoint.started);
    bus.broker().ack_after = Duration::from_millis(7);
    let fates = [Fate::Taken, Fate::Refused, Fate::Taken, Fate::QueueFull];
    for round in 0..100u64 {
        bus.broker().fates.push_back(fates[(round % 4) as usize]);
        count!("checkpoints.refused", round = round % 9);
        thread::sleep(Duration::from_millis(5));
    }
    bus.broker().fates.clear();
    bus.broker().away = true;
    count!("checkpoints.refused", 1_000);
    let held = bus.broker().checkpoints.len();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(bus.broker().checkpoints.len(), held, "nothing is taken");
    bus.broker().away = false;
    let last = bus.broker().checkpoints.last().unwrap().1.clone();
    wait_for(&bus, |checkpoint| checkpoint.marks[0].before > last.marks[0].before && checkpoint.delivered >= 1_100);
    assert!(guard.shutdown(SOON).is_complete());
    check(&bus);
    assert!(bus.broker().checkpoints.last().unwrap().1.give_backs > 0);
}

#[test]
fn a_message_in_doubt_is_a_doubt_since_the_last_certain_mark() {
    let _turn = turn();
    let bus = bus();
    let guard = start(&bus);
    count!("checkpoints.doubt");
    assert!(guard.flush(SOON));
    bus.broker().fates.push_back(Fate::Unknown);
    count!("checkpoints.doubt", 7);
    let doubtful = wait_for(&bus, |checkpoint| !checkpoint.doubts.is_empty());
    let doubt = &doubtful.doubts[0];
    assert_eq!((doubt.kind, doubt.value, doubt.number), (DoubtKind::InDoubt, 7, doubtful.number));
    assert!(doubt.since >= doubtful.started && doubt.since < doubtful.time);
    assert_eq!(guard.shutdown(SOON).unknown, 7);
    check(&bus);
    let last = bus.broker().checkpoints.last().unwrap().1.clone();
    assert_eq!((last.unknown, &last.doubts), (7, &doubtful.doubts));
}

#[test]
fn a_recreated_topic_is_a_doubt_and_its_offsets_begin_again() {
    let _turn = turn();
    let bus = bus();
    let guard = start(&bus);
    count!("checkpoints.recreated");
    wait_for(&bus, |checkpoint| checkpoint.marks[0].ends.iter().any(|end| *end > 0));
    bus.broker().stream = Some("fake:two".to_owned());
    let other = wait_for(&bus, |checkpoint| checkpoint.stream.as_deref() == Some("fake:two"));
    assert_eq!((other.doubts[0].kind, other.doubts[0].since), (DoubtKind::Recreated, other.started));
    assert!(other.marks.iter().all(|mark| mark.ends.iter().all(|end| *end == 0)), "{other:?}");
    assert!(guard.shutdown(SOON).is_complete());
}

#[test]
fn acknowledgements_without_offsets_prove_nothing_until_one_has_its_offset() {
    let _turn = turn();
    let bus = bus();
    bus.broker().hides_offsets = true;
    let guard = start(&bus);
    count!("checkpoints.offsets");
    let first = wait_for(&bus, |checkpoint| checkpoint.delivered > 0);
    assert_eq!(first.marks[0].before, first.started);
    bus.broker().hides_offsets = false;
    count!("checkpoints.offsets");
    wait_for(&bus, |checkpoint| checkpoint.marks[0].before > checkpoint.started);
    assert!(guard.shutdown(SOON).is_complete());
    check(&bus);
}

#[test]
fn checkpoints_that_cannot_be_written_are_counted_and_no_count_waits_for_them() {
    let _turn = turn();
    for refuses_topic in [true, false] {
        let bus = bus();
        bus.broker().refuses_checkpoints = refuses_topic;
        bus.broker().checkpoint_fates = [Fate::Refused; 1_000].into();
        let guard = start(&bus);
        count!("checkpoints.denied");
        assert!(guard.flush(SOON), "{refuses_topic}");
        assert!(guard.stats().checkpoint_failures > 0);
        assert!(guard.shutdown(SOON).is_complete());
        assert!(bus.broker().checkpoints.is_empty());
    }
}

#[test]
fn without_an_interval_there_are_no_checkpoints_and_an_end_that_proves_nothing_is_not_complete() {
    let _turn = turn();
    let none = bus();
    let guard = builder().checkpoint_interval(Duration::ZERO).start(none.connection()).unwrap();
    count!("checkpoints.none");
    assert!(guard.shutdown(SOON).is_complete());
    assert!(none.broker().checkpoints.is_empty() && none.broker().created.is_empty());

    // Everything is delivered, but nobody knows where.
    let hiding = bus();
    hiding.broker().hides_offsets = true;
    let guard = start(&hiding);
    count!("checkpoints.hidden", 3);
    assert!(guard.shutdown(SOON).is_complete());
    assert_eq!(hiding.broker().checkpoints.last().unwrap().1.end, Some(End::Incomplete));
}
