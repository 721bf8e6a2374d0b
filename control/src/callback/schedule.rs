use std::time::Duration;

/// When a failed attempt is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The wait after the first failed attempt; each later one is twice as long.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
}

impl Default for Schedule {
    /// 1 second, doubled up to 10 minutes.
    fn default() -> Self {
        Self { first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(600) }
    }
}

impl Schedule {
    /// The wait after this many failed attempts, without what spreads them.
    pub(crate) fn wait(&self, failed: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failed.saturating_sub(1));
        self.first_wait.saturating_mul(doubled).min(self.longest_wait)
    }

    /// The wait until the next attempt, or `None` when it would begin after `left`. `asked`: what the receiver has asked for by
    /// `Retry-After`. `spread`, 0 to 1, is how much of a quarter is added, so that callbacks that failed together do not all come
    /// back together.
    pub(crate) fn next(&self, failed: u32, asked: Option<Duration>, spread: f64, left: Duration) -> Option<Duration> {
        let own = self.wait(failed);
        let own = own + own.mul_f64(0.25 * spread.clamp(0.0, 1.0));
        let wait = asked.map_or(own, |asked| asked.max(own));
        (wait < left).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end_in_time() {
        let schedule = Schedule::default();
        let seconds: Vec<u64> = [1, 2, 3, 10, 11, 4_000_000_000].iter().map(|n| schedule.wait(*n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 512, 600, 600]);
        let day = Duration::from_secs(86_400);
        assert_eq!(schedule.next(2, None, 0.0, day), Some(Duration::from_secs(2)));
        assert_eq!(schedule.next(2, None, 1.0, day), Some(Duration::from_millis(2_500)));
        assert_eq!(schedule.next(2, None, 0.0, Duration::from_secs(2)), None);
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_wait_and_not_for_a_shorter_one() {
        let schedule = Schedule::default();
        let day = Duration::from_secs(86_400);
        assert_eq!(schedule.next(3, Some(Duration::from_secs(60)), 0.0, day), Some(Duration::from_secs(60)));
        assert_eq!(schedule.next(3, Some(Duration::ZERO), 0.0, day), Some(Duration::from_secs(4)));
        assert_eq!(schedule.next(1, Some(day), 0.0, day), None);
    }
}
