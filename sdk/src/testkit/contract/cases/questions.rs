//! The standard questions: what a backend answers is what follows from the batches that were written.

use std::collections::{BTreeMap, BTreeSet};

use tallybus_schemas::Series;

use super::content::{ODD, is_odd_name};
use crate::testkit::contract::Backend;
use crate::testkit::contract::batches::{Maker, SECOND, START, series, settle_all};
use crate::{Answer, BackendVersion, Batch, NANOS_PER_MINUTE, Question, Sink, Storage, TimeRange, WindowsQuery};

const EVERYTHING: TimeRange = TimeRange { from: None, to: None };

/// What was written: series, time and value of each point.
struct Written(Vec<(Series, i64, u128)>);

impl Written {
    fn of(batches: &[Batch]) -> Self {
        let points = batches.iter().flat_map(|batch| {
            let series = |point: &crate::Point| batch.series.get(point.series).to_series();
            batch.points.iter().map(move |point| (series(point), point.time, u128::from(point.value)))
        });
        Self(points.collect())
    }

    fn within(&self, range: TimeRange) -> impl Iterator<Item = (&Series, i64, u128)> {
        let points = self.0.iter().map(|(series, time, value)| (series, *time, *value));
        points.filter(move |(_, time, _)| range.contains(*time))
    }

    fn by_tag(&self, name: &str, tag: &str, range: TimeRange) -> BTreeMap<Option<String>, u128> {
        let mut sums = BTreeMap::new();
        for (series, _, value) in self.within(range).filter(|(series, ..)| series.name() == name) {
            let found = series.tags().iter().find(|(key, _)| &**key == tag).map(|(_, value)| value.to_string());
            *sums.entry(found).or_default() += value;
        }
        sums
    }

    fn by_series(&self, range: TimeRange) -> BTreeMap<&Series, u128> {
        let mut sums = BTreeMap::new();
        for (series, _, value) in self.within(range) {
            *sums.entry(series).or_default() += value;
        }
        sums
    }

    fn by_minute(&self, series: &Series, range: TimeRange) -> BTreeMap<i64, u128> {
        let mut sums = BTreeMap::new();
        for (_, time, value) in self.within(range).filter(|(found, ..)| *found == series) {
            *sums.entry(time - time.rem_euclid(NANOS_PER_MINUTE)).or_default() += value;
        }
        sums
    }
}

/// Four batches of each of two partitions, over five minutes: most windows have several points of a series.
async fn write(sink: &dyn Sink, window: i64) -> Written {
    let all = [
        series("requests", &[("route", "/a"), ("status", "200")]),
        series("requests", &[("route", "/a"), ("status", "500")]),
        series("requests", &[("route", "/b"), ("status", "200")]),
        series("requests", &[("route", "/b")]),
        series("requests", &[]),
        series("other", &[("route", "/a")]),
    ];
    let mut batches = Vec::new();
    for partition in 0..2 {
        let mut maker = Maker::new(window, partition);
        for round in 0..4 {
            let event = |n: i64| {
                let which = (n as usize * 5 + round) % all.len();
                (all[which].clone(), START + n * 13 * SECOND, 1 + n as u64 * 7 + round as u64)
            };
            let batch = maker.batch(&(0..24).map(event).collect::<Vec<_>>());
            settle_all(sink, &batch).await;
            batches.push(batch);
        }
    }
    Written::of(&batches)
}

fn ranges() -> Vec<TimeRange> {
    let minute = START - START.rem_euclid(NANOS_PER_MINUTE);
    let ends =
        [None, Some(START), Some(minute + NANOS_PER_MINUTE), Some(START + 130 * SECOND), Some(START + 3_600 * SECOND)];
    let from = |from: &Option<i64>| ends.iter().map(|to| TimeRange { from: *from, to: *to }).collect::<Vec<_>>();
    ends.iter().flat_map(from).collect()
}

