//! Reading sums back: Tallybus's own rows, or the export of VictoriaMetrics.

use std::sync::Arc;

use reqwest::Url;
use serde_json::Value;
use tallybus_schemas::Series;
use tallybus_sdk::{
    Foreign, ForeignKind, Held, NANOS_PER_MILLI, SinkError, TimeRange, VisitHeld, WindowTotal, resolution,
};

use super::client::Client;
use super::config::Reading;
use super::format::Format;
use super::format::prometheus::NAME;
use super::identity::{PARTITION, is_own};
use crate::shared::json_tags::{series_of_object, series_of_tags};

/// Visits everything in the range: each point, or each sum of some.
pub(super) async fn windows(
    client: &Client,
    window: i64,
    range: TimeRange,
    visit: &mut VisitHeld<'_>,
) -> Result<(), SinkError> {
    // A server may return more than was requested.
    let mut visit = |held: Held| match &held {
        Held::Window(found) if !range.contains(found.start) => {}
        _ => visit(held),
    };
    match &client.config().reading {
        None => Err(SinkError::Halt(
            "this sink cannot read back what it wrote: set `read_url` (its README describes the expected answer)"
                .to_owned(),
        )),
        Some(Reading::Rows(url)) => parse_rows(&client.read(rows_url(url, range), None).await?, &mut visit),
        Some(Reading::VictoriaMetrics(url)) => {
            let body = client.read(export_url(url), Some(export_form(range))).await?;
            exported(&body, client.config().form.format, window, &mut visit)
        }
    }
}

fn rows_url(url: &Url, range: TimeRange) -> Url {
    let mut url = url.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(from) = range.from {
            query.append_pair("from", &from.to_string());
        }
        if let Some(to) = range.to {
            query.append_pair("to", &to.to_string());
        }
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    url
}

/// An array of objects, or a sequence of objects, with or without line breaks between them.
fn parse_rows(body: &[u8], visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
    for value in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        match value.map_err(|error| no_rows(&error.to_string()))? {
            Value::Array(values) => {
                for value in &values {
                    visit(parse_row(value)?);
                }
            }
            value => visit(parse_row(&value)?),
        }
    }
    Ok(())
}

/// A row that no sink wrote is foreign; what is no row at all is an error.
fn parse_row(row: &Value) -> Result<Held, SinkError> {
    if !row.is_object() {
        return Err(no_rows("a row that is not an object"));
    }
    let foreign = |kind| Ok(Held::Foreign(Foreign::new(kind, format!("row {row}"))));
    let name = row["name"].as_str().filter(|name| !name.is_empty());
    let series = name.and_then(|name| match &row["tags"] {
        Value::Null => Some(Series::from_sorted(name, &[])),
        Value::Object(tags) => series_of_object(name, tags),
        _ => None,
    });
    let Some(series) = series else { return foreign(ForeignKind::Tags) };
    let Some(start) = row["ts"].as_i64() else { return foreign(ForeignKind::Time) };
    if start < 0 {
        return foreign(ForeignKind::BeforeEpoch);
    }
    match row["value"].as_u64() {
        Some(value) => Ok(window(Arc::new(series), start, value)),
        None => foreign(unwritten(&row["value"])),
    }
}

fn window(series: Arc<Series>, start: i64, value: u64) -> Held {
    Held::Window(WindowTotal { series, start, total: value.into() })
}

/// Why no sink wrote this value.
fn unwritten(value: &Value) -> ForeignKind {
    match value.as_f64() {
        Some(number) if number < 0.0 => ForeignKind::Negative,
        Some(_) => ForeignKind::Fraction,
        None => ForeignKind::ValueType,
    }
}

fn no_rows(reason: &str) -> SinkError {
    SinkError::Halt(format!(
        "the answer of `read_url` is not that of the expected server: {reason}; check `read_url` and what is between it and this \
         program"
    ))
}

