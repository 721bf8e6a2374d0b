//! What every sink must do, whatever its backend.

use std::sync::Arc;
use std::time::Duration;

use tallybus_schemas::Series;
use tallybus_sdk::{Answer, Batch, Rng, Sink, SinkError, TimeRange};

use crate::ask::Ask as _;
use crate::batches::{Expected, Maker, SECOND, START, recovered, series, settle, settle_all, write};
use crate::subjects::{Backend, Trouble};

pub(crate) async fn check_succeeds(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    sink.check().await.expect("check");
    Expected::default().check(&*sink, SECOND).await;
}

pub(crate) async fn empty_batch(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    sink.check().await.expect("check");
    let mut maker = Maker::new(SECOND, 0);
    let empty = maker.batch(&[]);
    settle_all(&*sink, &empty).await;
    settle_all(&*sink, &recovered(&empty)).await;
    let next = maker.batch(&[(series("a", &[]), START, 1)]);
    settle_all(&*sink, &next).await;
    Expected::of([&next]).check(&*sink, SECOND).await;
}

pub(crate) async fn one_event(backend: &dyn Backend) {
    for (window, partition) in [(SECOND, 0), (60 * SECOND, 1), (0, 2)] {
        let backend = backend.fresh();
        let sink = backend.sink(window);
        let event = (series("http.requests", &[("route", "/v1/sites"), ("status", "200")]), START + 123_456_789, 3);
        let batch = Maker::new(window, partition).from(1 << 40).batch(&[event]);
        settle_all(&*sink, &batch).await;
        Expected::of([&batch]).check(&*sink, window).await;
    }
}

/// Texts that break careless escaping. A text that a backend cannot hold is rejected by its own tests: here none ends in a
/// backslash or begins with `#`, and no name has a backslash before a mark of line protocol.
pub(crate) async fn odd_texts(backend: &dyn Backend) {
    let odd = [
        "a b",
        "a,b",
        "a=b",
        "a\"b\"",
        "a'b",
        "a\\b",
        "a\\ b",
        "a\\,b",
        "a\\=b",
        "\\\\a",
        "é",
        "日本",
        "🎲",
        "%41",
        "a+b&c",
        "{a}",
        "${a}",
        "$a",
        "a;--",
        "a/*",
        "null",
        "1i",
        "t",
        "-",
        ".*",
        "result",
        "table",
        "value",
        "name",
        " a",
        "a ",
        "#a",
        "a#",
        "?",
        "a\u{a0}b",
        "\u{202e}a",
    ];
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let mut events: Vec<(Series, i64, u64)> = Vec::new();
    for (index, text) in odd.iter().enumerate() {
        let value = 1 << index;
        let breaks_names = ["\\ ", "\\,", "\\=", "\\\""].iter().any(|pair| text.contains(pair));
        if !text.starts_with('#') && !breaks_names {
            events.push((series(text, &[]), START, value));
            events.push((series(text, &[("k", "v")]), START, value));
        }
        events.push((series("n", &[(text, "v")]), START, value));
        events.push((series("n", &[("k", text)]), START, value));
        events.push((series("n", &[(text, text), ("z z", "1")]), START, value));
    }
    let batch = maker.batch(&events);
    settle_all(&*sink, &batch).await;
    settle_all(&*sink, &recovered(&batch)).await;
    let expected = Expected::of([&batch]);
    expected.check(&*sink, SECOND).await;
    for series in expected.series().filter(|series| series.name() != "n") {
        let windows = sink.windows(series, TimeRange::default(), SECOND).await.expect("windows");
        assert_eq!(windows, expected.windows(series, TimeRange::default(), SECOND), "{series}");
    }
}

