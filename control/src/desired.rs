//! What the workers of a target shall be doing, whatever they do now.

use serde::{Deserialize, Serialize};

use crate::Address;

/// Before the target, in the key of a desired state.
const PREFIX: &str = "desired/";

/// What a worker shall be doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredState {
    /// It reads, seals and writes.
    Running,
    /// It seals nothing more, and keeps its partitions: nobody else reads them.
    Paused,
    /// It seals nothing more, settles what is sealed, and gives its partitions to others. The process stays up.
    Drained,
}

impl DesiredState {
    /// The state in a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Drained => "drained",
        }
    }
}

/// A record of desired state on `tallybus.control`, keyed by [`desired_key`]. Of several that match a worker the newest, by
/// its offset, counts; a worker that none matches runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Names this change; random.
    pub id: String,
    /// Who asked for it, for people: a user and a host.
    pub issuer: String,
    /// When: milliseconds since the Unix epoch, by the issuer's clock.
    pub issued_ms: i64,
    /// For whom. No service: those are asked by commands.
    pub target: Address,
    /// What they shall be doing.
    pub state: DesiredState,
    /// Why, for people; empty where nothing was said.
    #[serde(default)]
    pub reason: String,
}

impl Desired {
    /// Who wants it, since when, and why: `by ada@desk since 2026-11-30T12:00:00Z: disk change`.
    pub fn why(&self) -> String {
        let since = jiff::Timestamp::from_millisecond(self.issued_ms);
        let since = since.map_or("an unknown time".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("by {} since {since}{reason}", self.issuer)
    }
}

/// The key of the desired state of a target. No process has such an id.
pub fn desired_key(target: &Address) -> String {
    format!("{PREFIX}{target}")
}

/// Whether a record of the control topic is a desired state, by its key; others are the status of processes.
pub fn is_desired(key: &[u8]) -> bool {
    key.starts_with(PREFIX.as_bytes())
}
