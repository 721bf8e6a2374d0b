use std::time::Duration;

/// How long a topic keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Whether the bus deletes a record once a later one has the same key.
    pub compacts: bool,
    /// The age from which on it may delete a record; `None` when age is no reason to.
    pub time: Option<Duration>,
    /// The size of a partition from which on it may delete the oldest records, in bytes; `None` when size is no reason to.
    pub bytes: Option<u64>,
}

impl Retention {
    /// Whether no record is ever deleted.
    pub fn is_forever(&self) -> bool {
        *self == Self::default()
    }
}
