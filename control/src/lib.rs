//! Command and control over the bus: what is asked of workers and services, and what they answer.
//!
//! Two topics carry it. **Desired state** ([`Desired`]) is on `tallybus.control`, which is compacted: one record a target, read by a
//! worker before its first seal, so that it survives restarts. **Commands** ([`Command`]) and **answers** ([`Answer`]) are on
//! `tallybus.commands`, which is not: each is done once, by the addressees that ran when it was issued.
//!
//! Pure: nothing here reads a bus or a clock; except callbacks (feature `callback`), which post answers to URLs.

mod address;
mod answer;
#[cfg(feature = "callback")]
pub mod callback;
mod command;
mod desired;
mod guard;
mod instance;
mod signature;
mod states;

pub use address::{Address, AddressError, Identity};
pub use answer::{Answer, Outcome, answer_key, is_answer};
pub use command::{Command, Reply};
pub use desired::{Desired, DesiredState, desired_key, is_desired};
pub use guard::{Accepted, Guard, Refusal};
pub use instance::{
    INSTANCE_HEARTBEAT, INSTANCE_SILENT_AFTER, InstanceState, InstanceStatus, Instances, PoolState, instance_key,
    is_instance,
};
pub use signature::{HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, Key, KeyError, Signed};
pub use states::DesiredStates;

/// The version of the records. Keys may be added to a version; readers ignore those that they do not know.
pub const VERSION: u32 = 1;

/// The longest command or desired state that is read, in bytes.
pub const MAX_RECORD: usize = 64 << 10;

/// The longest answer that is written and read, in bytes: it may hold the status of a process.
pub const MAX_ANSWER: usize = 900 << 10;
