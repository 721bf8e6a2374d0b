//! Reads: checks of the tables, totals and windows.

use tallybus_sdk::{Fault, SeriesTotal, TotalsQuery, VisitTotal, VisitWindow, WindowTotal, WindowsQuery};
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use super::answer::Failure;
use super::apply::next_offset;
use super::client::Session;
use super::config::Config;
use super::tables::{Tables, time_of};
use crate::shared::json_tags::{series_of, tags_to_json};

/// Checks the tables for what is missing or wrong; with `create`, missing tables are accepted.
pub(super) async fn check(session: &Session<'_>, config: &Config) -> Result<(), Failure> {
    let reads_only = session.query("SELECT current_setting('transaction_read_only')", &[]).await?;
    if text(&reads_only, 0)?.as_deref() == Some("on") {
        return Err(Fault::retry("the server is read-only for now: a standby, or one about to become one").into());
    }
    let Tables { schema, .. } = &config.tables;
    for (table, columns, rights) in config.tables.wanted() {
        let key = [(schema as _, Type::TEXT), (&table as _, Type::TEXT)];
        let found = session
            .query(
                "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a \
                 JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped",
                &key,
            )
            .await?;
        if found.is_empty() {
            if config.create {
                continue;
            }
            return Err(Fault::operator(format!(
                "table {schema}.{table} does not exist: set `create = true`, or run what `tallybus sink ddl` prints"
            ))
            .into());
        }
        let found: Vec<(String, String)> = found
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, Error>>()
            .map_err(plain)?;
        for (column, kind) in columns {
            match found.iter().find(|(name, _)| name == column) {
                Some((_, is)) if is == kind => {}
                Some((_, is)) => {
                    return Err(Fault::operator(format!(
                        "column {column} of {schema}.{table} is {is}, and must be {kind}"
                    ))
                    .into());
                }
                None => {
                    return Err(Fault::operator(format!(
                        "table {schema}.{table} has no column {column}: name another table, or add it as {kind}"
                    ))
                    .into());
                }
            }
        }
        for right in rights {
            let allowed = "SELECT has_table_privilege(format('%I.%I', $1, $2), $3)";
            let key = [key[0].clone(), key[1].clone(), (right as _, Type::TEXT)];
            let rows = session.query(allowed, &key).await?;
            let allowed = rows.first().map(|row| row.try_get(0)).transpose().map_err(plain)?;
            if allowed != Some(true) {
                return Err(Fault::operator(format!(
                    "{} has no right to {right} on {schema}.{table}: grant it",
                    config.user
                ))
                .into());
            }
        }
    }
    Ok(())
}

/// Up to which offset the database has everything of a partition.
pub(super) async fn ledger_end(
    session: &Session<'_>,
    tables: &Tables,
    topic: &str,
    partition: u32,
) -> Result<u64, Failure> {
    let select = format!("SELECT next_offset FROM {} WHERE topic = $1 AND partition = $2", tables.ledger());
    let number = i64::from(partition);
    let key = [(&topic as _, Type::TEXT), (&number as _, Type::INT8)];
    let rows = session.query(&select, &key).await?;
    let Some(row) = rows.first() else { return Ok(0) };
    next_offset(row, tables)
}

/// The condition on a row's time; `$1` and `$2` are the range's ends. The column `time` is asked too, so that PostgreSQL
/// can leave out whole partitions of the table.
fn in_range() -> String {
    format!(
        "($1 IS NULL OR time_ns >= $1 AND time >= {}) AND ($2 IS NULL OR time_ns < $2 AND time <= {})",
        time_of("$1"),
        time_of("$2")
    )
}

pub(super) async fn totals(
    session: &Session<'_>,
    tables: &Tables,
    query: &TotalsQuery,
    visit: &mut VisitTotal<'_>,
) -> Result<(), Failure> {
    let range = query.range;
    let select = format!(
        "SELECT name, tags::text, sum(value)::text FROM {} WHERE {} GROUP BY name, tags",
        tables.counters(),
        in_range()
    );
    let rows = session.query(&select, &[(&range.from, Type::INT8), (&range.to, Type::INT8)]).await?;
    for row in &rows {
        let name: String = row.try_get(0).map_err(plain)?;
        let tags: String = row.try_get(1).map_err(plain)?;
        // Rows of other programs with other values as tags are skipped.
        let Some(series) = series_of(&name, &tags) else { continue };
        visit(SeriesTotal { series, total: sum(row, 2)? });
    }
    Ok(())
}

pub(super) async fn windows(
    session: &Session<'_>,
    tables: &Tables,
    query: &WindowsQuery,
    visit: &mut VisitWindow<'_>,
) -> Result<(), Failure> {
    let (series, range) = (&query.series, query.range);
    let select = format!(
        "SELECT time_ns - time_ns % $5, sum(value)::text FROM {} \
         WHERE {} AND name = $3 AND tags = $4::jsonb GROUP BY 1 ORDER BY 1",
        tables.counters(),
        in_range()
    );
    let name = series.name();
    let tags = tags_to_json(series.tags().iter().map(|(key, value)| (&**key, &**value)));
    let params = [
        (&range.from as _, Type::INT8),
        (&range.to as _, Type::INT8),
        (&name as _, Type::TEXT),
        (&tags as _, Type::TEXT),
        (&query.resolution as _, Type::INT8),
    ];
    let rows = session.query(&select, &params).await?;
    for row in &rows {
        visit(WindowTotal { start: row.try_get(0).map_err(plain)?, total: sum(row, 1)? });
    }
    Ok(())
}

fn text(rows: &[Row], column: usize) -> Result<Option<String>, Failure> {
    rows.first().map(|row| row.try_get(column)).transpose().map_err(plain)
}

/// PostgreSQL sums without a bound; a sum over 64 bits becomes the maximum.
fn sum(row: &Row, column: usize) -> Result<u64, Failure> {
    let text: String = row.try_get(column).map_err(plain)?;
    let sum: i128 = text.parse().map_err(|_| Fault::operator(format!("a sum that is not a whole number: {text}")))?;
    Ok(u64::try_from(sum.max(0)).unwrap_or(u64::MAX))
}

fn plain(error: Error) -> Failure {
    Failure::of(&error, None)
}
