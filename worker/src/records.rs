use tallybus_bus::Record;
use tallybus_sdk::replayed::{Seen, is_first, original};

/// The source of a partition's records: what a record of the bus contains for the batch builder.
pub(crate) enum RecordSource {
    /// Events as services published them.
    Events,
    /// Dead letters that are replayed, and the keys of those that precede the next record.
    DeadLetters(Seen),
}

/// The content of a record.
pub(crate) enum Content<'r> {
    /// Events, each of which counts for this many.
    Events(Record<'r>, u32),
    /// No event that was not counted before: a tombstone, or a dead letter that was replayed twice.
    Nothing,
    /// Not decodable, and why.
    Unreadable(String),
}

impl RecordSource {
    /// Called once for each record, in offset order.
    pub(crate) fn content<'r>(&mut self, record: &Record<'r>) -> Content<'r> {
        let seen = match self {
            Self::Events if record.is_tombstone => return Content::Nothing,
            Self::Events => return Content::Events(*record, 1),
            Self::DeadLetters(seen) => seen,
        };
        if !is_first(seen, record) {
            return Content::Nothing;
        }
        match original(record) {
            Ok((original, stands_for)) => Content::Events(original, stands_for),
            Err(reason) => Content::Unreadable(reason),
        }
    }
}
