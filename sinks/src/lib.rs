//! The worker runtime, and one folder per backend.
//!
//! A [`Sink`] checks itself, writes one batch, reads totals back and closes. The [`runtime`] owns everything else:
//! polling, sealing, retries, dead letters, shutdown and telemetry. See `README.md` beside this crate for how to add a
//! backend.

mod admin;
pub mod audit;
mod aws;
mod batch;
pub mod clickhouse;
pub mod dynamodb;
mod encoded;
pub mod fake;
mod fault;
pub mod http;
pub mod influxdb;
mod kinds;
pub mod parquet;
pub mod postgres;
mod read_back;
pub mod redshift;
pub mod replay;
mod rng;
pub mod runtime;
mod series_table;
pub mod settings;
mod shape;
mod shared;
mod sink;
pub mod sqlite;
mod text;

pub use admin::Admin;
pub use batch::resolution;
pub use batch::{Batch, BatchId, Point, Rejection};
pub use encoded::{Encoded, Payload, Value, WrongPayload};
pub use fault::Fault;
pub use kinds::{BuildSink, KINDS, Kind, Setting, SinkContext, find_kind};
pub use read_back::{ReadBack, SeriesTotal, TotalsQuery, VisitTotal, VisitWindow, WindowTotal, WindowsQuery};
pub use rng::Rng;
pub use series_table::{SeriesTable, SeriesView};
pub use shape::{Selector, Shape};
pub use sink::{Answer, Effect, LedgerEnd, Sink, SinkError, TimeRange, Usage};
