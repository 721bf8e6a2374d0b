//! A sink that notes what its writes come to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hdrhistogram::Histogram;
use tallybus_bus::TopicPartition;
use tallybus_sdk::{
    Admin, Batch, BuildSink, Claims, DeliveryGuarantee, Encoded, LedgerEnd, ReadBack, Sink, SinkError, Usage,
    WriteOutcome,
};

use super::{Known, Spread};

/// Significant digits of times and sizes.
const DIGITS: u8 = 3;

/// What the writes of one worker came to. Shared with its sink.
#[derive(Debug, Clone, Default)]
pub(super) struct Writes(Arc<Mutex<Figures>>);

#[derive(Debug, Default)]
struct Figures {
    /// When the first batch was handed over.
    began: Option<Instant>,
    /// The batches written of each partition, by their ends: when the last part was, and how many events it had.
    batches: BTreeMap<TopicPartition, BTreeMap<u64, (Instant, u64)>>,
    counts: WriteCounts,
    micros: Option<Histogram<u64>>,
    points: Option<Histogram<u64>>,
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WriteCounts {
    pub(super) writes: u64,
    pub(super) points: u64,
    pub(super) retries: u64,
    pub(super) splits: u64,
    pub(super) rejections: u64,
    pub(super) halts: u64,
}

/// How fast a range was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    pub(super) events: u64,
    pub(super) took: Duration,
}

impl Pace {
    /// Events per second; `None` when no time passed.
    pub(super) fn rate(&self) -> Option<f64> {
        (!self.took.is_zero()).then(|| self.events as f64 / self.took.as_secs_f64())
    }
}

