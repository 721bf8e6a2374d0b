use super::*;

fn series(name: &str, tags: &[(&str, &str)]) -> Series {
    Series::from_sorted(name, tags)
}

const SUBJECT_HOUR: i64 = 1_700_000_000_000_000_000 - 1_700_000_000_000_000_000 % HOUR;

/// Twelve series of `hits` with sums 12, 12, 11, 10 …, all in one minute; one of `other` outside of the hour.
fn facts() -> Facts {
    let mut facts = Facts::default();
    for number in 0..12_u128 {
        let (route, status) = (format!("/{number}"), if number < 4 { "200" } else { "500" });
        let one = Arc::new(series("hits", &[("route", &route), ("status", status)]));
        let sum = 13 - number.max(1);
        facts.totals.insert(one.clone(), sum);
        facts.minutes.insert(one, BTreeMap::from([(SUBJECT_HOUR + NANOS_PER_MINUTE, sum)]));
    }
    facts.totals.insert(Arc::new(series("other", &[])), 1);
    facts
}

fn asked() -> Vec<Asked> {
    ask_about(facts(), &Subject { name: "hits".to_owned(), hour: SUBJECT_HOUR })
}

fn find(name: &str) -> Asked {
    asked().into_iter().find(|asked| asked.question.name() == name).unwrap()
}

fn wrong(check: AnswerCheck) -> String {
    let AnswerCheck::Wrong { why } = check else { panic!("{check:?}") };
    why
}

#[test]
fn there_are_four_questions_and_the_tag_is_one_with_few_values() {
    let names: Vec<_> = asked().iter().map(|asked| asked.question.name()).collect();
    assert_eq!(names, ["total_by_tag", "top_series", "series_by_minute", "series_count"]);
    let Question::TotalByTag { tag, range, .. } = find("total_by_tag").question else { panic!() };
    assert_eq!(tag, "status");
    assert_eq!((range.from, range.to), (Some(SUBJECT_HOUR), Some(SUBJECT_HOUR + HOUR)));
    assert_eq!(grouping_tag([series("a", &[])].iter()), "tag");
}

#[test]
fn sums_by_tag_must_be_those_of_the_bus() {
    let asked = find("total_by_tag");
    let right = BTreeMap::from([(Some("200".to_owned()), 12 + 12 + 11 + 10), (Some("500".to_owned()), 44)]);
    assert_eq!(asked.check(&Answer::ByTag(right.clone())), AnswerCheck::Right);
    let mut less = right.clone();
    less.insert(Some("500".to_owned()), 43);
    assert_eq!(wrong(asked.check(&Answer::ByTag(less))), "43 for the value \"500\", and the bus has 44");
    let mut more = right;
    more.insert(None, 5);
    assert_eq!(wrong(asked.check(&Answer::ByTag(more))), "5 for series without the tag, and the bus has nothing");
}

#[test]
fn of_series_with_equal_sums_any_order_is_right_and_nothing_else() {
    let asked = find("top_series");
    let mut all: Vec<(Series, u128)> =
        facts().totals.into_iter().map(|(series, sum)| (series.as_ref().clone(), sum)).collect();
    all.sort_by(|(one, first), (other, second)| second.cmp(first).then(one.name().cmp(other.name())));
    all.truncate(TOP);
    assert_eq!(asked.check(&Answer::Series(all.clone())), AnswerCheck::Right);
    all.swap(0, 1);
    assert_eq!(asked.check(&Answer::Series(all.clone())), AnswerCheck::Right, "both have the sum 12");
    let mut swapped = all.clone();
    swapped.swap(1, 2);
    assert!(wrong(asked.check(&Answer::Series(swapped))).contains("in place 2"));
    let mut twice = all.clone();
    twice[1] = twice[0].clone();
    assert!(wrong(asked.check(&Answer::Series(twice))).contains("in place 2"));
    assert_eq!(wrong(asked.check(&Answer::Series(all[..9].to_vec()))), "9 series, and the bus has 10");
}

#[test]
fn minutes_and_counts_are_compared_exactly_and_what_is_not_offered_keeps_its_reason() {
    let asked = find("series_by_minute");
    let right = BTreeMap::from([(SUBJECT_HOUR + NANOS_PER_MINUTE, 12)]);
    assert_eq!(asked.check(&Answer::ByMinute(right)), AnswerCheck::Right);
    assert!(wrong(asked.check(&Answer::ByMinute(BTreeMap::new()))).starts_with("nothing for the minute 2023-"));
    let count = find("series_count");
    assert_eq!(count.check(&Answer::Count(13)), AnswerCheck::Right);
    assert_eq!(wrong(count.check(&Answer::Count(12))), "12 series, and the bus has 13");
    assert_eq!(count.check(&Answer::NotOffered("no")), AnswerCheck::NotOffered { why: "no".to_owned() });
    assert_eq!(wrong(count.check(&Answer::Series(Vec::new()))), "the answer to another question");
}
