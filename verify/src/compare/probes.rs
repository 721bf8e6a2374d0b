//! Probes: events on a fixed schedule, and how long each takes until a query sees it.
//!
//! The schedule is an open loop: a probe is due at its time whatever became of those before it, and its time counts from when it
//! was due. So a stall is in the times of all probes that were due in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tallybus_bus::{NewRecord, Publisher};
use tallybus_schemas::{ENCODING_HEADER, Encoding};
use tallybus_sdk::{Held, ReadBack, Sink, SinkError, TimeRange, WindowsQuery};
use tokio::runtime::Handle;

use super::latency::{Latencies, Latency};
use super::stats::{Summary, median, summarize};
use super::{CompareError, Known};

/// The counter of the probes.
pub const PROBE_NAME: &str = "tallybus.probe";
/// The probes are taken apart into so many blocks of equal length, whose percentiles give the intervals.
const BLOCKS: usize = 5;
/// Longest wait for the bus while records are on their way to it: less than the interval of most schedules.
const POLL: Duration = Duration::from_millis(50);
/// Longest wait for the next record of the background.
const BACKGROUND_POLL: Duration = Duration::from_millis(2);
/// Without windows, a backend may hold an event's time rounded down; InfluxDB to a millisecond. Nanoseconds. Probes of an earlier
/// comparison in this time are counted before the first one is sent.
const COARSEST: i64 = 1_000_000_000;
/// How long the bus may take to accept what is published.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(30);

/// When probes are due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// When the first one is.
    pub(super) began: Instant,
    /// The same moment: nanoseconds since the Unix epoch.
    pub(super) wall: i64,
    /// Probes per second; above 0.
    pub(super) rate: f64,
    /// How many there are.
    pub(super) count: u64,
}

impl Schedule {
    /// When a probe is due, counted from 0.
    pub(super) fn due(&self, probe: u64) -> Instant {
        self.began + self.offset(probe)
    }

    fn offset(&self, probe: u64) -> Duration {
        Duration::try_from_secs_f64(probe as f64 / self.rate).unwrap_or(Duration::MAX)
    }

    /// Its time as an event: nanoseconds since the Unix epoch.
    fn time(&self, probe: u64) -> i64 {
        let offset = i64::try_from(self.offset(probe).as_nanos()).unwrap_or(i64::MAX);
        self.wall.saturating_add(offset)
    }
}

/// How the schedule was kept.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Slips {
    /// Probes that were sent.
    pub(super) sent: u64,
    /// Of these, those that were sent more than an interval late.
    pub(super) late: u64,
    /// How late the latest one was.
    pub(super) latest: Duration,
    /// Events replayed beside them.
    pub(super) background_events: u64,
    /// For how long.
    pub(super) took: Duration,
}

/// A record that is replayed beside the probes.
pub(super) struct Background {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) payload: Vec<u8>,
    pub(super) events: u64,
}

