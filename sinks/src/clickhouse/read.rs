//! Reads: checks of the table, the stored rows of a batch, totals and windows.

use serde_json::Value;
use tallybus_sdk::{
    Batch, SeriesTotal, SinkError, TimeRange, TotalsQuery, VisitTotal, VisitWindow, WindowTotal, WindowsQuery,
};

use super::client::Client;
use super::table::{Engine, literal, setting};
use crate::shared::json_tags::series_of_object;

/// Checks the table; returns `false` when it does not exist.
pub(super) async fn check(client: &Client) -> Result<bool, SinkError> {
    let table = &client.config().table;
    let of_table =
        |column: &str| format!("database = {} AND {column} = {}", literal(&table.database), literal(&table.name));
    let found =
        client.rows(&format!("SELECT engine, engine_full FROM system.tables WHERE {}", of_table("name"))).await?;
    let Some(row) = found.first() else { return Ok(false) };
    let (engine, full) = (text(row, 0)?, text(row, 1)?);
    let Engine::Knows(window) = Engine::of(&engine) else {
        return Err(SinkError::Halt(format!(
            "the engine of {} is {engine}, which would count a repeated batch again: name a table with MergeTree or \
             ReplicatedMergeTree, as `tallybus sink ddl` prints it",
            table.quoted()
        )));
    };
    let blocks = match setting(&full, window) {
        Some(blocks) => blocks,
        None => {
            let settings = format!("SELECT value FROM system.merge_tree_settings WHERE name = {}", literal(window));
            let found = client.rows(&settings).await?;
            found.first().map(|row| text(row, 0)).transpose()?.and_then(|value| value.parse().ok()).unwrap_or(0)
        }
    };
    if blocks == 0 {
        return Err(SinkError::Halt(format!(
            "{0} does not deduplicate inserts: run ALTER TABLE {0} MODIFY SETTING {window} = 10000",
            table.quoted()
        )));
    }
    let columns = client.rows(&format!("SELECT name, type FROM system.columns WHERE {}", of_table("table"))).await?;
    let columns: Result<Vec<_>, SinkError> = columns.iter().map(|row| Ok((text(row, 0)?, text(row, 1)?))).collect();
    match table.complaint(&columns?) {
        Some(complaint) => Err(SinkError::Halt(complaint)),
        None => Ok(true),
    }
}

/// The stored rows of a batch, or of a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// The number of its own rows.
    pub(super) rows: u64,
    /// Whether rows of its parts are stored.
    pub(super) parts: bool,
}

/// Queries a batch by its coordinates, within the times of its points.
pub(super) async fn held(client: &Client, batch: &Batch) -> Result<Held, SinkError> {
    let times = || batch.points.iter().map(|point| point.time);
    let (Some(from), Some(to)) = (times().min(), times().max()) else { return Ok(Held { rows: 0, parts: false }) };
    let id = &batch.id;
    let found = client
        .rows(&format!(
            "SELECT part, count() FROM {} WHERE time >= {} AND time <= {} AND topic = {} AND partition = {} \
             AND first_offset = {} AND end_offset = {} AND startsWith(part, {}) GROUP BY part",
            client.config().table.quoted(),
            time(from),
            time(to),
            literal(&id.topic),
            id.partition,
            id.first,
            id.end,
            literal(&batch.part)
        ))
        .await?;
    let mut held = Held { rows: 0, parts: false };
    for row in &found {
        match text(row, 0)? == batch.part {
            true => held.rows = number(row, 1)?,
            false => held.parts = true,
        }
    }
    Ok(held)
}

pub(super) async fn totals(client: &Client, query: &TotalsQuery, visit: &mut VisitTotal<'_>) -> Result<(), SinkError> {
    let select = format!(
        "SELECT name, tags, toString(sum(toUInt128(value))) FROM {} WHERE {} GROUP BY name, tags",
        client.config().table.quoted(),
        in_range(query.range)
    );
    for row in client.rows(&select).await? {
        let Some(Value::Object(tags)) = row.get(1) else { return Err(strange()) };
        let series = series_of_object(&text(&row, 0)?, tags).ok_or_else(strange)?;
        visit(SeriesTotal { series, total: number(&row, 2)? });
    }
    Ok(())
}

pub(super) async fn windows(
    client: &Client,
    query: &WindowsQuery,
    visit: &mut VisitWindow<'_>,
) -> Result<(), SinkError> {
    let (series, resolution) = (&query.series, query.resolution);
    let list = |texts: Vec<&str>| texts.into_iter().map(literal).collect::<Vec<_>>().join(",");
    let select = format!(
        "SELECT toString(intDiv(toUnixTimestamp64Nano(time), {resolution}) * {resolution}) AS start, toString(sum(toUInt128(value))) \
         FROM {} WHERE {} AND name = {} AND mapKeys(tags) = CAST([{}] AS Array(String)) \
         AND mapValues(tags) = CAST([{}] AS Array(String)) GROUP BY start ORDER BY toInt64(start)",
        client.config().table.quoted(),
        in_range(query.range),
        literal(series.name()),
        list(series.tags().iter().map(|(key, _)| &**key).collect()),
        list(series.tags().iter().map(|(_, value)| &**value).collect()),
    );
    for row in client.rows(&select).await? {
        visit(WindowTotal { start: text(&row, 0)?.parse().map_err(|_| strange())?, total: number(&row, 1)? });
    }
    Ok(())
}

fn in_range(range: TimeRange) -> String {
    let from = range.from.map(|from| format!("time >= {}", time(from)));
    let to = range.to.map(|to| format!("time < {}", time(to)));
    // Rows without a name are claims.
    let all: Vec<String> = ["name != ''".to_owned()].into_iter().chain(from).chain(to).collect();
    all.join(" AND ")
}

fn time(nanos: i64) -> String {
    format!("fromUnixTimestamp64Nano(toInt64({nanos}), 'UTC')")
}

fn text(row: &[Value], column: usize) -> Result<String, SinkError> {
    row.get(column).and_then(Value::as_str).map(str::to_owned).ok_or_else(strange)
}

/// A number received as text; one over 64 bits becomes the maximum.
fn number(row: &[Value], column: usize) -> Result<u64, SinkError> {
    let text = text(row, column)?;
    let number: u128 = text.parse().map_err(|_| strange())?;
    Ok(u64::try_from(number).unwrap_or(u64::MAX))
}

fn strange() -> SinkError {
    SinkError::Halt("ClickHouse's answer lacks the requested columns: check that `url` is ClickHouse's".to_owned())
}
