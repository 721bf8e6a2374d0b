//! Encodes a batch as rows: JSON, one object per line.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use tallybus_sdk::{Batch, Encoded};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The rows, gzipped if asked for; nothing for a batch without points.
pub(super) fn encode(batch: &Batch, gzip: bool) -> Encoded {
    if batch.points.is_empty() {
        return Encoded::default();
    }
    // The parts shared by all rows of a batch, or of a series, are rendered once.
    let id = &batch.id;
    let end = format!(
        ",\"topic\":{},\"partition\":{},\"first_offset\":{},\"end_offset\":{},\"part\":\"{}\"}}\n",
        quoted(&id.topic),
        id.partition,
        id.first,
        id.end,
        batch.part
    );
    let mut series: Vec<Option<String>> = vec![None; batch.series.len()];
    let mut text = String::new();
    for point in &batch.points {
        let Some(known) = series.get_mut(point.series as usize) else { continue };
        let of_series = known.get_or_insert_with(|| {
            let series = batch.series.get(point.series);
            format!("\",\"name\":{},\"tags\":{}", quoted(series.name()), object(series.tags()))
        });
        // Ten digits of seconds: fewer could be read as a year.
        let (seconds, nanos) = (point.time.div_euclid(NANOS_PER_SECOND), point.time.rem_euclid(NANOS_PER_SECOND));
        let _infallible =
            write!(text, "{{\"time\":\"{seconds:010}.{nanos:09}{of_series},\"value\":{}{end}", point.value);
    }
    let body = if gzip { compressed(text.as_bytes()) } else { text.into_bytes() };
    Encoded::bytes(body, Vec::new())
}

pub(super) fn compressed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    // Writing to memory cannot fail.
    let _infallible = encoder.write_all(text);
    encoder.finish().unwrap_or_default()
}

/// The display of a JSON string is the string quoted.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn object<'t>(tags: impl Iterator<Item = (&'t str, &'t str)>) -> String {
    let pairs: Vec<String> = tags.map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use tallybus_schemas::{Coordinate, Series};
    use tallybus_sdk::{BatchId, Point};

    use super::*;

    fn batch(points: &[(u32, i64, u64)]) -> Batch {
        let series = [Series::from_sorted("a\"b", &[]), Series::from_sorted("c", &[("k\\", "é\n"), ("l", "{}")])];
        let point = |&(series, time, value): &(u32, i64, u64)| Point {
            series,
            time,
            value,
            events: 1,
            first: Coordinate { partition: 0, offset: 0, index: 0 },
        };
        Batch {
            id: BatchId { topic: "t".into(), partition: 3, first: 5, end: 9 },
            topic_index: 0,
            series: Arc::new(series.into_iter().collect()),
            points: points.iter().map(point).collect(),
            window: 0,
            part: "01".to_owned(),
            stream: None,
            recovered: false,
        }
    }

    #[test]
    fn rows_are_json_and_exact() {
        let batch = batch(&[(1, 1_700_000_000_000_000_007, u64::MAX), (0, 1, 2), (1, i64::MAX, 1)]);
        let encoded = encode(&batch, false);
        let text = String::from_utf8(encoded.as_bytes().unwrap().to_vec()).unwrap();
        assert_eq!(
            text.lines().next().unwrap(),
            "{\"time\":\"1700000000.000000007\",\"name\":\"c\",\"tags\":{\"k\\\\\":\"é\\n\",\"l\":\"{}\"},\
             \"value\":18446744073709551615,\"topic\":\"t\",\"partition\":3,\"first_offset\":5,\"end_offset\":9,\
             \"part\":\"01\"}"
        );
        let times: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["time"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(times, ["1700000000.000000007", "0000000000.000000001", "9223372036.854775807"]);
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(&**encode(&batch, true).as_bytes().unwrap())
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, text);
    }

    #[test]
    fn no_points_no_body() {
        assert_eq!(encode(&batch(&[]), true), Encoded::default());
    }
}
