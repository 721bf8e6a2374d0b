//! The questions for InfluxDB 1.
//!
//! InfluxDB sums integers in 64 bits and wraps. Each sum is therefore asked for twice in one statement: of the integers, which is
//! right modulo 2^64, and of the same as floating-point numbers, which is right to some 15 digits. Together they give the exact sum.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::Value;
use tallybus_sdk::{Answer, Question, Series, SinkError, Storage};

use super::super::STORAGE;
use super::super::client::Client;
use super::super::read::influxql::{identifier, series_in, series_of};
use crate::shared::questions;

const SUMS: &str = "SELECT sum(\"value\"::integer), sum(\"value\"::float), count(\"value\"::integer)";

pub(super) async fn ask(client: &Client, question: &Question, bounds: (i64, i64)) -> Result<Answer, SinkError> {
    let during = format!("time >= {} AND time < {}", bounds.0, bounds.1);
    match question {
        Question::TotalByTag { name, tag, .. } => by_tag(client, name, tag, &during).await,
        Question::TopSeries { limit, .. } => top(client, *limit, &during).await,
        Question::SeriesByMinute { series, .. } => by_minute(client, series, &during).await,
        Question::SeriesCount { .. } => count(client, &during).await,
        _ => Ok(questions::UNKNOWN),
    }
}

async fn by_tag(client: &Client, name: &str, tag: &str, during: &str) -> Result<Answer, SinkError> {
    let (name, key) = (identifier(name), identifier(tag));
    let mut sums: BTreeMap<Option<String>, u128> = BTreeMap::new();
    let mut each = |answer: &Value| {
        for part in series_in(answer)? {
            // Series without the tag are grouped under an empty value.
            let value = part["tags"][tag].as_str().filter(|value| !value.is_empty()).map(str::to_owned);
            for row in rows(part) {
                *sums.entry(value.clone()).or_default() += total(row)?;
            }
        }
        Ok(())
    };
    client.influxql(&format!("{SUMS} FROM {name} WHERE {during} GROUP BY {key}"), &mut each).await?;
    Ok(Answer::ByTag(sums))
}

/// InfluxQL ranks within one measurement only; so the sums of all series come here, as they would to a dashboard.
async fn top(client: &Client, limit: usize, during: &str) -> Result<Answer, SinkError> {
    let mut sums: Vec<(Series, u128)> = Vec::new();
    let mut each = |answer: &Value| {
        for part in series_in(answer)? {
            let mut sum = 0;
            for row in rows(part) {
                sum += total(row)?;
            }
            sums.push((series_of(part), sum));
        }
        Ok(())
    };
    client.influxql(&format!("{SUMS} FROM /.*/ WHERE {during} GROUP BY *"), &mut each).await?;
    sums.sort_unstable_by_key(|(_, sum)| Reverse(*sum));
    sums.truncate(limit);
    Ok(Answer::Series(sums))
}

/// A condition on tags cannot say that a series has no others; so those that have more come here too.
async fn by_minute(client: &Client, series: &Series, during: &str) -> Result<Answer, SinkError> {
    let tags = series.tags().iter();
    let tags: String = tags.map(|(key, value)| format!(" AND {}::tag = {}", identifier(key), literal(value))).collect();
    let name = identifier(series.name());
    let mut sums: BTreeMap<i64, u128> = BTreeMap::new();
    let mut each = |answer: &Value| {
        for part in series_in(answer)?.filter(|part| series_of(part) == *series) {
            for row in rows(part) {
                let minute = row[0].as_i64().ok_or_else(strange)?;
                *sums.entry(minute).or_default() += total(row)?;
            }
        }
        Ok(())
    };
    let by_minute = "GROUP BY time(1m), * fill(none)";
    client.influxql(&format!("{SUMS} FROM {name} WHERE {during}{tags} {by_minute}"), &mut each).await?;
    Ok(Answer::ByMinute(sums))
}

async fn count(client: &Client, during: &str) -> Result<Answer, SinkError> {
    let mut count = 0;
    let mut each = |answer: &Value| {
        count += series_in(answer)?.count() as u64;
        Ok(())
    };
    let select = format!("SELECT \"value\"::integer FROM /.*/ WHERE {during} GROUP BY * LIMIT 1");
    client.influxql(&select, &mut each).await?;
    Ok(Answer::Count(count))
}

