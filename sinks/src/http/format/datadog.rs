//! Datadog's series, version 1 of its interface: one object for each series, of the type `count`.

use tallybus_sdk::{Batch, Rejection, SeriesView};

use super::super::identity::Identity;
use super::{Placed, by_series, json_string, number, only_exact_floats, place, reject_all, taken};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

pub(super) fn render(batch: &Batch, identity: &Identity) -> (Vec<u8>, Vec<Rejection>) {
    let mut rejected = Vec::new();
    let placed = place(batch, identity, &mut rejected);
    // The interval is what a rate is made of; at least a second.
    let interval = (batch.window / NANOS_PER_SECOND).max(1);
    let mut out = Vec::new();
    for (series, mut points) in by_series(batch, &placed) {
        let series = batch.series.get(series);
        if let Some(reason) = refusal(series, identity) {
            reject_all(&points, &reason, &mut rejected);
            continue;
        }
        only_exact_floats(&mut points, &mut rejected);
        if points.is_empty() {
            continue;
        }
        out.extend_from_slice(if out.is_empty() { b"{\"series\":[" } else { b",\n" });
        out.extend_from_slice(b"{\"metric\":");
        json_string(&mut out, series.name());
        out.extend_from_slice(b",\"type\":\"count\",\"interval\":");
        number(&mut out, interval);
        out.extend_from_slice(b",\"points\":[");
        render_points(&mut out, &points);
        out.extend_from_slice(b"],\"tags\":[");
        let tags = series.tags().chain(identity.labels());
        for (index, (key, value)) in tags.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json_string(&mut out, &format!("{key}:{value}"));
        }
        out.extend_from_slice(b"]}");
    }
    if !out.is_empty() {
        out.extend_from_slice(b"]}");
    }
    (out, rejected)
}

/// `[seconds, value]`, with milliseconds as a fraction.
fn render_points(out: &mut Vec<u8>, points: &[Placed]) {
    for (index, point) in points.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let millis = point.time.div_euclid(1_000_000);
        let (seconds, fraction) = (millis / 1_000, (millis % 1_000).abs());
        if millis < 0 && seconds == 0 {
            out.extend_from_slice(format!("[-0.{fraction:03},").as_bytes());
        } else {
            out.extend_from_slice(format!("[{seconds}.{fraction:03},").as_bytes());
        }
        number(out, point.value);
        out.push(b']');
    }
}

fn refusal(series: SeriesView<'_>, identity: &Identity) -> Option<String> {
    for (key, _) in series.tags() {
        if key.contains(':') {
            return Some(format!("its tag key {key:?} has a colon, which ends a key in a Datadog tag"));
        }
        if let Some(reason) = taken(identity, key) {
            return Some(reason);
        }
    }
    None
}