/// 5,000 points of 1,000 series with long tags.
pub(crate) async fn largest_batch(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 3).from(123_456_789_012);
    let long = "x".repeat(300);
    let all: Vec<Series> = (0..1_000)
        .map(|n| {
            let number = n.to_string();
            series(&format!("counter.{}", n % 10), &[("number", &number), ("route", &long), ("region", "eu-west 1")])
        })
        .collect();
    let events: Vec<_> =
        (0..5_000_usize).map(|n| (all[n % 1_000].clone(), START + (n / 1_000) as i64 * SECOND, 1 + n as u64)).collect();
    let batch = maker.batch(&events);
    assert_eq!((batch.points.len(), batch.series.len()), (5_000, 1_000));
    settle_all(&*sink, &batch).await;
    settle_all(&*sink, &recovered(&batch)).await;
    Expected::of([&batch]).check(&*sink, SECOND).await;
}

pub(crate) async fn large_values(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let half = i64::MAX as u64 / 2;
    let mut maker = Maker::new(SECOND, 0);
    let one = maker.batch(&[(series("a", &[]), START, half), (series("b", &[]), START, half - 1)]);
    let two = maker.batch(&[(series("a", &[]), START, half), (series("b", &[]), START, 1)]);
    settle_all(&*sink, &one).await;
    settle_all(&*sink, &two).await;
    Expected::of([&one, &two]).check(&*sink, SECOND).await;
}

pub(crate) async fn same_batch_twice(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let batch = maker.batch(&[(series("a", &[]), START, 5), (series("a", &[("k", "v")]), START, 7)]);
    for _ in 0..3 {
        // The first try of this worker, and further ones after a lost answer.
        settle_all(&*sink, &batch).await;
    }
    for _ in 0..2 {
        settle_all(&*backend.sink(SECOND), &recovered(&batch)).await;
    }
    Expected::of([&batch]).check(&*sink, SECOND).await;
}

pub(crate) async fn same_batch_by_two_at_once(backend: &dyn Backend) {
    let (one, two) = (backend.sink(SECOND), backend.sink(SECOND));
    let mut maker = Maker::new(SECOND, 0);
    let mut all = Vec::new();
    for round in 0..20 {
        let events: Vec<_> = (0..50).map(|n| (series("a", &[("n", &n.to_string())]), START, n + round + 1)).collect();
        let batch = recovered(&maker.batch(&events));
        tokio::join!(settle_all(&*one, &batch), settle_all(&*two, &batch));
        all.push(batch);
    }
    Expected::of(&all).check(&*one, SECOND).await;
}

