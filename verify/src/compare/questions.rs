//! The standard questions, and what the bus answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tallybus_bus::{Bus, Observer, read_topic};
use tallybus_schemas::Series;
use tallybus_sdk::{Answer, NANOS_PER_MINUTE, Question, Shape, TimeRange};

use super::copy::Copied;
use super::{AnswerCheck, CompareError, time_text};
use crate::audit::Messages;

const HOUR: i64 = 3_600_000_000_000;
/// How many series the question for the largest ones asks for.
const TOP: usize = 10;
/// How long the bus may return nothing.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A tag with more values than this is none that people group by.
const MOST_VALUES: usize = 1_000;

/// What all sinks are asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// The counter with the most events.
    name: String,
    /// The hour with the most events: nanoseconds since the Unix epoch.
    hour: i64,
}

impl Subject {
    /// `None` when the copy has no events.
    pub(super) fn of(copied: &Copied) -> Option<Self> {
        let most = |one: &u64, other: &u64| one.cmp(other);
        let (name, _) = copied.names.iter().rev().max_by(|(_, one), (_, other)| most(one, other))?;
        let (hour, _) = copied.hours.iter().max_by(|(_, one), (_, other)| most(one, other))?;
        Some(Self { name: name.clone(), hour: *hour })
    }

    fn range(&self) -> TimeRange {
        TimeRange { from: Some(self.hour), to: Some(self.hour.saturating_add(HOUR)) }
    }
}

/// A question with the answer of the bus.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    /// What is asked, for people.
    pub(super) about: String,
    expected: Expected,
}

#[derive(Debug)]
enum Expected {
    ByTag(BTreeMap<Option<String>, u128>),
    /// The sum of every series.
    Top(Arc<HashMap<Arc<Series>, u128>>),
    ByMinute(BTreeMap<i64, u128>),
    Count(u64),
}

/// What the bus has for one sink.
#[derive(Debug, Default)]
struct Facts {
    totals: HashMap<Arc<Series>, u128>,
    /// In the subject's hour: by series and minute.
    minutes: HashMap<Arc<Series>, BTreeMap<i64, u128>>,
}

/// The standard questions about a subject, with the answers that follow from the bus for a sink of this shape.
///
/// # Errors
/// The bus could not be read, or the shape is not valid.
pub(super) fn standard(
    bus: &dyn Bus,
    observer: &dyn Observer,
    topics: &[String],
    encodings: &BTreeMap<String, String>,
    shape: &Shape,
    subject: &Subject,
) -> Result<Vec<Asked>, CompareError> {
    let facts = read(bus, observer, topics, encodings, shape, subject)?;
    Ok(ask_about(facts, subject))
}

fn read(
    bus: &dyn Bus,
    observer: &dyn Observer,
    topics: &[String],
    encodings: &BTreeMap<String, String>,
    shape: &Shape,
    subject: &Subject,
) -> Result<Facts, CompareError> {
    let selector = shape.selector().map_err(CompareError::Settings)?;
    let mut messages = Messages::new(encodings).map_err(CompareError::Settings)?;
    let mut facts = Facts::default();
    // By the number of the message's series: the series as it is in the backend, `None` when it is not selected.
    let mut shaped: Vec<Option<Arc<Series>>> = Vec::new();
    let range = subject.range();
    for topic in topics {
        read_topic(bus, observer, topic, STALL_TIMEOUT, &mut |record| {
            if messages.decode(&record).is_err() {
                return;
            }
            for row in messages.rows() {
                while shaped.len() <= row.series as usize {
                    let next = u32::try_from(shaped.len()).unwrap_or(u32::MAX);
                    let series = messages.series(next);
                    let is_taken = selector.takes(series.name());
                    shaped.push(is_taken.then(|| in_shape(series, &selector)));
                }
                let Some(series) = &shaped[row.series as usize] else { continue };
                let start = selector.window_start(row.time);
                *facts.totals.entry(series.clone()).or_default() += u128::from(row.value);
                if range.contains(start) {
                    let minute = start - start.rem_euclid(NANOS_PER_MINUTE);
                    let minutes = facts.minutes.entry(series.clone()).or_default();
                    *minutes.entry(minute).or_default() += u128::from(row.value);
                }
            }
        })?;
    }
    Ok(facts)
}

fn in_shape(series: &Series, selector: &tallybus_sdk::Selector) -> Arc<Series> {
    let tags: Vec<(&str, &str)> = series.tags().iter().map(|(key, value)| (&**key, &**value)).collect();
    let mut shaped = Vec::new();
    selector.shape_tags(&tags, &mut shaped);
    Arc::new(Series::from_sorted(series.name(), &shaped))
}

