use std::collections::{BTreeMap, HashMap};

use tallybus_bus::{NoHeaders, Record};
use tallybus_schemas::checkpoint::{Checkpoint, Dismissal, Doubt, DoubtKind, End, Mark};

use super::*;

const SECOND: i64 = 1_000_000_000;
/// When everything is read, in seconds.
const NOW: i64 = 10_000;
/// What is found where nothing holds the watermark back: it is half a second behind the clock.
const LATEST: (Option<i64>, Option<Cause>) = (Some(1), None);
const ONE: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "ffffffffffffffffffffffffffffffff";

/// A producer that has written its seventh checkpoint just now: everything before `NOW - 5` is below offset 10 of partition 0, and
/// everything before `NOW - 100` below offset 4.
fn checkpoint(producer: &str) -> Checkpoint {
    Checkpoint {
        producer: producer.to_owned(),
        number: 7,
        service: "api".to_owned(),
        instance: "api-1".to_owned(),
        host: "host".to_owned(),
        pid: 42,
        version: "1.0.0".to_owned(),
        topic: "counters".to_owned(),
        stream: Some("kafka:a:b".to_owned()),
        started: (NOW - 1_000) * SECOND,
        time: NOW * SECOND,
        interval_ms: 10_000,
        marks: vec![
            Mark { before: (NOW - 5) * SECOND, ends: vec![10, 0] },
            Mark { before: (NOW - 100) * SECOND, ends: vec![4, 0] },
        ],
        doubts: vec![],
        end: None,
        emitted: 10,
        delivered: 10,
        unknown: 0,
        messages: 10,
        give_backs: 0,
        series: 1,
        overflowed: 0,
        previous: Some(((NOW - 10) * SECOND, 5)),
    }
}

fn record<'r>(key: &'r str, payload: &'r [u8], seconds: i64) -> Record<'r> {
    Record {
        topic: "tallybus.producers",
        partition: 0,
        offset: 0,
        time_ms: seconds * 1_000,
        key: Some(key.as_bytes()),
        payload,
        is_tombstone: false,
        unreadable: None,
        headers: &NoHeaders,
    }
}

fn known(checkpoints: &[Checkpoint]) -> Known {
    let mut known = Known::default();
    checkpoints.iter().for_each(|checkpoint| hear(&mut known, checkpoint, NOW));
    known
}

fn hear(known: &mut Known, checkpoint: &Checkpoint, seconds: i64) {
    known.take(&record(&checkpoint.producer, &checkpoint.encode().unwrap(), seconds));
}

fn dismiss(known: &mut Known, producer: &str, number: u64) {
    let dismissal = Dismissal::new(producer, number, NOW * SECOND);
    known.take(&record(&dismissal.key(), &dismissal.encode().unwrap(), NOW));
}

/// A sink that has settled partition 0 up to this offset.
fn sink(settled: Option<u64>) -> SinkSettled {
    sink_of("kafka:a:b", settled)
}

fn sink_of(stream: &str, settled: Option<u64>) -> SinkSettled {
    let at = |offset| (("counters".to_owned(), 0), SettledAt { offset, stream: Some(stream.to_owned()) });
    SinkSettled {
        name: "local".to_owned(),
        group: "tallybus.local".to_owned(),
        topics: vec!["counters".to_owned()],
        settled: settled.map(at).into_iter().collect::<HashMap<_, _>>(),
        ends: BTreeMap::from([("counters".to_owned(), vec![12, 0])]),
        ..SinkSettled::default()
    }
}

/// The watermark in seconds before now, and why it is not later.
fn found(known: &Known, sink: &SinkSettled) -> (Option<i64>, Option<Cause>) {
    let found = watermark(known, sink, NOW * SECOND);
    (found.before.map(|before| NOW - before / SECOND), found.held_by.first().map(|holder| holder.cause.clone()))
}

fn behind(settled: Option<u64>, needed: u64) -> Option<Cause> {
    Some(Cause::Behind { topic: "counters".to_owned(), partition: 0, settled, needed })
}