pub(crate) async fn partitions_interleaved(backend: &dyn Backend) {
    let sink = backend.sink_of(SECOND, &["t0", "t1"]);
    let lanes = (0..2).flat_map(|topic| (0..4).map(move |partition| (topic, partition)));
    let mut tasks = Vec::new();
    for (topic, partition) in lanes {
        let sink: Arc<dyn Sink> = Arc::clone(&sink);
        tasks.push(tokio::spawn(async move {
            let mut maker = Maker::new(SECOND, partition).of_topic(&format!("t{topic}"), topic);
            let mut written = Vec::new();
            for round in 0..8 {
                // The same series and window everywhere: only the batches differ.
                let batch =
                    maker.batch(&[(series("a", &[("k", "v")]), START, 1 + round), (series("b", &[]), START, 1)]);
                settle_all(&*sink, &batch).await;
                written.push(batch);
            }
            written
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("a partition"));
    }
    Expected::of(&all).check(&*sink, SECOND).await;
}

/// Dead letters that are written again come from one more topic, whose index is the number of the sink's topics; the same series
/// and windows as everywhere, from the same offsets on, and nothing of it meets anything else.
pub(crate) async fn letters_beside_ordinary_batches(backend: &dyn Backend) {
    for window in [SECOND, 0] {
        let backend = backend.fresh();
        let topics = ["t0", "t1"];
        let mut all = Vec::new();
        let mut makers: Vec<Maker> = (0..2)
            .flat_map(|topic| (0..3).map(move |partition| (topic, partition)))
            .map(|(topic, partition)| Maker::new(window, partition).of_topic(topics[topic as usize], topic))
            .collect();
        makers.push(Maker::new(window, 0).of_topic("tallybus.replay.a", 2));
        for round in 0..6 {
            // Each round by another worker, the last one's batches once more before its own.
            let sink = backend.sink_of(window, &topics);
            sink.has_place(2, 0).expect("a place for letters");
            for batch in all.iter().rev().take(makers.len()).rev() {
                settle_all(&*sink, &recovered(batch)).await;
            }
            for maker in &mut makers {
                let count = if round == 5 { 40 } else { 1 + round };
                let mut events = Vec::new();
                for n in 0..count {
                    events.push((series("a", &[("k", "v")]), START, 1 + n));
                    events.push((series("b", &[]), START + 1_000 * (n as i64 % 3), 1));
                }
                let batch = maker.batch(&events);
                settle_all(&*sink, &batch).await;
                all.push(batch);
            }
        }
        Expected::of(&all).check(&*backend.sink_of(window, &topics), window).await;
    }
}

pub(crate) async fn crash_before_settling(backend: &dyn Backend) {
    let mut maker = Maker::new(SECOND, 0);
    let mut all = Vec::new();
    let mut unsettled: Option<Batch> = None;
    for round in 0..6 {
        // Each worker writes what it finds sealed, then two more, and dies before it settles the second.
        let worker = backend.sink(SECOND);
        if let Some(batch) = unsettled.take() {
            settle_all(&*worker, &recovered(&batch)).await;
        }
        for _ in 0..2 {
            let batch = maker.batch(&[(series("a", &[]), START, 1 << round), (series("b", &[]), START + SECOND, 1)]);
            settle_all(&*worker, &batch).await;
            all.push(batch.clone());
            unsettled = Some(batch);
        }
    }
    Expected::of(&all).check(&*backend.sink(SECOND), SECOND).await;
}

pub(crate) async fn same_series_and_window(backend: &dyn Backend) {
    let sink = backend.sink(60 * SECOND);
    let mut maker = Maker::new(60 * SECOND, 5);
    let start = START - START.rem_euclid(60 * SECOND);
    let batches: Vec<Batch> = (0..30)
        .map(|round| {
            maker.batch(&[(series("a", &[]), start + round * SECOND, 1), (series("a", &[("k", "v")]), start, 2)])
        })
        .collect();
    for batch in &batches {
        settle_all(&*sink, batch).await;
    }
    let expected = Expected::of(&batches);
    assert_eq!(expected.windows(&series("a", &[]), TimeRange::default(), 60 * SECOND), [(start, 30)]);
    expected.check(&*sink, 60 * SECOND).await;
}

/// Events of one series at the same nanosecond: in one batch, in several, in several partitions, few and many.
pub(crate) async fn no_window_equal_times(backend: &dyn Backend) {
    let sink = backend.sink(0);
    let mut all = Vec::new();
    for partition in 0..3 {
        let mut maker = Maker::new(0, partition);
        for count in [1, 2, 5, 15, 16, 40, 300] {
            let mut events = Vec::new();
            for n in 0..count {
                events.push((series("a", &[]), START + 7, 1));
                events.push((series("b", &[("k", "v")]), START + 1_000 * (n % 3), 2));
            }
            let batch = maker.batch(&events);
            settle_all(&*sink, &batch).await;
            settle_all(&*sink, &recovered(&batch)).await;
            all.push(batch);
        }
    }
    Expected::of(&all).check(&*sink, 0).await;
}

/// The ledger says how far each partition has come, to every worker, and never less than what may be in.
pub(crate) async fn ledger_follows_batches(backend: &dyn Backend) {
    let sink = backend.sink_of(SECOND, &["t0", "t1"]);
    sink.prepare().await.expect("prepare");
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
    backend.set_away(true);
    let away = sink.ledger_end("t0", 0).await;
    backend.set_away(false);
    assert!(away.is_ok() || matches!(away, Err(SinkError::Unavailable(_))), "being away says nothing: {away:?}");
    if let Ok(end) = away {
        assert_eq!(end.map(|end| end.offset), Some((1 << 40) + 3), "an answer is right or none");
    }
}

/// A destination that is past a batch which nobody can have written holds another stream's counts: the sink halts, however
/// often it is asked and whichever worker asks, and changes nothing; and its ledger says so before anything is sealed.
pub(crate) async fn ledger_ahead_of_a_new_batch(backend: &dyn Backend) {
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
            assert!(matches!(&answer, Answer::Halt { reason } if !reason.is_empty()), "{first}: {answer:?}");
        }
        let end = worker.ledger_end(topic, 0).await.expect("a ledger").expect("the same kind");
        assert_eq!(end.offset, 120, "a halt raises no ledger");
    }
    Expected::of([&old]).check(&*backend.sink(SECOND), SECOND).await;
}

