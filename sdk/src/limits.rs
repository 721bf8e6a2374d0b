/// When a batch is full. A message is never split, so the last message of a batch may exceed a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Number of events.
    pub max_events: usize,
    /// Bytes of the messages.
    pub max_bytes: usize,
    /// Time since the first message was added.
    pub max_delay: std::time::Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { max_events: 5_000, max_bytes: 4 << 20, max_delay: std::time::Duration::from_secs(1) }
    }
}

/// Where to start in a partition for which the group never committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest record that is still available: nothing is left out.
    Oldest,
    /// At the end: only records published from now on.
    Newest,
}
