//! The seam to the message bus: publish, subscribe in a consumer group, commit with metadata, read a range.
//!
//! It has two implementations, tested by one contract suite: [`kafka`] and [`embedded`]; and a third one for simulations, in
//! memory and virtual time, held to the same suite: `sim`, behind a feature. Everything here blocks;
//! a caller gives each [`Subscriber`] a thread of its own, because a group's rebalances are answered on the thread that
//! polls.
//!
//! # What a worker may rely on
//! - Records of a partition arrive in offset order, from the offset given to [`Subscriber::start`].
//! - Between [`GroupEvent::Revoked`] and [`Subscriber::release`] the partition still belongs to this member: a commit
//!   that is answered in between was made by its owner. After `release`, or after [`GroupEvent::Lost`], it must not be
//!   committed.
//! - Commit metadata comes back exactly as written.

mod access;
mod address;
#[cfg(any(feature = "embedded", feature = "sim"))]
mod balance;
mod count;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod group_state;
#[cfg(feature = "kafka")]
pub mod kafka;
mod observer;
mod range;
mod record;
mod retention;
#[cfg(any(feature = "embedded", feature = "sim"))]
mod rules;
mod seam;
#[cfg(feature = "sim")]
pub mod sim;
mod stream;

pub use access::{Access, Operation, Resource};
pub use address::{AddressError, BUSES, BusAddress, BusKind};
pub use count::{count_of, grouped};
pub use error::{BusError, PublishError};
pub use group_state::{Commit, CommitError, Committed, Expected, GroupState};
pub use observer::Observer;
pub use range::{read_range, read_topic};
pub use record::{Headers, NewRecord, NoHeaders, Record, TopicPartition, read_headers};
pub use retention::Retention;
pub use seam::{
    Assignment, Bus, Delivery, GroupEvent, GroupOptions, OffsetRange, Placed, PollWaker, Progress, Publisher, Reader,
    Subscriber, TopicOptions,
};
pub use stream::{InvalidStreamId, StreamId};
