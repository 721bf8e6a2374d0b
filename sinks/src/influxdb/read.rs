//! Reading sums back.
//!
//! A point's time is the start of its window plus its slot, so a range of times is widened to whole windows: a point is
//! in a range exactly when the start of its window is.

use influxdb2::api::query::FluxRecord;
use serde_json::Value;
use tallybus_schemas::Series;
use tallybus_sdk::{
    SeriesTotal, SinkError, TimeRange, TotalsQuery, VisitTotal, VisitWindow, WindowTotal, WindowsQuery,
};

use super::client::Client;
use super::encode::MAX_TIME;
use super::v2::V2;

/// First and last-but-one nanosecond, in whole windows of the sink; `None` when the range is empty.
fn bounds(range: TimeRange, window: i64) -> Option<(i64, i64)> {
    let up = |time: i64| match time.rem_euclid(window) {
        0 => time,
        rest => time.saturating_add(window - rest),
    };
    let from = up(range.from.unwrap_or(0).max(0));
    let to = range.to.map_or(MAX_TIME, up).min(MAX_TIME);
    (from < to).then_some((from, to))
}

/// `window`: the sink's own, or a millisecond.
pub(super) async fn totals(
    client: &Client,
    v2: Option<&V2>,
    query: &TotalsQuery,
    window: i64,
    visit: &mut VisitTotal<'_>,
) -> Result<(), SinkError> {
    let Some((from, to)) = bounds(query.range, window) else { return Ok(()) };
    let Some(v2) = v2 else {
        let body = client.influxql(&influxql::totals(from, to)).await?;
        for (series, rows) in influxql::rows(&body)? {
            visit(SeriesTotal { series, total: rows.iter().map(|row| row.1).sum() });
        }
        return Ok(());
    };
    let flux = flux::totals(v2.bucket(), from, to);
    let each = |record: &FluxRecord| {
        if let Some(total) = integer(record, "c:_value")? {
            visit(SeriesTotal { series: series_of(record), total });
        }
        Ok(())
    };
    v2.query(flux, each).await
}

/// `window`: the sink's own, or a millisecond.
pub(super) async fn windows(
    client: &Client,
    v2: Option<&V2>,
    query: &WindowsQuery,
    window: i64,
    visit: &mut VisitWindow<'_>,
) -> Result<(), SinkError> {
    let Some((from, to)) = bounds(query.range, window) else { return Ok(()) };
    let (series, resolution) = (&query.series, query.resolution);
    let Some(v2) = v2 else {
        let body = client.influxql(&influxql::windows(series, from, to, resolution)).await?;
        for (found, rows) in influxql::rows(&body)? {
            for (time, total) in rows.into_iter().filter(|_| found == *series) {
                visit(WindowTotal { start: query.window_start(time), total });
            }
        }
        return Ok(());
    };
    let flux = flux::windows(v2.bucket(), series, from, to, resolution);
    let each = |record: &FluxRecord| {
        if let (Some(time), Some(total)) = (time(record), integer(record, "c:_value")?)
            && series_of(record) == *series
        {
            visit(WindowTotal { start: query.window_start(time), total });
        }
        Ok(())
    };
    v2.query(flux, each).await
}

/// A record's tags: every column except Flux's own. The query puts `c:` before each, because the CSV has columns
/// `result` and `table` of its own, which would hide tags of these names.
fn series_of(record: &FluxRecord) -> Series {
    const OWN: [&str; 6] = ["_field", "_measurement", "_start", "_stop", "_time", "_value"];
    let texts: Vec<(String, String)> = record
        .values
        .iter()
        .filter_map(|(column, value)| Some((column.strip_prefix("c:")?.to_owned(), value.string()?)))
        .collect();
    let name = texts.iter().find(|(key, _)| key == "_measurement").map_or("", |(_, value)| value);
    let is_tag = |(key, value): &&(String, String)| !OWN.contains(&key.as_str()) && !value.is_empty();
    let mut tags: Vec<(&str, &str)> =
        texts.iter().filter(is_tag).map(|(key, value)| (key.as_str(), value.as_str())).collect();
    tags.sort_unstable();
    Series::from_sorted(name, &tags)
}

/// An integer column; `None` when the values have another type: then another program wrote them.
fn integer(record: &FluxRecord, column: &str) -> Result<Option<u64>, SinkError> {
    let Some(value) = record.values.get(column) else {
        return Err(SinkError::Unavailable(format!("InfluxDB's answer has no column {column}")));
    };
    match value.i64() {
        Some(number) => positive(number).map(Some),
        None => Ok(value.u64()),
    }
}

fn time(record: &FluxRecord) -> Option<i64> {
    record.values.get("c:_time")?.i64()
}