#[test]
fn a_watermark_is_the_newest_mark_that_the_sink_has_settled() {
    let one = known(&[checkpoint(ONE)]);
    for (settled, expected) in [
        (Some(12), (Some(5), Some(Cause::Checkpoint))),
        (Some(10), (Some(5), Some(Cause::Checkpoint))),
        (Some(9), (Some(100), behind(Some(9), 10))),
        (Some(4), (Some(100), behind(Some(4), 10))),
        (Some(3), (None, behind(Some(3), 10))),
        (None, (None, behind(None, 10))),
    ] {
        assert_eq!(found(&one, &sink(settled)), expected, "{settled:?}");
    }
    assert_eq!(watermark(&one, &sink(Some(10)), NOW * SECOND).beyond_checkpoints, 2);
}

#[test]
fn the_lowest_producer_decides_and_producers_of_other_topics_do_not() {
    let slow = Checkpoint { marks: vec![Mark { before: (NOW - 50) * SECOND, ends: vec![] }], ..checkpoint(OTHER) };
    assert_eq!(found(&known(&[checkpoint(ONE), slow.clone()]), &sink(Some(10))), (Some(50), Some(Cause::Checkpoint)));
    let elsewhere = Checkpoint { topic: "others".to_owned(), ..slow };
    assert_eq!(found(&known(&[checkpoint(ONE), elsewhere.clone()]), &sink(Some(10))).0, Some(5));
    assert_eq!(found(&known(&[elsewhere]), &sink(Some(10))), (None, None), "no producer's word");
    assert_eq!(found(&Known::default(), &sink(Some(10))), (None, None), "no producer's word");
}

#[test]
fn offsets_of_another_incarnation_or_of_an_unknown_one_prove_nothing() {
    let stream = Some(Cause::Stream { topic: "counters".to_owned() });
    let one = known(&[checkpoint(ONE)]);
    assert_eq!(found(&one, &sink_of("kafka:a:c", Some(1_000))), (None, stream.clone()));
    let nameless = Checkpoint { stream: None, ..checkpoint(ONE) };
    assert_eq!(found(&known(std::slice::from_ref(&nameless)), &sink(Some(1_000))), (None, stream.clone()));
    let mut unnoted = sink(Some(1_000));
    unnoted.settled.values_mut().for_each(|settled| settled.stream = None);
    assert_eq!(found(&known(&[nameless]), &unnoted), (None, stream.clone()));
    assert_eq!(found(&one, &unnoted), (None, stream));
}

#[test]
fn a_producer_that_ended_holds_nothing_back_once_its_last_offsets_are_settled() {
    let ended = known(&[Checkpoint { end: Some(End::Complete), ..checkpoint(ONE) }]);
    let all = watermark(&ended, &sink(Some(10)), NOW * SECOND);
    let allowance = i64::try_from(CLOCK_ALLOWANCE.as_nanos()).unwrap();
    assert_eq!((all.before, all.holders), (Some(NOW * SECOND - allowance), 0), "never later than the reader's clock");
    assert_eq!(found(&ended, &sink(Some(9))), (Some(100), behind(Some(9), 10)));
    let incomplete = known(&[Checkpoint { end: Some(End::Incomplete), ..checkpoint(ONE) }]);
    assert_eq!(found(&incomplete, &sink(Some(10))), (Some(5), Some(Cause::Incomplete)));
}

#[test]
fn a_silent_producer_holds_the_watermark_until_it_is_dismissed_and_again_when_it_comes_back() {
    let mut known = Known::default();
    hear(&mut known, &checkpoint(ONE), NOW - 31);
    assert_eq!(found(&known, &sink(Some(10))), (Some(5), Some(Cause::Silent)));
    dismiss(&mut known, ONE, 6);
    assert_eq!(found(&known, &sink(Some(10))).1, Some(Cause::Silent), "a dismissal of an earlier checkpoint");
    dismiss(&mut known, ONE, 7);
    assert_eq!(found(&known, &sink(Some(10))), LATEST);
    hear(&mut known, &Checkpoint { number: 8, ..checkpoint(ONE) }, NOW);
    assert_eq!(found(&known, &sink(Some(10))), (Some(5), Some(Cause::Checkpoint)));
    // A checkpoint that was late on its way does not replace a newer one.
    hear(&mut known, &checkpoint(ONE), NOW);
    assert_eq!(known.producers().next().unwrap().1.checkpoint().unwrap().number, 8);
}

