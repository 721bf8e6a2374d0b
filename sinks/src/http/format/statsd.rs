//! StatsD lines with DogStatsD's tags and times: `name:3|c|#key:value|T1700000000`.
//!
//! The receiver adds up all lines: nothing identifies a line.

use tallybus_sdk::{Batch, Rejection, SeriesView};

use super::number;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

pub(super) fn render(batch: &Batch) -> (Vec<u8>, Vec<Rejection>) {
    let mut out = Vec::new();
    let mut rejected = Vec::new();
    for (index, point) in batch.points.iter().enumerate() {
        let series = batch.series.get(point.series);
        if let Some(reason) = refusal(series, point.time) {
            rejected.push(Rejection { point: index, reason });
            continue;
        }
        out.extend_from_slice(series.name().as_bytes());
        out.push(b':');
        number(&mut out, point.value);
        out.extend_from_slice(b"|c");
        for (index, (key, value)) in series.tags().enumerate() {
            out.extend_from_slice(if index == 0 { b"|#" } else { b"," });
            out.extend_from_slice(key.as_bytes());
            out.push(b':');
            out.extend_from_slice(value.as_bytes());
        }
        out.extend_from_slice(b"|T");
        number(&mut out, point.time / NANOS_PER_SECOND);
        out.push(b'\n');
    }
    (out, rejected)
}

/// These lines have no escapes: a delimiter in a text would change the series.
fn refusal(series: SeriesView<'_>, time: i64) -> Option<String> {
    let has = |text: &str, marks: &[char]| text.chars().any(|c| marks.contains(&c) || c.is_control());
    if has(series.name(), &[':', '|', '@', '#']) {
        return Some("its name contains a StatsD delimiter (: | @ #), which cannot be escaped".to_owned());
    }
    for (key, value) in series.tags() {
        if has(key, &[':', '|', ',']) || has(value, &['|', ',']) {
            return Some(format!("its tag {key:?}contains a StatsD delimiter (: | ,), which cannot be escaped"));
        }
    }
    (time < 0).then(|| "its time is before 1970, the earliest that StatsD lines can express".to_owned())
}
