use super::*;

fn at(offset: u64, index: Option<u32>) -> At {
    At { topic: "t".to_owned(), partition: 0, offset, index }
}

fn point(events: u32, value: u64) -> Content {
    Content::Event { events, series: 1, window: 10, value }
}

fn event(offset: u64, value: u64) -> Event {
    Event { partition: 0, offset, index: 0, series: Some(1), window: 10, value, stands_for: 1 }
}

/// The values that explain differences, and the reasons why others are wrong.
fn outcome(claims: &[(At, Content)], events: &[Event]) -> (Vec<u64>, Vec<String>) {
    let mut all = Claims::default();
    for (at, content) in claims {
        all.refuse(at.clone(), *content);
    }
    for event in events {
        all.check_event("t", event);
    }
    all.end_topic();
    let checked = all.finish(&|_| false, &|_| true);
    assert_eq!(checked.outstanding, claims.len() as u64);
    let values = checked.refused.iter().map(|refused| refused.value).collect();
    (values, checked.wrong.into_iter().map(|wrong| wrong.reason).collect())
}

#[test]
fn a_dead_letter_of_one_event_must_be_that_event() {
    let one = |content| [(at(4, Some(0)), content)];
    assert_eq!(outcome(&one(point(1, 7)), &[event(4, 7)]), (vec![7], vec![]));
    for (content, event, reason) in [
        (point(1, 8), event(4, 7), "its value is 8, and the bus has 7"),
        (point(1, 6), event(4, 7), "its value is 6, and the bus has 7"),
        (point(1, 7), Event { series: Some(2), ..event(4, 7) }, "another series"),
        (point(1, 7), Event { series: None, ..event(4, 7) }, "another series"),
        (point(1, 7), Event { window: 11, ..event(4, 7) }, "another window"),
        (point(1, 7), event(5, 7), "no such event"),
        (point(1, 7), Event { index: 1, ..event(4, 7) }, "no such event"),
        (point(1, 7), Event { partition: 1, ..event(4, 7) }, "no such event"),
    ] {
        let (values, reasons) = outcome(&one(content), &[event]);
        assert!(values.is_empty() && reasons.len() == 1 && reasons[0].contains(reason), "{reasons:?}: {reason}");
    }
}

#[test]
fn a_dead_letter_of_a_point_must_be_the_sum_of_its_events() {
    let events = [
        event(4, 7),
        Event { series: Some(2), ..event(5, 100) },
        Event { window: 11, ..event(5, 100) },
        Event { partition: 1, ..event(5, 100) },
        Event { value: u64::MAX, ..event(6, 1) },
        event(7, 1),
        event(8, 2),
        event(9, 4),
    ];
    let of = |events: u32, value| [(at(4, Some(0)), point(events, value))];
    assert_eq!(outcome(&of(2, 8), &events), (vec![8], vec![]));
    assert_eq!(outcome(&of(4, 14), &events), (vec![14], vec![]));
    for (count, value) in [(3, 8), (2, 10), (2, 7), (5, 14)] {
        let (values, reasons) = outcome(&of(count, value), &events);
        assert!(values.is_empty() && reasons.len() == 1, "{count} {value}: {reasons:?}");
    }
    // No event is explained twice.
    let both = [(at(4, Some(0)), point(3, 10)), (at(7, Some(0)), point(2, 3))];
    let (values, reasons) = outcome(&both, &events);
    assert_eq!(values.len() + reasons.len(), 2);
    assert!(values.len() < 2, "{values:?}");
}

#[test]
fn a_point_whose_events_exceed_its_own_letters_is_summed_without_them() {
    // The event at 5 did not fit into the point: it is a dead letter of its own.
    let claims = [(at(4, Some(0)), point(2, 3)), (at(5, Some(0)), point(1, 90))];
    let (mut values, reasons) = outcome(&claims, &[event(4, 1), event(5, 90), event(6, 2)]);
    values.sort_unstable();
    assert_eq!((values, reasons), (vec![3, 90], vec![]));
}

