//! The result of a write when the backend, or the connection to it, fails.

use std::time::Duration;

use tallybus_schemas::Series;

use crate::testkit::contract::ask::Ask as _;
use crate::testkit::contract::batches::{Expected, Maker, SECOND, START, recovered, series, settle, settle_all, write};
use crate::testkit::contract::{Backend, NetworkFault};
use crate::{SinkError, TimeRange, WriteOutcome};

/// The backend accepts all but one series: the other points are stored, and the refused points are reported every time.
pub async fn a_refused_point_is_rejected_and_the_rest_is_written(backend: &dyn Backend) {
    if !backend.refuses() {
        return;
    }
    let bad = series("bad", &[("k", "v")]);
    let good: Vec<Series> = (0..20).map(|n| series("good", &[("n", &n.to_string())])).collect();
    backend.refuse(&bad, START).await;
    let before = Expected::of([]).totals(TimeRange::default());
    assert!(before.is_empty());
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let mut events: Vec<_> = good.iter().map(|series| (series.clone(), START, 3)).collect();
    events.insert(7, (bad.clone(), START, 5));
    let batch = maker.batch(&events);
    let lone = maker.batch(&[(bad.clone(), START, 9)]);
    let fine = maker.batch(&[(good[0].clone(), START, 1)]);
    if backend.takes_parts() {
        assert_eq!(settle(&*sink, &batch).await, [(bad.clone(), 5)]);
        assert_eq!(settle(&*backend.sink(SECOND), &recovered(&batch)).await, [(bad.clone(), 5)]);
    } else {
        // Several partitions of a bad series, so that each answer is independent.
        for answer in [write(&*sink, &batch).await, write(&*backend.sink(SECOND), &recovered(&batch)).await] {
            let WriteOutcome::Rejected(points) = answer else { panic!("{answer:?}") };
            assert_eq!(points.iter().map(|rejection| rejection.point).collect::<Vec<_>>(), [7]);
        }
    }
    assert_eq!(settle(&*sink, &lone).await, [(bad.clone(), 9)]);
    settle_all(&*sink, &fine).await;
    let mut expected = Expected::of([&fine]);
    for series in &good {
        expected.add(series, START, 3);
    }
    let found = sink.totals(TimeRange::default()).await.expect("totals");
    let found =
        found.into_iter().filter(|total| total.series != bad).map(|total| (total.series, total.total)).collect();
    assert_eq!(expected.totals(TimeRange::default()), found);
}

pub async fn a_backend_that_is_away_is_retried_until_it_is_back(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let first = maker.batch(&[(series("a", &[]), START, 1)]);
    settle_all(&*sink, &first).await;
    backend.set_away(true);
    let second = maker.batch(&[(series("a", &[]), START, 2)]);
    for _ in 0..3 {
        let answer = write(&*sink, &second).await;
        assert!(matches!(answer, WriteOutcome::Retry { .. }), "{answer:?}");
    }
    let check = sink.check().await;
    assert!(matches!(check, Err(SinkError::Unavailable(_))), "{check:?}");
    backend.set_away(false);
    settle_all(&*sink, &second).await;
    sink.check().await.expect("check");
    Expected::of([&first, &second]).check(&*sink, SECOND).await;
}

/// Throttled, the batch waits and is retried; the check that `doctor` makes reports a fault that waiting resolves.
pub async fn a_throttled_batch_is_retried_and_counts_once(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let first = maker.batch(&[(series("a", &[]), START, 1)]);
    settle_all(&*sink, &first).await;
    if !backend.inject(Some(NetworkFault::Throttled)) {
        return;
    }
    let second = maker.batch(&[(series("a", &[]), START, 2), (series("b", &[]), START, 3)]);
    for _ in 0..3 {
        let answer = write(&*sink, &second).await;
        assert!(matches!(&answer, WriteOutcome::Retry { reason, .. } if !reason.is_empty()), "{answer:?}");
    }
    let check = sink.check().await;
    assert!(matches!(check, Err(SinkError::Unavailable(_))), "{check:?}");
    backend.inject(None);
    settle_all(&*sink, &second).await;
    Expected::of([&first, &second]).check(&*sink, SECOND).await;
}

pub async fn a_batch_whose_answer_is_slow_counts_once(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let first = maker.batch(&[(series("a", &[]), START, 1)]);
    settle_all(&*sink, &first).await;
    if !backend.inject(Some(NetworkFault::Slow(Duration::from_millis(300)))) {
        return;
    }
    let second = maker.batch(&[(series("a", &[]), START, 2), (series("b", &[]), START, 3)]);
    settle_all(&*sink, &second).await;
    backend.inject(None);
    Expected::of([&first, &second]).check(&*sink, SECOND).await;
}

/// Cut in the request, or after the write but before its answer: the result is in doubt, and the batch counts once.
pub async fn a_batch_whose_connection_was_cut_counts_once(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let first = maker.batch(&[(series("a", &[]), START, 1)]);
    settle_all(&*sink, &first).await;
    let mut all = vec![first];
    for fault in [NetworkFault::CutRequest, NetworkFault::CutAnswer, NetworkFault::CutRequest, NetworkFault::CutAnswer]
    {
        if !backend.inject(Some(fault)) {
            return;
        }
        let events: Vec<_> = (0..200).map(|n| (series("a", &[("n", &n.to_string())]), START, n + 1)).collect();
        let batch = maker.batch(&events);
        let answer = write(&*sink, &batch).await;
        assert!(matches!(&answer, WriteOutcome::Retry { reason, .. } if !reason.is_empty()), "{fault:?}: {answer:?}");
        backend.inject(None);
        // Another worker finds the batch sealed and not settled.
        settle_all(&*backend.sink(SECOND), &recovered(&batch)).await;
        all.push(batch);
    }
    Expected::of(&all).check(&*sink, SECOND).await;
}

/// Without the right to write, the sink halts, in the check too, and writes nothing; it continues once access is
/// granted.
pub async fn a_sink_without_access_halts_and_shows_no_secret(backend: &dyn Backend) {
    let out = backend.sink_locked_out(SECOND);
    let batch = Maker::new(SECOND, 0).batch(&[(series("a", &[]), START, 1)]);
    for _ in 0..2 {
        let answer = write(&*out, &batch).await;
        let WriteOutcome::Halt { reason } = answer else { panic!("{answer:?}") };
        assert!(!reason.is_empty() && !reason.contains("wrong-secret"), "{reason}");
        match out.check().await {
            Err(SinkError::Halt(reason)) => assert!(!reason.contains("wrong-secret"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    backend.let_in();
    let sink = backend.sink(SECOND);
    settle_all(&*sink, &batch).await;
    Expected::of([&batch]).check(&*sink, SECOND).await;
}
