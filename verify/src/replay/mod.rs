//! Dead letters that go back to the sink that refused them, each once.
//!
//! A dead letter is *chosen* by publishing it, under its own key, to a topic that belongs to this sink alone
//! ([`SinkSettings::replay_topic`]); an ordinary worker in a group of its own then writes that topic, with the sealed batches,
//! retries and dead letters of every worker. A key that stands in the topic already is not chosen again, and one that stands
//! there twice all the same (two people at once, a publish repeated after a crash) counts where it stands first. So a dead letter
//! counts once, whoever asks for it, however often, and wherever any of them is killed; and no other sink sees it.
//!
//! A dead letter that is refused again is a dead letter once more, from a coordinate of that topic. It is not chosen by those who do
//! not ask for such letters.

mod book;
mod select;
mod send;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Observer};
use tallybus_schemas::Event;
use tallybus_worker::settings::SinkSettings;

pub use self::select::{Choice, Filter, MOST_REPLAYS, Pattern, Plan, Skipped, Why};
pub use self::send::{Sent, send};

/// A sink's dead letters, each once, and what became of them: about 1 KB of memory for each.
#[derive(Debug, Default)]
pub struct DeadLetterIndex {
    /// In the order of the topic.
    pub dead_letters: Vec<DeadLetterEntry>,
    /// Dead letters that retention took.
    pub gone: u64,
    /// Records of the topic that are no dead letters of this sink.
    pub strangers: u64,
    /// Dead letters that were chosen and are not written yet.
    pub pending: u64,
    /// Why it is not known any more which dead letters were chosen: nothing may be chosen then, because it might count twice.
    pub lost_history: Option<String>,
    by_key: HashMap<String, usize>,
}

/// A dead letter, without its payload.
#[derive(Debug, Clone)]
pub struct DeadLetterEntry {
    /// Names it for ever: `topic/partition/offset`, and `/index` behind it for an event.
    pub key: String,
    /// Where it came from.
    pub topic: String,
    /// Where it came from.
    pub partition: u32,
    /// Where it came from.
    pub offset: u64,
    /// The first event in the record; `None` when the record could not be decoded.
    pub index: Option<u32>,
    /// How many events it sums; 0 when the record could not be decoded.
    pub events: u32,
    /// The batch it stood in.
    pub batch: String,
    /// Why it was refused.
    pub reason: String,
    /// The record's own encoding header, where it had one.
    pub encoding: Option<String>,
    /// Of the event or the record: milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Bytes of the payload.
    pub bytes: usize,
    /// How many bytes the payload had before it was cut to fit the topic.
    pub cut_from: Option<u64>,
    /// What was refused; `None` when the record could not be decoded.
    pub event: Option<Event>,
    /// How often it has been written again and was refused; 0 for most.
    pub replays: u32,
    /// The dead letter that was written again and became this one.
    pub origin: Option<String>,
    /// What became of it.
    pub state: State,
}

impl DeadLetterEntry {
    /// What it adds up to; nothing when the record could not be decoded.
    pub fn value(&self) -> u64 {
        self.event.as_ref().map_or(0, |event| event.value)
    }
}

/// What became of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It may be chosen.
    Dead,
    /// Its batch is not settled yet: the worker that does so may still publish it, or write the point after all.
    Unsettled,
    /// Chosen, and not written yet.
    Chosen,
    /// Written again.
    Replayed,
    /// Written again, and refused as this letter.
    RefusedAgain(String),
}

/// Reads a sink's dead letters.
///
/// # Errors
/// The bus could not be read. A topic that does not exist yet holds nothing.
pub fn read(
    bus: &dyn Bus,
    observer: &dyn Observer,
    sink: &SinkSettings,
    stall_timeout: Duration,
) -> Result<DeadLetterIndex, BusError> {
    book::read(bus, observer, sink, stall_timeout)
}
