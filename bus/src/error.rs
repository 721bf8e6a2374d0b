use thiserror::Error;

use crate::{TopicPartition, count_of};

/// Why a bus operation failed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum BusError {
    /// The settings cannot work; the operator must change them.
    #[error("bus settings: {0}")]
    Settings(String),
    /// The bus is a file that does not exist, or is still empty, and was opened by a caller that creates none. The text
    /// says which file, and which of the two.
    #[error(
        "no such bus: {0}: correct `path` in [bus] (or --bus), or create the bus with `tallybus topic create`, `tallybus \
         emit` or `tallybus run`"
    )]
    NoBus(String),
    /// The topic does not exist; create it or wait for it.
    #[error("topic {0:?} does not exist: create it with `tallybus topic create`, or start a producer")]
    NoTopic(String),
    /// The topic exists with another number of partitions.
    #[error(
        "topic {topic:?} has {}, not {wanted}: change `partitions` in [bus], or add partitions to the topic",
        count_of(*.actual, "partition")
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// The expected number.
        wanted: u32,
        /// The actual number.
        actual: u32,
    },
    /// These credentials lack a permission.
    #[error("the bus refuses access: {0}")]
    Access(String),
    /// The bus and this client agree on no connection: it refuses the credentials, or one of them the other's certificate.
    #[error("cannot connect to the bus: {0}")]
    Login(String),
    /// The bus is unavailable or slow; a retry may succeed.
    #[error("the bus did not answer: {0}")]
    Unavailable(String),
    /// The next records to read are no longer on the bus: its retention, or an operator, deleted them. Nothing
    /// is skipped: reading of this partition stops until it is started from another offset.
    #[error(
        "offsets {at}/{wanted}-{first} were deleted from the bus, which keeps {at} from offset {first} on: raise the \
         topic's \
         retention so that records stay until every group has written them"
    )]
    Gone {
        /// The partition.
        at: TopicPartition,
        /// The next offset to read.
        wanted: u64,
        /// The oldest offset that the bus keeps.
        first: u64,
    },
    /// The bus delivers a record that this client cannot read: it cannot be decompressed, or would take up more memory than
    /// is allowed. Nothing is skipped: nothing more of this partition is read until it is started from another offset.
    #[error("{at}/{offset} cannot be read: {reason}; it and everything after it in {at} stay on the bus, unread")]
    Unreadable {
        /// The partition.
        at: TopicPartition,
        /// The first offset of the records that were compressed together.
        offset: u64,
        /// The cause.
        reason: String,
    },
    /// The group has members, which would go on from their own offsets.
    #[error("group {0:?} has running members: stop every worker of the sink, then run the command again")]
    GroupInUse(String),
    /// The client cannot continue and must be replaced.
    #[error("the bus client failed for good: {0}")]
    Fatal(String),
}

impl BusError {
    /// Whether the same call may succeed later, without an operator's action.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NoTopic(_))
    }

    /// Whether the bus lets this client not do what it asked: an operator may change that while the client runs.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Access(_) | Self::Login(_))
    }
}

/// What happened to a record that was not acknowledged.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It is larger than the bus accepts, and certainly not on the bus: publish smaller records, or raise the limit.
    #[error("not published: the record is larger than {}", size_limit(*.limit))]
    TooLarge {
        /// The largest record that the bus accepts, in bytes of key, headers and payload plus the bus's own overhead;
        /// `None` when the bus does not report it.
        limit: Option<u64>,
    },
    /// It is certainly not on the bus: its counts can be given back.
    #[error("not published: {0}")]
    Refused(String),
    /// It may or may not be on the bus: giving it back could count it twice.
    #[error("perhaps published: {0}")]
    Unknown(String),
}

fn size_limit(limit: Option<u64>) -> String {
    limit.map_or_else(|| "the bus accepts".to_owned(), |limit| format!("the {limit} bytes that the bus accepts"))
}