#[test]
fn an_undecodable_record_must_have_the_bytes_of_its_dead_letter() {
    let check = |letter: &[u8], is_cut, record: &[u8]| {
        let mut claims = Claims::default();
        let content = claims.record_content(letter, is_cut);
        claims.refuse(at(4, None), content);
        let is_dead = claims.check_record("t", 0, 4, record);
        (is_dead, claims.finish(&|_| false, &|_| true).wrong.len())
    };
    assert_eq!(check(b"garbage", false, b"garbage"), (true, 0));
    assert_eq!(check(b"garbage", false, b"garbage and more"), (false, 1));
    assert_eq!(check(b"garbage", true, b"garbage and more"), (true, 0));
    assert_eq!(check(b"garbage", true, b"gar"), (false, 1));
    assert_eq!(check(b"garbage", false, b"GARBAGE"), (false, 1));
}

#[test]
fn a_line_that_could_not_be_decoded_explains_the_event_that_it_is_now() {
    let mut claims = Claims::default();
    claims.refuse(at(4, Some(0)), Content::Line);
    claims.refuse(at(5, Some(0)), Content::Line);
    claims.refuse(at(6, Some(0)), Content::Line);
    claims.replay(at(6, Some(0)), Content::Line, true);
    let dead = [4, 6, 7].map(|offset| claims.check_event("t", &event(offset, 7)));
    assert_eq!(dead, [true, false, false]);
    let checked = claims.finish(&|_| false, &|_| true);
    assert_eq!((checked.refused.len(), checked.outstanding, checked.wrong.len()), (0, 2, 0));
}

#[test]
fn what_was_replayed_is_no_dead_letter_and_must_be_the_same() {
    let replayed = |content, is_written| {
        let mut claims = Claims::default();
        claims.refuse(at(4, Some(0)), point(1, 7));
        claims.replay(at(4, Some(0)), content, is_written);
        claims.check_event("t", &event(4, 7));
        let checked = claims.finish(&|_| false, &|_| true);
        (checked.refused.len(), checked.outstanding, checked.wrong.len())
    };
    assert_eq!(replayed(point(1, 7), true), (0, 0, 0));
    assert_eq!(replayed(point(1, 7), false), (1, 0, 0));
    assert_eq!(replayed(point(1, 9), true), (0, 0, 1));
    // A replayed one whose dead letter is gone.
    let mut claims = Claims::default();
    claims.replay(at(4, Some(0)), point(1, 7), true);
    claims.check_event("t", &event(4, 7));
    let checked = claims.finish(&|_| false, &|_| true);
    assert_eq!((checked.refused.len(), checked.outstanding, checked.wrong.len()), (0, 0, 0));
}

#[test]
fn a_record_that_retention_deleted_is_neither_compared_nor_wrong() {
    let mut claims = Claims::default();
    claims.refuse(at(4, Some(0)), point(1, 7));
    let checked = claims.finish(&|at| at.offset < 5, &|_| true);
    assert_eq!((checked.refused.len(), checked.outstanding, checked.wrong.len()), (0, 1, 0));
}

#[test]
fn a_point_that_its_topic_does_not_complete_is_wrong_and_takes_no_event_of_the_next_topic() {
    let mut claims = Claims::default();
    claims.refuse(at(4, Some(0)), point(3, 10));
    claims.check_event("t", &event(4, 7));
    claims.check_event("t", &event(5, 2));
    claims.end_topic();
    claims.check_event("u", &event(4, 1));
    let checked = claims.finish(&|_| false, &|_| true);
    assert!(checked.refused.is_empty());
    let reasons: Vec<&str> = checked.wrong.iter().map(|wrong| wrong.reason.as_str()).collect();
    assert_eq!(reasons, ["the bus has fewer events of it, which sum to 9"]);
}

#[test]
fn only_topics_with_dead_letters_are_claimed() {
    let mut claims = Claims::default();
    assert!(!claims.concern("t"));
    claims.refuse(at(4, Some(0)), point(1, 7));
    assert!(claims.concern("t") && !claims.concern("u"));
}

#[test]
fn the_largest_value_that_a_sink_takes_is_part_of_a_point_and_a_larger_one_is_not() {
    let claims = [(at(4, Some(0)), point(2, MAX_VALUE + 1))];
    assert_eq!(outcome(&claims, &[event(4, 1), event(5, MAX_VALUE)]), (vec![MAX_VALUE + 1], vec![]));
    let (values, reasons) = outcome(&claims, &[event(4, 1), event(5, MAX_VALUE + 1)]);
    assert_eq!((values, reasons), (vec![], vec!["the bus has fewer events of it, which sum to 1".to_owned()]));
}