/// Sends the probes, and replays `background` at `background_rate` events per second beside them, over and over. Ends early when
/// `stop` is set.
///
/// # Errors
/// The bus refused a record, or did not accept all of them in time.
pub(super) fn send(
    publisher: &mut dyn Publisher,
    topic: &str,
    schedule: &Schedule,
    background: &[Background],
    background_rate: f64,
    stop: &AtomicBool,
) -> Result<Slips, CompareError> {
    let mut slips = Slips::default();
    let interval = Duration::from_secs_f64(1.0 / schedule.rate);
    let mut replayed = background.iter().cycle();
    let (mut unanswered, mut deliveries) = (0_u64, Vec::new());
    let end = schedule.due(schedule.count);
    while !stop.load(Ordering::Acquire) {
        let now = Instant::now();
        while slips.sent < schedule.count && schedule.due(slips.sent) <= now {
            let late = now.saturating_duration_since(schedule.due(slips.sent));
            slips.late += u64::from(late > interval);
            slips.latest = slips.latest.max(late);
            let time = schedule.time(slips.sent);
            let payload = format!(r#"{{"name":"{PROBE_NAME}","value":1,"ts":{time}}}"#);
            let headers: &[(&str, &[u8])] = &[(ENCODING_HEADER, Encoding::Json.name().as_bytes())];
            let record = NewRecord { topic, partition: Some(0), key: None, payload: payload.as_bytes(), headers };
            publisher.publish(record, slips.sent)?;
            slips.sent += 1;
            unanswered += 1;
        }
        let passed = now.saturating_duration_since(schedule.began).as_secs_f64();
        while (slips.background_events as f64) < passed * background_rate && now < end {
            let Some(record) = replayed.next() else { break };
            let headers: Vec<(&str, &[u8])> =
                record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
            let new = NewRecord {
                topic: &record.topic,
                partition: Some(record.partition),
                key: record.key.as_deref(),
                payload: &record.payload,
                headers: &headers,
            };
            match publisher.publish(new, u64::MAX) {
                Ok(()) => {}
                // The queue is full: what is missing is seen in the rate that was reached.
                Err(error) if error.is_transient() => break,
                Err(error) => return Err(error.into()),
            }
            slips.background_events += record.events.max(1);
            unanswered += 1;
        }
        if slips.sent == schedule.count && now >= end {
            break;
        }
        let next = if slips.sent < schedule.count { schedule.due(slips.sent) } else { end };
        let idle = next.saturating_duration_since(Instant::now());
        let wait = match (unanswered > 0, background.is_empty()) {
            (true, _) => POLL,
            (false, true) => idle.min(POLL),
            (false, false) => idle.min(BACKGROUND_POLL),
        };
        publisher.poll(wait, &mut deliveries);
        unanswered -= accepted(&mut deliveries)?;
    }
    slips.took = Instant::now().saturating_duration_since(schedule.began);
    let until = Instant::now() + ACCEPTED_WITHIN;
    while unanswered > 0 {
        if Instant::now() >= until {
            let reason = format!("the bus did not accept every probe within {} s", ACCEPTED_WITHIN.as_secs());
            return Err(tallybus_bus::BusError::Unavailable(reason).into());
        }
        publisher.poll(Duration::from_millis(20), &mut deliveries);
        unanswered -= accepted(&mut deliveries)?;
    }
    Ok(slips)
}

/// How many of these the bus has stored.
fn accepted(deliveries: &mut Vec<tallybus_bus::Delivery>) -> Result<u64, CompareError> {
    let count = deliveries.len() as u64;
    for delivery in deliveries.drain(..) {
        if let Err(error) = delivery.outcome {
            let reason = format!("a probe, or a record beside it, was not stored: {error}");
            return Err(tallybus_bus::BusError::Unavailable(reason).into());
        }
    }
    Ok(count)
}

/// Watches the probes arrive in one backend, beside everything else.
pub(super) struct Observed {
    visible: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Seen>,
}

/// What was seen of the probes in one backend.
#[derive(Debug)]
pub(super) struct Seen {
    whole: Option<Latencies>,
    /// Block by block.
    blocks: Vec<Latencies>,
    /// How many probes were seen.
    visible: u64,
    /// From the start of one query to the answer of the next, in seconds.
    intervals: Vec<f64>,
    /// The last error, if the last query failed.
    failure: Option<String>,
}

/// How the backends are watched.
#[derive(Debug, Clone)]
pub(super) struct Watching {
    pub(super) schedule: Schedule,
    /// The interval between the starts of two queries; the next one begins at once when a query takes longer.
    pub(super) every: Duration,
    /// Set when nothing more is expected.
    pub(super) stop: Arc<AtomicBool>,
}

impl Observed {
    /// Begins to watch. `window` is the sink's, in nanoseconds.
    ///
    /// # Errors
    /// The backend cannot be queried.
    pub(super) fn begin(
        runtime: &Handle,
        sink: Arc<dyn Sink>,
        window: i64,
        watching: Watching,
    ) -> Result<Self, String> {
        let Some(read_back) = sink.read_back() else { return Err("this kind of sink cannot be read back".to_owned()) };
        let from = earliest(watching.schedule.wall, window);
        let query = WindowsQuery::new(TimeRange { from: Some(from), to: None }).named(PROBE_NAME);
        // Probes of an earlier comparison may be in the first window.
        let before = runtime.block_on(count(read_back, &query)).map_err(|error| error.to_string())?;
        let visible = Arc::new(AtomicU64::new(0));
        let task = runtime.spawn(watch(sink, query, before, watching, Arc::clone(&visible)));
        Ok(Self { visible, task })
    }

    /// How many probes are visible.
    pub(super) fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }

    /// What was seen, once nothing more is expected.
    pub(super) fn finish(self, runtime: &Handle) -> Result<Seen, String> {
        runtime.block_on(self.task).map_err(|error| format!("the queries ended early: {error}"))
    }
}

