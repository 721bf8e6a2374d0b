//! Replays dead letters to the sink that refused them, each once.
//!
//! A dead letter is *chosen* by publishing it, under its own key, to a topic that belongs to this sink alone
//! ([`SinkSettings::replay_topic`]); an ordinary worker in a group of its own then writes that topic, with the sealed
//! batches, retries and dead letters of every worker. A key that is already in the topic is not chosen again, and if
//! one is in it twice nevertheless (two operators at once, a publish repeated after a crash), only its first record
//! counts. So a dead letter counts once, whichever operators replay it, however often, and wherever a replay is killed;
//! and no other sink sees it.
//!
//! A dead letter that is refused again becomes a new dead letter, with a coordinate in the replay topic. It is only
//! chosen on explicit request.

mod index;
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

/// A sink's dead letters, each once, with their state: about 1 KB of memory for each.
#[derive(Debug, Default)]
pub struct DeadLetterIndex {
    /// In the order of the topic.
    pub dead_letters: Vec<DeadLetterEntry>,
    /// Dead letters deleted by retention.
    pub gone: u64,
    /// Records of the topic that are not dead letters of this sink.
    pub foreign: u64,
    /// Dead letters of a topic that this sink does not read, or of an earlier incarnation of one: another deployment's, or left
    /// from a topic that was recreated. They are neither listed nor sent.
    pub elsewhere: u64,
    /// Dead letters that were chosen and are not written yet.
    pub pending: u64,
    /// Why it is no longer known which dead letters were chosen: none may be chosen then, because it might count twice.
    pub lost_history: Option<String>,
    by_key: HashMap<String, usize>,
}

/// A dead letter, without its payload.
#[derive(Debug, Clone)]
pub struct DeadLetterEntry {
    /// Identifies it in the topic's present incarnation: `topic/partition/offset`, followed by `/index` for an event.
    pub key: String,
    /// The topic it came from.
    pub topic: String,
    /// The key of its record, which names the incarnation of the topic too.
    pub record_key: String,
    /// The partition it came from.
    pub partition: u32,
    /// The offset it came from.
    pub offset: u64,
    /// The index of the (first) event in the record; `None` when the record could not be decoded.
    pub index: Option<u32>,
    /// How many events it sums; 0 when the record could not be decoded.
    pub events: u32,
    /// The batch that it was part of.
    pub batch: String,
    /// Why it was refused.
    pub reason: String,
    /// The original record's encoding header, if it had one.
    pub encoding: Option<String>,
    /// The time of the event or the record: milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Size of the payload in bytes.
    pub bytes: usize,
    /// How many bytes the payload had before it was truncated to fit the topic.
    pub cut_from: Option<u64>,
    /// The refused event; `None` when the record could not be decoded.
    pub event: Option<Event>,
    /// How often it has been replayed and refused again; 0 for most.
    pub replays: u32,
    /// The dead letter that was replayed and became this one.
    pub origin: Option<String>,
    /// Its state.
    pub state: State,
}

impl DeadLetterEntry {
    /// Its total value; 0 when the record could not be decoded.
    pub fn value(&self) -> u64 {
        self.event.as_ref().map_or(0, |event| event.value)
    }
}

/// The state of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It may be chosen.
    Dead,
    /// Its batch is not settled yet: the batch's worker may still publish it again, or write the point after all.
    Unsettled,
    /// Chosen, and not written yet.
    Chosen,
    /// Replayed.
    Replayed,
    /// Replayed, and refused again as this dead letter.
    RefusedAgain(String),
}

/// Reads a sink's dead letters. `progress`: how many records of their topic are read, of how many.
///
/// # Errors
/// The bus could not be read. A topic that does not exist yet is empty.
pub fn read(
    bus: &dyn Bus,
    observer: &dyn Observer,
    sink: &SinkSettings,
    stall_timeout: Duration,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<DeadLetterIndex, BusError> {
    index::read(bus, observer, sink, stall_timeout, progress)
}
