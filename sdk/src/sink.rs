use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use crate::{Admin, Batch, Encoded, ReadBack, Rejection};

/// A backend's writer.
///
/// Several batches may be written at once, but never two of the same partition. A sink keeps nothing between calls that a
/// restart would miss, buffers nothing, and retries nothing by itself.
#[async_trait]
pub trait Sink: Send + Sync {
    /// What a batch written twice comes to.
    fn delivery_guarantee(&self) -> DeliveryGuarantee;

    /// The settings of this sink that shape what a batch becomes in the backend, as short text. A batch sealed under
    /// one shape is never written under another.
    fn layout_fingerprint(&self) -> String {
        String::new()
    }

    /// Whether batches of this partition have a place in the backend. Asked before anything of it is sealed, because what is
    /// sealed can only be finished under the same settings.
    ///
    /// # Errors
    /// Says why not and what to do; the partition is not begun.
    fn has_place(&self, topic_index: u32, partition: u32) -> Result<(), String> {
        let _ = (topic_index, partition);
        Ok(())
    }

    /// Checks whether the backend is there, lets us in, and has what we need. Creates nothing: what the settings allow
    /// [`Admin::prepare`] to create may be missing.
    ///
    /// # Errors
    /// Says what is missing and what to do about it.
    async fn check(&self) -> Result<(), SinkError>;

    /// Creates what the sink needs; `None` where there is nothing to create.
    fn admin(&self) -> Option<&dyn Admin> {
        None
    }

    /// Answers what the backend holds; `None` where it cannot be asked.
    fn read_back(&self) -> Option<&dyn ReadBack> {
        None
    }

    /// What has been used of the backend since the sink was made, in its own units: bytes sent, write units, statements.
    /// Always the same names in the same order.
    fn usage(&self) -> Vec<Usage> {
        Vec::new()
    }

    /// Makes of a batch what every try sends, once. Pure: no I/O, no clock.
    fn encode(&self, batch: &Batch) -> Encoded {
        let _ = batch;
        Encoded::default()
    }

    /// How far the destination has come in a partition, asked before anything of the partition is sealed or written. `None`
    /// where this kind keeps no ledger; offset 0 where the destination has nothing of the partition.
    ///
    /// Every offset that may have been written lies below the answer, and a destination that several workers write answers
    /// all of them alike.
    ///
    /// # Errors
    /// The destination did not answer, or cannot be read. An error says nothing about the ledger: nothing is sealed.
    async fn ledger_end(&self, topic: &str, partition: u32) -> Result<Option<LedgerEnd>, SinkError> {
        let _ = (topic, partition);
        Ok(None)
    }

    /// Writes one batch, or one part of it. `encoded` is what [`Sink::encode`] made of it.
    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome;

    /// Ends connections; called once, after the last write.
    async fn close(&self) {}
}

/// How far a destination has come in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEnd {
    /// The destination, for messages: a file, a table. Holds no secret.
    pub destination: String,
    /// One past the last offset that may have been written.
    pub offset: u64,
}

/// How much of something was used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// What is counted, in the backend's words: `requests`, `write units`.
    pub what: &'static str,
    /// How much of it.
    pub amount: f64,
}

impl Usage {
    /// Of something that comes in whole numbers.
    pub fn of(what: &'static str, amount: u64) -> Self {
        // Exact up to 2^53.
        Self { what, amount: amount as f64 }
    }
}

/// What a batch written twice comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryGuarantee {
    /// The same as written once.
    ExactlyOnce,
    /// Perhaps counted twice.
    AtLeastOnce,
}

impl fmt::Display for DeliveryGuarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExactlyOnce => "exactly once",
            Self::AtLeastOnce => "at least once",
        })
    }
}

/// The backend's answer to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// All of it is in, to stay.
    Done,
    /// These points will never be taken; the rest is in.
    Rejected(Vec<Rejection>),
    /// Not now: the same bytes again, not before `after` when the backend said so. Part or all of it may be in.
    Retry {
        /// What the backend asked for.
        after: Option<Duration>,
        /// Why, for people.
        reason: String,
    },
    /// Too much at once, or a bad point that the backend does not name: halve it. Only when the backend took none of it, or
    /// when writing a point again changes nothing. Of a batch that cannot be halved it means that all of it is rejected.
    Split {
        /// Why, for people.
        reason: String,
    },
    /// needs operator action: credentials, a missing table, a wrong schema. Nothing advances until then.
    Halt {
        /// Why, and what to do.
        reason: String,
    },
}

#[cfg(any(test, feature = "testkit"))]
impl WriteOutcome {
    /// In one word, for tables of tests.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Rejected(_) => "rejected",
            Self::Retry { .. } => "retry",
            Self::Split { .. } => "split",
            Self::Halt { .. } => "halt",
        }
    }
}

/// What keeps a sink from looking keeps it from writing.
impl From<SinkError> for WriteOutcome {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Unavailable(reason) => Self::Retry { after: None, reason },
            SinkError::Halt(reason) => Self::Halt { reason },
        }
    }
}

/// Why a sink could not look at its backend.
#[derive(Debug, Clone, Error)]
pub enum SinkError {
    /// The backend is away or overloaded; trying again may help.
    #[error("{0}")]
    Unavailable(String),
    /// The operator must act: credentials, missing objects, wrong settings.
    #[error("{0}")]
    Halt(String),
}

/// Points whose time is at or after `from` and before `to`: nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeRange {
    /// No lower end when absent.
    pub from: Option<i64>,
    /// No upper end when absent.
    pub to: Option<i64>,
}

impl TimeRange {
    /// Whether a time lies inside.
    pub fn contains(&self, time: i64) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
    }
}
