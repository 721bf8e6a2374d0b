//! Reading sums back, for audits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use tallybus_schemas::Series;
use tallybus_sdk::{Foreign, ForeignKind, Held, SinkError, TimeRange, VisitHeld, WindowTotal, WindowsQuery};

use super::client::{Cell, Client, RequestFailure};
use super::pages;
use super::sql::{identifier, literal, parse_timestamp, timestamp, unfit};
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

/// Visits the sum of each series and time. `small`: see [`SmallRead`].
pub(super) async fn windows(
    client: &Client,
    tables: &Tables,
    small: &SmallRead,
    query: &WindowsQuery,
    visit: &mut VisitHeld<'_>,
) -> Result<(), SinkError> {
    let columns: Vec<String> = tables.columns.iter().map(|key| identifier(&Tables::column(key))).collect();
    // Redshift treats texts that differ only in trailing blanks as equal; their lengths distinguish them.
    let lengths: Vec<String> = columns.iter().map(|column| format!("OCTET_LENGTH({column})")).collect();
    let list = |parts: &[String]| parts.iter().map(|part| format!(", {part}")).collect::<String>();
    let (columns, lengths) = (list(&columns), list(&lengths));
    let groups = format!("name{columns}, JSON_SERIALIZE(tags), OCTET_LENGTH(name){lengths}, window_start, nanos");
    let of_name = query.name.as_ref().filter(|name| unfit(name).is_none());
    let of_name = of_name.map(|name| format!(" AND name = {}", literal(name))).unwrap_or_default();
    let condition = condition(query.range) + &of_name;
    let select = |page: &str| {
        format!(
            "SELECT name{columns}, JSON_SERIALIZE(tags) AS rest, OCTET_LENGTH(name) AS bytes{lengths}, window_start, nanos, \
             SUM(CASE WHEN value >= 0 THEN value ELSE 0 END), COUNT(CASE WHEN value < 0 THEN 1 END), COUNT(*) FROM {} \
             {condition}{page} GROUP BY {groups}",
            tables.counters(),
        )
    };
    if small.is(&condition) {
        let (mut last, mut rows) = (None, 0_u64);
        let mut each = |row: &[Cell]| {
            rows += 1;
            visit_row(tables, row, &mut last, visit)
        };
        let read = client.query_each(&select(""), &mut each).await;
        match read {
            // It has grown over the limit since, which ends the statement before its first row.
            Err(SinkError::Halt(_)) if rows == 0 => small.forget(),
            outcome => return outcome,
        }
    }
    let hours = pages::hours(client, tables, &condition, &groups).await?;
    small.note(&condition, pages::bytes(&hours));
    // A series is visited once in each page, whatever is written meanwhile: an audit allows for what is not settled.
    for page in pages::pages(&hours, pages::PAGE_BYTES, tables) {
        let mut last: Option<Arc<Series>> = None;
        client.query_each(&select(&page), &mut |row| visit_row(tables, row, &mut last, visit)).await?;
    }
    Ok(())
}

/// The last read whose result was far below a page. The same read again asks for it at once: a comparison reads its probes
/// several times a second, and each statement takes longer than that.
#[derive(Debug, Default)]
pub(super) struct SmallRead(Mutex<Option<String>>);

impl SmallRead {
    fn is(&self, condition: &str) -> bool {
        self.lock().as_deref() == Some(condition)
    }

    fn note(&self, condition: &str, bytes: u64) {
        *self.lock() = (bytes <= pages::PAGE_BYTES / 4).then(|| condition.to_owned());
    }

    fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Visits what one row of the result stands for.
fn visit_row(
    tables: &Tables,
    row: &[Cell],
    last: &mut Option<Arc<Series>>,
    visit: &mut VisitHeld<'_>,
) -> Result<(), SinkError> {
    let [.., micros, nanos, total, negative, rows] = row else { return Err(strange(tables)) };
    let start = parse_timestamp(micros.text()).zip(nanos.number::<i64>());
    let start = start.and_then(|(time, nanos)| time.checked_add(nanos));
    let (Some(total), Some(negative), Some(rows)) = (total.number::<u128>(), negative.number(), rows.number()) else {
        return Err(strange(tables));
    };
    let shown: Vec<&str> = row[..=tables.columns.len() + 1].iter().map(Cell::text).collect();
    let foreign = |kind, rows: u64| {
        let what = format!("{}: {}, window_start {}", tables.counters(), shown.join(" "), micros.text());
        Held::Foreign(Foreign::new(kind, what).of(rows))
    };
    match (series_of(tables, row), start) {
        (None, _) => visit(foreign(ForeignKind::Tags, rows)),
        (_, None) => visit(foreign(ForeignKind::Time, rows)),
        (_, Some(start)) if start < 0 => visit(foreign(ForeignKind::BeforeEpoch, rows)),
        (Some(series), Some(start)) => {
            if negative > 0 {
                visit(foreign(ForeignKind::Negative, negative));
            }
            if negative < rows {
                let series = match last {
                    Some(last) if **last == series => Arc::clone(last),
                    _ => Arc::clone(last.insert(Arc::new(series))),
                };
                visit(Held::Window(WindowTotal { series, start, total }));
            }
        }
    }
    Ok(())
}

/// Rows whose time lies in the range. The first comparison of each bound uses the sort key.
pub(super) fn condition(range: TimeRange) -> String {
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
pub(super) fn series_of(tables: &Tables, row: &[Cell]) -> Option<Series> {
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

pub(super) fn strange(tables: &Tables) -> SinkError {
    SinkError::Halt(format!("the answer about {} lacks the requested columns", tables.counters()))
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
    fn a_row_becomes_its_series() {
        let tables = Tables { schema: "s".into(), table: "t".into(), columns: vec!["Route".into(), "b".into()] };
        let text = |text: &str| Cell::Text(text.to_owned());
        let row = [text("n"), text("/v1"), Cell::Null, text("{\"z\": \"1\", \"A\": \"2\"}"), text("5")];
        let expected = Series::from_sorted("n", &[("A", "2"), ("Route", "/v1"), ("z", "1")]);
        assert_eq!(series_of(&tables, &row), Some(expected));
        let foreign = [text("n"), Cell::Null, Cell::Null, text("{\"z\": 1}")];
        assert_eq!(series_of(&tables, &foreign), None);
    }

    #[test]
    fn what_no_sink_wrote_is_foreign_and_the_rest_of_its_group_counts() {
        let tables = Tables { schema: "s".into(), table: "t".into(), columns: Vec::new() };
        let read = |tags: &str, start: &str, numbers: [&str; 4]| {
            let text = |text: &str| Cell::Text(text.to_owned());
            let [nanos, total, negative, rows] = numbers.map(text);
            let row = [text("n"), text(tags), text("1"), text(start), nanos, total, negative, rows];
            let mut found = Vec::new();
            visit_row(&tables, &row, &mut None, &mut |held| found.push(held)).unwrap();
            found
                .into_iter()
                .map(|held| match held {
                    Held::Window(window) => (None, window.total, window.start),
                    Held::Foreign(foreign) => (Some(foreign.kind), foreign.points.into(), 0),
                })
                .collect::<Vec<_>>()
        };
        let most = u128::from(u64::MAX) * 2;
        let (start, time) = ("2023-11-14 22:13:20.000001", 1_700_000_000_000_001_007);
        assert_eq!(read("{}", start, ["7", &most.to_string(), "0", "2"]), [(None, most, time)]);
        let negative = (Some(ForeignKind::Negative), 2, 0);
        assert_eq!(read("{}", start, ["7", "5", "2", "3"]), [negative, (None, 5, time)]);
        assert_eq!(read("{}", start, ["7", "0", "2", "2"]), [negative]);
        assert_eq!(read("{\"k\":1}", start, ["0", "5", "0", "3"]), [(Some(ForeignKind::Tags), 3, 0)]);
        let before = read("{}", "1969-12-31 23:59:59.999999", ["999", "5", "0", "1"]);
        assert_eq!(before, [(Some(ForeignKind::BeforeEpoch), 1, 0)]);
        assert_eq!(read("{}", "infinity", ["0", "5", "0", "1"]), [(Some(ForeignKind::Time), 1, 0)]);
    }
}
