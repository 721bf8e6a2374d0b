use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_sdk::clock::Clock;

/// How the reason of a halt begins: nothing advances until an operator acts.
pub(crate) const HALTED: &str = "halted: needs operator action";

/// Precedes the time until the next attempt, at the end of a reason.
pub(crate) const RETRYING: &str = " (retrying in ";

/// How the reason begins for which a backend that was never ready is waited for. The check beside the worker logs it.
pub(crate) const NOT_READY: &str = "not ready yet: ";

/// When a failure that lasts is logged again, measured from its beginning; then every hour.
const REMINDERS: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(900)];
const EVERY_HOUR: Duration = Duration::from_secs(3_600);

/// The reason without when the next attempt is due, which is of no use once there is none.
pub(crate) fn without_retry(reason: &str) -> &str {
    reason.rsplit_once(RETRYING).map_or(reason, |(reason, _)| reason)
}

/// Logs a persistent failure: one line when it begins, one when it becomes another failure, one after 1, 5 and 15 minutes
/// and then every hour while it lasts, and one when it is over.
#[derive(Debug)]
pub(crate) struct FailureLog {
    sink: String,
    /// What fails, as the log names it: `the backend`, `the bus`.
    what: &'static str,
    clock: Arc<dyn Clock>,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last_error: String,
    times: u64,
    reminders: u32,
}

impl Failing {
    /// How long after the beginning the next reminder is due.
    fn next_reminder(&self) -> Duration {
        let given = self.reminders as usize;
        let hours = u32::try_from(given.saturating_sub(REMINDERS.len()) + 1).unwrap_or(u32::MAX);
        REMINDERS.get(given).copied().unwrap_or_else(|| EVERY_HOUR.saturating_mul(hours))
    }
}

impl FailureLog {
    pub(crate) fn new(sink: &str, what: &'static str, clock: Arc<dyn Clock>) -> Self {
        Self { sink: sink.to_owned(), what, clock, failing: None }
    }

    pub(crate) fn note(&mut self, reason: &str) {
        let Some(failing) = &mut self.failing else {
            let since = self.clock.now();
            self.failing = Some(Failing { since, last_error: reason.to_owned(), times: 1, reminders: 0 });
            return self.begins(reason);
        };
        failing.times += 1;
        let is_known = kind_of(&failing.last_error) == kind_of(reason);
        reason.clone_into(&mut failing.last_error);
        if !is_known && reason.starts_with(HALTED) {
            tracing::error!(sink = self.sink, reason, "{}: {HALTED} (no data lost)", self.what);
        } else if !is_known && !reason.starts_with(NOT_READY) {
            tracing::warn!(
                sink = self.sink,
                reason,
                "{} failed with another error, retrying (no data lost)",
                self.what
            );
        }
    }

    fn begins(&self, reason: &str) {
        let (sink, what) = (self.sink.as_str(), self.what);
        if reason.starts_with(NOT_READY) {
            tracing::debug!(sink, reason, "{what} is waited for");
        } else if reason.starts_with(HALTED) {
            tracing::error!(sink, reason, "{what}: {HALTED} (no data lost)");
        } else {
            tracing::warn!(sink, reason, "{what} failed, retrying (no data lost)");
        }
    }

    /// Logs a failure that lasts, when a reminder is due. Returns whether it did.
    pub(crate) fn remind(&mut self) -> bool {
        let Some(failing) = &mut self.failing else { return false };
        let lasted = self.clock.now() - failing.since;
        if lasted < failing.next_reminder() {
            return false;
        }
        while failing.next_reminder() <= lasted {
            failing.reminders += 1;
        }
        let (sink, reason, times, what) = (self.sink.as_str(), failing.last_error.as_str(), failing.times, self.what);
        let minutes = lasted.as_secs() / 60;
        if reason.starts_with(HALTED) {
            tracing::error!(sink, minutes, reason, "{what}: still halted, needs operator action (no data lost)");
        } else {
            tracing::warn!(sink, minutes, times, reason, "{what} is still failing, retrying (no data lost)");
        }
        true
    }

    pub(crate) fn over(&mut self) {
        if let Some(failing) = self.failing.take() {
            let seconds = (self.clock.now() - failing.since).as_secs_f64();
            tracing::info!(sink = self.sink, seconds, times = failing.times, "{} has recovered", self.what);
        }
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// The failure as last noted; `None` when nothing fails.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.failing.as_ref().map(|failing| failing.last_error.clone())
    }
}

/// The text of a reason before its first figure: two reasons that differ only in a number or a detail are the same
/// failure.
fn kind_of(reason: &str) -> &str {
    let end = reason.find(|character: char| character.is_ascii_digit() || character == '(').unwrap_or(reason.len());
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tallybus_sdk::clock::ManualClock;

    use super::*;

    #[test]
    fn a_failure_lasts_from_its_first_note_until_it_is_over() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let mut log = FailureLog::new("s", "the backend", Arc::new(clock.clone()));
        assert_eq!(log.last_error(), None);
        log.note("no answer in 5 s");
        let began = clock.now();
        clock.advance(Duration::from_secs(3));
        log.note("no answer in 6 s");
        log.note("locked out");
        let failing = log.failing.as_ref().unwrap();
        assert_eq!((failing.since, failing.times, failing.last_error.as_str()), (began, 3, "locked out"));
        log.over();
        assert_eq!(log.last_error(), None);
        log.note("no answer in 5 s");
        assert_eq!(
            log.failing.as_ref().map(|failing| (failing.since - began, failing.times)),
            Some((Duration::from_secs(3), 1))
        );
    }

    #[test]
    fn a_failure_that_lasts_is_repeated_after_1_5_and_15_minutes_and_then_every_hour() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let mut log = FailureLog::new("s", "the backend", Arc::new(clock.clone()));
        assert!(!log.remind());
        log.note("no answer");
        let mut reminded = Vec::new();
        for second in 1..=3 * 3_600 {
            clock.advance(Duration::from_secs(1));
            log.note("no answer");
            if log.remind() {
                reminded.push(second);
            }
        }
        assert_eq!(reminded, [60, 300, 900, 3_600, 7_200, 10_800]);
        // A worker that hung for hours says it once.
        clock.advance(Duration::from_secs(5 * 3_600));
        assert!(log.remind() && !log.remind());
        log.over();
        assert!(!log.remind());
    }

    #[test]
    fn failures_that_differ_in_a_figure_are_of_one_kind() {
        assert_eq!(kind_of("no answer in 5 s"), kind_of("no answer in 17 s"));
        assert_eq!(kind_of("busy (trying again in 1.0 s)"), kind_of("busy (trying again in 2.0 s)"));
        assert_ne!(kind_of("busy"), kind_of("locked out"));
    }
}
