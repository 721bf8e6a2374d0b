//! Reads: checks of the table, the stored rows of a batch, and everything that the table holds.

use std::sync::Arc;

use serde_json::Value;
use tallybus_schemas::Series;
use tallybus_sdk::{
    Batch, Foreign, ForeignKind, Held as HeldPart, SinkError, TimeRange, VisitHeld, WindowTotal, WindowsQuery,
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

/// Visits the sum of each series and time.
pub(super) async fn windows(client: &Client, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
    let table = client.config().table.quoted();
    let of_name = query.name.as_ref().map(|name| format!(" AND name = {}", literal(name))).unwrap_or_default();
    let select = format!(
        "SELECT name, tags, toString(toUnixTimestamp64Nano(time)), toString(sum(toUInt128(value))), count() \
         FROM {table} WHERE {}{of_name} GROUP BY name, tags, time",
        in_range(query.range)
    );
    let mut last: Option<Arc<Series>> = None;
    client
        .each_line(&select, &mut |line| {
            if std::str::from_utf8(line).is_err() {
                let what = format!("{table}: {}", String::from_utf8_lossy(line));
                visit(HeldPart::Foreign(Foreign::new(ForeignKind::Tags, what)));
                return Ok(());
            }
            visit(part_of(&table, &client.row(line)?, &mut last)?);
            Ok(())
        })
        .await
}

fn part_of(table: &str, row: &[Value], last: &mut Option<Arc<Series>>) -> Result<HeldPart, SinkError> {
    let Some(Value::Object(tags)) = row.get(1) else { return Err(strange()) };
    let (name, start) = (text(row, 0)?, text(row, 2)?.parse::<i64>().map_err(|_| strange())?);
    let total: u128 = text(row, 3)?.parse().map_err(|_| strange())?;
    let foreign = |kind| -> Result<HeldPart, SinkError> {
        let what = format!("{table}: {name} {}, time {start} ns, value {total}", Value::Object(tags.clone()));
        Ok(HeldPart::Foreign(Foreign::new(kind, what).of(number(row, 4)?)))
    };
    if start < 0 {
        return foreign(ForeignKind::BeforeEpoch);
    }
    let Some(series) = series_of_object(&name, tags) else { return foreign(ForeignKind::Tags) };
    let series = match last {
        Some(last) if **last == series => Arc::clone(last),
        _ => Arc::clone(last.insert(Arc::new(series))),
    };
    Ok(HeldPart::Window(WindowTotal { series, start, total }))
}

pub(super) fn in_range(range: TimeRange) -> String {
    let from = range.from.map(|from| format!("time >= {}", time(from)));
    let to = range.to.map(|to| format!("time < {}", time(to)));
    // Rows without a name are claims.
    let all: Vec<String> = ["name != ''".to_owned()].into_iter().chain(from).chain(to).collect();
    all.join(" AND ")
}

fn time(nanos: i64) -> String {
    format!("fromUnixTimestamp64Nano(toInt64({nanos}), 'UTC')")
}

pub(super) fn text(row: &[Value], column: usize) -> Result<String, SinkError> {
    row.get(column).and_then(Value::as_str).map(str::to_owned).ok_or_else(strange)
}

/// A number received as text.
pub(super) fn number(row: &[Value], column: usize) -> Result<u64, SinkError> {
    text(row, column)?.parse().map_err(|_| strange())
}

pub(super) fn strange() -> SinkError {
    SinkError::Halt("ClickHouse's answer lacks the requested columns: check that `url` is ClickHouse's".to_owned())
}