/// The answer; `None` where it is not offered, which the kind must then say too.
async fn ask(backend: &dyn Backend, sink: &dyn Sink, question: &Question) -> Option<Answer> {
    let read_back = sink.read_back().expect("it can be read back");
    let answer = read_back.ask(question).await.unwrap_or_else(|error| panic!("{question:?}: {error}"));
    let is_offered = backend.questions().contains(&question.name());
    match answer {
        Answer::NotOffered(reason) => {
            assert!(!is_offered && !reason.is_empty(), "{question:?}: {reason}");
            None
        }
        answer => {
            assert!(is_offered, "{question:?}: the kind says that it is not offered");
            Some(answer)
        }
    }
}

async fn check_by_tag(
    backend: &dyn Backend,
    sink: &dyn Sink,
    written: &Written,
    name: &str,
    tag: &str,
    range: TimeRange,
) {
    let question = Question::TotalByTag { name: name.to_owned(), tag: tag.to_owned(), range };
    if let Some(answer) = ask(backend, sink, &question).await {
        assert_eq!(answer, Answer::ByTag(written.by_tag(name, tag, range)), "{question:?}");
    }
}

async fn check_top(backend: &dyn Backend, sink: &dyn Sink, written: &Written, limit: usize, range: TimeRange) {
    let question = Question::TopSeries { limit, range };
    let Some(answer) = ask(backend, sink, &question).await else { return };
    let Answer::Series(found) = answer else { panic!("{question:?}: {answer:?}") };
    let sums = written.by_series(range);
    let mut largest: Vec<u128> = sums.values().copied().collect();
    largest.sort_unstable_by(|one, other| other.cmp(one));
    largest.truncate(limit);
    assert_eq!(found.iter().map(|(_, sum)| *sum).collect::<Vec<_>>(), largest, "{question:?}");
    for (series, sum) in &found {
        assert_eq!(sums.get(series), Some(sum), "{question:?}: {series}");
    }
    assert_eq!(found.iter().map(|(series, _)| series).collect::<BTreeSet<_>>().len(), found.len(), "{question:?}");
}

async fn check_by_minute(backend: &dyn Backend, sink: &dyn Sink, written: &Written, series: &Series, range: TimeRange) {
    let question = Question::SeriesByMinute { series: series.clone(), range };
    if let Some(answer) = ask(backend, sink, &question).await {
        assert_eq!(answer, Answer::ByMinute(written.by_minute(series, range)), "{question:?}");
    }
}

async fn check_count(backend: &dyn Backend, sink: &dyn Sink, written: &Written, range: TimeRange) {
    let question = Question::SeriesCount { range };
    if let Some(answer) = ask(backend, sink, &question).await {
        assert_eq!(answer, Answer::Count(written.by_series(range).len() as u64), "{question:?}");
    }
}

pub async fn total_by_tag_is_what_was_written(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let written = write(&*sink, SECOND).await;
    for range in ranges() {
        for (name, tag) in
            [("requests", "route"), ("requests", "status"), ("requests", "no such tag"), ("other", "route")]
        {
            check_by_tag(backend, &*sink, &written, name, tag, range).await;
        }
    }
}

pub async fn top_series_are_those_with_the_largest_sums(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let written = write(&*sink, SECOND).await;
    for range in ranges() {
        for limit in [0, 1, 3, 10] {
            check_top(backend, &*sink, &written, limit, range).await;
        }
    }
    check_top(backend, &*sink, &written, usize::MAX, EVERYTHING).await;
}

pub async fn series_by_minute_is_what_was_written_of_one_series(backend: &dyn Backend) {
    for window in [10 * SECOND, 60 * SECOND] {
        let backend = backend.fresh();
        let sink = backend.sink(window);
        let written = write(&*sink, window).await;
        let all: BTreeSet<Series> = written.0.iter().map(|(series, ..)| series.clone()).collect();
        for range in ranges() {
            for series in &all {
                check_by_minute(&*backend, &*sink, &written, series, range).await;
            }
        }
        // A part of a series' tags, and more than a series has, are other series.
        for tags in [&[("status", "200")][..], &[("route", "/a"), ("status", "200"), ("z", "z")]] {
            check_by_minute(&*backend, &*sink, &written, &series("requests", tags), EVERYTHING).await;
        }
    }
}

