//! Reads: checks of the tables, and what they hold.

use tallybus_sdk::{Fault, Foreign, ForeignKind, Held, TimeRange, VisitHeld, WindowTotal, WindowsQuery};
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use super::answer::Failure;
use super::apply::next_offset;
use super::client::Session;
use super::config::Config;
use super::tables::{Tables, time_of};
use crate::shared::json_tags::LastSeries;
use crate::shared::questions;

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

/// The condition on a row's time. The column `time` is asked too, so that PostgreSQL can leave out whole partitions of the
/// table.
pub(super) fn in_range(range: TimeRange) -> String {
    let bound = |sign: &str, loose: &str, nanos: i64| {
        let nanos = format!("({nanos})::bigint");
        format!(" AND time_ns {sign} {nanos} AND time {loose} {}", time_of(&nanos))
    };
    let from = range.from.map(|from| bound(">=", ">=", from)).unwrap_or_default();
    let to = range.to.map(|to| bound("<", "<=", to)).unwrap_or_default();
    format!("TRUE{from}{to}")
}

/// How many rows are fetched at once.
const FETCHED: u32 = 10_000;

/// Visits row by row, through a cursor: the client holds a few rows at a time.
pub(super) async fn windows(
    session: &Session<'_>,
    tables: &Tables,
    query: &WindowsQuery,
    visit: &mut VisitHeld<'_>,
) -> Result<(), Failure> {
    let of_name = query.name.as_ref().filter(|name| questions::is_name(name));
    let mut declare = format!(
        "DECLARE held NO SCROLL CURSOR FOR SELECT name, tags::text, time_ns, value FROM {} WHERE {}",
        tables.counters(),
        in_range(query.range)
    );
    session.run("BEGIN READ ONLY").await?;
    match &of_name {
        None => session.run(&declare).await?,
        Some(name) => {
            declare.push_str(" AND name = $1");
            session.execute(&declare, &[(name as _, Type::TEXT)]).await?;
        }
    }
    let fetch = format!("FETCH {FETCHED} FROM held");
    let mut last = LastSeries::default();
    loop {
        let rows = session.query(&fetch, &[]).await?;
        for row in &rows {
            visit(held(row, tables, &mut last).map_err(plain)?);
        }
        if rows.is_empty() {
            return session.run("COMMIT").await;
        }
    }
}

fn held(row: &Row, tables: &Tables, last: &mut LastSeries) -> Result<Held, Error> {
    let (name, tags): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
    let (start, value): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
    let foreign = |kind| {
        let what = format!("{}: {name} {tags}, time_ns {start}, value {value}", tables.counters());
        Held::Foreign(Foreign::new(kind, what))
    };
    if start < 0 {
        return Ok(foreign(ForeignKind::BeforeEpoch));
    }
    Ok(match (last.of(name, tags), u128::try_from(value)) {
        (None, _) => foreign(ForeignKind::Tags),
        (Some(_), Err(_)) => foreign(ForeignKind::Negative),
        (Some(series), Ok(total)) => Held::Window(WindowTotal { series, start, total }),
    })
}

fn text(rows: &[Row], column: usize) -> Result<Option<String>, Failure> {
    rows.first().map(|row| row.try_get(column)).transpose().map_err(plain)
}

pub(super) fn plain(error: Error) -> Failure {
    Failure::of(&error, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_condition_on_both_columns() {
        assert_eq!(in_range(TimeRange::default()), "TRUE");
        let from = in_range(TimeRange { from: Some(-5), to: None });
        assert!(from.starts_with("TRUE AND time_ns >= (-5)::bigint AND time >= (to_timestamp(0) + "), "{from}");
        let to = in_range(TimeRange { from: None, to: Some(7) });
        assert!(to.starts_with("TRUE AND time_ns < (7)::bigint AND time <= (to_timestamp(0) + "), "{to}");
    }
}