fn ask_about(facts: Facts, subject: &Subject) -> Vec<Asked> {
    let Facts { totals, minutes } = facts;
    let (range, name) = (subject.range(), &subject.name);
    let hour = format!("from {} on", time_text(subject.hour));
    let mut asked = Vec::new();

    let of_name = || minutes.iter().filter(|(series, _)| series.name() == name);
    let tag = grouping_tag(of_name().map(|(series, _)| series.as_ref()));
    let mut by_tag: BTreeMap<Option<String>, u128> = BTreeMap::new();
    for (series, sums) in of_name() {
        *by_tag.entry(value_of(series, &tag).map(str::to_owned)).or_default() += sums.values().sum::<u128>();
    }
    asked.push(Asked {
        about: format!("the sum of {name} by {tag}, in the hour {hour}"),
        question: Question::TotalByTag { name: name.clone(), tag, range },
        expected: Expected::ByTag(by_tag),
    });

    let largest = minutes.iter().max_by_key(|(series, sums)| {
        // Of equal ones always the same.
        (sums.values().sum::<u128>(), std::cmp::Reverse((series.name().to_owned(), format!("{:?}", series.tags()))))
    });
    let series = largest.map(|(series, sums)| (series.as_ref().clone(), sums.clone()));
    let count = totals.len() as u64;
    asked.push(Asked {
        about: format!("the {TOP} series with the largest sums, of the whole range"),
        question: Question::TopSeries { limit: TOP, range: TimeRange::default() },
        expected: Expected::Top(Arc::new(totals)),
    });
    if let Some((series, sums)) = series {
        asked.push(Asked {
            about: format!("a series of {} by minute, in the hour {hour}", series.name()),
            question: Question::SeriesByMinute { series, range },
            expected: Expected::ByMinute(sums),
        });
    }
    asked.push(Asked {
        about: "the number of series, of the whole range".to_owned(),
        question: Question::SeriesCount { range: TimeRange::default() },
        expected: Expected::Count(count),
    });
    asked
}

fn value_of<'s>(series: &'s Series, tag: &str) -> Option<&'s str> {
    series.tags().iter().find(|(key, _)| &**key == tag).map(|(_, value)| &**value)
}

/// The tag that people would group by: of those with several values the one that most series have, and then the one with the fewest
/// values. `tag` where there is none.
fn grouping_tag<'s>(series: impl Iterator<Item = &'s Series>) -> String {
    let mut tags: BTreeMap<&str, (u64, std::collections::BTreeSet<&str>)> = BTreeMap::new();
    for series in series {
        for (key, value) in series.tags() {
            let (count, values) = tags.entry(key).or_default();
            *count += 1;
            if values.len() <= MOST_VALUES {
                values.insert(value);
            }
        }
    }
    let best = tags.iter().max_by_key(|(key, (count, values))| {
        let is_usual = (2..=MOST_VALUES).contains(&values.len());
        (is_usual, *count, std::cmp::Reverse(values.len()), std::cmp::Reverse(**key))
    });
    best.map_or("tag", |(key, _)| key).to_owned()
}

impl Asked {
    /// Whether an answer is what the bus says.
    pub(super) fn check(&self, answer: &Answer) -> AnswerCheck {
        let differs = match (answer, &self.expected) {
            (Answer::NotOffered(reason), _) => return AnswerCheck::NotOffered { why: (*reason).to_owned() },
            (Answer::ByTag(found), Expected::ByTag(expected)) => first_difference(found, expected, |tag| match tag {
                Some(value) => format!("the value {value:?}"),
                None => "series without the tag".to_owned(),
            }),
            (Answer::ByMinute(found), Expected::ByMinute(expected)) => {
                first_difference(found, expected, |minute| format!("the minute {}", time_text(*minute)))
            }
            (Answer::Count(found), Expected::Count(expected)) => {
                (found != expected).then(|| format!("{found} series, and the bus has {expected}"))
            }
            (Answer::Series(found), Expected::Top(expected)) => top_difference(found, expected),
            _ => Some("the answer to another question".to_owned()),
        };
        differs.map_or(AnswerCheck::Right, |why| AnswerCheck::Wrong { why })
    }
}

fn first_difference<K: Ord>(
    found: &BTreeMap<K, u128>,
    expected: &BTreeMap<K, u128>,
    name: impl Fn(&K) -> String,
) -> Option<String> {
    let differing = found.keys().chain(expected.keys()).find(|key| found.get(key) != expected.get(key))?;
    let shown = |sum: Option<&u128>| sum.map_or("nothing".to_owned(), u128::to_string);
    Some(format!(
        "{} for {}, and the bus has {}",
        shown(found.get(differing)),
        name(differing),
        shown(expected.get(differing))
    ))
}

/// Series of equal sums may come in any order, and the last place may go to any of them.
fn top_difference(found: &[(Series, u128)], expected: &HashMap<Arc<Series>, u128>) -> Option<String> {
    let mut sums: Vec<u128> = expected.values().copied().collect();
    sums.sort_unstable_by(|one, other| other.cmp(one));
    sums.truncate(TOP);
    if found.len() != sums.len() {
        return Some(format!("{} series, and the bus has {}", found.len(), sums.len()));
    }
    for (place, ((series, sum), most)) in found.iter().zip(&sums).enumerate() {
        let held = expected.get(series);
        let is_repeated = found[..place].iter().any(|(other, _)| other == series);
        if sum != most || held != Some(sum) || is_repeated {
            let held = held.map_or("nothing".to_owned(), u128::to_string);
            return Some(format!(
                "{sum} for {} in place {}, and the bus has {held} for it and {most} in that place",
                series.name(),
                place + 1
            ));
        }
    }
    None
}

#[cfg(test)]
#[path = "questions_tests.rs"]
mod tests;
