//! What is asked of addressees once.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Address;

/// A record on `tallybus.commands`, keyed by its id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Names the command; random. An addressee does it once.
    pub id: String,
    /// Who asked for it, for people.
    pub issuer: String,
    /// When it was issued: milliseconds since the Unix epoch, by the issuer's clock.
    pub issued_ms: i64,
    /// When it is no longer done.
    pub expires_ms: i64,
    /// For whom.
    pub target: Address,
    /// What to do: `status`, `retry-now`, or a name that a service has registered.
    pub name: String,
    /// With what.
    #[serde(default)]
    pub arguments: Value,
    /// Where the answer goes.
    #[serde(default)]
    pub reply: Reply,
}

/// Where the answer to a command goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `tallybus.commands`.
    #[default]
    Bus,
    /// To this URL by POST, as Standard Webhooks has it; on the bus there is only that it was accepted.
    Callback(String),
}