impl Writes {
    /// Wraps every sink that `build` creates.
    pub(super) fn wrap(&self, build: BuildSink) -> BuildSink {
        let writes = self.clone();
        Box::new(move |context| {
            let sink = build(context)?;
            Ok(Arc::new(MeasuredSink { sink, writes: writes.clone() }))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> WriteCounts {
        self.lock().counts
    }

    /// How long ago the first batch was handed to the sink, at this time; `None` before.
    pub(super) fn lasted_until(&self, now: Instant) -> Option<Duration> {
        self.lock().began.map(|began| now.saturating_duration_since(began))
    }

    /// From the first batch handed to the sink until the last one was written. The last batch of a partition is not full and
    /// waits for its greatest age, so it is left out where the partition has others. `None` before anything is written.
    pub(super) fn pace(&self) -> Option<Pace> {
        let figures = self.lock();
        let began = figures.began?;
        let counted = figures.batches.values().flat_map(|batches| {
            let full = batches.len().saturating_sub(1).max(1);
            batches.values().take(full)
        });
        let (mut events, mut end) = (0, None);
        for (at, of_batch) in counted {
            events += of_batch;
            end = end.max(Some(*at));
        }
        Some(Pace { events, took: end?.saturating_duration_since(began) })
    }

    /// How many events were in everything that was written.
    pub(super) fn events(&self) -> u64 {
        self.lock().batches.values().flat_map(BTreeMap::values).map(|(_, events)| events).sum()
    }

    /// How long the writes that were done took: seconds.
    pub(super) fn write_seconds(&self) -> Known<Spread> {
        spread(self.lock().micros.as_ref(), 1e-6)
    }

    /// How many points they had.
    pub(super) fn write_points(&self) -> Known<Spread> {
        spread(self.lock().points.as_ref(), 1.0)
    }

    fn handed_over(&self) {
        self.lock().began.get_or_insert_with(Instant::now);
    }

    fn written(&self, batch: &Batch, outcome: &WriteOutcome, took: Duration) {
        let mut figures = self.lock();
        figures.counts.writes += 1;
        let points = batch.points.len() as u64;
        match outcome {
            WriteOutcome::Done => figures.done(batch, points, took),
            WriteOutcome::Rejected(rejections) => {
                let refused = rejections.len() as u64;
                figures.counts.rejections += refused;
                figures.done(batch, points.saturating_sub(refused), took);
            }
            WriteOutcome::Retry { .. } => figures.counts.retries += 1,
            WriteOutcome::Split { .. } => figures.counts.splits += 1,
            WriteOutcome::Halt { .. } => figures.counts.halts += 1,
        }
    }
}

impl Figures {
    fn done(&mut self, batch: &Batch, points: u64, took: Duration) {
        self.counts.points += points;
        let events: u64 = batch.points.iter().map(|point| u64::from(point.events)).sum();
        let of_batch = self.batches.entry(batch.id.at()).or_default().entry(batch.id.end);
        let (at, sum) = of_batch.or_insert_with(|| (Instant::now(), 0));
        (*at, *sum) = (Instant::now(), *sum + events);
        note(&mut self.micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        note(&mut self.points, points);
    }
}

fn note(histogram: &mut Option<Histogram<u64>>, figure: u64) {
    if histogram.is_none() {
        *histogram = Histogram::new_with_bounds(1, u64::MAX / 4, DIGITS).ok();
    }
    if let Some(histogram) = histogram {
        histogram.saturating_record(figure);
    }
}

fn spread(histogram: Option<&Histogram<u64>>, unit: f64) -> Known<Spread> {
    let Some(histogram) = histogram.filter(|histogram| !histogram.is_empty()) else {
        return Known::unknown("nothing was written");
    };
    let at = |share| histogram.value_at_quantile(share) as f64 * unit;
    Known::Is(Spread { p50: at(0.5), p99: at(0.99), max: histogram.max() as f64 * unit })
}

/// Does what its sink does.
struct MeasuredSink {
    sink: Arc<dyn Sink>,
    writes: Writes,
}

#[async_trait]
impl Sink for MeasuredSink {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        self.sink.delivery_guarantee()
    }

    fn layout_fingerprint(&self) -> String {
        self.sink.layout_fingerprint()
    }

    fn lasting_layout(&self) -> Option<String> {
        self.sink.lasting_layout()
    }

    fn has_place(&self, topic_index: u32, partition: u32) -> Result<(), String> {
        self.sink.has_place(topic_index, partition)
    }

    async fn check(&self) -> Result<(), SinkError> {
        self.sink.check().await
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.sink.admin()
    }

    fn read_back(&self) -> Option<&dyn ReadBack> {
        self.sink.read_back()
    }

    fn destination(&self) -> Option<String> {
        self.sink.destination()
    }

    fn claims(&self) -> Option<&dyn Claims> {
        self.sink.claims()
    }

    fn usage(&self) -> Vec<Usage> {
        self.sink.usage()
    }

    fn without_network(&self) -> Option<&'static str> {
        self.sink.without_network()
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        self.writes.handed_over();
        self.sink.encode(batch)
    }

    async fn ledger_end(&self, topic: &str, partition: u32) -> Result<Option<LedgerEnd>, SinkError> {
        self.sink.ledger_end(topic, partition).await
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        let began = Instant::now();
        let outcome = self.sink.write(batch, encoded).await;
        self.writes.written(batch, &outcome, began.elapsed());
        outcome
    }

    async fn close(&self) {
        self.sink.close().await;
    }
}

#[cfg(test)]
mod tests {
    use tallybus_bus::StreamId;
    use tallybus_sdk::{BatchId, Coordinate, Point, Rejection, SeriesTable};

    use super::*;

    fn batch(partition: u32, end: u64, events: u32) -> Batch {
        let id = BatchId { topic: "t".into(), partition, first: end - 1, end };
        let first = Coordinate { partition, offset: end - 1, index: 0 };
        let stream: StreamId = "any:stream".parse().unwrap();
        Batch {
            id,
            topic_index: 0,
            series: Arc::new(SeriesTable::default()),
            points: vec![Point { series: 0, time: 0, value: 1, events, first }],
            window: 0,
            part: String::new(),
            stream: Some(stream),
            recovered: false,
        }
    }

    #[test]
    fn each_outcome_has_its_count_and_only_what_was_written_has_a_time() {
        let writes = Writes::default();
        assert!(writes.pace().is_none() && writes.write_seconds().reason().is_some());
        writes.handed_over();
        let took = Duration::from_millis(20);
        writes.written(&batch(0, 1, 5), &WriteOutcome::Done, took);
        let reason = String::new;
        writes.written(&batch(0, 1, 5), &WriteOutcome::Retry { after: None, reason: reason() }, took * 100);
        writes.written(&batch(0, 1, 5), &WriteOutcome::Split { reason: reason() }, took * 100);
        writes.written(&batch(0, 1, 5), &WriteOutcome::Halt { reason: reason() }, took * 100);
        writes.written(
            &batch(0, 2, 5),
            &WriteOutcome::Rejected(vec![Rejection { point: 0, reason: "no".to_owned() }]),
            took,
        );
        let expected = WriteCounts { writes: 5, points: 1, retries: 1, splits: 1, rejections: 1, halts: 1 };
        assert_eq!(writes.counts(), expected);
        let Known::Is(seconds) = writes.write_seconds() else { panic!("known") };
        assert!((seconds.max - 0.02).abs() < 0.001, "{seconds:?}");
    }

    #[test]
    fn the_last_batch_of_a_partition_is_left_out_of_the_pace_where_there_are_others() {
        let writes = Writes::default();
        writes.handed_over();
        for (partition, end, events) in [(0, 1, 10), (0, 2, 10), (0, 3, 1), (1, 1, 7)] {
            writes.written(&batch(partition, end, events), &WriteOutcome::Done, Duration::ZERO);
        }
        assert_eq!(writes.pace().unwrap().events, 27, "two full batches, and the only one of the other partition");
    }
}
