//! Reading points back.
//!
//! A point's time is the start of its window plus its slot, so a range of times is widened to whole windows: a point is
//! in a range exactly when the start of its window is.

use std::collections::HashMap;
use std::sync::Arc;

use influxdb2::api::query::FluxRecord;
use serde_json::Value;
use tallybus_schemas::Series;
use tallybus_sdk::{Foreign, ForeignKind, Held, SinkError, TimeRange, VisitHeld, WindowTotal, WindowsQuery};

use super::client::Client;
use super::encode::MAX_TIME;
use super::v2::V2;
use crate::shared::questions;

/// The earliest time that InfluxDB stores.
const MIN_TIME: i64 = i64::MIN + 2;

/// First and last-but-one nanosecond, in whole windows of the sink; `None` when the range is empty.
pub(super) fn bounds(range: TimeRange, window: i64) -> Option<(i64, i64)> {
    let up = |time: i64| match time.rem_euclid(window) {
        0 => time,
        rest => time.saturating_add(window - rest),
    };
    let from = range.from.map_or(MIN_TIME, up).max(MIN_TIME);
    let to = range.to.map_or(MAX_TIME, up).min(MAX_TIME);
    (from < to).then_some((from, to))
}

/// Visits every point of the field `value`: a sum in InfluxDB wraps at 2^63, and hides negative values.
///
/// `window`: the sink's own, or a millisecond.
pub(super) async fn windows(
    client: &Client,
    v2: Option<&V2>,
    query: &WindowsQuery,
    window: i64,
    visit: &mut VisitHeld<'_>,
) -> Result<(), SinkError> {
    let Some((from, to)) = bounds(query.range, window) else { return Ok(()) };
    let of_name = query.name.as_deref().filter(|name| questions::is_name(name));
    let Some(v2) = v2 else {
        let mut types = influxql::Types::default();
        client.influxql(&influxql::types(of_name), &mut |answer| types.add(answer)).await?;
        let mut queries = vec![influxql::points(of_name, from, to)];
        queries.extend(types.unseen().map(|(name, kind)| influxql::points_of(name, kind, from, to)));
        for query in queries {
            client.influxql(&query, &mut |answer| types.visit(answer, window, visit)).await?;
        }
        return Ok(());
    };
    let mut last: Option<Arc<Series>> = None;
    let each = |record: &FluxRecord| {
        let series = series_of(record);
        let series = match &last {
            Some(last) if **last == series => Arc::clone(last),
            _ => Arc::clone(last.insert(Arc::new(series))),
        };
        visit(held_of(record, series, window)?);
        Ok(())
    };
    v2.query(flux::points(v2.bucket(), of_name, from, to), each).await
}

/// A point, by the start of its window.
fn point(series: Arc<Series>, time: i64, window: i64, value: PointValue) -> Held {
    let foreign = |kind, value: &dyn std::fmt::Display| {
        Held::Foreign(Foreign::new(kind, format!("{series}, time {time}, value {value}")))
    };
    match value {
        _ if time < 0 => Held::Foreign(Foreign::new(ForeignKind::BeforeEpoch, format!("{series}, time {time}"))),
        PointValue::Integer(value) => match u128::try_from(value) {
            Ok(total) => Held::Window(WindowTotal { series, start: time - time.rem_euclid(window), total }),
            Err(_) => foreign(ForeignKind::Negative, &value),
        },
        PointValue::Float(value) if value.fract() == 0.0 => foreign(ForeignKind::ValueType, &value),
        PointValue::Float(value) => foreign(ForeignKind::Fraction, &value),
        PointValue::Other(text) => foreign(ForeignKind::ValueType, &text),
    }
}

/// Tallybus writes integers only.
enum PointValue {
    Integer(i64),
    Float(f64),
    Other(String),
}

fn held_of(record: &FluxRecord, series: Arc<Series>, window: i64) -> Result<Held, SinkError> {
    let column = |column: &str| {
        let value = record.values.get(column);
        value.ok_or_else(|| SinkError::Unavailable(format!("InfluxDB's answer has no column {column}")))
    };
    let (time, value) = (column("c:_time")?, column("c:_value")?);
    let time =
        time.i64().ok_or_else(|| SinkError::Unavailable("InfluxDB's answer has a point without a time".into()))?;
    let value = match (value.i64(), value.f64()) {
        (Some(number), _) => PointValue::Integer(number),
        (None, Some(number)) => PointValue::Float(number),
        (None, None) => PointValue::Other(format!("{value:?}")),
    };
    Ok(point(series, time, window, value))
}

