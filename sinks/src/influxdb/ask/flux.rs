//! The questions for InfluxDB 2.
//!
//! Flux sums integers in 64 bits and wraps. So `reduce` sums billions and the rest apart. Its results have the names of columns
//! that Flux reserves, so that they hide no tag: `_value` for the billions, `_stop` for the rest.

use std::collections::BTreeMap;

use influxdb2::api::query::FluxRecord;
use tallybus_sdk::{Answer, NANOS_PER_MINUTE, Question, SinkError};

use super::super::read::series_of;
use super::super::v2::V2;
use crate::shared::questions;

pub(super) async fn ask(v2: &V2, question: &Question, bounds: (i64, i64)) -> Result<Answer, SinkError> {
    let Some(query) = text::of(v2.bucket(), question, bounds) else { return Ok(questions::UNKNOWN) };
    match question {
        Question::TotalByTag { tag, .. } => {
            let column = format!("c:{tag}");
            let mut sums: BTreeMap<Option<String>, u128> = BTreeMap::new();
            v2.query(query, |record| {
                let value = record.values.get(&column).and_then(|value| value.string());
                *sums.entry(value.filter(|value| !value.is_empty())).or_default() += total(record)?;
                Ok(())
            })
            .await?;
            Ok(Answer::ByTag(sums))
        }
        Question::TopSeries { .. } => {
            let mut series = Vec::new();
            v2.query(query, |record| {
                series.push((series_of(record), total(record)?));
                Ok(())
            })
            .await?;
            Ok(Answer::Series(series))
        }
        Question::SeriesByMinute { series, .. } => {
            let mut sums: BTreeMap<i64, u128> = BTreeMap::new();
            v2.query(query, |record| {
                // A condition on tags cannot say that a series has no others.
                if series_of(record) == *series {
                    *sums.entry(whole(record, "c:_time")? * NANOS_PER_MINUTE).or_default() += total(record)?;
                }
                Ok(())
            })
            .await?;
            Ok(Answer::ByMinute(sums))
        }
        _ => {
            let mut count = 0;
            v2.query(query, |record| {
                count += u64::try_from(whole(record, "c:_value")?).map_err(|_| questions::negative())?;
                Ok(())
            })
            .await?;
            Ok(Answer::Count(count))
        }
    }
}

fn total(record: &FluxRecord) -> Result<u128, SinkError> {
    let (billions, rest) = (whole(record, "c:_value")?, whole(record, "c:_stop")?);
    let total = i128::from(billions) * 1_000_000_000 + i128::from(rest);
    u128::try_from(total).map_err(|_| questions::negative())
}

fn whole(record: &FluxRecord, column: &str) -> Result<i64, SinkError> {
    let value = record.values.get(column).and_then(|value| value.i64());
    value.ok_or_else(|| SinkError::Unavailable(format!("InfluxDB's answer has no whole number in the column {column}")))
}

/// The texts of the queries.
mod text {
    use std::fmt::Write as _;

    use tallybus_sdk::Question;

    use super::super::super::read::flux::{RENAME, literal, source};

    const REDUCE: &str = "  |> reduce(identity: {_value: 0, _stop: 0}, fn: (r, accumulator) => ({_value: accumulator._value + \
                          r._value / 1000000000, _stop: accumulator._stop + r._value % 1000000000}))\n";
    const OF_ALL: &str = "  |> filter(fn: (r) => r._field == \"value\")\n";

    /// `None` for a question that this version does not know.
    pub(super) fn of(bucket: &str, question: &Question, (from, to): (i64, i64)) -> Option<String> {
        let mut text = source(bucket, from, to);
        // Another program's floating-point numbers would not let integers be summed beside them.
        let to_int = "  |> toInt()\n";
        match question {
            Question::TotalByTag { name, tag, .. } => {
                let _ = writeln!(
                    text,
                    "  |> filter(fn: (r) => r._measurement == {} and r._field == \"value\")\n{to_int}  |> group(columns: [{}])",
                    literal(name),
                    literal(tag)
                );
                text.push_str(REDUCE);
            }
            Question::TopSeries { limit, .. } => {
                let _ = write!(
                    text,
                    "{OF_ALL}{to_int}  |> group(columns: [\"_value\", \"_time\", \"_start\", \"_stop\"], mode: \"except\")\n\
                     {REDUCE}  |> map(fn: (r) => ({{r with _value: r._value + r._stop / 1000000000, _stop: r._stop % \
                     1000000000}}))\n  |> group()\n  |> sort(columns: [\"_value\", \"_stop\"], desc: true)\n  |> limit(n: {})\n",
                    i64::try_from(*limit).unwrap_or(i64::MAX)
                );
            }
            Question::SeriesByMinute { series, .. } => {
                let tags = series.tags().iter();
                let tags: String =
                    tags.map(|(key, value)| format!(" and r[{}] == {}", literal(key), literal(value))).collect();
                let _ = write!(
                    text,
                    "  |> filter(fn: (r) => r._measurement == {} and r._field == \"value\"{tags})\n{to_int}  |> map(fn: (r) => ({{r \
                     with _time: int(v: r._time) / 60000000000}}))\n  |> group(columns: [\"_value\", \"_start\", \"_stop\"], mode: \
                     \"except\")\n{REDUCE}",
                    literal(series.name())
                );
            }
            Question::SeriesCount { .. } => {
                let _ = write!(
                    text,
                    "{OF_ALL}  |> first()\n  |> map(fn: (r) => ({{_value: 1}}))\n  |> group()\n  |> sum()\n"
                );
            }
            _ => return None,
        }
        text.push_str(RENAME);
        Some(text)
    }
}
