//! Reading sums back: Tallybus's own rows, or the export of VictoriaMetrics.

use reqwest::Url;
use serde_json::Value;
use tallybus_schemas::Series;
use tallybus_sdk::{NANOS_PER_MILLI, SinkError, TimeRange, resolution};

use super::client::Client;
use super::config::Reading;
use super::format::Format;
use super::format::prometheus::NAME;
use super::identity::{PARTITION, is_own};
use crate::shared::json_tags::{series_of_object, series_of_tags};

/// Series, time (start of the window) and value.
pub(super) type Row = (Series, i64, u64);

/// Everything in the range, or everything of one series in it; a row for each point or each sum of some.
pub(super) async fn rows(
    client: &Client,
    window: i64,
    series: Option<&Series>,
    range: TimeRange,
) -> Result<Vec<Row>, SinkError> {
    let body = match &client.config().reading {
        None => {
            return Err(SinkError::Halt(
                "this sink cannot read back what it wrote: set `read_url` (its README describes the expected answer)"
                    .to_owned(),
            ));
        }
        Some(Reading::Rows(url)) => client.read(rows_url(url, series, range), None).await?,
        Some(Reading::VictoriaMetrics(url)) => client.read(export_url(url), Some(export_form(series, range))).await?,
    };
    let mut found = match &client.config().reading {
        Some(Reading::VictoriaMetrics(_)) => exported(&body, client.config().form.format, window)?,
        _ => parse_rows(&body)?,
    };
    // A server may return more than was requested.
    found.retain(|(found, time, _)| range.contains(*time) && series.is_none_or(|series| series == found));
    Ok(found)
}

fn rows_url(url: &Url, series: Option<&Series>, range: TimeRange) -> Url {
    let mut url = url.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(from) = range.from {
            query.append_pair("from", &from.to_string());
        }
        if let Some(to) = range.to {
            query.append_pair("to", &to.to_string());
        }
        if let Some(series) = series {
            let tags = series.tags().iter().map(|(key, value)| (key.to_string(), Value::from(value.to_string())));
            let tags = Value::Object(tags.collect());
            query.append_pair("name", series.name()).append_pair("tags", &tags.to_string());
        }
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    url
}

/// An array of objects, or a sequence of objects, with or without line breaks between them.
fn parse_rows(body: &[u8]) -> Result<Vec<Row>, SinkError> {
    let mut rows = Vec::new();
    for value in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        let value = value.map_err(|error| no_rows(&error.to_string()))?;
        match &value {
            Value::Array(values) => {
                for value in values {
                    rows.push(parse_row(value)?);
                }
            }
            value => rows.push(parse_row(value)?),
        }
    }
    Ok(rows)
}

fn parse_row(row: &Value) -> Result<Row, SinkError> {
    let name = row["name"].as_str().filter(|name| !name.is_empty()).ok_or_else(|| no_rows("a row without a name"))?;
    let time = row["ts"].as_i64().ok_or_else(|| no_rows("a row whose `ts` is not a whole number of nanoseconds"))?;
    let value = row["value"].as_u64().ok_or_else(|| no_rows("a row whose `value` is not a whole number"))?;
    let series = match &row["tags"] {
        Value::Null => Series::from_sorted(name, &[]),
        Value::Object(tags) => {
            series_of_object(name, tags).ok_or_else(|| no_rows("a row with a tag that is not a string"))?
        }
        _ => return Err(no_rows("a row whose `tags` are not an object")),
    };
    Ok((series, time, value))
}

fn no_rows(reason: &str) -> SinkError {
    SinkError::Unavailable(format!("the answer of `read_url` cannot be read: {reason}"))
}

