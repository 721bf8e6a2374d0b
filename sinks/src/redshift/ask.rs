//! The standard questions, in SQL. Redshift sums `BIGINT` as `NUMERIC(38,0)`, which is exact.
//!
//! A tag that has no column of its own lies in the column `tags` (`SUPER`). Rows are then grouped by the whole of it, and the
//! groups are added up here: how Redshift finds a key in a `SUPER` depends on settings of the session.

use std::collections::BTreeMap;

use tallybus_sdk::{Answer, BackendVersion, Question, SinkError};

use super::client::{Cell, Client};
use super::read::{condition, series_of, strange};
use super::sql::{identifier, literal, parse_timestamp, unfit};
use super::tables::Tables;
use crate::shared::json_tags::tags_to_json;
use crate::shared::questions;

/// The columns that make a series: name, tag columns and the other tags; with what a query groups them by.
struct Columns {
    /// `name, "route", JSON_SERIALIZE(tags)`.
    selected: String,
    /// The same, and the lengths of texts: Redshift treats texts that differ only in trailing blanks as equal.
    grouped: String,
}

impl Columns {
    fn of(tables: &Tables) -> Self {
        let columns: Vec<String> = tables.columns.iter().map(|key| identifier(&Tables::column(key))).collect();
        let names: Vec<&str> = ["name"].into_iter().chain(columns.iter().map(String::as_str)).collect();
        let selected = format!("{}, JSON_SERIALIZE(tags)", names.join(", "));
        let lengths: Vec<String> = names.iter().map(|name| format!("OCTET_LENGTH({name})")).collect();
        Self { grouped: format!("{selected}, {}", lengths.join(", ")), selected }
    }
}

/// Answers a question that was prepared.
pub(super) async fn ask(client: &Client, tables: &Tables, question: &Question) -> Result<Answer, SinkError> {
    let (counters, range) = (tables.counters(), condition(question.range()));
    match question {
        Question::TotalByTag { name, tag, .. } => {
            let Some(name) = equals("name", name) else { return Ok(question.empty_answer()) };
            by_tag(client, tables, tag, &format!("{counters} {range} AND {name}")).await
        }
        Question::TopSeries { limit, .. } => {
            let columns = Columns::of(tables);
            let sql = format!(
                "SELECT {}, SUM(value) FROM {counters} {range} GROUP BY {} ORDER BY SUM(value) DESC LIMIT {}",
                columns.selected,
                columns.grouped,
                i64::try_from(*limit).unwrap_or(i64::MAX)
            );
            let mut series = Vec::new();
            let mut each = |row: &[Cell]| {
                // A row that no sink wrote takes a place.
                if let Some(found) = series_of(tables, row) {
                    series.push((found, total(tables, row)?));
                }
                Ok(())
            };
            client.query_each(&sql, &mut each).await?;
            Ok(Answer::Series(series))
        }
        Question::SeriesByMinute { series, .. } => {
            let Some(is_series) = is_series(tables, series) else { return Ok(question.empty_answer()) };
            let sql = format!(
                "SELECT DATE_TRUNC('minute', window_start), SUM(value) FROM {counters} {range} AND {is_series} \
                 GROUP BY DATE_TRUNC('minute', window_start)"
            );
            let mut sums = BTreeMap::new();
            let mut each = |row: &[Cell]| {
                let minute = row.first().and_then(|cell| parse_timestamp(cell.text()));
                sums.insert(minute.ok_or_else(|| strange(tables))?, total(tables, row)?);
                Ok(())
            };
            client.query_each(&sql, &mut each).await?;
            Ok(Answer::ByMinute(sums))
        }
        Question::SeriesCount { .. } => {
            let grouped = Columns::of(tables).grouped;
            let sql =
                format!("SELECT COUNT(*) FROM (SELECT 1 AS one FROM {counters} {range} GROUP BY {grouped}) AS series");
            let rows = client.query(&sql).await?.rows;
            let count = rows.first().and_then(|row| row.first()).and_then(Cell::number);
            count.map(Answer::Count).ok_or_else(|| strange(tables))
        }
        _ => Ok(questions::UNKNOWN),
    }
}

/// `from`: the table and the condition.
async fn by_tag(client: &Client, tables: &Tables, tag: &str, from: &str) -> Result<Answer, SinkError> {
    let column = tables.columns.iter().find(|key| *key == tag).map(|key| identifier(&Tables::column(key)));
    let sql = match &column {
        Some(column) => {
            format!("SELECT {column}, SUM(value) FROM {from} GROUP BY {column}, OCTET_LENGTH({column})")
        }
        None => format!("SELECT JSON_SERIALIZE(tags), SUM(value) FROM {from} GROUP BY JSON_SERIALIZE(tags)"),
    };
    let mut sums: BTreeMap<Option<String>, u128> = BTreeMap::new();
    let mut each = |row: &[Cell]| {
        let value = match (&column, row.first()) {
            (_, Some(Cell::Null)) => None,
            (Some(_), Some(Cell::Text(value))) => Some(value.clone()),
            (None, Some(Cell::Text(tags))) => value_in(tags, tag),
            (_, None) => return Err(strange(tables)),
        };
        let sum = sums.entry(value).or_default();
        *sum = sum.saturating_add(total(tables, row)?);
        Ok(())
    };
    client.query_each(&sql, &mut each).await?;
    Ok(Answer::ByTag(sums))
}

