use tallybus_bus::Record;
use tallybus_sdk::replayed::{Seen, is_first, original};

/// Where a partition's records come from: what a record of the bus holds for the batch builder.
pub(crate) enum RecordSource {
    /// Events as services published them.
    Events,
    /// Dead letters that are written again, of which these stand before the next record.
    DeadLetters(Seen),
}

/// What a record holds.
pub(crate) enum Content<'r> {
    /// Events, each of which stands for so many.
    Events(Record<'r>, u32),
    /// Nothing that was not counted before.
    Nothing,
    /// Nothing that can be read, and why.
    Unreadable(String),
}

impl RecordSource {
    /// Asked once for each record, in order.
    pub(crate) fn content<'r>(&mut self, record: &Record<'r>) -> Content<'r> {
        let seen = match self {
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
