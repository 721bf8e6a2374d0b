//! Reading sums back, for audits.

use serde_json::{Map, Value};
use tallybus_schemas::Series;
use tallybus_sdk::{
    SeriesTotal, SinkError, TimeRange, TotalsQuery, VisitTotal, VisitWindow, WindowTotal, WindowsQuery,
};

use super::client::{Cell, Client, RequestFailure};
use super::sql::{identifier, literal, parse_timestamp, push_literal, timestamp};
use super::tables::Tables;
use crate::shared::json_tags::series_of_tags;

/// One past the last written offset of a partition; for a partly written batch, one past its first offset.
pub(super) async fn ledger_end(
    client: &Client,
    tables: &Tables,
    topic: &str,
    partition: u32,
) -> Result<u64, SinkError> {
    let sql = format!(
        "SELECT next_offset, part FROM {} WHERE topic = {} AND partition_id = {partition}",
        tables.ledger(),
        literal(topic)
    );
    let mut end = 0;
    for row in &client.query(&sql).await?.rows {
        let number = |at: usize| row.get(at).and_then(Cell::number::<u64>);
        let (Some(offset), Some(part)) = (number(0), number(1)) else {
            return Err(SinkError::Halt(format!("{} contains rows that Tallybus did not write", tables.ledger())));
        };
        end = end.max(offset.saturating_add(u64::from(part > 0)));
    }
    Ok(end)
}

pub(super) async fn totals(
    client: &Client,
    tables: &Tables,
    query: &TotalsQuery,
    visit: &mut VisitTotal<'_>,
) -> Result<(), SinkError> {
    let columns: Vec<String> = tables.columns.iter().map(|key| identifier(&Tables::column(key))).collect();
    // Redshift treats texts that differ only in trailing blanks as equal; their lengths distinguish them.
    let lengths: Vec<String> = columns.iter().map(|column| format!("OCTET_LENGTH({column})")).collect();
    let list = |parts: &[String]| parts.iter().map(|part| format!(", {part}")).collect::<String>();
    let sql = format!(
        "SELECT name{columns}, JSON_SERIALIZE(tags) AS rest, OCTET_LENGTH(name) AS bytes{lengths}, SUM(value) FROM {} {} \
         GROUP BY name{columns}, JSON_SERIALIZE(tags), OCTET_LENGTH(name){lengths}",
        tables.counters(),
        condition(query.range),
        columns = list(&columns),
        lengths = list(&lengths),
    );
    let found = client.query(&sql).await?;
    for row in &found.rows {
        let total = row.last().and_then(sum).ok_or_else(|| foreign(tables))?;
        if let Some(series) = series_of(tables, row) {
            visit(SeriesTotal { series, total });
        }
    }
    Ok(())
}

/// Sums of one series by window.
pub(super) async fn windows(
    client: &Client,
    tables: &Tables,
    query: &WindowsQuery,
    visit: &mut VisitWindow<'_>,
) -> Result<(), SinkError> {
    let series = &query.series;
    let columns: Vec<String> = tables.columns.iter().map(|key| identifier(&Tables::column(key))).collect();
    let list: String = columns.iter().map(|column| format!(", {column}")).collect();
    let mut wanted = equals("name", Some(series.name()));
    for (key, column) in tables.columns.iter().zip(&columns) {
        let value = series.tags().iter().find(|(candidate, _)| **candidate == **key).map(|(_, value)| &**value);
        wanted.push_str(&format!(" AND {}", equals(column, value)));
    }
    // Values of SUPER are compared here, because Redshift's comparison of texts is not exact.
    let sql = format!(
        "SELECT name{list}, JSON_SERIALIZE(tags) AS rest, DATE_TRUNC('milliseconds', window_start) AS start, SUM(value) FROM {} \
         {} AND {wanted} GROUP BY name{list}, JSON_SERIALIZE(tags), DATE_TRUNC('milliseconds', window_start)",
        tables.counters(),
        condition(query.range),
    );
    let found = client.query(&sql).await?;
    for row in &found.rows {
        if series_of(tables, row).as_ref() != Some(series) {
            continue;
        }
        let start = row.get(columns.len() + 2).and_then(|cell| parse_timestamp(cell.text()));
        let (Some(time), Some(total)) = (start, row.last().and_then(sum)) else { return Err(foreign(tables)) };
        visit(WindowTotal { start: query.window_start(time), total });
    }
    Ok(())
}

/// A column that holds exactly this text, or none.
fn equals(column: &str, text: Option<&str>) -> String {
    let Some(text) = text else { return format!("{column} IS NULL") };
    let mut sql = format!("{column} = ");
    push_literal(&mut sql, text);
    sql.push_str(&format!(" AND OCTET_LENGTH({column}) = {}", text.len()));
    sql
}

