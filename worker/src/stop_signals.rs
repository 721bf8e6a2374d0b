//! What a signal that ends the process means, by the signals before it.

use std::time::{Duration, Instant};

/// Signals this close together are one: GNU `timeout` sends its signal to the process and to its group, and a terminal's
/// Ctrl-C may be passed on by a parent as well.
const SAME: Duration = Duration::from_secs(1);

/// The signals so far.
#[derive(Debug, Default)]
pub struct StopSignals {
    first: Option<Instant>,
}

/// What a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// The first one: finish.
    Finish,
    /// Another delivery of the first one.
    Repeated,
    /// A second one: end at once.
    Terminate,
}

impl StopSignals {
    /// The meaning of a signal that arrives now.
    pub fn next(&mut self, now: Instant) -> StopSignal {
        match self.first {
            None => {
                self.first = Some(now);
                StopSignal::Finish
            }
            Some(first) if now.saturating_duration_since(first) < SAME => StopSignal::Repeated,
            Some(_) => StopSignal::Terminate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_a_second_of_the_first_count_as_one_and_a_later_one_terminates() {
        let start = Instant::now();
        let mut signals = StopSignals::default();
        let mut after = |ms| signals.next(start + Duration::from_millis(ms));
        assert_eq!((after(0), after(0), after(999)), (StopSignal::Finish, StopSignal::Repeated, StopSignal::Repeated));
        assert_eq!(after(1_000), StopSignal::Terminate);
    }
}