/// The value of a key in tags as JSON; `None` for tags that no sink wrote, too.
fn value_in(tags: &str, key: &str) -> Option<String> {
    let tags: serde_json::Map<String, serde_json::Value> = serde_json::from_str(tags).ok()?;
    Some(tags.get(key)?.as_str()?.to_owned())
}

/// The condition that a column holds exactly this text; `None` for a text that no column holds.
fn equals(column: &str, text: &str) -> Option<String> {
    if unfit(text).is_some() {
        return None;
    }
    Some(format!("{column} = {} AND OCTET_LENGTH({column}) = {}", literal(text), text.len()))
}

/// The condition that a row is one of this series.
fn is_series(tables: &Tables, series: &tallybus_sdk::Series) -> Option<String> {
    let mut conditions = vec![equals("name", series.name())?];
    for key in &tables.columns {
        let column = identifier(&Tables::column(key));
        conditions.push(match series.tag(key) {
            Some(value) => equals(&column, value)?,
            None => format!("{column} IS NULL"),
        });
    }
    let rest = series.tags().iter().filter(|(key, _)| !tables.columns.iter().any(|column| **column == **key));
    let rest: Vec<(&str, &str)> = rest.map(|(key, value)| (&**key, &**value)).collect();
    if rest.iter().any(|(key, value)| unfit(key).is_some() || unfit(value).is_some()) {
        return None;
    }
    conditions.push(match rest.is_empty() {
        true => "(tags IS NULL OR JSON_SERIALIZE(tags) = '{}')".to_owned(),
        // Redshift itself writes both sides: its own order of keys, escapes and blanks.
        false => {
            let json = tags_to_json(rest.into_iter());
            format!("JSON_SERIALIZE(tags) = JSON_SERIALIZE(JSON_PARSE({}))", literal(&json))
        }
    });
    Some(conditions.join(" AND "))
}

/// The sum in a row's last column.
fn total(tables: &Tables, row: &[Cell]) -> Result<u128, SinkError> {
    match row.last() {
        Some(Cell::Text(text)) => questions::sum(text),
        _ => Err(strange(tables)),
    }
}

/// How many blocks of 1 MB the tables have; `None` when this user may not see it.
pub(super) async fn blocks(client: &Client, tables: &Tables) -> Result<Option<u64>, SinkError> {
    let names = ["", "_ledger", "_refused"].map(|end| literal(&format!("{}{end}", tables.table).to_lowercase()));
    let sql = format!(
        "SELECT SUM(size), COUNT(*) FROM svv_table_info WHERE \"schema\" = {} AND \"table\" IN ({})",
        literal(&tables.schema.to_lowercase()),
        names.join(", ")
    );
    let rows = match client.query(&sql).await {
        Ok(found) => found.rows,
        Err(failure) if failure.fault.reason().contains("permission denied") => return Ok(None),
        Err(failure) => return Err(failure.into()),
    };
    // It lists no table that is empty, and none that the user may not see.
    let shown = rows.first().and_then(|row| row.last()).and_then(Cell::number::<u64>).is_some_and(|shown| shown > 0);
    Ok(if shown { rows.first().and_then(|row| row.first()).and_then(Cell::number) } else { None })
}

/// The version of the cluster, or of what answers in its place.
pub(super) async fn version(client: &Client) -> Result<BackendVersion, SinkError> {
    let rows = client.query("SELECT VERSION()").await?.rows;
    Ok(match rows.first().and_then(|row| row.first()) {
        Some(Cell::Text(text)) if !text.is_empty() => BackendVersion::Is(short_version(text).to_owned()),
        _ => BackendVersion::NotOffered("Redshift answered no version"),
    })
}

/// Redshift answers `PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by …, Redshift 1.0.12103`; the last part is its own.
fn short_version(text: &str) -> &str {
    match text.find("Redshift ") {
        Some(at) => &text[at..],
        None => text.split(" on ").next().unwrap_or(text),
    }
}

#[cfg(test)]
mod tests {
    use super::short_version;

    #[test]
    fn the_version_is_redshifts_own_and_that_of_another_server_is_named_as_such() {
        let redshift = "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2, Redshift 1.0.12103";
        assert_eq!(short_version(redshift), "Redshift 1.0.12103");
        assert_eq!(short_version("PostgreSQL 15.14 on x86_64-pc-linux-gnu, compiled by gcc"), "PostgreSQL 15.14");
        assert_eq!(short_version("other"), "other");
    }
}
