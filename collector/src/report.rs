use std::fmt;

use tallybus_bus::count_of;

use crate::ledger;

/// The outcome of a collector, from its start to its end. All numbers are sums of counts, except `messages`.
///
/// `emitted = delivered + undelivered + unknown`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Counted by this process, including what waited in the counters when the collector started.
    pub emitted: u64,
    /// The part of `emitted` that was counted before the collector started: before `init`, or after an earlier collector
    /// of this process was shut down.
    pub before_start: u64,
    /// Acknowledged by the bus.
    pub delivered: u64,
    /// Certainly not on the bus. It is still in the counters: a collector started later in this process delivers it.
    pub undelivered: u64,
    /// In doubt: handed to the bus and never answered. It is not sent again, since that could count it twice.
    pub unknown: u64,
    /// Messages acknowledged.
    pub messages: u64,
    /// Why the bus last took nothing, or what it refused; also when it recovered afterwards. `None` when nothing failed.
    pub last_error: Option<String>,
    /// What came of commands; refused ones are counted by reason.
    #[cfg(feature = "commands")]
    pub commands: crate::commands::CommandCounts,
}

impl Report {
    /// The outcome in a child of `fork`, for the guard of its parent: the parent's counts are the parent's.
    pub(crate) fn of_fork() -> Self {
        let left = ledger::counted().wrapping_sub(ledger::taken_total());
        let error = "this process was forked from the one that runs the collector";
        Self { emitted: left, undelivered: left, last_error: Some(error.to_owned()), ..Self::default() }
    }

    /// Whether everything was delivered.
    pub fn is_complete(&self) -> bool {
        self.delivered == self.emitted
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages = count_of(self.messages, "message");
        write!(f, "emitted {}, delivered {} in {messages}", self.emitted, self.delivered)?;
        if self.undelivered > 0 {
            write!(f, ", undelivered {}", self.undelivered)?;
        }
        if self.unknown > 0 {
            write!(f, ", unknown {}", self.unknown)?;
        }
        if let Some(error) = self.last_error.as_ref().filter(|_| !self.is_complete()) {
            write!(f, "; last error: {error}")?;
        }
        #[cfg(feature = "commands")]
        if self.commands != crate::commands::CommandCounts::default() {
            write!(f, "; {}", self.commands)?;
        }
        Ok(())
    }
}

/// Statistics of a running collector. Sums of counts unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Counted, as in [`Report::emitted`].
    pub emitted: u64,
    /// Acknowledged by the bus.
    pub delivered: u64,
    /// Handed to the bus and not yet answered.
    pub in_flight: u64,
    /// In the counters, not yet sent.
    pub waiting: u64,
    /// In doubt, as in [`Report::unknown`].
    pub unknown: u64,
    /// Messages acknowledged.
    pub messages: u64,
    /// Messages that the bus refused; their counts returned to the counters.
    pub give_backs: u64,
    /// Calls to the bus that failed, messages that it refused and messages in doubt.
    pub flush_errors: u64,
    /// Checkpoints that could not be written ([`Builder::checkpoint_interval`](crate::Builder::checkpoint_interval)). No count
    /// depends on them.
    pub checkpoint_failures: u64,
    /// Series that exist, overflow series included. A number of series, not a sum.
    pub series: u64,
    /// Counted in overflow series, because of the cap on series.
    pub overflowed: u64,
    /// Names and tags that were changed to fit (empty, too long, control characters). Each distinct one counts once, up to
    /// a bound; beyond it, repeats count again.
    pub sanitised: u64,
}
