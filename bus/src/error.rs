use thiserror::Error;

use crate::TopicPartition;

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
    /// The records that were to be read next are no longer on the bus: its retention, or an operator, deleted them. Nothing
    /// is skipped: reading of this partition stops until it is started from another offset.
    #[error(
        "offsets {at}/{wanted}-{first} are gone from the bus, which keeps {at} from offset {first} on: raise the topic's \
         retention so that records stay until every group has written them"
    )]
    Gone {
        /// The partition.
        at: TopicPartition,
        /// The offset that was to be read next.
        wanted: u64,
        /// The oldest offset that the bus keeps.
        first: u64,
    },
    /// The client cannot go on and must be replaced.
    #[error("the bus client failed for good: {0}")]
    Fatal(String),
}

impl BusError {
    /// Whether the same call may succeed later, without an operator's action.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NoTopic(_))
    }
}

/// What became of a record that was not acknowledged.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
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
