use thiserror::Error;

/// Why the bus did not do what it was asked.
#[derive(Debug, Clone, Error)]
pub enum BusError {
    /// The settings cannot work; the operator must change them.
    #[error("bus settings: {0}")]
    Settings(String),
    /// The topic does not exist; create it or wait for it.
    #[error("topic {0:?} does not exist: create it with `tallybus topic create`, or start a producer")]
    NoTopic(String),
    /// The topic exists with another number of partitions.
    #[error(
        "topic {topic:?} has {actual} partitions, not {wanted}: change `partitions` in [bus], or add partitions to the topic"
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// Asked for.
        wanted: u32,
        /// Found.
        actual: u32,
    },
    /// The bus refuses these credentials, or what they may do.
    #[error("the bus refuses access: {0}")]
    Access(String),
    /// The bus is away or slow; trying again may help.
    #[error("the bus did not answer: {0}")]
    Unavailable(String),
    /// The client cannot go on and must be made anew.
    #[error("the bus client failed for good: {0}")]
    Fatal(String),
}

impl BusError {
    /// Whether the same call may succeed later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NoTopic(_))
    }
}

/// What became of a record that was not acknowledged.
#[derive(Debug, Clone, Error)]
pub enum PublishError {
    /// It is larger than the bus takes, and certainly not on the bus: publish less at a time, or raise the limit.
    #[error("not published: the record is larger than {}", size_limit(*.limit))]
    TooLarge {
        /// The largest record that the bus takes, in bytes of key, headers and payload with what the bus adds to them;
        /// `None` when the bus does not tell it.
        limit: Option<u64>,
    },
    /// It is certainly not on the bus: what it carried can be given back.
    #[error("not published: {0}")]
    Refused(String),
    /// It may or may not be on the bus: giving it back could count it twice.
    #[error("perhaps published: {0}")]
    Unknown(String),
}

fn size_limit(limit: Option<u64>) -> String {
    limit.map_or_else(|| "the bus takes".to_owned(), |limit| format!("the {limit} bytes that the bus takes"))
}
