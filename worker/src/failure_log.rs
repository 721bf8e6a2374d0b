use std::sync::Arc;
use std::time::Instant;

use tallybus_sdk::clock::Clock;

/// How the reason of a halt begins: nothing advances until an operator acts.
pub(crate) const HALTED: &str = "halted: needs operator action";

/// Precedes the time until the next attempt, at the end of a reason.
pub(crate) const RETRYING: &str = " (retrying in ";

/// Logs a persistent failure once when it begins, once when it changes, and once when it is over.
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
}

impl FailureLog {
    pub(crate) fn new(sink: &str, what: &'static str, clock: Arc<dyn Clock>) -> Self {
        Self { sink: sink.to_owned(), what, clock, failing: None }
    }

    pub(crate) fn note(&mut self, reason: &str) {
        let Some(failing) = &mut self.failing else {
            self.failing = Some(Failing { since: self.clock.now(), last_error: reason.to_owned(), times: 1 });
            let (sink, what) = (self.sink.as_str(), self.what);
            if reason.starts_with(HALTED) {
                return tracing::error!(sink, reason, "{what}: {HALTED} (no data lost)");
            }
            return tracing::warn!(sink, reason, "{what} failed, retrying (no data lost)");
        };
        failing.times += 1;
        let is_known = kind_of(&failing.last_error) == kind_of(reason);
        reason.clone_into(&mut failing.last_error);
        if !is_known && reason.starts_with(HALTED) {
            tracing::error!(sink = self.sink, reason, "{}: {HALTED} (no data lost)", self.what);
        } else if !is_known {
            tracing::warn!(
                sink = self.sink,
                reason,
                "{} failed with another error, retrying (no data lost)",
                self.what
            );
        }
    }

    pub(crate) fn over(&mut self) {
        if let Some(failing) = self.failing.take() {
            let seconds = (self.clock.now() - failing.since).as_secs_f64();
            tracing::info!(sink = self.sink, seconds, times = failing.times, "{} has recovered", self.what);
        }
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
    use std::time::{Duration, SystemTime};

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
    fn failures_that_differ_in_a_figure_are_of_one_kind() {
        assert_eq!(kind_of("no answer in 5 s"), kind_of("no answer in 17 s"));
        assert_eq!(kind_of("busy (trying again in 1.0 s)"), kind_of("busy (trying again in 2.0 s)"));
        assert_ne!(kind_of("busy"), kind_of("locked out"));
    }
}
