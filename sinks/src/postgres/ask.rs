//! The standard questions, in SQL. PostgreSQL sums `bigint` as `numeric`, which is exact.

use std::collections::BTreeMap;

use tallybus_sdk::{Answer, Fault, Question};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::answer::Failure;
use super::client::Session;
use super::read::{in_range, plain};
use super::tables::Tables;
use crate::shared::json_tags::{series_of, tags_to_json};
use crate::shared::questions;

/// Answers a question that was prepared.
pub(super) async fn ask(session: &Session<'_>, tables: &Tables, question: &Question) -> Result<Answer, Failure> {
    let (counters, range) = (tables.counters(), in_range(question.range()));
    match question {
        Question::TotalByTag { name, tag, .. } => {
            let sql =
                format!("SELECT tags ->> $2, sum(value)::text FROM {counters} WHERE name = $1 AND {range} GROUP BY 1");
            let rows = session.query(&sql, &[(name as _, Type::TEXT), (tag as _, Type::TEXT)]).await?;
            let mut sums = BTreeMap::new();
            for row in &rows {
                sums.insert(row.try_get(0).map_err(plain)?, total(row, 1)?);
            }
            Ok(Answer::ByTag(sums))
        }
        Question::TopSeries { limit, .. } => {
            let sql = format!(
                "SELECT name, tags::text, sum(value)::text FROM {counters} WHERE {range} GROUP BY name, tags \
                 ORDER BY sum(value) DESC LIMIT $1"
            );
            let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
            let mut series = Vec::new();
            for row in &session.query(&sql, &[(&limit as _, Type::INT8)]).await? {
                let (name, tags) = (row.try_get(0).map_err(plain)?, row.try_get(1).map_err(plain)?);
                // A row that no sink wrote takes a place.
                if let Some(found) = series_of(name, tags) {
                    series.push((found, total(row, 2)?));
                }
            }
            Ok(Answer::Series(series))
        }
        Question::SeriesByMinute { series, .. } => {
            let sql = format!(
                "SELECT time_ns / 60000000000 * 60000000000, sum(value)::text FROM {counters} \
                 WHERE name = $1 AND tags = $2::jsonb AND {range} GROUP BY 1"
            );
            let tags = tags_to_json(series.tags().iter().map(|(key, value)| (&**key, &**value)));
            let key = [(&series.name() as _, Type::TEXT), (&tags as _, Type::TEXT)];
            let mut sums = BTreeMap::new();
            for row in &session.query(&sql, &key).await? {
                sums.insert(row.try_get(0).map_err(plain)?, total(row, 1)?);
            }
            Ok(Answer::ByMinute(sums))
        }
        Question::SeriesCount { .. } => {
            let sql =
                format!("SELECT count(*)::text FROM (SELECT DISTINCT name, tags FROM {counters} WHERE {range}) s");
            Ok(Answer::Count(number(session.query(&sql, &[]).await?.first())?))
        }
        _ => Ok(questions::UNKNOWN),
    }
}

/// How many bytes the tables take, with indexes and TOAST, and with the partitions and chunks that inherit from them.
pub(super) async fn storage(session: &Session<'_>, tables: &Tables) -> Result<u64, Failure> {
    let sql = "WITH RECURSIVE parts AS ( \
               SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $1 AND c.relname IN ($2, $2 || '_ledger', $2 || '_refused') \
               UNION SELECT i.inhrelid FROM pg_inherits i JOIN parts ON i.inhparent = parts.oid) \
               SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::text FROM parts";
    let key = [(&tables.schema as _, Type::TEXT), (&tables.table as _, Type::TEXT)];
    number(session.query(sql, &key).await?.first())
}

/// The server's version.
pub(super) async fn version(session: &Session<'_>) -> Result<String, Failure> {
    let rows = session.query("SELECT current_setting('server_version')", &[]).await?;
    let version: Option<String> = rows.first().map(|row| row.try_get(0)).transpose().map_err(plain)?;
    version.ok_or_else(|| Fault::retry("PostgreSQL did not answer its version").into())
}

fn total(row: &Row, column: usize) -> Result<u128, Failure> {
    let text: &str = row.try_get(column).map_err(plain)?;
    questions::sum(text).map_err(|error| Fault::from(error).into())
}

fn number(row: Option<&Row>) -> Result<u64, Failure> {
    let text: Option<&str> = row.map(|row| row.try_get(0)).transpose().map_err(plain)?;
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Fault::retry("PostgreSQL answered no number where one was expected").into())
}
