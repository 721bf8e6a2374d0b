//! The backend's ledger: how far each partition has come.

use std::sync::Arc;

use crate::testkit::contract::Backend;
use crate::testkit::contract::batches::{Expected, Maker, SECOND, START, recovered, series, settle_all, write};
use crate::{SinkError, WriteOutcome};

/// The ledger returns how far each partition has come, the same to every worker, and never less than what may be
/// stored.
pub async fn the_ledger_follows_the_batches(backend: &dyn Backend) {
    let sink = backend.sink_of(SECOND, &["t0", "t1"]);
    if let Some(admin) = sink.admin() {
        admin.prepare().await.expect("prepare");
    }
    let Some(nothing) = sink.ledger_end("t0", 0).await.expect("a ledger that can be read") else { return };
    assert_eq!(nothing.offset, 0);
    assert!(!nothing.destination.is_empty());
    let mut makers: Vec<Maker> = [("t0", 0, 0), ("t0", 0, 7), ("t1", 1, 0)]
        .map(|(topic, index, partition)| Maker::new(SECOND, partition).of_topic(topic, index).from(1 << 40))
        .into();
    let event = (series("a", &[]), START, 1);
    for round in 1..=3_u64 {
        for (place, maker) in makers.iter_mut().enumerate() {
            let batch = maker.batch(&vec![event.clone(); place + 1]);
            settle_all(&*sink, &batch).await;
        }
        for reader in [Arc::clone(&sink), backend.sink_of(SECOND, &["t0", "t1"])] {
            for (place, (topic, partition)) in (0..).zip([("t0", 0), ("t0", 7), ("t1", 0)]) {
                let end = reader.ledger_end(topic, partition).await.expect("a ledger").expect("the same kind");
                assert_eq!(end.offset, (1 << 40) + round * (place + 1), "{topic}/{partition}");
                assert_eq!(end.destination, nothing.destination);
            }
            let other = reader.ledger_end("t1", 7).await.expect("a ledger").expect("the same kind");
            assert_eq!(other.offset, 0, "a partition of which nothing was written");
        }
    }
    // Another worker takes a partition over, reads the ledger, and is given a batch that the ledger is past.
    let again = makers[0].batch(std::slice::from_ref(&event));
    settle_all(&*sink, &again).await;
    let next = backend.sink_of(SECOND, &["t0", "t1"]);
    for _ in 0..2 {
        let end = next.ledger_end("t0", 0).await.expect("a ledger").expect("the same kind");
        assert_eq!(end.offset, again.id.end);
        settle_all(&*next, &recovered(&again)).await;
    }
    let after = makers[0].batch(std::slice::from_ref(&event));
    settle_all(&*next, &after).await;

    backend.set_away(true);
    let away = sink.ledger_end("t0", 0).await;
    backend.set_away(false);
    assert!(
        away.is_ok() || matches!(away, Err(SinkError::Unavailable(_))),
        "an unavailable backend says nothing about its ledger: {away:?}"
    );
    if let Ok(end) = away {
        assert_eq!(end.map(|end| end.offset), Some(after.id.end), "an answer is right or none");
    }
}

/// A destination that is past a batch which cannot have been written has the counts of another stream: the sink halts,
/// on every attempt and on every worker, and changes nothing; and its ledger shows this before anything is sealed.
pub async fn a_ledger_that_is_ahead_halts_a_new_batch(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let old = Maker::new(SECOND, 0).from(100).batch(&vec![(series("a", &[]), START, 1); 20]);
    settle_all(&*sink, &old).await;
    let topic = "tallybus.counters";
    let Some(end) = sink.ledger_end(topic, 0).await.expect("a ledger that can be read") else { return };
    assert_eq!(end.offset, 120);
    for first in [0, 80] {
        let new = Maker::new(SECOND, 0).from(first).batch(&vec![(series("b", &[]), START, 1); 20]);
        let worker = backend.sink(SECOND);
        for _ in 0..2 {
            let answer = write(&*worker, &new).await;
            assert!(matches!(&answer, WriteOutcome::Halt { reason } if !reason.is_empty()), "{first}: {answer:?}");
        }
        let end = worker.ledger_end(topic, 0).await.expect("a ledger").expect("the same kind");
        assert_eq!(end.offset, 120, "a halt raises no ledger");
    }
    Expected::of([&old]).check(&*backend.sink(SECOND), SECOND).await;
}

/// A backup that is restored, or a failover that loses commits, leaves a hole that no later batch may hide.
pub async fn a_ledger_that_loses_batches_under_a_worker_halts_it(backend: &dyn Backend) {
    let topic = "tallybus.counters";
    for (partition, left) in [(0, Some(4)), (1, None)] {
        let worker = backend.sink(SECOND);
        let events = vec![(series("a", &[]), START, 1); 4];
        let mut maker = Maker::new(SECOND, partition);
        let [first, second, third] = [0; 3].map(|_| maker.batch(&events));
        settle_all(&*worker, &first).await;
        settle_all(&*worker, &second).await;
        let Some(end) = worker.ledger_end(topic, partition).await.expect("a ledger that can be read") else { return };
        assert_eq!(end.offset, 8);
        backend.set_ledger_back(topic, partition, left).await;
        for _ in 0..2 {
            let answer = write(&*worker, &third).await;
            let halts = matches!(&answer, WriteOutcome::Halt { reason } if reason.contains("was further before"));
            assert!(halts, "{left:?}: {answer:?}");
        }
        // Restored between a worker's look at the ledger and its first write.
        let next = backend.sink(SECOND);
        backend.set_ledger_back(topic, partition, Some(8)).await;
        next.ledger_end(topic, partition).await.expect("a ledger that can be read");
        backend.set_ledger_back(topic, partition, left).await;
        let answer = write(&*next, &third).await;
        assert!(matches!(&answer, WriteOutcome::Halt { .. }), "{left:?}: {answer:?}");
        let end = next.ledger_end(topic, partition).await.expect("a ledger").expect("the same kind");
        assert_eq!(end.offset, left.unwrap_or(0), "a halt raises no ledger");
        // The restart that the halt asks for: the worker knows where the ledger is, and is sent what was lost.
        if left.is_none() {
            settle_all(&*next, &recovered(&first)).await;
        }
        settle_all(&*next, &recovered(&second)).await;
        settle_all(&*next, &third).await;
        let end = next.ledger_end(topic, partition).await.expect("a ledger").expect("the same kind");
        assert_eq!(end.offset, 12);
    }
}
