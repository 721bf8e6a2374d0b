use super::*;
use crate::compare::sample::{about, result};
use crate::compare::{Known, Noise};

fn with(aspect: Aspect, median: f64) -> CompareResult {
    let mut result = result();
    result.sinks[0].summaries.insert(aspect, about(median));
    result
}

fn outcome(old: &CompareResult, new: &CompareResult, aspect: Aspect) -> Outcome {
    let diff = Diff::of(old, new, false).unwrap();
    diff.changes.iter().find(|change| change.sink == "a" && change.aspect == aspect).unwrap().outcome
}

#[test]
fn a_result_against_itself_shows_no_difference_and_nothing_worse() {
    let diff = Diff::of(&result(), &result(), false).unwrap();
    assert!(diff.changes.iter().all(|change| change.outcome == Outcome::NoDifferenceSeen), "{diff:?}");
    assert_eq!(diff.changes.len(), Aspect::ALL.len(), "one sink with figures; the control is none");
    assert!(!diff.has_worse() && diff.verdicts.is_empty() && diff.notes.is_empty(), "{diff:?}");
}

#[test]
fn less_of_a_rate_is_worse_and_less_of_a_time_is_better() {
    let old = result();
    for (aspect, more) in [(Aspect::CatchUpRate, Outcome::Better), (Aspect::FreshnessP99, Outcome::Worse)] {
        let less = if more == Outcome::Better { Outcome::Worse } else { Outcome::Better };
        assert_eq!(outcome(&old, &with(aspect, 2_000.0), aspect), more);
        assert_eq!(outcome(&old, &with(aspect, 500.0), aspect), less);
        assert_eq!(outcome(&old, &with(aspect, 1_150.0), aspect), Outcome::NoDifferenceSeen, "the intervals overlap");
        let diff = Diff::of(&old, &with(aspect, 2_000.0), false).unwrap();
        assert_eq!(diff.has_worse(), more == Outcome::Worse);
    }
}

#[test]
fn a_difference_within_the_noise_floor_of_either_result_is_none() {
    let (mut old, new) = (result(), with(Aspect::Requests, 1_500.0));
    assert_eq!(outcome(&old, &new, Aspect::Requests), Outcome::Worse);
    old.noise = vec![Noise { aspect: Aspect::Requests, difference: 0.6, intervals_overlap: false }];
    assert_eq!(outcome(&old, &new, Aspect::Requests), Outcome::NoDifferenceSeen);
    assert_eq!(outcome(&new, &old, Aspect::Requests), Outcome::NoDifferenceSeen);
}

#[test]
fn a_figure_that_only_one_result_knows_is_neither_better_nor_worse() {
    let mut new = result();
    new.sinks[0].summaries.insert(Aspect::Requests, Known::unknown("not counted"));
    assert_eq!(outcome(&result(), &new, Aspect::Requests), Outcome::NoLongerKnown);
    assert_eq!(outcome(&new, &result(), Aspect::Requests), Outcome::New);
    assert!(!Diff::of(&result(), &new, false).unwrap().has_worse());
}

#[test]
fn a_sink_that_became_unequal_or_answers_wrongly_is_worse() {
    let mut new = result();
    new.sinks[0].completeness = new.sinks[2].completeness.clone();
    let diff = Diff::of(&result(), &new, false).unwrap();
    assert_eq!(diff.verdicts.len(), 1);
    assert_eq!(
        (diff.verdicts[0].outcome, diff.verdicts[0].now.as_str()),
        (Outcome::Worse, "not equal: 3 missing in round 2")
    );
    assert!(diff.has_worse());
    assert_eq!(Diff::of(&new, &result(), false).unwrap().verdicts[0].outcome, Outcome::Better);
    let mut new = result();
    new.sinks[0].questions[0].answer = AnswerCheck::Wrong { why: "7 instead of 8".to_owned() };
    let diff = Diff::of(&result(), &new, false).unwrap();
    assert_eq!(
        (diff.verdicts[0].what.as_str(), diff.verdicts[0].now.as_str()),
        ("answer to total_by_tag", "wrong: 7 instead of 8")
    );
    assert!(diff.has_worse());
}

#[test]
fn results_of_other_events_are_compared_only_on_demand_and_then_it_is_said() {
    let mut new = result();
    new.workload.events += 1;
    let error = Diff::of(&result(), &new, false).unwrap_err();
    assert_eq!(error, DiffError::OtherWorkload("events: 100000 and 100001".to_owned()));
    let diff = Diff::of(&result(), &new, true).unwrap();
    assert_eq!(diff.notes, ["different workloads: events: 100000 and 100001"]);
    // The same events, published again to another place.
    let mut moved = result();
    moved.workload.spans[0].first = 900;
    moved.workload.bus = "embedded".to_owned();
    assert!(Diff::of(&result(), &moved, false).unwrap().notes.is_empty());
    moved.method.mode = crate::compare::Mode::Live;
    assert_eq!(Diff::of(&result(), &moved, true).unwrap_err(), DiffError::OtherMode);
}

#[test]
fn what_may_be_the_reason_of_a_difference_is_noted() {
    let mut new = result();
    new.environment.cpus = Known::Is(16);
    new.environment.tallybus = "2.0.0".to_owned();
    new.sinks[0].fingerprint = "other".to_owned();
    new.sinks[2].name = "z".to_owned();
    let notes = Diff::of(&result(), &new, false).unwrap().notes;
    let expected = [
        "tallybus 1.2.3 and 2.0.0",
        "another number of CPUs",
        "sink a has other settings",
        "sink z is only in the newer result",
        "sink b is only in the older result",
    ];
    assert_eq!(notes, expected);
}