/// What the shards of the database take, or of its retention policy where the settings name one.
pub(super) async fn storage(client: &Client, database: &str, policy: Option<&str>) -> Result<Storage, SinkError> {
    let mut bytes = 0_u64;
    let mut each = |answer: &Value| {
        for part in series_in(answer)? {
            let tags = &part["tags"];
            if tags["database"] != database || policy.is_some_and(|policy| tags["retentionPolicy"] != policy) {
                continue;
            }
            let column = part["columns"].as_array().and_then(|names| names.iter().position(|name| name == "diskBytes"));
            for row in rows(part) {
                let size = column.and_then(|column| row[column].as_u64()).ok_or_else(strange)?;
                bytes = bytes.saturating_add(size);
            }
        }
        Ok(())
    };
    match client.influxql("SHOW STATS FOR 'shard'", &mut each).await {
        Ok(()) => Ok(Storage::Bytes { bytes, what: STORAGE }),
        Err(error) if error.to_string().contains("requires admin privilege") => {
            Ok(Storage::NotOffered("SHOW STATS needs an administrator, which the sink's user is not"))
        }
        Err(error) => Err(error),
    }
}

fn rows(part: &Value) -> impl Iterator<Item = &Value> {
    part["values"].as_array().into_iter().flatten()
}

/// The sum of a row of [`SUMS`].
fn total(row: &Value) -> Result<u128, SinkError> {
    let parts = (row[1].as_i64(), row[2].as_f64(), row[3].as_u64());
    let (Some(wrapped), Some(nearly), Some(points)) = parts else { return Err(strange()) };
    if nearly < 0.0 {
        return Err(questions::negative());
    }
    exact(wrapped, nearly, points).ok_or_else(|| {
        SinkError::Halt(format!("InfluxDB cannot tell the sum of {points} points, about {nearly:e}, exactly"))
    })
}

const TWO_TO_THE_64: f64 = 18_446_744_073_709_551_616.0;

/// The sum that is `wrapped` modulo 2^64 and about `nearly`; `None` where rounding may have moved `nearly` by a quarter of 2^64.
fn exact(wrapped: i64, nearly: f64, points: u64) -> Option<u128> {
    // Each addition rounds by at most half a unit in the 53rd binary digit, and so did each conversion.
    let error = nearly * (points as f64 + 1.0) * f64::EPSILON;
    if error >= TWO_TO_THE_64 / 4.0 {
        return None;
    }
    let low = wrapped.cast_unsigned();
    let turns = ((nearly - low as f64) / TWO_TO_THE_64).round();
    let turns: u128 = if turns <= 0.0 { 0 } else { format!("{turns:.0}").parse().ok()? };
    Some((turns << 64) + u128::from(low))
}

/// A text as InfluxQL's.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn strange() -> SinkError {
    SinkError::Unavailable("InfluxDB's answer lacks the requested columns".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What InfluxDB answers for these values.
    fn answered(values: &[u64]) -> (i64, f64, u64) {
        let wrapped = values.iter().fold(0_i64, |sum, value| sum.wrapping_add(value.cast_signed()));
        let nearly = values.iter().fold(0.0, |sum, value| sum + *value as f64);
        (wrapped, nearly, values.len() as u64)
    }

    #[test]
    fn sums_over_2_to_the_63_are_told_apart_from_their_remainders() {
        let most = i64::MAX as u64;
        for values in [vec![], vec![0], vec![5], vec![most], vec![most, 1], vec![most, most, 1], vec![most; 1_000]] {
            let (wrapped, nearly, points) = answered(&values);
            let sum: u128 = values.iter().map(|value| u128::from(*value)).sum();
            assert_eq!(exact(wrapped, nearly, points), Some(sum), "{values:?}");
        }
        assert_eq!(exact(0, 2.0_f64.powi(100), 1 << 30), None, "it may be any of several sums");
    }

    #[test]
    fn texts_cannot_leave_their_quotes() {
        assert_eq!(literal(r"it's \"), r"'it\'s \\'");
    }

    proptest! {
        #[test]
        fn every_sum_is_exact(values in prop::collection::vec(0..=i64::MAX as u64, 0..200)) {
            let (wrapped, nearly, points) = answered(&values);
            let sum: u128 = values.iter().map(|value| u128::from(*value)).sum();
            prop_assert_eq!(exact(wrapped, nearly, points), Some(sum));
        }
    }
}