fn export_url(url: &Url) -> Url {
    let mut url = url.clone();
    let path = format!("{}/api/v1/export", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// A point's time is less than a window after its start: points beyond the range's end are removed afterwards.
fn export_form(series: Option<&Series>, range: TimeRange) -> String {
    // Every name can be matched inside braces.
    let mut selector = format!("{{{PARTITION}!=\"\"");
    if let Some(series) = series {
        for (key, value) in series.tags() {
            if key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && !key.as_bytes()[0].is_ascii_digit()
            {
                selector.push_str(&format!(",{key}={}", Value::from(value.to_string())));
            }
        }
    }
    selector.push('}');
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
fn exported(body: &[u8], format: Format, window: i64) -> Result<Vec<Row>, SinkError> {
    let mut rows = Vec::new();
    let resolution = resolution(window);
    for line in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        let line = line.map_err(|error| no_rows(&error.to_string()))?;
        let labels = line["metric"].as_object().ok_or_else(|| no_rows("a line without labels"))?;
        let texts = labels.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        let tags = texts.filter(|(key, _)| *key != NAME && is_own(key)).collect();
        let name = line["metric"][NAME].as_str().unwrap_or_default();
        // Line protocol has a field, which VictoriaMetrics puts behind the name.
        let name = if format == Format::Influx { name.strip_suffix("_value").unwrap_or(name) } else { name };
        let series = series_of_tags(name, tags);
        let (times, values) = (line["timestamps"].as_array(), line["values"].as_array());
        let (Some(times), Some(values)) = (times, values) else { return Err(no_rows("a line without samples")) };
        for (time, value) in times.iter().zip(values) {
            let time = time.as_i64().and_then(|millis| millis.checked_mul(NANOS_PER_MILLI));
            let time = time.ok_or_else(|| no_rows("a time that is not a whole number of milliseconds"))?;
            rows.push((series.clone(), time - time.rem_euclid(resolution), whole(value)?));
        }
    }
    Ok(rows)
}

/// A count that was transferred as a float.
fn whole(value: &Value) -> Result<u64, SinkError> {
    let not_ours =
        || SinkError::Halt(format!("a sample is {value}: Tallybus writes whole counts, so another program wrote it"));
    if let Some(whole) = value.as_u64() {
        return Ok(whole);
    }
    let float = value.as_f64().filter(|float| float.fract() == 0.0 && *float >= 0.0).ok_or_else(not_ours)?;
    format!("{float:.0}").parse().map_err(|_| not_ours())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_in_every_form() {
        let row =
            r#"{"name":"a","tags":{"z":"1","b":"2"},"ts":1700000000000000000,"value":9223372036854775807,"more":1}"#;
        let most = u64::try_from(i64::MAX).unwrap();
        let expected = (Series::from_sorted("a", &[("b", "2"), ("z", "1")]), 1_700_000_000_000_000_000, most);
        for body in [row.to_owned(), format!("[{row}]"), format!("{row}\n{row}\n")] {
            let rows = parse_rows(body.as_bytes()).unwrap();
            assert!(!rows.is_empty() && rows.iter().all(|row| *row == expected), "{body}");
        }
        assert_eq!(parse_rows(b"").unwrap(), []);
        assert_eq!(parse_rows(b"[]").unwrap(), []);
        assert_eq!(parse_rows(br#"{"name":"a","ts":1,"value":2}"#).unwrap(), [(Series::from_sorted("a", &[]), 1, 2)]);
        for body in [
            "<html>",
            "1",
            r#"{"name":"","ts":1,"value":2}"#,
            r#"{"name":"a","ts":1.5,"value":2}"#,
            r#"{"name":"a","ts":1,"value":-2}"#,
            r#"{"name":"a","ts":1,"value":2,"tags":[]}"#,
            r#"{"name":"a","ts":1,"value":2,"tags":{"k":1}}"#,
        ] {
            assert!(matches!(parse_rows(body.as_bytes()), Err(SinkError::Unavailable(_))), "{body}");
        }
    }

    #[test]
    fn a_read_asks_for_the_range_and_the_series() {
        let url = Url::parse("http://h/rows?api=1").unwrap();
        assert_eq!(rows_url(&url, None, TimeRange::default()).as_str(), "http://h/rows?api=1");
        let series = Series::from_sorted("n&", &[("k", "v\"")]);
        let range = TimeRange { from: Some(-1), to: Some(9) };
        assert_eq!(
            rows_url(&url, Some(&series), range).as_str(),
            "http://h/rows?api=1&from=-1&to=9&name=n%26&tags=%7B%22k%22%3A%22v%5C%22%22%7D"
        );
        assert_eq!(rows_url(&Url::parse("http://h/r").unwrap(), None, TimeRange::default()).as_str(), "http://h/r");
        assert_eq!(export_url(&Url::parse("http://h/select/0/").unwrap()).as_str(), "http://h/select/0/api/v1/export");
    }

    #[test]
    fn exported_samples_become_rows_of_windows() {
        let body = br#"{"metric":{"__name__":"a_value","k":"v","tallybus_partition":"t/0","tallybus_slot":"3"},"values":[5,6.0,9.007199254740992e15],"timestamps":[1700000000123,1700000001000,1700000001999]}
"#;
        let rows = exported(body, Format::Influx, 1_000_000_000).unwrap();
        let series = Series::from_sorted("a", &[("k", "v")]);
        let at = |second: i64, value| (series.clone(), (1_700_000_000 + second) * 1_000_000_000, value);
        assert_eq!(rows, [at(0, 5), at(1, 6), at(1, 1 << 53)]);
        let rows = exported(body, Format::Prometheus, 0).unwrap();
        assert_eq!((rows[0].0.name(), rows[0].1), ("a_value", 1_700_000_000_123_000_000));
        for value in ["1.5", "-1", "null", "\"x\""] {
            let line = format!(r#"{{"metric":{{"__name__":"a"}},"values":[{value}],"timestamps":[1]}}"#);
            assert!(matches!(exported(line.as_bytes(), Format::Prometheus, 0), Err(SinkError::Halt(_))), "{value}");
        }
    }
}
