//! From sums that came by to the time that each increment spent in each stage.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tallybus_benches::live::backend::Write;
use tallybus_benches::live::load::Emissions;
use tallybus_benches::live::observer::Sighting;

/// What one row came to.
#[derive(Serialize)]
pub(crate) struct Latency {
    pub(crate) increments: u64,
    pub(crate) records: u64,
    pub(crate) writes: u64,
    pub(crate) stages: Vec<Stage>,
}

/// Milliseconds, over all increments.
#[derive(Serialize)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

const NAMES: [&str; 6] = [
    "in the counter, until the flush",
    "collector to broker to a reader",
    "in the open batch, until it is due",
    "sealed, encoded and sent",
    "written by the backend",
    "all: count! to acknowledged",
];

/// The increments of one series that a record or a write brought: those before `end` that none before it brought.
struct Brought<T> {
    end: u64,
    by: T,
}

/// What `all` brought, by series.
fn by_series<'a, T: Copy>(all: impl Iterator<Item = (T, &'a [(u32, u64)])>) -> HashMap<u32, Vec<Brought<T>>> {
    let mut series: HashMap<u32, Vec<Brought<T>>> = HashMap::new();
    for (by, sums) in all {
        for &(number, value) in sums {
            let brought = series.entry(number).or_default();
            let before = brought.last().map_or(0, |last| last.end);
            brought.push(Brought { end: before + value, by });
        }
    }
    series
}

/// Follows every increment that was made within `span`.
pub(crate) fn latency(
    emissions: &Emissions,
    sightings: &[Sighting],
    writes: &[Write],
    span: Range<u64>,
    max_delay: Duration,
) -> Result<Latency> {
    let on_bus = by_series(sightings.iter().enumerate().map(|(at, sighting)| (at, sighting.sums.as_slice())));
    let written = by_series(writes.iter().enumerate().map(|(at, write)| (at, write.added.as_slice())));
    let opened = opened(sightings, &on_bus, &written, writes.len());
    let delay = u64::try_from(max_delay.as_nanos())?;

    let mut spent: [Vec<u64>; NAMES.len()] = Default::default();
    for (series, times) in emissions {
        let mut records = on_bus.get(series).context("a series was not on the bus")?.iter().peekable();
        let mut points = written.get(series).context("a series was not written")?.iter().peekable();
        for (index, &emitted) in (0_u64..).zip(times) {
            while records.next_if(|record| record.end <= index).is_some() {}
            while points.next_if(|point| point.end <= index).is_some() {}
            let record = &sightings[records.peek().context("an increment was not on the bus")?.by];
            let write = points.peek().context("an increment was not written")?.by;
            if !span.contains(&emitted) {
                continue;
            }
            // A batch is due a while after its first record; the worker's clock for that starts when the record is there.
            let due = (opened[write] + delay).clamp(record.seen, writes[write].arrived.max(record.seen));
            let moments = [emitted, record.taken, record.seen, due, writes[write].arrived, writes[write].answered];
            for (stage, pair) in spent.iter_mut().zip(moments.windows(2)) {
                stage.push(pair[1].saturating_sub(pair[0]));
            }
            spent[NAMES.len() - 1].push(writes[write].answered.saturating_sub(emitted));
        }
    }
    let increments = spent[0].len() as u64;
    let within = |time: &u64| span.contains(time);
    Ok(Latency {
        increments,
        records: sightings.iter().filter(|sighting| within(&sighting.seen)).count() as u64,
        writes: writes.iter().filter(|write| within(&write.arrived)).count() as u64,
        stages: NAMES.into_iter().zip(spent).map(|(name, times)| stage(name, times)).collect(),
    })
}

/// When the first record of each write was there.
fn opened(
    sightings: &[Sighting],
    on_bus: &HashMap<u32, Vec<Brought<usize>>>,
    written: &HashMap<u32, Vec<Brought<usize>>>,
    writes: usize,
) -> Vec<u64> {
    let mut opened = vec![u64::MAX; writes];
    for (series, points) in written {
        let mut records = on_bus.get(series).into_iter().flatten().peekable();
        for point in points {
            while let Some(record) = records.next_if(|record| record.end <= point.end) {
                opened[point.by] = opened[point.by].min(sightings[record.by].seen);
            }
        }
    }
    opened
}

#[allow(clippy::cast_precision_loss, reason = "nanoseconds of a run lie far below 2^52")]
fn stage(name: &'static str, mut times: Vec<u64>) -> Stage {
    times.sort_unstable();
    let ms = |nanos: u64| nanos as f64 / 1e6;
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let rank = |percent| at(percent).copied().map_or(0.0, ms);
    let mean = ms(times.iter().sum::<u64>()) / times.len().max(1) as f64;
    Stage { name, mean, p50: rank(50), p90: rank(90), p99: rank(99), max: rank(100) }
}