fn export_url(url: &Url) -> Url {
    let mut url = url.clone();
    let path = format!("{}/api/v1/export", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// A point's time is less than a window after its start: points beyond the range's end are removed afterwards.
fn export_form(range: TimeRange) -> String {
    let selector = format!("{{{PARTITION}!=\"\"}}");
    let seconds = |time: i64| format!("{}.{:03}", time / 1_000_000_000, time / NANOS_PER_MILLI % 1_000);
    // VictoriaMetrics has no times before 1970.
    let mut form = reqwest::Url::parse("form:?").ok();
    if let Some(form) = &mut form {
        let mut pairs = form.query_pairs_mut();
        pairs.append_pair("match[]", &selector);
        pairs.append_pair("start", &seconds(range.from.unwrap_or(0).max(0)));
        pairs.append_pair("end", "9223372036.854");
    }
    form.and_then(|form| form.query().map(str::to_owned)).unwrap_or_default()
}

/// Lines of `{"metric":{…},"values":[…],"timestamps":[…]}`, times in milliseconds.
fn exported(body: &[u8], format: Format, window: i64, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
    let resolution = resolution(window);
    for line in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        let line = line.map_err(|error| no_rows(&error.to_string()))?;
        let labels = line["metric"].as_object().ok_or_else(|| no_rows("a line without labels"))?;
        let texts = labels.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        let tags = texts.filter(|(key, _)| *key != NAME && is_own(key)).collect();
        let name = line["metric"][NAME].as_str().unwrap_or_default();
        // Line protocol has a field, which VictoriaMetrics puts behind the name.
        let name = if format == Format::Influx { name.strip_suffix("_value").unwrap_or(name) } else { name };
        let series = Arc::new(series_of_tags(name, tags));
        let (times, values) = (line["timestamps"].as_array(), line["values"].as_array());
        let (Some(times), Some(values)) = (times, values) else { return Err(no_rows("a line without samples")) };
        for (time, value) in times.iter().zip(values) {
            let time = time.as_i64().and_then(|millis| millis.checked_mul(NANOS_PER_MILLI));
            let time = time.ok_or_else(|| no_rows("a time that is not a whole number of milliseconds"))?;
            visit(match whole(value) {
                Some(value) => self::window(Arc::clone(&series), time - time.rem_euclid(resolution), value),
                None => {
                    let what = format!("{series}, time {time} ns, value {value}");
                    Held::Foreign(Foreign::new(unwritten(value), what))
                }
            });
        }
    }
    Ok(())
}

/// A count that was transferred as a float.
fn whole(value: &Value) -> Option<u64> {
    if let Some(whole) = value.as_u64() {
        return Some(whole);
    }
    let float = value.as_f64().filter(|float| float.fract() == 0.0 && *float >= 0.0)?;
    format!("{float:.0}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Series, time and value of each window, and the kinds of what is foreign.
    type Read = (Vec<(Series, i64, u128)>, Vec<ForeignKind>);

    fn read(parse: impl FnOnce(&mut VisitHeld<'_>) -> Result<(), SinkError>) -> Result<Read, SinkError> {
        let (mut rows, mut foreign) = (Vec::new(), Vec::new());
        parse(&mut |held| match held {
            Held::Window(found) => rows.push(((*found.series).clone(), found.start, found.total)),
            Held::Foreign(found) => foreign.push(found.kind),
        })?;
        Ok((rows, foreign))
    }

    fn rows(body: &str) -> Result<Read, SinkError> {
        read(|visit| parse_rows(body.as_bytes(), visit))
    }

    #[test]
    fn rows_are_read_in_every_form() {
        let row =
            r#"{"name":"a","tags":{"z":"1","b":"2"},"ts":1700000000000000000,"value":9223372036854775807,"more":1}"#;
        let most = u128::MAX >> 65;
        let expected = (Series::from_sorted("a", &[("b", "2"), ("z", "1")]), 1_700_000_000_000_000_000, most);
        for body in [row.to_owned(), format!("[{row}]"), format!("{row}\n{row}\n")] {
            let (rows, foreign) = rows(&body).unwrap();
            assert!(!rows.is_empty() && rows.iter().all(|row| *row == expected) && foreign.is_empty(), "{body}");
        }
        assert_eq!(rows("").unwrap().0, []);
        assert_eq!(rows("[]").unwrap().0, []);
        assert_eq!(rows(r#"{"name":"a","ts":1,"value":2}"#).unwrap().0, [(Series::from_sorted("a", &[]), 1, 2)]);
        for body in ["<html>", "1", "[1]", "{"] {
            assert!(matches!(rows(body), Err(SinkError::Halt(_))), "{body}");
        }
    }

    #[test]
    fn a_row_that_no_sink_wrote_is_foreign_and_hides_no_other() {
        for (row, kind) in [
            (r#"{"ts":1,"value":2}"#, ForeignKind::Tags),
            (r#"{"name":"","ts":1,"value":2}"#, ForeignKind::Tags),
            (r#"{"name":"a","ts":1,"value":2,"tags":[]}"#, ForeignKind::Tags),
            (r#"{"name":"a","ts":1,"value":2,"tags":{"k":1}}"#, ForeignKind::Tags),
            (r#"{"name":"a","ts":1.5,"value":2}"#, ForeignKind::Time),
            (r#"{"name":"a","ts":-1,"value":2}"#, ForeignKind::BeforeEpoch),
            (r#"{"name":"a","ts":1,"value":-2}"#, ForeignKind::Negative),
            (r#"{"name":"a","ts":1,"value":2.5}"#, ForeignKind::Fraction),
            (r#"{"name":"a","ts":1,"value":"2"}"#, ForeignKind::ValueType),
            (r#"{"name":"a","ts":1}"#, ForeignKind::ValueType),
        ] {
            let (rows, foreign) = rows(&format!("{row}\n{{\"name\":\"b\",\"ts\":1,\"value\":3}}")).unwrap();
            assert_eq!((foreign, rows.len()), (vec![kind], 1), "{row}");
        }
    }

    #[test]
    fn a_read_asks_for_the_range() {
        let url = Url::parse("http://h/rows?api=1").unwrap();
        assert_eq!(rows_url(&url, TimeRange::default()).as_str(), "http://h/rows?api=1");
        let range = TimeRange { from: Some(-1), to: Some(9) };
        assert_eq!(rows_url(&url, range).as_str(), "http://h/rows?api=1&from=-1&to=9");
        assert_eq!(rows_url(&Url::parse("http://h/r").unwrap(), TimeRange::default()).as_str(), "http://h/r");
        assert_eq!(export_url(&Url::parse("http://h/select/0/").unwrap()).as_str(), "http://h/select/0/api/v1/export");
    }

    #[test]
    fn exported_samples_become_rows_of_windows() {
        let body = br#"{"metric":{"__name__":"a_value","k":"v","tallybus_partition":"t/0","tallybus_slot":"3"},"values":[5,6.0,9.007199254740992e15],"timestamps":[1700000000123,1700000001000,1700000001999]}
"#;
        let rows = read(|visit| exported(body, Format::Influx, 1_000_000_000, visit)).unwrap().0;
        let series = Series::from_sorted("a", &[("k", "v")]);
        let at = |second: i64, value| (series.clone(), (1_700_000_000 + second) * 1_000_000_000, value);
        assert_eq!(rows, [at(0, 5), at(1, 6), at(1, 1 << 53)]);
        let rows = read(|visit| exported(body, Format::Prometheus, 0, visit)).unwrap().0;
        assert_eq!((rows[0].0.name(), rows[0].1), ("a_value", 1_700_000_000_123_000_000));
        for (value, kind) in [
            ("1.5", ForeignKind::Fraction),
            ("-1", ForeignKind::Negative),
            ("null", ForeignKind::ValueType),
            ("\"x\"", ForeignKind::ValueType),
        ] {
            let line = format!(r#"{{"metric":{{"__name__":"a"}},"values":[{value},1],"timestamps":[1,2]}}"#);
            let (rows, foreign) = read(|visit| exported(line.as_bytes(), Format::Prometheus, 0, visit)).unwrap();
            assert_eq!((foreign, rows.len()), (vec![kind], 1), "{value}");
        }
    }
}
