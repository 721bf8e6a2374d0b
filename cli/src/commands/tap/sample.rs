use std::time::{Duration, Instant};

use crate::numbers;
use crate::text::grouped;

const SECOND: Duration = Duration::from_secs(1);

/// Which events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    /// The first of this many, and so on.
    OneOf(u64),
    /// The first ones of each second, this many.
    PerSecond(u64),
}

impl Rate {
    /// Reads `1/100` and `10/s`.
    ///
    /// # Errors
    /// What was expected.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected 1/100 (one of 100 events) or 10/s (at most ten each second)".to_owned();
        let (shown, of) = text.split_once('/').ok_or_else(expected)?;
        match (shown, of) {
            (_, "s") => numbers::positive(shown).map(Self::PerSecond).map_err(|_| expected()),
            ("1", of) => numbers::positive(of).map(Self::OneOf).map_err(|_| expected()),
            _ => Err(expected()),
        }
    }
}

/// Leaves events out, and counts them.
#[derive(Debug)]
pub(super) struct Sample {
    rate: Rate,
    since: Instant,
    /// Of this second: shown, and all.
    second: (u64, u64),
    /// Of all seconds.
    whole: (u64, u64),
}

impl Sample {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, since: now, second: (0, 0), whole: (0, 0) }
    }

    /// Whether the next event is shown.
    pub(super) fn takes(&mut self) -> bool {
        let takes = match self.rate {
            Rate::OneOf(number) => self.whole.1.is_multiple_of(number),
            Rate::PerSecond(most) => self.second.0 < most,
        };
        for (shown, all) in [&mut self.second, &mut self.whole] {
            *shown += u64::from(takes);
            *all += 1;
        }
        takes
    }

    /// Once a second: a line that says how much of it was shown, where that was not all.
    pub(super) fn report(&mut self, now: Instant) -> Option<String> {
        if now.duration_since(self.since) < SECOND {
            return None;
        }
        self.since = now;
        let (shown, all) = std::mem::take(&mut self.second);
        (shown < all).then(|| format!("{} of {} shown", grouped(shown), grouped(all)))
    }

    /// How much of all was shown.
    pub(super) fn summary(&self) -> String {
        format!("in total {} of {} shown", grouped(self.whole.0), grouped(self.whole.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_what_is_none_is_answered_with_both_forms() {
        assert_eq!((Rate::parse("1/37"), Rate::parse("1e3/s")), (Ok(Rate::OneOf(37)), Ok(Rate::PerSecond(1_000))));
        for wrong in ["", "5", "2/100", "1/0", "0/s", "1/", "1/m", "10%"] {
            assert!(Rate::parse(wrong).unwrap_err().starts_with("expected 1/100"), "{wrong}");
        }
    }

    #[test]
    fn one_of_some_is_shown_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut sample = Sample::new(Rate::OneOf(37), start);
        assert_eq!((0..74).filter(|_| sample.takes()).count(), 2);
        assert_eq!(sample.report(start), None);
        assert_eq!(sample.report(start + SECOND).as_deref(), Some("2 of 74 shown"));
        assert!(sample.takes());
        assert_eq!(sample.report(start + 2 * SECOND), None, "all of this second were shown");
        assert_eq!(sample.summary(), "in total 3 of 75 shown");
    }

    #[test]
    fn at_most_so_many_are_shown_each_second() {
        let start = Instant::now();
        let mut sample = Sample::new(Rate::PerSecond(10), start);
        assert_eq!((0..5_000).filter(|_| sample.takes()).count(), 10);
        assert_eq!(sample.report(start + SECOND).as_deref(), Some("10 of 5,000 shown"));
        assert_eq!((0..12).filter(|_| sample.takes()).count(), 10);
        assert_eq!(sample.summary(), "in total 20 of 5,012 shown");
    }
}
