use std::collections::BTreeMap;

use super::*;
use crate::compare::Known;
use crate::compare::sample::completeness;

fn sink(name: &str, low: f64, median: f64, high: f64) -> SinkResult {
    let summary = Known::Is(Summary { median, low, high, n: 5 });
    SinkResult {
        name: name.to_owned(),
        control_of: None,
        kind: "fake".to_owned(),
        destination: Known::unknown("none"),
        version: Known::unknown("none"),
        delivery_guarantee: Known::Is("exactly once".to_owned()),
        window_nanos: Known::Is(0),
        fingerprint: String::new(),
        completeness: Known::Is(completeness(0)),
        rounds: Vec::new(),
        summaries: BTreeMap::from([(Aspect::CatchUpRate, summary)]),
        latency: Known::unknown("none"),
        rate_steps: Known::unknown("none"),
        settled_rate: Known::unknown("none"),
        questions: Vec::new(),
        storage: Known::unknown("none"),
        notes: Vec::new(),
    }
}

fn control(of: &str, low: f64, median: f64, high: f64) -> SinkResult {
    SinkResult { control_of: Some(of.to_owned()), ..sink(&format!("{of} (control)"), low, median, high) }
}

fn rank(sinks: &[SinkResult]) -> Ranking {
    let found = rankings(sinks, &noise_floor(sinks));
    assert_eq!(found.len(), 1, "only what was measured is ranked");
    found.into_iter().next().unwrap()
}

#[test]
fn sinks_whose_intervals_are_apart_are_ranked_the_fastest_first() {
    let found =
        rank(&[sink("slow", 9.0, 10.0, 11.0), sink("fast", 90.0, 100.0, 110.0), sink("middle", 40.0, 50.0, 60.0)]);
    assert_eq!(found.groups, [["fast"], ["middle"], ["slow"]]);
    assert_eq!((found.unit, found.more_is_better, found.unranked.len()), (Unit::EventsPerSecond, true, 0));
}

#[test]
fn sinks_whose_intervals_overlap_are_one_group() {
    let found = rank(&[sink("a", 90.0, 100.0, 110.0), sink("b", 105.0, 108.0, 120.0), sink("c", 10.0, 11.0, 12.0)]);
    assert_eq!(found.groups, [vec!["b", "a"], vec!["c"]]);
}

#[test]
fn a_wide_interval_keeps_everything_that_it_overlaps_in_its_group() {
    let found = rank(&[sink("wide", 10.0, 100.0, 110.0), sink("a", 69.0, 70.0, 71.0), sink("b", 49.0, 50.0, 51.0)]);
    assert_eq!(found.groups, [["wide", "a", "b"]], "b is not clearly worse than the widest one");
}

#[test]
fn a_difference_within_the_noise_floor_is_none() {
    let apart = [sink("a", 99.0, 100.0, 101.0), sink("b", 93.0, 94.0, 95.0), sink("c", 49.0, 50.0, 51.0)];
    assert_eq!(rank(&apart).groups, [["a"], ["b"], ["c"]]);
    let noisy = [&apart[..], &[control("a", 90.0, 91.0, 92.0)]].concat();
    let noise = noise_floor(&noisy);
    assert!((noise[0].difference - 9.0 / 91.0).abs() < 1e-9 && !noise[0].intervals_overlap, "{noise:?}");
    assert_eq!(rank(&noisy).groups, [vec!["a", "b"], vec!["c"]], "the control is not ranked");
}

#[test]
fn a_sink_that_is_not_equal_is_not_ranked_but_listed_with_what_is_missing() {
    let lossy = SinkResult { completeness: Known::Is(completeness(7)), ..sink("lossy", 900.0, 1_000.0, 1_100.0) };
    let away = SinkResult { completeness: Known::unknown("no answer"), ..sink("away", 1.0, 2.0, 3.0) };
    let found = rank(&[lossy, sink("right", 9.0, 10.0, 11.0), away]);
    assert_eq!(found.groups, [["right"]]);
    let unranked: Vec<_> = found.unranked.iter().map(|one| (one.sink.as_str(), one.why.as_str())).collect();
    assert_eq!(unranked, [("lossy", "not equal: 7 missing in round 2"), ("away", "not audited: no answer")]);
}

#[test]
fn a_figure_that_is_not_known_is_not_ranked_as_zero() {
    let mut unknown = sink("unknown", 0.0, 0.0, 0.0);
    unknown.summaries = BTreeMap::from([(Aspect::CatchUpRate, Known::unknown("not offered"))]);
    let found = rank(&[unknown, sink("a", 9.0, 10.0, 11.0)]);
    assert_eq!(found.groups, [["a"]]);
    assert_eq!(found.unranked, [Unranked { sink: "unknown".to_owned(), why: "not offered".to_owned() }]);
}

#[test]
fn where_less_is_better_the_smallest_is_first() {
    let with = |name: &str, seconds| {
        let mut sink = sink(name, 1.0, 1.0, 1.0);
        sink.summaries = BTreeMap::from([(Aspect::WriteTime, Known::Is(Summary::exactly(seconds)))]);
        sink
    };
    assert_eq!(rank(&[with("slow", 3.0), with("fast", 1.0)]).groups, [["fast"], ["slow"]]);
}

#[test]
fn the_worse_of_two_audits_is_the_one_that_is_not_complete() {
    let (good, bad) = (completeness(0), completeness(3));
    assert_eq!(good.clone().worse(bad.clone()), bad);
    assert_eq!(bad.clone().worse(good), bad);
    assert_eq!(bad.fault().unwrap(), "3 missing in round 2");
}
