//! Counts that are dated in the future: written as they are, and reported, because a producer's clock is probably wrong.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use tallybus_sdk::clock::Clock;
use tallybus_sdk::{Batch, Point};

use crate::pulse::rfc_3339;

/// How far ahead of this machine's clock a time is reported.
const HORIZON: Duration = Duration::from_secs(86_400);
/// How often it is reported while such counts come.
const EVERY: Duration = Duration::from_secs(3_600);

/// What is reported of one sink; shared by the writers of its partitions.
#[derive(Debug)]
pub(crate) struct FutureTimes {
    sink: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Events since the last report.
    events: u64,
    reported: Option<Instant>,
}

impl FutureTimes {
    pub(crate) fn new(sink: &str) -> Self {
        Self { sink: sink.to_owned(), state: Mutex::default() }
    }

    /// Looks at the times of a batch. Returns whether it was reported.
    pub(crate) fn note(&self, batch: &Batch, clock: &dyn Clock) -> bool {
        // A clock before 1970 or after 2262 says nothing about the batch.
        let Ok(now) = clock.wall_time().duration_since(UNIX_EPOCH) else { return false };
        let Ok(horizon) = i64::try_from((now + HORIZON).as_nanos()) else { return false };
        let Some(latest) = batch.points.iter().max_by_key(|point| point.time).filter(|point| point.time > horizon)
        else {
            return false;
        };
        let ahead = batch.points.iter().filter(|point| point.time > horizon);
        let events: u64 = ahead.map(|point| u64::from(point.events)).sum();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.events += events;
        let now = clock.now();
        if state.reported.is_some_and(|at| now.saturating_duration_since(at) < EVERY) {
            return false;
        }
        self.report(batch, latest, state.events);
        *state = State { events: 0, reported: Some(now) };
        true
    }

    fn report(&self, batch: &Batch, latest: &Point, events: u64) {
        let time = UNIX_EPOCH + Duration::from_nanos(latest.time.unsigned_abs());
        tracing::warn!(
            sink = self.sink,
            at = %format_args!("{}/{}/{}", batch.id.topic, latest.first.partition, latest.first.offset),
            time = %rfc_3339(time),
            events,
            "counts are dated more than a day in the future; they are written with that time: is a producer's clock wrong? \
             (reported once an hour)"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use tallybus_schemas::{Coordinate, Series};
    use tallybus_sdk::BatchId;
    use tallybus_sdk::clock::ManualClock;

    use super::*;

    fn batch(time: Duration) -> Batch {
        let first = Coordinate { partition: 0, offset: 7, index: 0 };
        let time = i64::try_from(time.as_nanos()).unwrap();
        Batch {
            id: BatchId { topic: "t".into(), partition: 0, first: 7, end: 8 },
            topic_index: 0,
            series: Arc::new([Series::from_sorted("a", &[])].into_iter().collect()),
            points: vec![Point { series: 0, time, value: 1, events: 1, first }],
            window: 0,
            part: String::new(),
            stream: None,
            recovered: false,
        }
    }

    #[test]
    fn counts_dated_in_2099_are_reported_once_an_hour_and_those_of_tomorrow_are_not() {
        let now = Duration::from_secs(1_800_000_000);
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH + now);
        let times = FutureTimes::new("s");
        assert!(!times.note(&batch(now + HORIZON), &clock));
        let wrong = batch(Duration::from_secs(4_070_908_800));
        assert!(times.note(&wrong, &clock));
        for _ in 0..3 {
            clock.advance(EVERY / 4);
            assert!(!times.note(&wrong, &clock));
        }
        clock.advance(EVERY / 4);
        assert!(times.note(&wrong, &clock));
        assert!(!times.note(&batch(Duration::ZERO), &clock));
    }
}