fn positive(number: i64) -> Result<u64, SinkError> {
    u64::try_from(number).map_err(|_| {
        SinkError::Halt(format!(
            "a sum in InfluxDB is {number}: it exceeds 2^63 - 1, or includes points that Tallybus did not write"
        ))
    })
}

/// The queries for InfluxDB 2.
pub(super) mod flux {
    use std::fmt::Write as _;

    use super::Series;

    const RENAME: &str = "  |> rename(fn: (column) => \"c:\" + column)\n";

    pub(super) fn totals(bucket: &str, from: i64, to: i64) -> String {
        let mut text = source(bucket, from, to);
        text.push_str("  |> filter(fn: (r) => r._field == \"value\")\n  |> sum()\n");
        text.push_str(RENAME);
        text
    }

    pub(super) fn windows(bucket: &str, series: &Series, from: i64, to: i64, resolution: i64) -> String {
        let mut text = source(bucket, from, to);
        let name = literal(series.name());
        let _ = write!(text, "  |> filter(fn: (r) => r._measurement == {name} and r._field == \"value\"");
        for (key, value) in series.tags() {
            let _ = write!(text, " and r[{}] == {}", literal(key), literal(value));
        }
        let _ = writeln!(text, ")");
        let _ = writeln!(
            text,
            "  |> aggregateWindow(every: {resolution}ns, fn: sum, createEmpty: false, timeSrc: \"_start\")"
        );
        // The crate's time type is not accessible with nanoseconds; times are read as integers.
        let _ = writeln!(text, "  |> map(fn: (r) => ({{r with _time: int(v: r._time)}}))");
        text.push_str(RENAME);
        text
    }

    /// The claims of a measurement, at one time.
    pub(in super::super) fn claims(bucket: &str, measurement: &str, time: i64) -> String {
        let mut text = source(bucket, time, time + 1);
        let measurement = literal(measurement);
        let _ = writeln!(text, "  |> filter(fn: (r) => r._measurement == {measurement} and r._field == \"claim\")");
        text.push_str(RENAME);
        text
    }

    fn source(bucket: &str, from: i64, to: i64) -> String {
        format!("from(bucket: {})\n  |> range(start: time(v: {from}), stop: time(v: {to}))\n", literal(bucket))
    }

    /// A Flux string; `${` would begin an expression in it.
    pub(super) fn literal(text: &str) -> String {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
        format!("\"{escaped}\"")
    }
}

/// The queries for InfluxDB 1, and their answers.
pub(super) mod influxql {
    use std::fmt::Write as _;

    use super::{Series, SinkError, Value, positive};

    /// `::field` and `::tag` keep a tag called `value` apart from the field.
    pub(super) fn totals(from: i64, to: i64) -> String {
        format!("SELECT sum(\"value\"::field) FROM /.*/ WHERE time >= {from} AND time < {to} GROUP BY *")
    }

    pub(super) fn windows(series: &Series, from: i64, to: i64, resolution: i64) -> String {
        let name = series.name().replace('\\', "\\\\").replace('"', "\\\"");
        let mut text = format!("SELECT sum(\"value\"::field) FROM \"{name}\" WHERE time >= {from} AND time < {to}");
        for (key, value) in series.tags() {
            let key = key.replace('\\', "\\\\").replace('"', "\\\"");
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            let _ = write!(text, " AND \"{key}\"::tag = '{value}'");
        }
        let _ = write!(text, " GROUP BY time({resolution}ns), * fill(none)");
        text
    }

    /// Time and value of each row, by series.
    type Rows = Vec<(Series, Vec<(i64, u64)>)>;

    /// An answer without an error.
    pub(in super::super) fn answer(body: &[u8]) -> Result<Value, SinkError> {
        let answer: Value = serde_json::from_slice(body)
            .map_err(|error| SinkError::Unavailable(format!("InfluxDB's answer is not JSON: {error}")))?;
        let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
        let failures = [&answer].into_iter().chain(results).filter_map(|part| part["error"].as_str());
        if let Some(message) = failures.into_iter().next() {
            return Err(match message.contains("not found") {
                true => SinkError::Halt(format!("InfluxDB: {message}; create it, or set `create = true`")),
                false => SinkError::Unavailable(format!("InfluxDB: {message}")),
            });
        }
        Ok(answer)
    }

    pub(super) fn rows(body: &[u8]) -> Result<Rows, SinkError> {
        let answer = answer(body)?;
        let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut found = Vec::new();
        for series in results.iter().filter_map(|result| result["series"].as_array()).flatten() {
            if series["partial"].as_bool() == Some(true) {
                return Err(SinkError::Halt("InfluxDB cut its answer short: raise max-row-limit".to_owned()));
            }
            found.push((series_of(series), values_of(series)?));
        }
        Ok(found)
    }

