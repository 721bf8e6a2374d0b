//! The formats of a request's body, one file for each family. Pure: no I/O, no clock.

pub(super) mod datadog;
pub(super) mod influx;
pub(super) mod json;
pub(super) mod otlp;
pub(super) mod prometheus;
pub(super) mod statsd;

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use tallybus_sdk::{Batch, NANOS_PER_MILLI, Rejection};

use super::identity::Identity;

/// The largest whole number up to which a 64-bit float represents every whole number exactly.
const MOST_IN_A_FLOAT: u64 = 1 << 53;

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    NdJson,
    Datadog,
    Prometheus,
    Otlp,
    Influx,
    Statsd,
}

impl Format {
    pub(super) const NAMES: [&'static str; 7] = ["json", "ndjson", "datadog", "prometheus", "otlp", "influx", "statsd"];

    pub(super) fn of(name: &str) -> Option<Self> {
        let all = [Self::Json, Self::NdJson, Self::Datadog, Self::Prometheus, Self::Otlp, Self::Influx, Self::Statsd];
        all.into_iter().find(|format| format.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::NdJson => "ndjson",
            Self::Datadog => "datadog",
            Self::Prometheus => "prometheus",
            Self::Otlp => "otlp",
            Self::Influx => "influx",
            Self::Statsd => "statsd",
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::Datadog => "application/json",
            Self::NdJson => "application/x-ndjson",
            Self::Prometheus | Self::Otlp => "application/x-protobuf",
            Self::Influx | Self::Statsd => "text/plain; charset=utf-8",
        }
    }

    /// Whether the format identifies points by series and time, with times too coarse for events without a window.
    pub(super) fn needs_window(self) -> bool {
        matches!(self, Self::Datadog | Self::Prometheus)
    }

    /// The body with all points that the format can hold; the remaining points are rejected. Empty when there are none.
    pub(super) fn render(self, batch: &Batch, slots: u64) -> (Vec<u8>, Vec<Rejection>) {
        match self {
            Self::Json => json::render(batch, true),
            Self::NdJson => json::render(batch, false),
            Self::Datadog => datadog::render(batch, &Identity::of(batch, slots)),
            Self::Prometheus => prometheus::render(batch, &Identity::of(batch, slots)),
            Self::Otlp => otlp::render(batch, &Identity::of(batch, slots)),
            Self::Influx => influx::render(batch, &Identity::of(batch, slots)),
            Self::Statsd => statsd::render(batch),
        }
    }
}

/// A point with its time in a format that identifies points by series and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placed {
    series: u32,
    /// Start of the window, or of the millisecond without one.
    start: i64,
    /// Its time, after the start.
    time: i64,
    value: u64,
    /// Its index in the batch; for several events, that of the first.
    point: usize,
}

/// Gives every point its time. Without a window, events of one series and millisecond are summed, because they would
/// have the same time. Points that do not fit are rejected.
fn place(batch: &Batch, identity: &Identity, rejected: &mut Vec<Rejection>) -> Vec<Placed> {
    let mut placed: Vec<Placed> = Vec::with_capacity(batch.points.len());
    // Producers choose series and times, hence the seeded hash.
    let hasher = DefaultHashBuilder::default();
    let mut known: HashTable<usize> = HashTable::new();
    let mut reject = |point: usize, reason: &str| rejected.push(Rejection { point, reason: reason.to_owned() });
    for (index, point) in batch.points.iter().enumerate() {
        let start = if batch.window == 0 { point.time - point.time.rem_euclid(NANOS_PER_MILLI) } else { point.time };
        let Some(time) = start.checked_add(identity.within) else {
            reject(index, "its time is after 2262-04-11, the last day that 64-bit nanoseconds can express");
            continue;
        };
        let fresh = Placed { series: point.series, start, time, value: point.value, point: index };
        if batch.window != 0 {
            placed.push(fresh);
            continue;
        }
        let hash = hasher.hash_one((fresh.series, fresh.time));
        let same = known.find(hash, |&at| (placed[at].series, placed[at].time) == (fresh.series, fresh.time));
        let Some(&at) = same else {
            known.insert_unique(hash, placed.len(), |&at| hasher.hash_one((placed[at].series, placed[at].time)));
            placed.push(fresh);
            continue;
        };
        match placed[at].value.checked_add(fresh.value).filter(|sum| i64::try_from(*sum).is_ok()) {
            Some(sum) => placed[at].value = sum,
            None => reject(index, "with the other events of its series and millisecond it exceeds 2^63 - 1"),
        }
    }
    placed
}

/// The same points by series, in the order of each one's first; those of one series in the order of their times.
fn by_series(batch: &Batch, placed: &[Placed]) -> Vec<(u32, Vec<Placed>)> {
    const NONE: usize = usize::MAX;
    let mut place_of = vec![NONE; batch.series.len()];
    let mut groups: Vec<(u32, Vec<Placed>)> = Vec::new();
    for point in placed {
        let place = &mut place_of[point.series as usize];
        if *place == NONE {
            *place = groups.len();
            groups.push((point.series, Vec::new()));
        }
        groups[*place].1.push(*point);
    }
    for (_, points) in &mut groups {
        points.sort_by_key(|point| point.time);
    }
    groups
}

/// Rejects every point of a group.
fn reject_all(points: &[Placed], reason: &str, rejected: &mut Vec<Rejection>) {
    rejected.extend(points.iter().map(|point| Rejection { point: point.point, reason: reason.to_owned() }));
}

/// Rejects the points whose value a 64-bit float cannot represent exactly.
fn only_exact_floats(points: &mut Vec<Placed>, rejected: &mut Vec<Rejection>) {
    points.retain(|point| {
        let is_exact = point.value <= MOST_IN_A_FLOAT;
        if !is_exact {
            let reason = "its value exceeds 2^53, above which this format's numbers are not exact".to_owned();
            rejected.push(Rejection { point: point.point, reason });
        }
        is_exact
    });
}

/// Why a series conflicts with the labels of the identity.
fn taken(identity: &Identity, key: &str) -> Option<String> {
    identity.takes(key).then(|| format!("its tag {key:?} would hide the label that keeps batches apart; drop it"))
}

/// A JSON string.
fn json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 | 0x7f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests;