/// A record's tags: every column except Flux's own. The query puts `c:` before each, because the CSV has columns
/// `result` and `table` of its own, which would hide tags of these names.
pub(super) fn series_of(record: &FluxRecord) -> Series {
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

/// The queries for InfluxDB 2.
pub(super) mod flux {
    use std::fmt::Write as _;

    pub(in super::super) const RENAME: &str = "  |> rename(fn: (column) => \"c:\" + column)\n";

    pub(super) fn points(bucket: &str, name: Option<&str>, from: i64, to: i64) -> String {
        let mut text = source(bucket, from, to);
        let of_name = name.map(|name| format!("r._measurement == {} and ", literal(name))).unwrap_or_default();
        let _ = writeln!(text, "  |> filter(fn: (r) => {of_name}r._field == \"value\")");
        // The crate's time type is not accessible with nanoseconds; times are read as integers.
        text.push_str("  |> map(fn: (r) => ({r with _time: int(v: r._time)}))\n");
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

    pub(in super::super) fn source(bucket: &str, from: i64, to: i64) -> String {
        format!("from(bucket: {})\n  |> range(start: time(v: {from}), stop: time(v: {to}))\n", literal(bucket))
    }

    /// A Flux string; `${` would begin an expression in it.
    pub(in super::super) fn literal(text: &str) -> String {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
        format!("\"{escaped}\"")
    }
}

/// The queries for InfluxDB 1, and their answers.
pub(super) mod influxql {
    use super::super::answer::CREATE;
    use super::{Arc, HashMap, Held, PointValue, Series, SinkError, Value, VisitHeld, point};

    /// The types of each measurement's fields: in an answer, the float 5 is written as the integer 5.
    pub(super) fn types(name: Option<&str>) -> String {
        match name {
            None => "SHOW FIELD KEYS".to_owned(),
            Some(name) => format!("SHOW FIELD KEYS FROM {}", identifier(name)),
        }
    }

    /// `::field` keeps a tag called `value` apart from the field.
    pub(super) fn points(name: Option<&str>, from: i64, to: i64) -> String {
        let name = name.map_or_else(|| "/.*/".to_owned(), identifier);
        format!("SELECT \"value\"::field FROM {name} WHERE time >= {from} AND time < {to} GROUP BY *")
    }

    /// Any text as an identifier.
    pub(in super::super) fn identifier(name: &str) -> String {
        format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    }

    /// The points of one measurement whose field has this type: beside numbers, InfluxDB leaves them out.
    pub(super) fn points_of(name: &str, kind: &str, from: i64, to: i64) -> String {
        let name = identifier(name);
        format!("SELECT \"value\"::{kind} FROM {name} WHERE time >= {from} AND time < {to} GROUP BY *")
    }

    /// The type of each measurement's field `value`, unless integers are among its types.
    #[derive(Debug, Default)]
    pub(super) struct Types {
        others: HashMap<String, String>,
        integers: Vec<String>,
    }

    impl Types {
        /// Takes a part of the answer to [`types`].
        pub(super) fn add(&mut self, answer: &Value) -> Result<(), SinkError> {
            for series in series_in(answer)? {
                let name = series["name"].as_str().unwrap_or_default();
                for row in series["values"].as_array().into_iter().flatten().filter(|row| row[0] == "value") {
                    match row[1].as_str().unwrap_or_default() {
                        "integer" => self.integers.push(name.to_owned()),
                        other => drop(self.others.insert(name.to_owned(), other.to_owned())),
                    }
                }
            }
            Ok(())
        }

        /// Measurements whose points are not in the answer to [`points`], and the type of their field.
        pub(super) fn unseen(&self) -> impl Iterator<Item = (&str, &str)> {
            let others = self.others.iter().map(|(name, kind)| (name.as_str(), kind.as_str()));
            others.filter(|(_, kind)| matches!(*kind, "string" | "boolean"))
        }

        /// Visits the points of a part of the answer to [`points`].
        pub(super) fn visit(&self, answer: &Value, window: i64, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
            for series in series_in(answer)? {
                let name = series["name"].as_str().unwrap_or_default();
                let other = self.others.get(name).filter(|_| !self.integers.iter().any(|integer| integer == name));
                let of = Arc::new(series_of(series));
                for row in series["values"].as_array().into_iter().flatten() {
                    let Some(time) = row[0].as_i64() else { continue };
                    if let Some(held) = held_of(&of, time, window, &row[1], other) {
                        visit(held);
                    }
                }
            }
            Ok(())
        }
    }

    /// `other`: the type of the field, where no point of the measurement holds an integer.
    fn held_of(series: &Arc<Series>, time: i64, window: i64, value: &Value, other: Option<&String>) -> Option<Held> {
        let value = match (other.map(String::as_str), value) {
            (_, Value::Null) => return None,
            (Some("float"), _) | (None, Value::Number(_)) if !value.is_i64() || other.is_some() => {
                match value.as_f64() {
                    Some(number) => PointValue::Float(number),
                    None => PointValue::Other(value.to_string()),
                }
            }
            (Some(_), _) => PointValue::Other(value.to_string()),
            (None, _) => match value.as_i64() {
                Some(number) => PointValue::Integer(number),
                None => PointValue::Other(value.to_string()),
            },
        };
        Some(point(Arc::clone(series), time, window, value))
    }

    /// The series of a part of an answer.
    pub(in super::super) fn series_in(answer: &Value) -> Result<impl Iterator<Item = &Value>, SinkError> {
        let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
        let failures = [answer].into_iter().chain(results).filter_map(|part| part["error"].as_str());
        if let Some(message) = failures.into_iter().next() {
            return Err(match message.contains("not found") {
                true => SinkError::Halt(format!("InfluxDB: {message}; {CREATE}")),
                false => SinkError::Unavailable(format!("InfluxDB: {message}")),
            });
        }
        Ok(results.iter().filter_map(|result| result["series"].as_array()).flatten())
    }

    pub(in super::super) fn series_of(series: &Value) -> Series {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_range_is_widened_to_whole_windows() {
        let range = |from, to| TimeRange { from, to };
        assert_eq!(bounds(range(None, None), SECOND), Some((MIN_TIME, MAX_TIME)));
        assert_eq!(bounds(range(Some(1), Some(2 * SECOND)), SECOND), Some((SECOND, 2 * SECOND)));
        assert_eq!(bounds(range(Some(SECOND), Some(SECOND + 1)), SECOND), Some((SECOND, 2 * SECOND)));
        assert_eq!(bounds(range(Some(1), Some(SECOND)), SECOND), None);
        assert_eq!(bounds(range(Some(-5), None), SECOND), Some((0, MAX_TIME)));
        assert_eq!(bounds(range(Some(-SECOND), None), SECOND), Some((-SECOND, MAX_TIME)));
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
        assert_eq!(
            influxql::points_of("n\"", "string", -5, 9),
            r#"SELECT "value"::string FROM "n\"" WHERE time >= -5 AND time < 9 GROUP BY *"#
        );
        assert_eq!(flux::literal(r#"a"b\c${d}$e"#), r#""a\"b\\c\${d}$e""#);
        assert_eq!(
            flux::points("b", None, -7, 9),
            "from(bucket: \"b\")\n  |> range(start: time(v: -7), stop: time(v: 9))\n  |> filter(fn: (r) => r._field == \
             \"value\")\n  |> map(fn: (r) => ({r with _time: int(v: r._time)}))\n  |> rename(fn: (column) => \"c:\" + \
             column)\n"
        );
    }

    /// Series, start and total of each window, and kind of each foreign point.
    type Read = (Vec<(Series, i64, u128)>, Vec<ForeignKind>);

    /// What these answers of InfluxDB 1 hold.
    fn read(types: &str, points: &str) -> Result<Read, SinkError> {
        let mut known = influxql::Types::default();
        known.add(&serde_json::from_str(types).unwrap())?;
        let (mut windows, mut foreign) = (Vec::new(), Vec::new());
        known.visit(&serde_json::from_str(points).unwrap(), 10, &mut |held| match held {
            Held::Window(window) => windows.push(((*window.series).clone(), window.start, window.total)),
            Held::Foreign(found) => foreign.push(found.kind),
        })?;
        Ok((windows, foreign))
    }

    #[test]
    fn answers_of_influxdb_1_are_read_exactly() {
        let types = r#"{"results":[{"series":[
            {"name":"a","values":[["value","integer"],["other","float"]]},
            {"name":"f","values":[["value","float"]]},
            {"name":"t","values":[["value","string"]]},
            {"name":"both","values":[["value","float"],["value","integer"]]}]}]}"#;
        let points = r#"{"results":[{"series":[
            {"name":"a","tags":{"z":"1","k":"","b":"2"},"values":[[19,9223372036854775807],[7,null]],"partial":true},
            {"name":"both","values":[[20,6]]}]}]}"#;
        let (windows, foreign) = read(types, points).unwrap();
        let most = u128::MAX >> 65;
        let a = Series::from_sorted("a", &[("b", "2"), ("z", "1")]);
        assert_eq!(windows, [(a, 10, most), (Series::from_sorted("both", &[]), 20, 6)]);
        assert_eq!(foreign, []);
        for (name, time, value, kind) in [
            ("a", 1, "-5", ForeignKind::Negative),
            ("a", -1, "5", ForeignKind::BeforeEpoch),
            ("a", 1, "1.5", ForeignKind::Fraction),
            ("f", 1, "5", ForeignKind::ValueType),
            ("f", 1, "5.5", ForeignKind::Fraction),
            ("both", 1, "5.5", ForeignKind::Fraction),
            ("t", 1, "\"x\"", ForeignKind::ValueType),
        ] {
            let points = format!(
                r#"{{"results":[{{"series":[{{"name":"{name}","values":[[{time},{value}]]}},
                {{"name":"a","values":[[1,2]]}}]}}]}}"#
            );
            let (windows, foreign) = read(types, &points).unwrap();
            assert_eq!((foreign, windows.len()), (vec![kind], 1), "{name} {time} {value}");
        }
        let nothing = r#"{"results":[{"statement_id":0}]}"#;
        assert_eq!(read(nothing, nothing).unwrap(), (vec![], vec![]));
        let missing = read(nothing, r#"{"results":[{"error":"database not found: d"}]}"#);
        assert!(matches!(missing, Err(SinkError::Halt(_))));
        let busy = read(nothing, r#"{"error":"timeout"}"#);
        assert!(matches!(busy, Err(SinkError::Unavailable(_))));
    }
}
