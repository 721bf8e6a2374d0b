use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use crate::{Admin, Batch, Claims, Encoded, ReadBack, Rejection};

/// Writes to a backend.
///
/// Several batches may be written at once, but never two of the same partition. A sink keeps no state between calls
/// that must survive a restart, buffers nothing, and does not retry by itself.
#[async_trait]
pub trait Sink: Send + Sync {
    /// What happens when a batch is written twice.
    fn delivery_guarantee(&self) -> DeliveryGuarantee;

    /// The settings of this sink that shape what a batch becomes in the backend, as short text. A batch sealed under
    /// one shape is never written under another.
    fn layout_fingerprint(&self) -> String {
        String::new()
    }

    /// How points are placed in the destination, where a point of one layout could overwrite a point of another, as short text.
    /// A destination that was written under one is never written under another, also when nothing is sealed. `None` where
    /// every point has an identity of its own whatever the settings.
    fn lasting_layout(&self) -> Option<String> {
        None
    }

    /// Checks whether the sink can store batches of this partition. Called before anything of the partition is sealed,
    /// because sealed batches can only be finished under the same settings.
    ///
    /// # Errors
    /// Why not and what to do; processing of the partition does not start.
    fn has_place(&self, topic_index: u32, partition: u32) -> Result<(), String> {
        let _ = (topic_index, partition);
        Ok(())
    }

    /// Checks whether the backend is reachable, grants access, and has everything that the sink needs. Creates nothing:
    /// objects that the settings allow [`Admin::prepare`] to create may be missing.
    ///
    /// # Errors
    /// What is missing and what to do about it.
    async fn check(&self) -> Result<(), SinkError>;

    /// The interface that creates what the sink needs; `None` where nothing has to be created.
    fn admin(&self) -> Option<&dyn Admin> {
        None
    }

    /// The interface that reads what the backend holds; `None` where it cannot be queried.
    fn read_back(&self) -> Option<&dyn ReadBack> {
        None
    }

    /// The canonical name of the place that the sink writes to, without secrets: server, database and table, or the directory
    /// with links resolved. Two sinks with the same name write to the same place, and must not. `None` where several
    /// sinks may share it, because everything that is written names its sink. The text never changes for a place, from version
    /// to version: consumer groups keep its hash, and another halts the sink.
    fn destination(&self) -> Option<String> {
        None
    }

    /// The directory of this machine that the sink writes into, for a check of its disk; `None` for any other destination. It
    /// may not exist yet.
    fn directory(&self) -> Option<PathBuf> {
        None
    }

    /// The interface that records in the destination which sinks write to it; `None` where it cannot hold such a record.
    fn claims(&self) -> Option<&dyn Claims> {
        None
    }

    /// What has been consumed of the backend since the sink was created, in the backend's units: bytes sent, write
    /// units, statements. Always the same names in the same order.
    fn usage(&self) -> Vec<Usage> {
        Vec::new()
    }

    /// Why nothing that the sink writes crosses a network, for operators; `None` where it does. Without a network there are
    /// no requests and no sent bytes to count, which is not the same as none.
    fn without_network(&self) -> Option<&'static str> {
        None
    }

    /// Why what the sink sends can be read on its way to another machine, and what to set, for operators; `None` where it cannot.
    fn unencrypted(&self) -> Option<String> {
        None
    }

    /// Encodes a batch once for all attempts to write it. Pure: no I/O, no clock.
    fn encode(&self, batch: &Batch) -> Encoded {
        let _ = batch;
        Encoded::default()
    }

    /// Reads how far the destination has come in a partition, before anything of the partition is sealed or written.
    /// `None` if this kind keeps no ledger; offset 0 if the destination has nothing of the partition.
    ///
    /// Every offset that may have been written is below the returned offset, and a destination that several workers
    /// write returns the same offset to all of them.
    ///
    /// # Errors
    /// The destination did not respond, or cannot be read. An error says nothing about the ledger: nothing is sealed.
    async fn ledger_end(&self, topic: &str, partition: u32) -> Result<Option<LedgerEnd>, SinkError> {
        let _ = (topic, partition);
        Ok(None)
    }

    /// Writes one batch, or one part of it. `encoded` is the result of [`Sink::encode`] for it.
    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome;

    /// Closes connections; called once, after the last write.
    async fn close(&self) {}
}

/// How far a destination has come in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEnd {
    /// The destination, for messages: a file, a table. Contains no secret.
    pub destination: String,
    /// One past the last offset that may have been written.
    pub offset: u64,
}

/// How much of a resource was consumed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// What is counted, in the backend's terms: `requests`, `write units`.
    pub what: &'static str,
    /// The amount.
    pub amount: f64,
}

impl Usage {
    /// Usage that is counted in whole numbers.
    pub fn of(what: &'static str, amount: u64) -> Self {
        // Exact up to 2^53.
        Self { what, amount: amount as f64 }
    }
}

/// What happens when a batch is written twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryGuarantee {
    /// The result is the same as if it was written once.
    ExactlyOnce,
    /// It may be counted twice.
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

/// The result of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// All of it is stored durably.
    Done,
    /// The backend will never accept these points; all other points are stored.
    Rejected(Vec<Rejection>),
    /// Not now: send the same bytes again, not before `after` if the backend specified it. Part or all of it may be
    /// stored.
    Retry {
        /// The delay that the backend asked for.
        after: Option<Duration>,
        /// The reason, for operators.
        reason: String,
    },
    /// The request is too large, or has a bad point that the backend does not name: halve it. Only valid when the
    /// backend stored none of it, or when writing a point again changes nothing. A batch that cannot be halved is
    /// rejected as a whole.
    Split {
        /// The reason, for operators.
        reason: String,
    },
    /// Needs operator action: credentials, a missing table, a wrong schema. Nothing advances until then.
    Halt {
        /// The reason, and what to do.
        reason: String,
    },
}

#[cfg(any(test, feature = "testkit"))]
impl WriteOutcome {
    /// A one-word name, for test tables.
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

/// An error that keeps a sink from reading also keeps it from writing.
impl From<SinkError> for WriteOutcome {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Unavailable(reason) => Self::Retry { after: None, reason },
            SinkError::Halt(reason) => Self::Halt { reason },
        }
    }
}

/// Why a sink could not read or check its backend.
#[derive(Debug, Clone, Error)]
pub enum SinkError {
    /// The backend is unavailable or overloaded; retrying may help.
    #[error("{0}")]
    Unavailable(String),
    /// Needs operator action: credentials, missing objects, wrong settings.
    #[error("{0}")]
    Halt(String),
}

/// Points whose time is at or after `from` and before `to`: nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeRange {
    /// No lower bound when `None`.
    pub from: Option<i64>,
    /// No upper bound when `None`.
    pub to: Option<i64>,
}

impl TimeRange {
    /// Whether the range contains a time.
    pub fn contains(&self, time: i64) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
    }
}