#[test]
fn presence_follows_from_the_age_of_the_record_and_from_its_content() {
    let at = |seconds, end| {
        let mut known = Known::default();
        hear(&mut known, &Checkpoint { end, ..checkpoint(ONE) }, seconds);
        known.producers().next().unwrap().1.presence(NOW * 1_000)
    };
    assert_eq!((at(NOW, None), at(NOW - 30, None)), (Presence::Live, Presence::Live));
    assert_eq!((at(NOW + 3_600, None), at(NOW - 31, None)), (Presence::Live, Presence::Silent));
    assert_eq!(at(NOW - 9_000, Some(End::Complete)), Presence::Ended);
    assert_eq!(at(NOW, Some(End::Incomplete)), Presence::EndedIncomplete);
    let live = known(&[checkpoint(ONE)]);
    assert_eq!(live.producers().next().unwrap().1.rate(), Some(0.5));
}

#[test]
fn a_doubt_holds_the_watermark_until_its_checkpoint_is_dismissed() {
    let doubt = Doubt { kind: DoubtKind::InDoubt, since: (NOW - 60) * SECOND, number: 5, value: 3 };
    let cause = Some(Cause::Doubt { kind: DoubtKind::InDoubt, value: 3 });
    for end in [None, Some(End::Complete)] {
        let mut known = known(&[Checkpoint { doubts: vec![doubt.clone()], end, ..checkpoint(ONE) }]);
        assert_eq!(found(&known, &sink(Some(10))), (Some(60), cause.clone()));
        assert_eq!(found(&known, &sink(Some(4))), (Some(100), behind(Some(4), 10)), "the sink is not as far");
        dismiss(&mut known, ONE, 4);
        assert_eq!(found(&known, &sink(Some(10))), (Some(60), cause.clone()));
        dismiss(&mut known, ONE, 6);
        let expected = if end.is_some() { LATEST } else { (Some(5), Some(Cause::Checkpoint)) };
        assert_eq!(found(&known, &sink(Some(10))), expected);
    }
}

#[test]
fn a_record_that_is_not_understood_makes_the_watermark_unknown_until_it_is_dismissed() {
    let mut known = known(&[checkpoint(OTHER)]);
    for payload in [b"".as_slice(), b"{}", br#"{"v":9}"#, &checkpoint(OTHER).encode().unwrap()] {
        known.take(&record(ONE, payload, NOW));
        let (before, cause) = found(&known, &sink(Some(10)));
        assert!(before.is_none() && matches!(cause, Some(Cause::Unreadable { .. })), "{cause:?}");
    }
    dismiss(&mut known, ONE, 9);
    assert!(found(&known, &sink(Some(10))).0.is_none(), "a dismissal of a checkpoint");
    dismiss(&mut known, ONE, 0);
    assert!(found(&known, &sink(Some(10))).0.is_none(), "a dismissal that is not behind the record");
    let dismissal = Dismissal::new(ONE, 0, 0);
    known.take(&Record { offset: 1, ..record(&dismissal.key(), &dismissal.encode().unwrap(), NOW) });
    assert_eq!(found(&known, &sink(Some(10))).0, Some(5));
    known.take(&Record { offset: 2, ..record(ONE, b"", NOW) });
    assert!(found(&known, &sink(Some(10))).0.is_none(), "another record that is not understood");
    hear(&mut known, &checkpoint(ONE), NOW);
    assert_eq!(found(&known, &sink(Some(10))), (Some(5), Some(Cause::Checkpoint)), "it is understood again");
    assert_eq!(known.skipped(), 0);
}

#[test]
fn records_about_no_producer_are_counted_and_change_nothing() {
    let mut known = known(&[checkpoint(ONE)]);
    let foreign = Dismissal::new(OTHER, 100, 0);
    let key = format!("{ONE}/dismissed");
    for (key, payload) in [("x", b"{}".to_vec()), (&key, b"{}".to_vec()), (&key, foreign.encode().unwrap())] {
        known.take(&record(key, &payload, NOW));
    }
    known.take(&Record { key: None, ..record("", b"{}", NOW) });
    assert_eq!((known.skipped(), found(&known, &sink(Some(10))).0), (4, Some(5)));
    assert_eq!(known.bytes(), checkpoint(ONE).encode().unwrap().len());
    known.take(&Record { is_tombstone: true, ..record(ONE, b"", NOW) });
    assert_eq!((known.producers().count(), known.bytes()), (0, 0));
}