/// Rows whose time lies in the range. The first comparison of each bound uses the sort key.
fn condition(range: TimeRange) -> String {
    let mut sql = String::from("WHERE TRUE");
    if let Some(from) = range.from {
        let (time, nanos) = timestamp(from);
        sql.push_str(&format!(" AND window_start >= '{time}'"));
        if nanos > 0 {
            sql.push_str(&format!(" AND (window_start > '{time}' OR nanos >= {nanos})"));
        }
    }
    if let Some(to) = range.to {
        let (time, nanos) = timestamp(to);
        sql.push_str(&format!(" AND window_start <= '{time}' AND (window_start < '{time}' OR nanos < {nanos})"));
    }
    sql
}

/// The series of a row that begins with name, tag columns and the other tags; `None` for a row that no sink wrote.
fn series_of(tables: &Tables, row: &[Cell]) -> Option<Series> {
    let name = row.first()?.text();
    let rest: Map<String, Value> = match row.get(tables.columns.len() + 1)? {
        Cell::Null => Map::new(),
        Cell::Text(text) => serde_json::from_str(text).ok()?,
    };
    let mut tags: Vec<(&str, &str)> = Vec::with_capacity(rest.len() + tables.columns.len());
    for (key, cell) in tables.columns.iter().zip(&row[1..]) {
        if let Cell::Text(value) = cell {
            tags.push((key, value));
        }
    }
    for (key, value) in &rest {
        tags.push((key, value.as_str()?));
    }
    Some(series_of_tags(name, tags))
}

/// `SUM` of a `BIGINT` is a `NUMERIC(38, 0)`, which comes as text.
fn sum(cell: &Cell) -> Option<u64> {
    cell.number::<u128>().map(|sum| u64::try_from(sum).unwrap_or(u64::MAX))
}

fn foreign(tables: &Tables) -> SinkError {
    SinkError::Halt(format!("{} contains rows that Tallybus did not write", tables.counters()))
}

/// The problems of the tables; empty when there are none.
pub(super) async fn look_at_tables(client: &Client, tables: &Tables) -> Result<Vec<Missing>, RequestFailure> {
    let found = client.query(&tables.columns_query(client.database())).await?;
    let mut missing = Vec::new();
    for (table, columns) in tables.expected() {
        let name = table.to_lowercase();
        let rows: Vec<&Vec<Cell>> =
            found.rows.iter().filter(|row| row.first().is_some_and(|cell| cell.text() == name)).collect();
        if rows.is_empty() {
            missing.push(Missing::Table(table));
            continue;
        }
        for column in columns {
            let same = |row: &&&Vec<Cell>| row.get(1).is_some_and(|cell| cell.text() == column.name);
            let Some(row) = rows.iter().find(same) else {
                missing.push(Missing::Column(format!("{table} has no column {}", column.name)));
                continue;
            };
            let text = |at: usize| row.get(at).map(Cell::text).unwrap_or_default();
            if let Some(reason) = column.differs(text(2), text(3).eq_ignore_ascii_case("yes")) {
                missing.push(Missing::Column(format!("{table}: {reason}")));
            }
        }
    }
    Ok(missing)
}

/// A problem of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    Table(String),
    Column(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_exact_to_the_nanosecond() {
        let range = |from, to| condition(TimeRange { from, to });
        assert_eq!(range(None, None), "WHERE TRUE");
        assert_eq!(range(Some(1_000), None), "WHERE TRUE AND window_start >= '1970-01-01 00:00:00.000001'");
        assert_eq!(
            range(Some(1), Some(1_500)),
            "WHERE TRUE AND window_start >= '1970-01-01 00:00:00' AND (window_start > '1970-01-01 00:00:00' OR nanos >= 1) AND \
             window_start <= '1970-01-01 00:00:00.000001' AND (window_start < '1970-01-01 00:00:00.000001' OR nanos < 500)"
        );
    }

    #[test]
    fn texts_are_distinguished_by_their_blanks_too() {
        assert_eq!(equals("name", Some("a ")), "name = 'a ' AND OCTET_LENGTH(name) = 2");
        assert_eq!(equals("\"route\"", None), "\"route\" IS NULL");
    }

    #[test]
    fn a_row_becomes_its_series() {
        let tables = Tables { schema: "s".into(), table: "t".into(), columns: vec!["Route".into(), "b".into()] };
        let text = |text: &str| Cell::Text(text.to_owned());
        let row = [text("n"), text("/v1"), Cell::Null, text("{\"z\": \"1\", \"A\": \"2\"}"), text("5")];
        let expected = Series::from_sorted("n", &[("A", "2"), ("Route", "/v1"), ("z", "1")]);
        assert_eq!(series_of(&tables, &row), Some(expected));
        let foreign = [text("n"), Cell::Null, Cell::Null, text("{\"z\": 1}")];
        assert_eq!(series_of(&tables, &foreign), None);
    }
}
