use std::time::Duration;

use tallybus_sdk::Rng;

/// Waits that double up to a ceiling, with up to a quarter of jitter so that workers do not retry in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    ceiling: Duration,
    tries: u32,
    rng: Rng,
}

impl Backoff {
    pub(crate) fn new(first: Duration, ceiling: Duration, seed: u64) -> Self {
        Self { first, ceiling, tries: 0, rng: Rng::new(seed) }
    }

    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.tries.min(16)).min(self.ceiling);
        self.tries = self.tries.saturating_add(1);
        let quarter = u64::try_from(doubled.as_micros() / 4).unwrap_or(u64::MAX).max(1);
        doubled + Duration::from_micros(self.rng.below(quarter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_ceiling_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 42);
        for base in [100, 200, 400, 800, 1_000, 1_000] {
            let wait = backoff.next();
            assert!(wait >= Duration::from_millis(base) && wait <= Duration::from_millis(base + base / 4), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(125));
    }
}
