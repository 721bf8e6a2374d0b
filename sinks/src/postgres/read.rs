//! Looking: what is missing, totals and windows.

use tallybus_schemas::Series;
use tallybus_sdk::{SeriesTotal, TimeRange};
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use super::answer::Failure;
use super::client::Session;
use super::config::Config;
use super::tables::{Tables, time_of};
use crate::json_tags::{series_of, tags_to_json};

/// Says what is missing or wrong of the tables; with `create`, missing ones are none of it.
pub(super) async fn check(session: &Session<'_>, config: &Config) -> Result<(), Failure> {
    let reads_only = session.query("SELECT current_setting('transaction_read_only')", &[]).await?;
    if text(&reads_only, 0)?.as_deref() == Some("on") {
        return Err(Failure::passing("this server only reads for now: a standby, or one about to be"));
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
            return Err(Failure::lasting(format!(
                "table {schema}.{table} does not exist: set `create = true`, or run what `tallybus sink ddl` prints"
            )));
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
                    return Err(Failure::lasting(format!(
                        "column {column} of {schema}.{table} is {is}, and must be {kind}"
                    )));
                }
                None => {
                    return Err(Failure::lasting(format!(
                        "table {schema}.{table} has no column {column}: name another table, or add it as {kind}"
                    )));
                }
            }
        }
        for right in rights {
            let allowed = "SELECT has_table_privilege(format('%I.%I', $1, $2), $3)";
            let key = [key[0].clone(), key[1].clone(), (right as _, Type::TEXT)];
            let rows = session.query(allowed, &key).await?;
            let allowed = rows.first().map(|row| row.try_get(0)).transpose().map_err(plain)?;
            if allowed != Some(true) {
                return Err(Failure::lasting(format!(
                    "{} has no right to {right} on {schema}.{table}: grant it",
                    config.user
                )));
            }
        }
    }
    Ok(())
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
    range: TimeRange,
) -> Result<Vec<SeriesTotal>, Failure> {
    let select = format!(
        "SELECT name, tags::text, sum(value)::text FROM {} WHERE {} GROUP BY name, tags",
        tables.counters(),
        in_range()
    );
    let rows = session.query(&select, &[(&range.from, Type::INT8), (&range.to, Type::INT8)]).await?;
    let mut totals = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: String = row.try_get(0).map_err(plain)?;
        let tags: String = row.try_get(1).map_err(plain)?;
        // Rows that others wrote with something else as tags are not ours to judge.
        let Some(series) = series_of(&name, &tags) else { continue };
        totals.push(SeriesTotal { series, total: sum(row, 2)? });
    }
    Ok(totals)
}

pub(super) async fn windows(
    session: &Session<'_>,
    tables: &Tables,
    series: &Series,
    range: TimeRange,
    grain: i64,
) -> Result<Vec<(i64, u64)>, Failure> {
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
        (&grain as _, Type::INT8),
    ];
    let rows = session.query(&select, &params).await?;
    rows.iter().map(|row| Ok((row.try_get(0).map_err(plain)?, sum(row, 1)?))).collect()
}

fn text(rows: &[Row], column: usize) -> Result<Option<String>, Failure> {
    rows.first().map(|row| row.try_get(column)).transpose().map_err(plain)
}

/// PostgreSQL sums without a bound; what is over 64 bits is shown as the most.
fn sum(row: &Row, column: usize) -> Result<u64, Failure> {
    let text: String = row.try_get(column).map_err(plain)?;
    let sum: i128 = text.parse().map_err(|_| Failure::lasting(format!("a sum that is no whole number: {text}")))?;
    Ok(u64::try_from(sum.max(0)).unwrap_or(u64::MAX))
}

fn plain(error: Error) -> Failure {
    Failure::of(&error, None)
}
