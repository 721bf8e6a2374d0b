//! What producers say of themselves, and the watermark of each sink: the time before which everything that they counted is in the
//! sink's backend or among its dead letters. From one small topic and committed offsets: the stream itself is not read.
//!
//! The watermark is a claim about the times of events, which are those at which a collector took the counts: **no event of a
//! producer that writes checkpoints and is dated before it is missing, or comes later**. It is never ahead of that, as long as
//! - hosts' clocks agree within [`CLOCK_ALLOWANCE`]: a process that starts with a clock that is behind dates its events in the past,
//!   and no one can know of it before its first checkpoint;
//! - a first checkpoint was written before the first message: a collector that could not write it publishes all the same, and says so;
//! - no operator decided otherwise: by dismissing a producer, accepting a gap, or resetting a group.

mod known;
mod reading;
mod sinks;
mod watermark;

use std::time::Duration;

pub use self::known::{Known, Presence, Producer, Word};
pub use self::reading::ProducersTopic;
pub use self::sinks::{SettledAt, SinkSettled, read_sinks};
pub use self::watermark::{Cause, Holder, Watermark, watermark};

/// A producer that has written nothing for this many of its intervals is silent.
pub const SILENT_AFTER_INTERVALS: u64 = 3;

/// By how much the clocks of hosts may differ for the watermark to hold. It stays this far behind the reader's own clock.
pub const CLOCK_ALLOWANCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