pub async fn minutes_of_a_window_that_divides_none_are_not_offered(backend: &dyn Backend) {
    for window in [7 * SECOND, 300 * SECOND] {
        let question = Question::SeriesByMinute { series: series("a", &[]), range: EVERYTHING };
        let sink = backend.sink(window);
        let answer = sink.read_back().expect("it can be read back").ask(&question).await.expect("an answer");
        let Answer::NotOffered(reason) = answer else { panic!("{answer:?}") };
        let is_offered = backend.questions().contains(&question.name());
        assert!(!is_offered || reason.contains("window"), "{reason}");
    }
}

pub async fn series_count_is_the_number_of_series_in_the_range(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let written = write(&*sink, SECOND).await;
    for range in ranges() {
        check_count(backend, &*sink, &written, range).await;
    }
}

pub async fn questions_without_a_window_are_answered_alike(backend: &dyn Backend) {
    let sink = backend.sink(0);
    let written = write(&*sink, 0).await;
    for range in [EVERYTHING, TimeRange { from: Some(START + 20 * SECOND), to: Some(START + 200 * SECOND) }] {
        check_by_tag(backend, &*sink, &written, "requests", "route", range).await;
        check_top(backend, &*sink, &written, 3, range).await;
        check_by_minute(backend, &*sink, &written, &series("requests", &[]), range).await;
        check_count(backend, &*sink, &written, range).await;
    }
}

pub async fn sums_over_64_bits_are_answered_exactly(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let most = i64::MAX as u64;
    let of = |host: &str, windows: i64, value: u64| {
        let series = series("cpu.ns", &[("host", host)]);
        (0..windows).map(|n| (series.clone(), START + n * SECOND, value)).collect::<Vec<_>>()
    };
    // 2^63 - 1, 2^64 - 2, three halves of 2^64 and less, many times 2^64.
    let events = [of("a", 1, most), of("b", 2, most), of("c", 3, most), of("d", 40, most - 3), of("e", 2, 1)].concat();
    let batch = Maker::new(SECOND, 0).batch(&events);
    settle_all(&*sink, &batch).await;
    let written = Written::of(&[batch]);
    check_by_tag(backend, &*sink, &written, "cpu.ns", "host", EVERYTHING).await;
    check_by_tag(backend, &*sink, &written, "cpu.ns", "none", EVERYTHING).await;
    for limit in 1..=5 {
        check_top(backend, &*sink, &written, limit, EVERYTHING).await;
    }
    for host in ["a", "b", "c", "d", "e"] {
        check_by_minute(backend, &*sink, &written, &series("cpu.ns", &[("host", host)]), EVERYTHING).await;
    }
}

pub async fn questions_about_odd_texts_are_answered_for_these_alone(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let columns =
        ["tags", "topic", "window_start", "time_ns", "sum", "total", "high", "low", "minute", "count", "field"];
    let odd: Vec<&str> = ODD.iter().copied().chain(columns).collect();
    let mut events = Vec::new();
    for (index, text) in odd.iter().enumerate() {
        let value = 1 << index;
        if is_odd_name(text) {
            events.push((series(text, &[("k", text)]), START, value));
            events.push((series(text, &[(text, "v")]), START, value << 1));
        }
        events.push((series("n", &[(text, text)]), START, value));
        events.push((series("n", &[(text, "v"), ("z z", "1")]), START, value));
    }
    let batch = Maker::new(SECOND, 0).batch(&events);
    settle_all(&*sink, &batch).await;
    let written = Written::of(&[batch]);
    for text in &odd {
        check_by_tag(backend, &*sink, &written, text, "k", EVERYTHING).await;
        check_by_tag(backend, &*sink, &written, "n", text, EVERYTHING).await;
        check_by_minute(backend, &*sink, &written, &series("n", &[(text, text)]), EVERYTHING).await;
        check_by_minute(backend, &*sink, &written, &series(text, &[(text, "v")]), EVERYTHING).await;
    }
    check_top(backend, &*sink, &written, 10_000, EVERYTHING).await;
    check_count(backend, &*sink, &written, EVERYTHING).await;
}

