//! A client that asks services over the bus: one instance, each instance, or a pool.
//!
//! ```no_run
//! use std::time::Duration;
//! use tallybus::ask::Asker;
//! use tallybus::commands::Value;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut asker = Asker::open(tallybus::connect("kafka://127.0.0.1:9092")?)?;
//! let deadline = Duration::from_secs(10);
//! let each = asker.ask(&"service/orders".parse()?, "rotate-keys", Value::Null, deadline)?;
//! println!("{} of {} answered", each.answers().count(), each.addressees.len());
//! let one = asker.ask_one("orders", "rotate-keys", Value::Null, deadline)?;
//! let task = asker.ask_pool("images", "resize", serde_json::json!({ "width": 80 }), deadline)?;
//! assert!(one.is_good() && task.is_good());
//! # Ok(())
//! # }
//! ```
//!
//! Whom a command is for is known before it is sent, from the heartbeats of instances; each of them is waited for, and one that does
//! not answer is named. A command expires with its deadline: an instance that reads it later does not begin it.

mod answers;
mod asker;
mod instances;
mod question;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
pub use tallybus_control::{Address, AddressError, Answer, InstanceStatus, Outcome, PoolState};

pub use self::answers::{Addressee, Answers, AskOutcome, State};
pub use self::asker::{AskError, Asker};
pub use self::question::{Question, To};
use crate::Connection;

/// The answer of an instance of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceAnswer {
    /// Who answers, and what came of it.
    #[serde(flatten)]
    pub answer: Answer,
    /// Whether a task may have been begun before, by this instance or by another one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Asks each instance that an address of a service names, once. A program that asks more often keeps an [`Asker`].
///
/// # Errors
/// As [`Asker::open`] and [`Asker::ask`].
pub fn ask(
    connection: Connection,
    target: &Address,
    name: &str,
    arguments: Value,
    deadline: Duration,
) -> Result<Answers, AskError> {
    Asker::open(connection)?.ask(target, name, arguments, deadline)
}
