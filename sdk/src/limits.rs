/// When a batch is full. A message is never cut in two, so a batch may pass a limit by its last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Events.
    pub max_events: usize,
    /// Bytes of the messages.
    pub max_bytes: usize,
    /// Since the first message came in.
    pub max_delay: std::time::Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { max_events: 5_000, max_bytes: 4 << 20, max_delay: std::time::Duration::from_secs(1) }
    }
}

/// Where a partition starts that the group never committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// With the oldest record still there: nothing is left out.
    Oldest,
    /// With what comes next.
    Newest,
}
