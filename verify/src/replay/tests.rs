use tallybus_schemas::Series;
use tallybus_sdk::TimeRange;

use super::*;

fn letter(key: &str, reason: &str, event: Option<(&str, i64)>) -> Letter {
    let event = event.map(|(name, time)| Event { series: Series::from_sorted(name, &[]), value: 3, time });
    Letter {
        key: key.to_owned(),
        topic: "t".to_owned(),
        partition: 0,
        offset: 0,
        index: event.as_ref().map(|_| 0),
        events: 1,
        batch: "t/0/0-5".to_owned(),
        reason: reason.to_owned(),
        encoding: None,
        time_ms: 7,
        bytes: 9,
        cut_from: None,
        event,
        replays: 0,
        origin: None,
        state: State::Dead,
    }
}

fn taken<'l>(letters: &'l [Letter], filter: &Filter) -> Vec<&'l str> {
    letters.iter().filter(|letter| filter.takes(letter)).map(|letter| letter.key.as_str()).collect()
}

#[test]
fn a_filter_takes_what_all_of_its_parts_take() {
    let letters = [
        letter("t/0/0/0", "over 2^63", Some(("http.requests", 1_000))),
        letter("t/0/1/0", "field type conflict [x]", Some(("up", 2_000))),
        letter("t/0/2", "line 3: bad", None),
    ];
    let all = Filter::default();
    assert_eq!(taken(&letters, &all), ["t/0/0/0", "t/0/1/0", "t/0/2"]);
    let reason = |text: &str| Filter { reason: Some(Pattern::parse(text).unwrap()), ..Filter::default() };
    assert_eq!(taken(&letters, &reason("2^63")), ["t/0/0/0"]);
    assert_eq!(taken(&letters, &reason("line*")), ["t/0/2"]);
    assert_eq!(taken(&letters, &reason("*conflict*")), ["t/0/1/0"]);
    assert_eq!(taken(&letters, &reason("conflict*")), [""; 0], "a glob matches all of the reason");
    assert!(Pattern::parse("a[").is_err());
    let name = Filter { name: Some(globset::Glob::new("http.*").unwrap().compile_matcher()), ..Filter::default() };
    assert_eq!(taken(&letters, &name), ["t/0/0/0"]);
    // What could not be decoded is as old as its record: 7 ms.
    let range = |from, to| Filter { range: TimeRange { from, to }, ..Filter::default() };
    assert_eq!(taken(&letters, &range(Some(2_000), None)), ["t/0/1/0", "t/0/2"]);
    assert_eq!(taken(&letters, &range(Some(2_000), Some(7_000_000))), ["t/0/1/0"]);
    let key = Filter { keys: vec!["t/0/2".to_owned()], ..reason("line") };
    assert_eq!(taken(&letters, &key), ["t/0/2"]);
}

#[test]
fn a_plan_leaves_out_what_may_not_be_chosen_and_says_why() {
    let with = |state: State, replays: u32| Letter { state, replays, ..letter("k", "r", Some(("a", 1))) };
    let cut = |index: Option<u32>| Letter { index, cut_from: Some(9), ..letter("k", "r", None) };
    let letters = Letters {
        letters: vec![
            with(State::Dead, 0),
            with(State::Dead, 1),
            with(State::Dead, MOST_REPLAYS),
            with(State::Unsettled, 0),
            with(State::Chosen, 0),
            with(State::Replayed, 2),
            with(State::RefusedAgain("x".to_owned()), 0),
            cut(None),
            cut(Some(0)),
        ],
        ..Letters::default()
    };
    let plan = |choice: Choice| {
        let plan = letters.plan(&choice);
        (plan.chosen.len(), plan.skipped)
    };
    let skipped = Skipped { chosen_before: 3, refused_again: 1, too_often: 1, unsettled: 1, cut: 1 };
    assert_eq!(plan(Choice::default()), (2, skipped));
    assert_eq!(plan(Choice { limit: Some(1), ..Choice::default() }), (1, skipped));
    assert_eq!(plan(Choice { again: true, ..Choice::default() }), (3, Skipped { refused_again: 0, ..skipped }));
    let forced = Skipped { refused_again: 0, too_often: 0, ..skipped };
    assert_eq!(plan(Choice { force: true, ..Choice::default() }), (4, forced));
}