    fn series_of(series: &Value) -> Series {
        let mut tags: Vec<(&str, &str)> = series["tags"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
            // A tag that other series of the measurement have, and this one has not.
            .filter(|(_, value)| !value.is_empty())
            .collect();
        tags.sort_unstable();
        Series::from_sorted(series["name"].as_str().unwrap_or_default(), &tags)
    }

    fn values_of(series: &Value) -> Result<Vec<(i64, u64)>, SinkError> {
        let mut values = Vec::new();
        for row in series["values"].as_array().into_iter().flatten() {
            // Tallybus writes only integers.
            let (Some(time), Some(value)) = (row[0].as_i64(), row[1].as_i64()) else { continue };
            values.push((time, positive(value)?));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_range_is_widened_to_whole_windows() {
        let range = |from, to| TimeRange { from, to };
        assert_eq!(bounds(range(None, None), SECOND), Some((0, MAX_TIME)));
        assert_eq!(bounds(range(Some(1), Some(2 * SECOND)), SECOND), Some((SECOND, 2 * SECOND)));
        assert_eq!(bounds(range(Some(SECOND), Some(SECOND + 1)), SECOND), Some((SECOND, 2 * SECOND)));
        assert_eq!(bounds(range(Some(1), Some(SECOND)), SECOND), None);
        assert_eq!(bounds(range(Some(-5), None), SECOND), Some((0, MAX_TIME)));
        assert_eq!(bounds(range(Some(i64::MAX), None), SECOND), None);
        // Exactly the points whose window starts in the range lie between the bounds.
        for from in 0..40 {
            for to in 0..40 {
                let range = range(Some(from), Some(to));
                for start in (0..40).step_by(10) {
                    for slot in 0..10 {
                        let inside = bounds(range, 10).is_some_and(|(low, high)| (low..high).contains(&(start + slot)));
                        assert_eq!(inside, range.contains(start), "{range:?} {start} {slot}");
                    }
                }
            }
        }
    }

    #[test]
    fn texts_in_queries_stay_texts() {
        assert_eq!(flux::literal(r#"a"b\c${d}$e"#), r#""a\"b\\c\${d}$e""#);
        let series = Series::from_sorted("n\"", &[("k'\"", "v'\"\\")]);
        assert_eq!(
            influxql::windows(&series, 0, 9, 5),
            r#"SELECT sum("value"::field) FROM "n\"" WHERE time >= 0 AND time < 9 AND "k'\""::tag = 'v\'"\\' GROUP BY time(5ns), * fill(none)"#
        );
        assert_eq!(
            flux::windows("b", &series, 0, 9, 5),
            "from(bucket: \"b\")\n  |> range(start: time(v: 0), stop: time(v: 9))\n  |> filter(fn: (r) => r._measurement \
             == \"n\\\"\" and r._field == \"value\" and r[\"k'\\\"\"] == \"v'\\\"\\\\\")\n  |> aggregateWindow(every: 5ns, \
             fn: sum, createEmpty: false, timeSrc: \"_start\")\n  |> map(fn: (r) => ({r with _time: int(v: r._time)}))\n  \
             |> rename(fn: (column) => \"c:\" + column)\n"
        );
    }

    #[test]
    fn answers_of_influxdb_1_are_read_exactly() {
        let body = br#"{"results":[{"statement_id":0,"series":[
            {"name":"a","tags":{"z":"1","k":"","b":"2"},"columns":["time","sum"],"values":[[0,9223372036854775807]]},
            {"name":"f","columns":["time","sum"],"values":[[0,1.5],[5,null]]}]}]}"#;
        let rows = influxql::rows(body).unwrap();
        let most = u64::try_from(i64::MAX).unwrap();
        assert_eq!(rows[0], (Series::from_sorted("a", &[("b", "2"), ("z", "1")]), vec![(0, most)]));
        assert_eq!(rows[1], (Series::from_sorted("f", &[]), vec![]));
        assert_eq!(influxql::rows(br#"{"results":[{"statement_id":0}]}"#).unwrap(), []);
        let missing = influxql::rows(br#"{"results":[{"error":"database not found: d"}]}"#);
        assert!(matches!(missing, Err(SinkError::Halt(_))));
        let busy = influxql::rows(br#"{"error":"timeout"}"#);
        assert!(matches!(busy, Err(SinkError::Unavailable(_))));
        assert!(matches!(influxql::rows(b"<html>"), Err(SinkError::Unavailable(_))));
        let negative = br#"{"results":[{"series":[{"name":"a","columns":["time","sum"],"values":[[0,-1]]}]}]}"#;
        assert!(matches!(influxql::rows(negative), Err(SinkError::Halt(_))));
    }
}
