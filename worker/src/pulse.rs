//! One line a minute for a running worker: how fast it is, and how far behind.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tallybus_sdk::clock::Clock;

use crate::status::WorkerStatus;

const EVERY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Pulse {
    sink: String,
    clock: Arc<dyn Clock>,
    last: Instant,
    events: u64,
    dead_letters: u64,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    events_per_second: f64,
    lag: Option<u64>,
    lag_time: Option<Duration>,
    oldest: Option<SystemTime>,
    dead_letters: u64,
}

impl Pulse {
    pub(crate) fn new(sink: &str, clock: Arc<dyn Clock>) -> Self {
        Self { sink: sink.to_owned(), last: clock.now(), clock, events: 0, dead_letters: 0 }
    }

    /// Logs the line when a minute has passed since the last one.
    pub(crate) fn beat(&mut self, status: impl FnOnce() -> WorkerStatus) {
        let now = self.clock.now();
        let passed = now - self.last;
        if passed < EVERY {
            return;
        }
        let line = self.line(&status(), passed);
        self.last = now;
        tracing::info!(
            sink = self.sink,
            events_per_second = %format_args!("{:.1}", line.events_per_second),
            lag_messages = %known(line.lag),
            lag_seconds = %known(line.lag_time.map(|lag| lag.as_secs())),
            oldest_unsettled = %oldest(line.oldest, line.lag),
            dead_letters = line.dead_letters,
            "in the last minute"
        );
    }

    /// Dead letters and events since the last line.
    fn line(&mut self, status: &WorkerStatus, passed: Duration) -> Line {
        let events = status.events.saturating_sub(self.events);
        let dead_letters = status.dead_letters.saturating_sub(self.dead_letters);
        (self.events, self.dead_letters) = (status.events, status.dead_letters);
        #[allow(clippy::cast_precision_loss, reason = "a rate to one decimal")]
        let events_per_second = events as f64 / passed.as_secs_f64();
        let lag_time = status.lag_time(self.clock.wall_time());
        Line { events_per_second, lag: status.lag(), lag_time, oldest: status.oldest(), dead_letters }
    }
}

/// The time of the oldest record that is not settled. It may be unknown although there is one: not read yet, or without a
/// timestamp.
fn oldest(time: Option<SystemTime>, lag: Option<u64>) -> String {
    match (time, lag) {
        (Some(time), _) => rfc_3339(time),
        (None, Some(0)) => "none".to_owned(),
        (None, _) => "unknown".to_owned(),
    }
}

fn known(number: Option<u64>) -> String {
    number.map_or("unknown".to_owned(), |number| number.to_string())
}

/// The time in UTC, to the second.
pub(crate) fn rfc_3339(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tallybus_sdk::clock::ManualClock;

    use super::*;
    use crate::status::{PartitionState, PartitionStatus};

    fn status(events: u64, dead_letters: u64, end: Option<u64>) -> WorkerStatus {
        let partition = PartitionStatus {
            settled: 10,
            next: 12,
            end,
            oldest: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(30)),
            state: PartitionState::Running,
        };
        WorkerStatus {
            events,
            dead_letters,
            partitions: [("t/0".to_owned(), partition)].into(),
            ..WorkerStatus::default()
        }
    }

    #[test]
    fn a_line_has_what_came_since_the_last_one_and_unknown_where_it_is() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(90));
        let mut pulse = Pulse::new("s", Arc::new(clock));
        let line = pulse.line(&status(600, 4, Some(15)), EVERY);
        assert_eq!((line.events_per_second, line.dead_letters), (10.0, 4));
        assert_eq!((line.lag, line.lag_time), (Some(5), Some(Duration::from_secs(60))));
        let line = pulse.line(&status(660, 4, None), EVERY);
        assert_eq!((line.events_per_second, line.dead_letters), (1.0, 0));
        assert_eq!((line.lag, line.lag_time), (None, None));
        assert_eq!(
            (known(line.lag), rfc_3339(line.oldest.unwrap())),
            ("unknown".into(), "1970-01-01T00:00:30Z".into())
        );
    }

    #[test]
    fn there_is_a_line_a_minute() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let mut pulse = Pulse::new("s", Arc::new(clock.clone()));
        let mut lines = 0;
        for _ in 0..600 {
            clock.advance(Duration::from_secs(1));
            pulse.beat(|| {
                lines += 1;
                WorkerStatus::default()
            });
        }
        assert_eq!(lines, 10);
    }
}
