use tallybus_sdk::testkit::FakeBackend;

use super::super::claims::At;
use super::*;

const SECOND: i64 = 1_000_000_000;

fn sink(window: i64) -> AuditedSink {
    let mut sink = AuditedSink::fake("a", "t", &FakeBackend::new());
    sink.shape.window = window;
    sink
}

/// In windows of a second.
fn tally(range: TimeRange) -> Tally<'static> {
    Tally::new(&sink(SECOND), range, 0).unwrap()
}

fn series(name: &str) -> Series {
    Series::from_sorted(name, &[("k", "v")])
}

fn held(name: &str, start: i64, total: u128) -> Held {
    Held::Window(WindowTotal { series: Arc::new(series(name)), start, total })
}

#[test]
fn windows_are_the_sinks_own_or_as_many_of_them_as_the_length_asked_for_needs() {
    let millisecond = 1_000_000;
    for (own, asked, length) in [
        (SECOND, 0, SECOND),
        (SECOND, 1, SECOND),
        (SECOND, SECOND, SECOND),
        (SECOND, SECOND + 1, 2 * SECOND),
        (SECOND, 60 * SECOND, 60 * SECOND),
        (0, 0, millisecond),
        (0, millisecond + 1, 2 * millisecond),
    ] {
        let tally = Tally::new(&sink(own), TimeRange::default(), asked).unwrap();
        assert_eq!(tally.window_length(), length, "{own} {asked}");
        assert_eq!((tally.window(-1), tally.window(0), tally.window(length)), (-length, 0, length), "{own} {asked}");
        assert_eq!((tally.window(length - 1), tally.window(2 * length + 1)), (0, 2 * length), "{own} {asked}");
    }
}

#[test]
fn a_range_begins_and_ends_with_the_first_whole_window_from_its_ends_on() {
    for (end, whole) in
        [(-SECOND - 1, -SECOND), (-1, 0), (0, 0), (1, SECOND), (SECOND, SECOND), (SECOND + 1, 2 * SECOND)]
    {
        let all = TimeRange::default();
        let range = |from, to| TimeRange { from, to };
        assert_eq!(tally(range(Some(end), None)).whole_windows(), range(Some(whole), None), "{end}");
        assert_eq!(tally(range(None, Some(end))).whole_windows(), range(None, Some(whole)), "{end}");
        assert_eq!(tally(all).whole_windows(), all);
    }
}

#[test]
fn what_is_out_of_the_range_is_not_taken() {
    let mut tally = tally(TimeRange { from: Some(SECOND), to: Some(2 * SECOND) });
    let number = tally.number(&series("a"));
    for window in [0, 2 * SECOND] {
        for fate in [Fate::Settled, Fate::InFlight, Fate::Dead] {
            tally.take(number, window, 7, fate);
        }
        let at = At { topic: "t".to_owned(), partition: 0, offset: 0, index: None };
        tally.refuse(&Refused { at, series: number, window, value: 7 });
    }
    let found = tally.compare();
    assert_eq!((found.series, found.windows, found.expected, found.dead_total, found.missing), (0, 0, 0, 0, 0));
}

#[test]
fn each_fate_of_an_event_has_its_part_in_the_comparison() {
    let mut tally = tally(TimeRange::default());
    let number = tally.number(&series("a"));
    for (value, fate) in [
        (5, Fate::Settled),
        (7, Fate::Settled),
        (20, Fate::InFlight),
        (30, Fate::InFlight),
        (1_000, Fate::Dead),
        (2_000, Fate::Dead),
    ] {
        tally.take(number, SECOND, value, fate);
    }
    let at = At { topic: "t".to_owned(), partition: 0, offset: 0, index: None };
    tally.refuse(&Refused { at, series: number, window: SECOND, value: 7 });
    // What is settled and not refused, all in flight, and one of the dead letters.
    tally.hold(held("a", SECOND, 5 + 50 + 2_000));
    let found = tally.compare();
    assert_eq!((found.missing, found.extra, found.taken_after_all), (0, 0, 2_000));
    assert_eq!((found.expected, found.total, found.dead_total), (5, 2_055, 3_007));
    assert_eq!((found.series, found.windows, found.window), (1, 1, SECOND));
}

