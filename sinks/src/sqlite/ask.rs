//! The standard questions, in SQL. Sums are exact: SQLite's own `sum` fails over 2^63, so billions and the rest are summed apart.

use std::collections::BTreeMap;

use rusqlite::types::ToSql;
use rusqlite::{Connection, Row, params};
use tallybus_sdk::{Answer, Question, SinkError};

use crate::shared::json_tags::{series_of, tags_to_json};
use crate::shared::questions;

const SUMS: &str = "sum(value / 1000000000), sum(value % 1000000000)";
const RANGE: &str = "window_start >= ?1 AND (?2 IS NULL OR window_start < ?2)";

/// Answers a question that was prepared. Whether a sum is one is for the caller to judge: see [`Found::answer`].
pub(super) fn ask(connection: &Connection, question: &Question) -> rusqlite::Result<Found> {
    let range = question.range();
    let (from, to) = (range.from, range.to);
    match question {
        // Rows are grouped by their tags first, in the order of the table's key: one value for each series is then looked up.
        Question::TotalByTag { name, tag, .. } => {
            let sql = format!(
                "SELECT CASE WHEN json_valid(tags) THEN (SELECT CAST(value AS TEXT) FROM json_each(tags) WHERE key = ?4) END, \
                 sum(billions), sum(rest)
                 FROM (SELECT tags, sum(value / 1000000000) AS billions, sum(value % 1000000000) AS rest
                       FROM counters WHERE name = ?3 AND {RANGE} GROUP BY tags) GROUP BY 1"
            );
            let row = |row: &Row<'_>| Ok((row.get(0)?, total(row, 1)?));
            Ok(Found::ByTag(rows(connection, &sql, params![from, to, name, tag], row)?))
        }
        Question::TopSeries { limit, .. } => {
            let sql = format!(
                "SELECT name, tags, billions, rest FROM
                 (SELECT name, tags, sum(value / 1000000000) AS billions, sum(value % 1000000000) AS rest
                  FROM counters WHERE {RANGE} GROUP BY name, tags)
                 ORDER BY billions + rest / 1000000000 DESC, rest % 1000000000 DESC LIMIT ?3"
            );
            let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
            let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, total(row, 2)?));
            Ok(Found::Series(rows(connection, &sql, params![from, to, limit], row)?))
        }
        Question::SeriesByMinute { series, .. } => {
            let sql = format!(
                "SELECT window_start - window_start % 60000000000, {SUMS} FROM counters
                 WHERE name = ?3 AND tags = ?4 AND {RANGE} GROUP BY 1"
            );
            let tags = tags_to_json(series.tags().iter().map(|(key, value)| (&**key, &**value)));
            let row = |row: &Row<'_>| Ok((row.get(0)?, total(row, 1)?));
            Ok(Found::ByMinute(rows(connection, &sql, params![from, to, series.name(), tags], row)?))
        }
        Question::SeriesCount { .. } => {
            let sql = format!("SELECT count(*) FROM (SELECT DISTINCT name, tags FROM counters WHERE {RANGE})");
            connection.query_row(&sql, params![from, to], |row| row.get(0)).map(Found::Count)
        }
        _ => Ok(Found::Unknown),
    }
}

/// What SQLite found.
#[derive(Default)]
pub(super) enum Found {
    ByTag(Vec<(Option<String>, i128)>),
    /// Name and tags as they are in the file.
    Series(Vec<(String, String, i128)>),
    ByMinute(Vec<(i64, i128)>),
    Count(u64),
    /// There is no file yet.
    #[default]
    Nothing,
    Unknown,
}

impl Found {
    /// The answer to the question.
    ///
    /// # Errors
    /// A sum is negative.
    pub(super) fn answer(self, question: &Question) -> Result<Answer, SinkError> {
        let sum = |sum: i128| u128::try_from(sum).map_err(|_| questions::negative());
        Ok(match self {
            Self::ByTag(rows) => {
                let rows = rows.into_iter().map(|(value, total)| Ok((value, sum(total)?)));
                Answer::ByTag(rows.collect::<Result<BTreeMap<_, _>, SinkError>>()?)
            }
            Self::Series(rows) => {
                let mut series = Vec::with_capacity(rows.len());
                for (name, tags, total) in rows {
                    // A row that no sink wrote takes a place.
                    if let Some(found) = series_of(&name, &tags) {
                        series.push((found, sum(total)?));
                    }
                }
                Answer::Series(series)
            }
            Self::ByMinute(rows) => {
                let rows = rows.into_iter().map(|(minute, total)| Ok((minute, sum(total)?)));
                Answer::ByMinute(rows.collect::<Result<BTreeMap<_, _>, SinkError>>()?)
            }
            Self::Count(count) => Answer::Count(count),
            Self::Nothing => question.empty_answer(),
            Self::Unknown => questions::UNKNOWN,
        })
    }
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: &[&dyn ToSql],
    row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map(params, row)?.collect()
}

/// The sum of billions and rest, which begin at this column.
fn total(row: &Row<'_>, column: usize) -> rusqlite::Result<i128> {
    let (billions, rest): (i64, i64) = (row.get(column)?, row.get(column + 1)?);
    Ok(i128::from(billions) * 1_000_000_000 + i128::from(rest))
}
