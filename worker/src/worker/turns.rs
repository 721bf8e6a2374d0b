use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_sdk::clock::Clock;

/// An iteration of the worker's loop takes a fraction of a second, unless its process did not run or
/// the bus did not answer.
const LONG: Duration = Duration::from_secs(5);
/// A consumer group reports a loss within this time after the process runs again.
const RECENTLY: Duration = Duration::from_secs(15);

/// How long the iterations of a worker's loop take: it shows that the process was suspended or waited for the
/// bus, which costs it its partitions.
pub(super) struct Turns {
    clock: Arc<dyn Clock>,
    began: Instant,
    /// The last long iteration: when it ended, and how long it took.
    long: Option<(Instant, Duration)>,
}

impl Turns {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { began: clock.now(), clock, long: None }
    }

    /// Another iteration begins.
    pub(super) fn begin(&mut self) {
        let now = self.clock.now();
        let took = now.saturating_duration_since(self.began);
        if took >= LONG {
            self.long = Some((now, took));
        }
        self.began = now;
    }

    /// For how long the loop did not run, if that was a short time ago.
    fn pause(&self) -> Option<Duration> {
        let now = self.clock.now();
        let current = now.saturating_duration_since(self.began);
        if current >= LONG {
            return Some(current);
        }
        self.long.filter(|(ended, _)| now.saturating_duration_since(*ended) < RECENTLY).map(|(_, took)| took)
    }

    /// Why the group took partitions away that this worker had not given up.
    pub(super) fn cause_of_loss(&self) -> String {
        match self.pause() {
            Some(pause) => format!(
                "this worker's loop did not run for about {} s: its process or machine was suspended or overloaded, or the \
                 bus did not answer",
                pause.as_secs()
            ),
            None => "the group did not hear from this worker for longer than its session lasts".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tallybus_sdk::clock::ManualClock;

    use super::*;

    #[test]
    fn a_loss_after_a_pause_has_the_pause_as_its_cause_and_a_later_one_has_not() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let mut turns = Turns::new(Arc::new(clock.clone()));
        let is_paused = |turns: &Turns| turns.cause_of_loss().contains("did not run for about 16 s");
        clock.advance(Duration::from_millis(100));
        turns.begin();
        assert!(!is_paused(&turns));
        clock.advance(Duration::from_secs(16));
        assert!(is_paused(&turns), "it is reported by the call that was suspended");
        turns.begin();
        clock.advance(Duration::from_secs(2));
        turns.begin();
        assert!(is_paused(&turns), "it is reported soon after it");
        clock.advance(Duration::from_secs(4));
        turns.begin();
        clock.advance(Duration::from_secs(4));
        turns.begin();
        clock.advance(Duration::from_secs(4));
        turns.begin();
        clock.advance(Duration::from_secs(4));
        turns.begin();
        assert!(!is_paused(&turns));
    }
}