pub async fn questions_about_nothing_have_empty_answers(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let empty = Written(Vec::new());
    check_by_tag(backend, &*sink, &empty, "requests", "route", EVERYTHING).await;
    check_top(backend, &*sink, &empty, 10, EVERYTHING).await;
    check_count(backend, &*sink, &empty, EVERYTHING).await;
    let written = write(&*sink, SECOND).await;
    let past = START + SECOND;
    for (from, to) in
        [(past, past), (past, START), (START + 86_400 * SECOND, i64::MAX), (i64::MIN, 0), (i64::MAX, i64::MAX)]
    {
        let range = TimeRange { from: Some(from), to: Some(to) };
        check_by_tag(backend, &*sink, &written, "requests", "route", range).await;
        check_top(backend, &*sink, &written, 10, range).await;
        check_by_minute(backend, &*sink, &written, &series("requests", &[]), range).await;
        check_count(backend, &*sink, &written, range).await;
    }
    // Texts that no series has, and some that no backend takes.
    for text in ["none", "", "a\nb", "a\u{0}b", "'; DROP TABLE counters; --", "\") |> drop()"] {
        check_by_tag(backend, &*sink, &written, text, "route", EVERYTHING).await;
        check_by_tag(backend, &*sink, &written, "requests", text, EVERYTHING).await;
        check_by_minute(backend, &*sink, &written, &series(text, &[]), EVERYTHING).await;
        check_by_minute(backend, &*sink, &written, &series("requests", &[("route", text)]), EVERYTHING).await;
    }
}

pub async fn windows_of_one_name_are_all_visited(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    let written = write(&*sink, SECOND).await;
    let mut maker = Maker::new(SECOND, 7);
    let odd = ["it's", "a\"b\"", "a b", "${a}"].map(|name| (series(name, &[("k", "v")]), START, 3));
    let batch = maker.batch(&odd);
    settle_all(&*sink, &batch).await;
    let all = Written([written.0, Written::of(&[batch]).0].concat());
    let read_back = sink.read_back().expect("it can be read back");
    for name in ["requests", "other", "it's", "a\"b\"", "a b", "${a}", "none", "a\nb", ""] {
        for range in [EVERYTHING, TimeRange { from: Some(START), to: Some(START + 60 * SECOND) }] {
            let held = read_back.collect(&WindowsQuery::new(range).named(name)).await.expect("what it holds");
            let mut found: BTreeMap<(Series, i64), u128> = BTreeMap::new();
            for ((series, start), total) in held.windows.iter().filter(|((series, _), _)| series.name() == name) {
                *found.entry(((**series).clone(), start - start.rem_euclid(SECOND))).or_default() += total;
            }
            let mut expected: BTreeMap<(Series, i64), u128> = BTreeMap::new();
            for (series, time, value) in all.within(range).filter(|(series, ..)| series.name() == name) {
                *expected.entry((series.clone(), time)).or_default() += value;
            }
            assert_eq!(found, expected, "{name} in {range:?}");
        }
    }
}

pub async fn storage_is_told_as_the_kind_says(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    write(&*sink, SECOND).await;
    let storage = sink.read_back().expect("it can be read back").storage().await.expect("an answer");
    match (storage, backend.least_storage()) {
        (Storage::Bytes { bytes, what }, Some(least)) => assert!(bytes >= least && !what.is_empty(), "{bytes}: {what}"),
        (Storage::NotOffered(reason), None) => assert!(!reason.is_empty()),
        (storage, least) => panic!("{storage:?}, but the kind says that it is at least {least:?}"),
    }
}

pub async fn the_version_is_the_backends_or_not_offered_for_a_reason(backend: &dyn Backend) {
    let sink = backend.sink(SECOND);
    write(&*sink, SECOND).await;
    let version = sink.read_back().expect("it can be read back").version().await.expect("an answer");
    match (version, backend.names_version()) {
        (BackendVersion::Is(version), true) => {
            assert!(version.contains(|character: char| character.is_ascii_digit()), "{version}");
        }
        (BackendVersion::NotOffered(reason), false) => assert!(!reason.is_empty()),
        (version, expected) => panic!("{version:?}, but that the backend names it is {expected}"),
    }
}
