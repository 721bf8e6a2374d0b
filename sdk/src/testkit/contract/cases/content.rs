//! The content of batches, and how it is read back.

use tallybus_schemas::Series;

use crate::testkit::contract::Backend;
use crate::testkit::contract::ask::Ask as _;
use crate::testkit::contract::batches::{Expected, Maker, SECOND, START, recovered, series, settle_all};
use crate::{Batch, TimeRange};

pub async fn a_fresh_backend_passes_the_check_and_holds_nothing(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    sink.check().await.expect("check");
    Expected::default().check(&*sink, SECOND).await;
}

/// `tallybus doctor` may try at any time, before anything is created too.
pub async fn what_doctor_tries_leaves_nothing_behind(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let Some(admin) = sink.admin() else { return };
    let before = backend.fresh();
    if let Some(unprepared) = before.sink(SECOND).admin() {
        let _may_fail_as_the_check_does = unprepared.try_access().await;
        Expected::default().check(&*backend.sink(SECOND), SECOND).await;
    }
    admin.prepare().await.expect("prepare");
    let mut maker = Maker::new(SECOND, 0);
    let batch = maker.batch(&[(series("a", &[]), START, 1)]);
    settle_all(&*sink, &batch).await;
    let claims = match sink.claims() {
        Some(claims) => claims.entries().await.expect("entries"),
        None => Vec::new(),
    };
    for _ in 0..2 {
        admin.try_access().await.expect("what doctor tries");
    }
    if let Some(held) = sink.claims() {
        assert_eq!(held.entries().await.expect("entries"), claims);
    }
    let next = maker.batch(&[(series("a", &[]), START, 1)]);
    settle_all(&*sink, &next).await;
    Expected::of([&batch, &next]).check(&*sink, SECOND).await;
}

pub async fn an_empty_batch_settles_and_the_next_one_counts(backend: &dyn Backend) {
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

pub async fn one_event_is_written_and_read_back(backend: &dyn Backend) {
    for (window, partition) in [(SECOND, 0), (60 * SECOND, 1), (0, 2)] {
        let backend = backend.fresh();
        let sink = backend.sink(window);
        let event = (series("http.requests", &[("route", "/v1/sites"), ("status", "200")]), START + 123_456_789, 3);
        let batch = Maker::new(window, partition).from(1 << 40).batch(&[event]);
        settle_all(&*sink, &batch).await;
        Expected::of([&batch]).check(&*sink, window).await;
    }
}

/// Texts that break careless escaping. A text that a backend cannot store is covered by that backend's own tests: here
/// none ends in a backslash or begins with `#`, and no name has a backslash before a special character of line
/// protocol.
pub(super) const ODD: &[&str] = &[
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

/// Whether a name may be this text.
pub(super) fn is_odd_name(text: &str) -> bool {
    !text.starts_with('#') && !["\\ ", "\\,", "\\=", "\\\""].iter().any(|pair| text.contains(pair))
}

pub async fn odd_texts_come_back_as_they_were_written(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let mut events: Vec<(Series, i64, u64)> = Vec::new();
    for (index, text) in ODD.iter().enumerate() {
        let value = 1 << index;
        if is_odd_name(text) {
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
pub async fn the_largest_batch_counts_once(backend: &dyn Backend) {
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

pub async fn values_that_add_up_to_almost_two_to_the_63_are_exact(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let half = i64::MAX as u64 / 2;
    let mut maker = Maker::new(SECOND, 0);
    let one = maker.batch(&[(series("a", &[]), START, half), (series("b", &[]), START, half - 1)]);
    let two = maker.batch(&[(series("a", &[]), START, half), (series("b", &[]), START, 1)]);
    settle_all(&*sink, &one).await;
    settle_all(&*sink, &two).await;
    Expected::of([&one, &two]).check(&*sink, SECOND).await;
}

pub async fn sums_of_a_series_over_64_bits_are_exact(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let most = i64::MAX as u64;
    let event = |window: i64| (series("cpu.ns", &[("host", "a")]), START + window * SECOND, most);
    let batch = Maker::new(SECOND, 0).batch(&[event(0), event(1), event(2), (series("b", &[]), START, 1)]);
    settle_all(&*sink, &batch).await;
    let held = sink.holdings(TimeRange::default()).await.expect("what it holds");
    let of = |name: &'static str| held.windows.iter().filter(move |((series, _), _)| series.name() == name);
    assert_eq!(of("cpu.ns").map(|(_, total)| *total).collect::<Vec<_>>(), [u128::from(most); 3]);
    assert_eq!(held.totals().values().max(), Some(&(3 * u128::from(most))));
    assert_eq!(of("b").map(|(_, total)| *total).collect::<Vec<_>>(), [1], "another series is unharmed");
}

/// What another program left in the destination is no error: each kind of it is named, and the rest is read.
pub async fn foreign_points_are_named_and_hide_nothing(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let batch = Maker::new(SECOND, 0).batch(&[(series("a", &[("k", "v")]), START, 3), (series("b", &[]), START, 4)]);
    settle_all(&*sink, &batch).await;
    let kinds = backend.add_foreign().await;
    let held = sink.holdings(TimeRange::default()).await.expect("what it holds");
    let mut found: Vec<_> = held.foreign.iter().map(|foreign| foreign.kind).collect();
    found.sort_unstable();
    assert_eq!(found, kinds, "{:?}", held.foreign);
    assert!(held.foreign.iter().all(|foreign| foreign.points >= 1 && !foreign.what.is_empty()), "{:?}", held.foreign);
    Expected::of([&batch]).check(&*sink, SECOND).await;
}

pub async fn batches_of_one_series_and_window_add_up(backend: &dyn Backend) {
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
pub async fn events_of_equal_time_without_a_window_all_count(backend: &dyn Backend) {
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

pub async fn a_range_of_time_is_read_by_the_start_of_each_window(backend: &dyn Backend) {
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
            // Between two windows: a window belongs to the range that contains its start.
            let range = TimeRange { from: Some(START + 1), to: Some(START + 3 * step + 1) };
            expected.check_range(&*sink, window, range).await;
        }
        let nobody = sink.windows(&series("a", &[]), TimeRange::default(), SECOND).await.expect("windows");
        assert_eq!(nobody, [], "a series that is only part of others");
    }
}

pub async fn a_batch_has_the_same_bytes_every_time(backend: &dyn Backend) {
    for window in [SECOND, 0] {
        let (one, two) = (backend.sink(window), backend.sink(window));
        assert_eq!(one.layout_fingerprint(), two.layout_fingerprint());
        assert!(one.layout_fingerprint().len() < 512, "a shape travels in commit metadata");
        let events: Vec<_> = (0..500).map(|n| (series("a", &[("k", &(n % 7).to_string())]), START + n, 1)).collect();
        let batch = Maker::new(window, 0).batch(&events);
        let encoded = one.encode(&batch);
        assert_eq!(encoded, one.encode(&batch.clone()));
        assert_eq!(encoded, two.encode(&recovered(&batch)), "who writes it makes no difference");
    }
}
