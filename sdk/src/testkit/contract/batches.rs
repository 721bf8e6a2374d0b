//! Batches to write, and the content that a backend must then have.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallybus_schemas::{Coordinate, Series};

use crate::testkit::contract::ask::Ask as _;
use crate::{Batch, BatchId, Point, Rejection, Sink, SinkError, TimeRange, WriteOutcome, resolution};

pub const SECOND: i64 = 1_000_000_000;
/// A Tuesday in November 2023.
pub const START: i64 = 1_700_000_000 * SECOND;

pub fn series(name: &str, tags: &[(&str, &str)]) -> Series {
    let mut tags = tags.to_vec();
    tags.sort_unstable();
    Series::from_sorted(name, &tags)
}

/// Collects events into batches as the runtime does.
pub struct Maker {
    topic: Arc<str>,
    topic_index: u32,
    partition: u32,
    window: i64,
    next: u64,
}

impl Maker {
    pub fn new(window: i64, partition: u32) -> Self {
        Self { topic: "tallybus.counters".into(), topic_index: 0, partition, window, next: 0 }
    }

    pub fn of_topic(mut self, topic: &str, index: u32) -> Self {
        self.topic = topic.into();
        self.topic_index = index;
        self
    }

    pub fn from(mut self, offset: u64) -> Self {
        self.next = offset;
        self
    }

    /// One message for each event; a batch of one offset when there are none.
    pub fn batch(&mut self, events: &[(Series, i64, u64)]) -> Batch {
        let first = self.next;
        let mut known: Vec<&Series> = Vec::new();
        let mut places: BTreeMap<Series, u32> = BTreeMap::new();
        let mut points: Vec<Point> = Vec::new();
        let mut sums: BTreeMap<(u32, i64), usize> = BTreeMap::new();
        for (series, time, value) in events {
            let index = *places.entry(series.clone()).or_insert_with(|| {
                known.push(series);
                u32::try_from(known.len() - 1).unwrap()
            });
            let time = if self.window == 0 { *time } else { time - time.rem_euclid(self.window) };
            let first = Coordinate { partition: self.partition, offset: self.next, index: 0 };
            self.next += 1;
            let fresh = Point { series: index, time, value: *value, events: 1, first };
            match sums.get(&(index, time)).filter(|_| self.window != 0) {
                Some(&place) => {
                    points[place].value += value;
                    points[place].events += 1;
                }
                None => {
                    sums.insert((index, time), points.len());
                    points.push(fresh);
                }
            }
        }
        self.next = self.next.max(first + 1);
        Batch {
            id: BatchId { topic: self.topic.clone(), partition: self.partition, first, end: self.next },
            topic_index: self.topic_index,
            series: Arc::new(known.into_iter().collect()),
            points,
            window: self.window,
            part: String::new(),
            stream: None,
            recovered: false,
        }
    }
}

/// The batch as a new owner finds it: sealed.
pub fn recovered(batch: &Batch) -> Batch {
    Batch { recovered: true, ..batch.clone() }
}

/// The content that a backend must have.
#[derive(Debug, Default, Clone)]
pub struct Expected {
    sums: BTreeMap<Series, BTreeMap<i64, u64>>,
}

