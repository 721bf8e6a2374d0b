use std::collections::BTreeMap;
use std::time::Duration;

/// A worker that has said nothing for so long is silent: it hangs, has been killed, or cannot reach the bus.
pub const SILENT_AFTER: Duration = Duration::from_secs(10);

/// What a worker said about its sink, in its last heartbeat.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerReport {
    /// The worker: host and process id.
    pub worker: String,
    /// The sink's name.
    pub sink: String,
    /// How long ago it said so.
    pub age: Duration,
    /// Requests that it has repeated since it started.
    pub retries: u64,
    /// What keeps it from advancing.
    pub last_error: Option<String>,
    /// Why it is halted, each reason once.
    pub halts: Vec<String>,
    /// Its partitions, by topic and number.
    pub partitions: BTreeMap<(String, u32), PartitionReport>,
}

/// What a worker said about one of its partitions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PartitionReport {
    /// Age of its oldest unsettled message in seconds, now; `None` where there is none, or where it is unknown.
    pub oldest_seconds: Option<f64>,
    /// Why it is halted.
    pub halted: Option<String>,
}

impl WorkerReport {
    /// Whether the worker still publishes heartbeats.
    pub fn is_fresh(&self) -> bool {
        self.age < SILENT_AFTER
    }
}