#[test]
fn values_of_the_backend_that_cannot_be_compared_are_foreign_and_those_beside_a_window_are_named() {
    let kinds = |own: i64, start, total| {
        let mut tally = Tally::new(&sink(own), TimeRange::default(), 0).unwrap();
        tally.hold(held("a", start, total));
        let found = tally.compare();
        (found.foreign.named.iter().map(|foreign| foreign.kind).collect::<Vec<_>>(), found.total)
    };
    let most = u128::MAX >> 1;
    assert_eq!(kinds(SECOND, SECOND, 3), (vec![], 3));
    assert_eq!(kinds(SECOND, SECOND, most), (vec![], most));
    assert_eq!(kinds(SECOND, SECOND, most + 1), (vec![ForeignKind::ValueType], 0));
    assert_eq!(kinds(SECOND, SECOND + 1, 3), (vec![ForeignKind::OffWindow], 3));
    assert_eq!(kinds(0, 1, 3), (vec![], 3), "without windows every time is right");
}

#[test]
fn differences_are_summed_by_series_and_the_largest_is_first() {
    let mut tally = tally(TimeRange::default());
    for (name, windows) in [
        // Missing and extra together decide: 8, 9 and 9.
        ("a", [(1, 8, 0), (2, 3, 3), (3, 0, 0)]),
        ("c", [(3, 0, 4), (1, 5, 0), (2, 0, 0)]),
        ("b", [(2, 0, 2), (3, 0, 3), (1, 0, 4)]),
        ("equal", [(1, 1, 1), (2, 2, 2), (3, 0, 0)]),
    ] {
        let number = tally.number(&series(name));
        for (window, bus, backend) in windows {
            if bus > 0 {
                tally.take(number, window * SECOND, bus, Fate::Settled);
            }
            if backend > 0 {
                tally.hold(held(name, window * SECOND, backend));
            }
        }
    }
    let found = tally.compare();
    let differences: Vec<_> = found
        .differences
        .iter()
        .map(|found| (found.series.name(), found.missing, found.extra, found.windows, found.first.start / SECOND))
        .collect();
    assert_eq!(differences, [("b", 0, 9, 3, 1), ("c", 5, 4, 2, 1), ("a", 8, 0, 1, 1)]);
    assert_eq!((found.missing, found.extra, found.differing_series, found.differing_windows), (13, 13, 3, 6));
    assert_eq!((found.differences[1].expected, found.differences[1].total), (5, 4));
    let firsts: Vec<i128> = found.differences.iter().map(|found| found.first.balance).collect();
    assert_eq!(firsts, [-4, 5, 8]);
}

#[test]
fn values_that_the_backend_took_after_all_are_summed_over_windows() {
    let mut tally = tally(TimeRange::default());
    let number = tally.number(&series("a"));
    for (window, value) in [(1, 3), (2, 4)] {
        tally.take(number, window * SECOND, value, Fate::Dead);
        tally.hold(held("a", window * SECOND, value.into()));
    }
    let found = tally.compare();
    assert_eq!((found.extra, found.taken_after_all), (0, 7));
}

#[test]
fn a_series_of_the_bus_keeps_its_place_and_one_that_is_not_selected_has_none() {
    let mut sink = sink(SECOND);
    sink.shape.names = vec!["hits*".to_owned()];
    sink.shape.drop_tags = vec!["k".to_owned()];
    let mut tally = Tally::new(&sink, TimeRange::default(), 0).unwrap();
    let mut places = Places::new();
    let mut place = |number, name| tally.place(&mut places, number, &Arc::new(series(name)));
    for _ in 0..2 {
        assert_eq!(place(2, "hits"), Some(0));
        assert_eq!(place(0, "misses"), None);
        assert_eq!(place(1, "hits.b"), Some(1));
    }
    assert_eq!(tally.number(&Series::from_sorted("hits", &[])), 0);
}