impl Expected {
    pub fn of<'b>(batches: impl IntoIterator<Item = &'b Batch>) -> Self {
        let mut expected = Self::default();
        for batch in batches {
            for point in &batch.points {
                expected.add(&batch.series.get(point.series).to_series(), point.time, point.value);
            }
        }
        expected
    }

    pub fn add(&mut self, series: &Series, time: i64, value: u64) {
        *self.sums.entry(series.clone()).or_default().entry(time).or_default() += value;
    }

    pub fn series(&self) -> impl Iterator<Item = &Series> {
        self.sums.keys()
    }

    pub fn totals(&self, range: TimeRange) -> BTreeMap<Series, u64> {
        let total = |times: &BTreeMap<i64, u64>| -> u64 {
            times.iter().filter(|(time, _)| range.contains(**time)).map(|(_, value)| value).sum()
        };
        self.sums.iter().map(|(series, times)| (series.clone(), total(times))).filter(|(_, total)| *total > 0).collect()
    }

    pub fn windows(&self, series: &Series, range: TimeRange, resolution: i64) -> Vec<(i64, u64)> {
        let mut sums: BTreeMap<i64, u64> = BTreeMap::new();
        for (time, value) in self.sums.get(series).into_iter().flatten() {
            if range.contains(*time) {
                *sums.entry(time - time.rem_euclid(resolution)).or_default() += value;
            }
        }
        sums.into_iter().collect()
    }

    /// Compares with the backend: every window of every series.
    pub async fn check(&self, sink: &dyn Sink, window: i64) {
        self.check_range(sink, window, TimeRange::default()).await;
    }

    pub async fn check_range(&self, sink: &dyn Sink, window: i64, range: TimeRange) {
        let resolution = resolution(window);
        let mut found: BTreeMap<(Series, i64), u128> = BTreeMap::new();
        for ((series, start), total) in sink.holdings(range).await.expect("what it holds").windows {
            let window_start = start - start.rem_euclid(resolution);
            *found.entry(((*series).clone(), window_start)).or_default() += total;
        }
        for series in self.series() {
            for (start, total) in self.windows(series, range, resolution) {
                let held = found.remove(&(series.clone(), start));
                assert_eq!(held, Some(total.into()), "{series} at {start} in {range:?} by {resolution} ns");
            }
        }
        assert!(found.is_empty(), "nothing but what was written, in {range:?}: {found:?}");
    }
}

/// Writes as the runtime does: retries, and halves on a split. Returns series and value of every rejected point.
///
/// # Panics
/// When the sink halts, or retries for ever.
pub async fn settle(sink: &dyn Sink, batch: &Batch) -> Vec<(Series, u64)> {
    let mut rejected = Vec::new();
    let mut parts = vec![batch.clone()];
    let mut tries = 0;
    while let Some(part) = parts.pop() {
        let encoded = sink.encode(&part);
        let mut reject = |points: &[Rejection]| {
            for rejection in points {
                assert!(!rejection.reason.is_empty());
                let point = part.points[rejection.point];
                rejected.push((part.series.get(point.series).to_series(), point.value));
            }
        };
        match sink.write(&part, &encoded).await {
            WriteOutcome::Done => reject(&encoded.rejected),
            WriteOutcome::Rejected(points) => {
                reject(&encoded.rejected);
                reject(&points);
            }
            WriteOutcome::Split { reason } => match part.split() {
                Some((left, right)) => parts.extend([right, left]),
                None => {
                    let sent = |point: &usize| encoded.rejected.iter().all(|rejection| rejection.point != *point);
                    let rest = (0..part.points.len()).filter(sent);
                    let rest: Vec<_> = rest.map(|point| Rejection { point, reason: reason.clone() }).collect();
                    reject(&encoded.rejected);
                    reject(&rest);
                }
            },
            WriteOutcome::Retry { reason, .. } => {
                tries += 1;
                assert!(tries < 400, "retries for ever: {reason}");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                parts.push(part);
            }
            WriteOutcome::Halt { reason } => panic!("{}: halted: {reason}", part.key()),
        }
    }
    rejected
}

/// Writes a batch of which nothing may be refused.
pub async fn settle_all(sink: &dyn Sink, batch: &Batch) {
    assert_eq!(settle(sink, batch).await, []);
}

/// One attempt.
pub async fn write(sink: &dyn Sink, batch: &Batch) -> WriteOutcome {
    sink.write(batch, &sink.encode(batch)).await
}

pub fn halts(answer: &WriteOutcome, because: &str) -> bool {
    matches!(answer, WriteOutcome::Halt { reason } if reason.contains(because))
}

pub fn check_halts(check: &Result<(), SinkError>, because: &str) -> bool {
    matches!(check, Err(SinkError::Halt(reason)) if reason.contains(because))
}

/// This many batches of one partition, one after another, of the same three series.
pub fn batches(count: u64) -> Vec<Batch> {
    let mut maker = Maker::new(SECOND, 0);
    let event = |n: u64| (series("a", &[("n", &(n % 3).to_string())]), START, n + 1);
    (0..count).map(|_| maker.batch(&[event(0), event(1), event(2), event(3)])).collect()
}