/// The earliest time that a backend may have for a probe that is due at `wall`.
fn earliest(wall: i64, window: i64) -> i64 {
    match window > 0 {
        true => wall - wall.rem_euclid(window),
        false => wall.saturating_sub(COARSEST),
    }
}

async fn count(read_back: &dyn ReadBack, query: &WindowsQuery) -> Result<u64, SinkError> {
    let mut sum = 0_u128;
    read_back
        .windows(query, &mut |held| {
            if let Held::Window(window) = held
                && window.series.name() == PROBE_NAME
                && query.range.contains(window.start)
            {
                sum += window.total;
            }
        })
        .await?;
    u64::try_from(sum).map_err(|_| SinkError::Halt("more probes than were ever sent".to_owned()))
}

async fn watch(
    sink: Arc<dyn Sink>,
    query: WindowsQuery,
    before: u64,
    watching: Watching,
    visible: Arc<AtomicU64>,
) -> Seen {
    let mut seen = Seen::new(watching.schedule.count);
    let mut last: Option<Instant> = None;
    while let Some(read_back) = sink.read_back() {
        let was_stopped = watching.stop.load(Ordering::Acquire);
        let began = Instant::now();
        match count(read_back, &query).await {
            Ok(found) => {
                let answered = Instant::now();
                seen.failure = None;
                if let Some(last) = last {
                    seen.intervals.push(answered.saturating_duration_since(last).as_secs_f64());
                }
                seen.take(found.saturating_sub(before), answered, &watching.schedule);
                visible.store(seen.visible, Ordering::Release);
            }
            Err(error) => seen.failure = Some(error.to_string()),
        }
        last = Some(began);
        if was_stopped || seen.visible >= watching.schedule.count {
            break;
        }
        tokio::time::sleep_until((began + watching.every).into()).await;
    }
    sink.close().await;
    seen
}

impl Seen {
    fn new(count: u64) -> Self {
        let blocks = if count < BLOCKS as u64 { 0 } else { BLOCKS };
        Self {
            whole: Latencies::new(),
            blocks: (0..blocks).filter_map(|_| Latencies::new()).collect(),
            visible: 0,
            intervals: Vec::new(),
            failure: None,
        }
    }

    /// Probes up to `found` were visible when a query was answered: all come through one partition, in order.
    fn take(&mut self, found: u64, answered: Instant, schedule: &Schedule) {
        let found = found.min(schedule.count);
        for probe in self.visible..found {
            let took = answered.saturating_duration_since(schedule.due(probe));
            if let Some(whole) = &mut self.whole {
                whole.add(took);
            }
            let block = u128::from(probe) * self.blocks.len() as u128 / u128::from(schedule.count.max(1));
            if let Some(block) = usize::try_from(block).ok().and_then(|block| self.blocks.get_mut(block)) {
                block.add(took);
            }
        }
        self.visible = self.visible.max(found);
    }

    /// From the start of one query to the answer of the next: the median, in seconds.
    fn resolution(&self) -> f64 {
        median(&self.intervals).unwrap_or_default()
    }

    /// The times; `sent` probes were sent.
    pub(super) fn latency(&self, sent: u64) -> Known<Latency> {
        let never_seen = sent.saturating_sub(self.visible);
        match self.whole.as_ref().and_then(|whole| whole.report(never_seen, self.resolution())) {
            Some(latency) => Known::Is(latency),
            None => Known::unknown(match &self.failure {
                Some(failure) => format!("no probe was seen: {failure}"),
                None => "no probe became visible before the comparison stopped waiting".to_owned(),
            }),
        }
    }

    /// The median over the blocks of what this share of each block's probes did not exceed, with the resolution as a part of its
    /// interval. Not known when a probe was never seen: then it took longer than any that was.
    pub(super) fn summary(&self, share: f64, sent: u64, seed: u64) -> Known<Summary> {
        if self.visible < sent {
            return Known::unknown(format!("{} of {sent} probes were never seen", sent - self.visible));
        }
        let of_blocks: Vec<f64> = self.blocks.iter().filter_map(|block| block.quantile(share)).collect();
        let resolution = self.resolution();
        summarize(&of_blocks, seed).map(|summary| summary.widened(resolution))
    }
}

#[cfg(test)]
#[path = "probes_tests.rs"]
mod tests;
