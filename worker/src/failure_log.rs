use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::TopicPartition;
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
/// and then every hour while it lasts, and one when it is over. Partitions may fail for different reasons at once: each reason
/// is logged as one failure, with its partitions.
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
    /// Those that last, the newest at the end; at least one.
    reasons: Vec<Reason>,
    times: u64,
    reminders: u32,
}

/// A reason as it was last noted, and the partitions that fail for it: none where the failure is not a partition's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) text: String,
    pub(crate) partitions: BTreeSet<TopicPartition>,
}

impl Reason {
    /// The partitions, for people; `None` where the failure is not a partition's.
    fn shown(&self) -> Option<String> {
        let names: Vec<String> = self.partitions.iter().map(ToString::to_string).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

impl Failing {
    /// How long after the beginning the next reminder is due.
    fn next_reminder(&self) -> Duration {
        let given = self.reminders as usize;
        let hours = u32::try_from(given.saturating_sub(REMINDERS.len()) + 1).unwrap_or(u32::MAX);
        REMINDERS.get(given).copied().unwrap_or_else(|| EVERY_HOUR.saturating_mul(hours))
    }

    /// Takes note of the reason for which a partition fails now. Returns whether nothing failed for it before.
    fn note(&mut self, partition: Option<&TopicPartition>, reason: &str) -> bool {
        let kind = kind_of(reason);
        let known = self.reasons.iter().position(|known| kind_of(&known.text) == kind);
        let known = known.map(|at| self.reasons.remove(at));
        let is_new = known.is_none();
        let mut partitions = known.map(|known| known.partitions).unwrap_or_default();
        match partition {
            Some(partition) => self.forget(|other| other == partition),
            None => self.reasons.clear(),
        }
        partitions.extend(partition.cloned());
        self.reasons.push(Reason { text: reason.to_owned(), partitions });
        is_new
    }

    /// These partitions fail no more, or for another reason.
    fn forget(&mut self, is_one: impl Fn(&TopicPartition) -> bool) {
        for reason in &mut self.reasons {
            reason.partitions.retain(|partition| !is_one(partition));
        }
        self.reasons.retain(|reason| !reason.partitions.is_empty());
    }
}

impl FailureLog {
    pub(crate) fn new(sink: &str, what: &'static str, clock: Arc<dyn Clock>) -> Self {
        Self { sink: sink.to_owned(), what, clock, failing: None }
    }

    /// A failure that is not a partition's.
    pub(crate) fn note(&mut self, reason: &str) {
        self.note_of(None, reason);
    }

    /// A failure of one partition; it lasts until [`FailureLog::keep`] leaves the partition out, or all is over.
    pub(crate) fn note_at(&mut self, partition: &TopicPartition, reason: &str) {
        self.note_of(Some(partition), reason);
    }

    fn note_of(&mut self, partition: Option<&TopicPartition>, reason: &str) {
        let (is_first, since) = (self.failing.is_none(), self.clock.now());
        let failing =
            self.failing.get_or_insert_with(|| Failing { since, reasons: Vec::new(), times: 0, reminders: 0 });
        failing.times += 1;
        if !failing.note(partition, reason) {
            return;
        }
        let (sink, what, partition) = (self.sink.as_str(), self.what, partition.map(tracing::field::display));
        if reason.starts_with(NOT_READY) {
            if is_first {
                tracing::debug!(sink, partition, reason, "waiting for {what}");
            }
        } else if reason.starts_with(HALTED) {
            tracing::error!(sink, partition, reason, "{what}: {HALTED} (no data lost)");
        } else {
            let again = if is_first { "" } else { " with another error" };
            tracing::warn!(sink, partition, reason, "{what} failed{again}, retrying (no data lost)");
        }
    }

    /// Only these partitions fail still.
    pub(crate) fn keep(&mut self, fails: impl Fn(&TopicPartition) -> bool) {
        if let Some(failing) = &mut self.failing {
            failing.forget(|partition| !fails(partition));
            if failing.reasons.is_empty() {
                self.over();
            }
        }
    }

    /// Logs a failure that lasts, each of its reasons, when a reminder is due. Returns the number of lines.
    pub(crate) fn remind(&mut self) -> usize {
        let Some(failing) = &mut self.failing else { return 0 };
        let lasted = self.clock.now() - failing.since;
        if lasted < failing.next_reminder() {
            return 0;
        }
        while failing.next_reminder() <= lasted {
            failing.reminders += 1;
        }
        let (sink, times, what) = (self.sink.as_str(), failing.times, self.what);
        let minutes = lasted.as_secs() / 60;
        for each in &failing.reasons {
            let (reason, partitions) = (each.text.as_str(), each.shown());
            if reason.starts_with(HALTED) {
                tracing::error!(
                    sink,
                    minutes,
                    partitions,
                    reason,
                    "{what}: still halted, needs operator action (no data lost)"
                );
            } else {
                tracing::warn!(
                    sink,
                    minutes,
                    times,
                    partitions,
                    reason,
                    "{what} is still failing, retrying (no data lost)"
                );
            }
        }
        failing.reasons.len()
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

    /// The reasons of the failure, the newest at the end; none when nothing fails.
    pub(crate) fn reasons(&self) -> &[Reason] {
        self.failing.as_ref().map(|failing| failing.reasons.as_slice()).unwrap_or_default()
    }

    /// The failure as last noted; `None` when nothing fails.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.reasons().last().map(|reason| reason.text.clone())
    }

    /// Why this partition fails.
    pub(crate) fn reason_of(&self, partition: &TopicPartition) -> Option<&str> {
        let reason = self.reasons().iter().find(|reason| reason.partitions.contains(partition));
        reason.map(|reason| reason.text.as_str())
    }
}

/// A reason without what may differ from one attempt, or one partition, to the next: two reasons of one kind are the same
/// failure. A halt is told from another by all its words but those with a figure; of any other failure the text before the first
/// figure counts.
fn kind_of(reason: &str) -> String {
    if reason.starts_with(HALTED) {
        let is_part = |character: char| !character.is_alphanumeric();
        let words = without_retry(reason).split(is_part);
        return words
            .filter(|word| !word.contains(|character: char| character.is_ascii_digit()))
            .collect::<Vec<_>>()
            .join(" ");
    }
    let end = reason.find(|character: char| character.is_ascii_digit() || character == '(').unwrap_or(reason.len());
    reason[..end].to_owned()
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
        assert_eq!((failing.since, failing.times, failing.reasons.len()), (began, 3, 1));
        assert_eq!(log.last_error().as_deref(), Some("locked out"));
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
        assert_eq!(log.remind(), 0);
        log.note("no answer");
        let mut reminded = Vec::new();
        for second in 1..=3 * 3_600 {
            clock.advance(Duration::from_secs(1));
            log.note("no answer");
            if log.remind() > 0 {
                reminded.push(second);
            }
        }
        assert_eq!(reminded, [60, 300, 900, 3_600, 7_200, 10_800]);
        // A worker that hung for hours says it once.
        clock.advance(Duration::from_secs(5 * 3_600));
        assert_eq!((log.remind(), log.remind()), (1, 0));
        log.over();
        assert_eq!(log.remind(), 0);
    }

    #[test]
    fn failures_that_differ_in_a_figure_are_of_one_kind() {
        assert_eq!(kind_of("no answer in 5 s"), kind_of("no answer in 17 s"));
        assert_eq!(kind_of("busy (trying again in 1.0 s)"), kind_of("busy (trying again in 2.0 s)"));
        assert_ne!(kind_of("busy"), kind_of("locked out"));
    }

    #[test]
    fn partitions_that_halt_for_different_reasons_are_each_remembered_until_they_recover() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let mut log = FailureLog::new("s", "the backend", Arc::new(clock.clone()));
        let at = |number| TopicPartition::new("t", number);
        let halt = |text: &str| format!("{HALTED}: {text}{RETRYING}4 s)");
        for _ in 0..2 {
            log.note_at(&at(0), &halt("db 1 is past this group: it holds t/0 up to 10"));
            log.note_at(&at(1), &halt("db 1 holds nothing of t/1"));
            log.note_at(&at(2), &halt("db 1 is past this group: it holds t/2 up to 77"));
        }
        let partitions =
            |log: &FailureLog| -> Vec<Option<String>> { log.reasons().iter().map(Reason::shown).collect() };
        assert_eq!(partitions(&log), [Some("t/1".to_owned()), Some("t/0, t/2".to_owned())]);
        assert!(log.reason_of(&at(1)).is_some_and(|reason| reason.contains("holds nothing of t/1")));
        clock.advance(Duration::from_secs(60));
        assert_eq!(log.remind(), 2);
        // One of them gets another reason, and one recovers.
        log.note_at(&at(2), "no answer");
        log.keep(|partition| *partition != at(1));
        assert_eq!(partitions(&log), [Some("t/0".to_owned()), Some("t/2".to_owned())]);
        log.keep(|_| false);
        assert!(!log.is_failing());
    }
}
