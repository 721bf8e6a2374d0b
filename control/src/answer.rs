//! What an addressee answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A record on `tallybus.commands`, keyed by the command's id and the addressee.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`crate::VERSION`].
    pub version: u32,
    /// The id of the command, or of the desired state.
    pub answers: String,
    /// Who answers, as [`crate::Identity`] shows itself.
    pub addressee: String,
    /// The id of this life of the addressee's process.
    pub process: String,
    /// When: milliseconds since the Unix epoch, by the addressee's clock.
    pub time_ms: i64,
    /// What came of it.
    pub outcome: Outcome,
    /// What is to be said of it, for people.
    #[serde(default)]
    pub text: String,
    /// The result, for programs.
    #[serde(default)]
    pub data: Value,
}

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was taken and is under way: another answer follows, or a callback.
    Accepted,
    /// It was done.
    Done,
    /// It was begun, and failed.
    Failed,
    /// It was not begun: expired, unknown, unsigned, malformed.
    Refused,
}

/// The key of an answer. No command has such a key: an id has no slash.
pub fn answer_key(answers: &str, addressee: &str) -> String {
    format!("{answers}/{addressee}")
}

/// Whether a record on the topic of commands is an answer, by its key.
pub fn is_answer(key: &[u8]) -> bool {
    key.contains(&b'/')
}

impl Outcome {
    /// Whether no other answer follows.
    pub fn is_final(self) -> bool {
        self != Self::Accepted
    }
}