/// The backend takes all but one series; the rest is in, and the refused come back every time.
pub(crate) async fn refused_point(backend: &dyn Backend) {
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
        // Several partitions of a bad series, so that each answer stands for itself.
        for answer in [write(&*sink, &batch).await, write(&*backend.sink(SECOND), &recovered(&batch)).await] {
            let Answer::Rejected(points) = answer else { panic!("{answer:?}") };
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

pub(crate) async fn away_and_back(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let first = maker.batch(&[(series("a", &[]), START, 1)]);
    settle_all(&*sink, &first).await;
    backend.set_away(true);
    let second = maker.batch(&[(series("a", &[]), START, 2)]);
    for _ in 0..3 {
        let answer = write(&*sink, &second).await;
        assert!(matches!(answer, Answer::Retry { .. }), "{answer:?}");
    }
    let check = sink.check().await;
    assert!(matches!(check, Err(SinkError::Unavailable(_))), "{check:?}");
    backend.set_away(false);
    settle_all(&*sink, &second).await;
    sink.check().await.expect("check");
    Expected::of([&first, &second]).check(&*sink, SECOND).await;
}

/// Asked for less, the batch waits and comes again; the look that `doctor` takes says that waiting helps.
pub(crate) async fn throttled(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let first = maker.batch(&[(series("a", &[]), START, 1)]);
    settle_all(&*sink, &first).await;
    if !backend.trouble(Some(Trouble::Throttled)) {
        return;
    }
    let second = maker.batch(&[(series("a", &[]), START, 2), (series("b", &[]), START, 3)]);
    for _ in 0..3 {
        let answer = write(&*sink, &second).await;
        assert!(matches!(&answer, Answer::Retry { reason, .. } if !reason.is_empty()), "{answer:?}");
    }
    let check = sink.check().await;
    assert!(matches!(check, Err(SinkError::Unavailable(_))), "{check:?}");
    backend.trouble(None);
    settle_all(&*sink, &second).await;
    Expected::of([&first, &second]).check(&*sink, SECOND).await;
}

pub(crate) async fn slow_answers(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let first = maker.batch(&[(series("a", &[]), START, 1)]);
    settle_all(&*sink, &first).await;
    if !backend.trouble(Some(Trouble::Slow(Duration::from_millis(300)))) {
        return;
    }
    let second = maker.batch(&[(series("a", &[]), START, 2), (series("b", &[]), START, 3)]);
    settle_all(&*sink, &second).await;
    backend.trouble(None);
    Expected::of([&first, &second]).check(&*sink, SECOND).await;
}

/// Cut in the request, or after all was done but before it was said: nobody knows what came in, and it counts once.
pub(crate) async fn cut_connections(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let first = maker.batch(&[(series("a", &[]), START, 1)]);
    settle_all(&*sink, &first).await;
    let mut all = vec![first];
    for trouble in [Trouble::CutRequest, Trouble::CutAnswer, Trouble::CutRequest, Trouble::CutAnswer] {
        if !backend.trouble(Some(trouble)) {
            return;
        }
        let events: Vec<_> = (0..200).map(|n| (series("a", &[("n", &n.to_string())]), START, n + 1)).collect();
        let batch = maker.batch(&events);
        let answer = write(&*sink, &batch).await;
        assert!(matches!(&answer, Answer::Retry { reason, .. } if !reason.is_empty()), "{trouble:?}: {answer:?}");
        backend.trouble(None);
        // Another worker finds the batch sealed and not settled.
        settle_all(&*backend.sink(SECOND), &recovered(&batch)).await;
        all.push(batch);
    }
    Expected::of(&all).check(&*sink, SECOND).await;
}

/// Who may not write halts, in the check too, writes nothing, and goes on once let in.
pub(crate) async fn locked_out(backend: &dyn Backend) {
    let out = backend.sink_locked_out(SECOND);
    let batch = Maker::new(SECOND, 0).batch(&[(series("a", &[]), START, 1)]);
    for _ in 0..2 {
        let answer = write(&*out, &batch).await;
        let Answer::Halt { reason } = answer else { panic!("{answer:?}") };
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

pub(crate) async fn ranges(backend: &dyn Backend) {
    for window in [SECOND, 0] {
        let backend = backend.fresh();
        let sink = backend.sink(window);
        let step = if window == 0 { 1_000_000 } else { window };
        let mut maker = Maker::new(window, 0);
        let events: Vec<_> =
            (0..10).map(|n| (series("a", &[("odd", &(n % 2).to_string())]), START + n * step, 1 << n)).collect();
        let batches: Vec<Batch> = events.chunks(3).map(|events| maker.batch(events)).collect();
        for batch in &batches {
            settle_all(&*sink, batch).await;
        }
        let expected = Expected::of(&batches);
        let ends = [
            None,
            Some(0),
            Some(START),
            Some(START + step),
            Some(START + 4 * step),
            Some(START + 10 * step),
            Some(i64::MAX),
        ];
        for from in ends {
            for to in ends {
                expected.check_range(&*sink, window, TimeRange { from, to }).await;
            }
        }
        if window != 0 {
            // Between two windows: a window belongs to the range that its start lies in.
            let range = TimeRange { from: Some(START + 1), to: Some(START + 3 * step + 1) };
            expected.check_range(&*sink, window, range).await;
        }
        let nobody = sink.windows(&series("a", &[]), TimeRange::default(), SECOND).await.expect("windows");
        assert_eq!(nobody, [], "a series that is only part of others");
    }
}

/// Batches of several partitions, written again, out of order between partitions, by workers that come and go.
pub(crate) async fn long_history(backend: &dyn Backend) {
    let mut rng = Rng::new(0x9E37_79B9_7F4A_7C15);
    let mut random = |bound: u64| rng.below(bound);
    let mut makers: Vec<Maker> = (0..4).map(|partition| Maker::new(SECOND, partition).from(1_000_000)).collect();
    let mut last: Vec<Option<Batch>> = vec![None; 4];
    let mut sink = backend.sink(SECOND);
    let mut all = Vec::new();
    for _ in 0..150 {
        let lane = random(4) as usize;
        match random(10) {
            0 => sink = backend.sink(SECOND),
            1 | 2 => {
                if let Some(batch) = &last[lane] {
                    settle_all(&*sink, &recovered(batch)).await;
                }
            }
            _ => {
                let events: Vec<_> = (0..random(40))
                    .map(|_| {
                        let tag = random(5).to_string();
                        let name = if random(2) == 0 { "a" } else { "b" };
                        (series(name, &[("k", &tag)]), START + random(5) as i64 * SECOND, 1 + random(1_000))
                    })
                    .collect();
                let batch = makers[lane].batch(&events);
                settle_all(&*sink, &batch).await;
                last[lane] = Some(batch.clone());
                all.push(batch);
            }
        }
    }
    Expected::of(&all).check(&*sink, SECOND).await;
}

pub(crate) async fn pure_encoding(backend: &dyn Backend) {
    for window in [SECOND, 0] {
        let (one, two) = (backend.sink(window), backend.sink(window));
        assert_eq!(one.shape(), two.shape());
        assert!(one.shape().len() < 512, "a shape travels in commit metadata");
        let events: Vec<_> = (0..500).map(|n| (series("a", &[("k", &(n % 7).to_string())]), START + n, 1)).collect();
        let batch = Maker::new(window, 0).batch(&events);
        let encoded = one.encode(&batch);
        assert_eq!(encoded, one.encode(&batch.clone()));
        assert_eq!(encoded, two.encode(&recovered(&batch)), "who writes it makes no difference");
    }
}
