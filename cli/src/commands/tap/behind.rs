use std::time::{Duration, Instant};

use crate::text::{count_of, duration};

/// How often the end of the topic is asked for while records come without a pause.
const EVERY: Duration = Duration::from_secs(2);

/// Whether the tap keeps up with the bus.
#[derive(Debug)]
pub(super) struct Behind {
    checked: Instant,
    /// Messages, at the last check.
    messages: Option<u64>,
    said: bool,
}

impl Behind {
    pub(super) fn new(now: Instant) -> Self {
        Self { checked: now, messages: None, said: false }
    }

    /// Whether it is time to check. It is only worth it while records come without a pause: a tap that waits for records is
    /// not behind.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.duration_since(self.checked) >= EVERY
    }

    /// Takes note of how many messages are not read yet, and of the age of the last one that was. Returns a line where that
    /// grows.
    pub(super) fn check(&mut self, now: Instant, messages: u64, age: Option<Duration>) -> Option<String> {
        self.checked = now;
        let before = self.messages.replace(messages)?;
        if messages <= before {
            return None;
        }
        self.said = true;
        let age = age.map(|age| format!("; the last one read is {} old", duration(age))).unwrap_or_default();
        Some(format!("slower than the bus: {} behind, and more each second{age}", count_of(messages, "message")))
    }

    /// Takes note that everything is read. Returns a line if it was said to be behind.
    pub(super) fn caught_up(&mut self, now: Instant) -> Option<String> {
        self.checked = now;
        self.messages = None;
        std::mem::take(&mut self.said).then(|| "caught up with the bus".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lag_that_grows_is_named_and_its_end_too() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut behind = Behind::new(start);
        assert!(!behind.is_due(at(1)) && behind.is_due(at(2)));
        assert_eq!(behind.check(at(2), 5_000, None), None, "nothing to compare with");
        assert!(!behind.is_due(at(3)));
        assert_eq!(behind.check(at(4), 4_000, None), None, "a backlog that shrinks");
        assert_eq!(behind.caught_up(at(5)), None);
        assert_eq!(behind.check(at(7), 1_000, None), None);
        assert_eq!(
            behind.check(at(9), 12_345, Some(Duration::from_millis(8_700))).as_deref(),
            Some("slower than the bus: 12,345 messages behind, and more each second; the last one read is 8s old")
        );
        assert_eq!(behind.check(at(11), 12_345, None), None);
        assert_eq!(behind.caught_up(at(12)).as_deref(), Some("caught up with the bus"));
        assert_eq!(behind.caught_up(at(13)), None);
    }
}
