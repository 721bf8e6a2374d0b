use thiserror::Error;

/// Why the bus did not do what it was asked.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
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
#[non_exhaustive]
pub enum PublishError {
    /// It is certainly not on the bus: what it carried can be given back.
    #[error("not published: {0}")]
    Refused(String),
    /// It may or may not be on the bus: giving it back could count it twice.
    #[error("perhaps published: {0}")]
    Unknown(String),
}
