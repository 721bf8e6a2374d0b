//! The standard questions, answered from the rows in memory.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use tallybus_schemas::Series;

use crate::testkit::FakeBackend;
use crate::{Answer, NANOS_PER_MINUTE, Question};

pub(super) fn ask(backend: &FakeBackend, question: &Question) -> Answer {
    let range = question.range();
    let rows = backend.rows().into_iter().filter(|((_, start), _)| range.contains(*start));
    let rows = rows.map(|((series, start), value)| (series, start, u128::from(value)));
    match question {
        Question::TotalByTag { name, tag, .. } => {
            let mut sums: BTreeMap<Option<String>, u128> = BTreeMap::new();
            for (series, _, value) in rows.filter(|(series, ..)| series.name() == name) {
                *sums.entry(series.tag(tag).map(str::to_owned)).or_default() += value;
            }
            Answer::ByTag(sums)
        }
        Question::TopSeries { limit, .. } => {
            let mut sums: BTreeMap<Series, u128> = BTreeMap::new();
            for (series, _, value) in rows {
                *sums.entry(series).or_default() += value;
            }
            let mut sums: Vec<(Series, u128)> = sums.into_iter().collect();
            sums.sort_by_key(|(_, sum)| Reverse(*sum));
            sums.truncate(*limit);
            Answer::Series(sums)
        }
        Question::SeriesByMinute { series, .. } => {
            let mut sums: BTreeMap<i64, u128> = BTreeMap::new();
            for (_, start, value) in rows.filter(|(found, ..)| found == series) {
                *sums.entry(start - start.rem_euclid(NANOS_PER_MINUTE)).or_default() += value;
            }
            Answer::ByMinute(sums)
        }
        Question::SeriesCount { .. } => {
            let series: BTreeSet<Series> = rows.map(|(series, ..)| series).collect();
            Answer::Count(series.len() as u64)
        }
    }
}
