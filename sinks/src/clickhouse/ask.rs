//! The standard questions, in SQL. Values are summed in 128 bits.

use std::collections::BTreeMap;

use serde_json::Value;
use tallybus_sdk::{Answer, Question, SinkError};

use super::client::Client;
use super::read::{in_range, number, strange, text};
use super::table::literal;
use crate::shared::json_tags::series_of_object;
use crate::shared::questions;

const TOTAL: &str = "sum(toUInt128(value))";

/// Answers a question that was prepared.
pub(super) async fn ask(client: &Client, question: &Question) -> Result<Answer, SinkError> {
    let (table, range) = (client.config().table.quoted(), in_range(question.range()));
    match question {
        Question::TotalByTag { name, tag, .. } => {
            let (name, tag) = (literal(name), literal(tag));
            let sql = format!(
                "SELECT tags[{tag}], toString({TOTAL}) FROM {table} WHERE name = {name} AND {range} GROUP BY tags[{tag}]"
            );
            let mut sums = BTreeMap::new();
            for row in &client.rows(&sql).await? {
                // No series has a tag without a value.
                let value = Some(text(row, 0)?).filter(|value| !value.is_empty());
                sums.insert(value, total(row, 1)?);
            }
            Ok(Answer::ByTag(sums))
        }
        Question::TopSeries { limit, .. } => {
            let sql = format!(
                "SELECT name, tags, toString({TOTAL}) FROM {table} WHERE {range} GROUP BY name, tags \
                 ORDER BY {TOTAL} DESC LIMIT {limit}"
            );
            let mut series = Vec::new();
            for row in &client.rows(&sql).await? {
                let Some(Value::Object(tags)) = row.get(1) else { return Err(strange()) };
                // A row that no sink wrote takes a place.
                if let Some(found) = series_of_object(&text(row, 0)?, tags) {
                    series.push((found, total(row, 2)?));
                }
            }
            Ok(Answer::Series(series))
        }
        Question::SeriesByMinute { series, .. } => {
            let list = |texts: Vec<&str>| texts.into_iter().map(literal).collect::<Vec<_>>().join(", ");
            let keys = list(series.tags().iter().map(|(key, _)| &**key).collect());
            let values = list(series.tags().iter().map(|(_, value)| &**value).collect());
            let tags = match series.tags().is_empty() {
                true => "empty(mapKeys(tags))".to_owned(),
                false => format!("mapKeys(tags) = [{keys}] AND mapValues(tags) = [{values}]"),
            };
            let sql = format!(
                "SELECT toString(intDiv(toUnixTimestamp64Nano(time), 60000000000) * 60000000000) AS minute, toString({TOTAL}) \
                 FROM {table} WHERE name = {} AND {tags} AND {range} GROUP BY minute",
                literal(series.name())
            );
            let mut sums = BTreeMap::new();
            for row in &client.rows(&sql).await? {
                let minute = text(row, 0)?.parse().map_err(|_| strange())?;
                sums.insert(minute, total(row, 1)?);
            }
            Ok(Answer::ByMinute(sums))
        }
        Question::SeriesCount { .. } => {
            let sql = format!("SELECT count() FROM (SELECT name, tags FROM {table} WHERE {range} GROUP BY name, tags)");
            Ok(Answer::Count(first(&client.rows(&sql).await?)?))
        }
        _ => Ok(questions::UNKNOWN),
    }
}

/// The server's version.
pub(super) async fn version(client: &Client) -> Result<String, SinkError> {
    let rows = client.rows("SELECT version()").await?;
    text(rows.first().ok_or_else(strange)?, 0)
}

/// How many bytes the table's active parts take.
pub(super) async fn storage(client: &Client) -> Result<u64, SinkError> {
    let table = &client.config().table;
    let sql = format!(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = {} AND table = {}",
        literal(&table.database),
        literal(&table.name)
    );
    first(&client.rows(&sql).await?)
}

fn first(rows: &[Vec<Value>]) -> Result<u64, SinkError> {
    number(rows.first().ok_or_else(strange)?, 0)
}

fn total(row: &[Value], column: usize) -> Result<u128, SinkError> {
    questions::sum(&text(row, column)?)
}
