//! The interface that sinks implement.
//!
//! A [`Sink`] checks itself, writes one [`Batch`], reads totals back and closes. It does not poll, retry, buffer,
//! commit or split: the worker (`tallybus-worker`) does. A backend describes itself to the rest of Tallybus by a
//! [`Kind`]; its settings are read from a table of the settings file through [`config::ConfigTable`].
//!
//! With the feature `testkit`: an in-memory backend that fails on command, and the contract of sinks, for tests.

mod admin;
mod batch;
mod canonical;
mod claim;
pub mod clock;
pub mod config;
pub mod dead_letter;
mod encoded;
mod fault;
pub mod filter;
pub mod folder;
mod in_doubt;
mod kind;
pub mod ledger;
mod ledger_floor;
mod limits;
pub mod progress;
mod question;
mod read_back;
pub mod reading;
pub mod replayed;
mod rng;
mod seal_metadata;
mod series_table;
mod shadow;
mod shape;
mod sink;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod text;
pub mod times;

pub use admin::{Admin, Tried};
pub use batch::{Batch, BatchId, NANOS_PER_MILLI, Point, Rejection, resolution};
pub use canonical::canonical_path;
pub use claim::{Claim, Claims, Conflict};
pub use encoded::{Encoded, Payload, Value, WrongPayload};
pub use fault::Fault;
pub use in_doubt::InDoubt;
pub use kind::{BuildSink, Kind, Setting, SinkContext, find_kind};
pub use ledger_floor::LedgerFloor;
pub use limits::{BatchLimits, StartAt};
pub use question::{Answer, BackendVersion, NANOS_PER_MINUTE, QUESTIONS, Question, Storage};
pub use read_back::{Foreign, ForeignKind, Held, Holdings, ReadBack, VisitHeld, WindowTotal, WindowsQuery};
pub use rng::Rng;
pub use seal_metadata::{SEAL_AHEAD, SealMetadata, SealMetadataError, USUAL_METADATA_BYTES, Written};
pub use series_table::{Capacity, SeriesTable, SeriesView};
pub use shadow::{ShadowName, ShadowSettings};
pub use shape::{Selector, Shape};
pub use sink::{DeliveryGuarantee, LedgerEnd, Sink, SinkError, TimeRange, Usage, WriteOutcome};
pub use tallybus_schemas::{Coordinate, Series};
