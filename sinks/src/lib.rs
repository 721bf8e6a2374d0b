//! The worker runtime, and one folder per backend.
//!
//! A [`Sink`] checks itself, writes one batch, reads totals back and closes. The [`runtime`] owns everything else:
//! polling, sealing, retries, dead letters, shutdown and telemetry. See `README.md` beside this crate for how to add a
//! backend.

pub mod audit;
mod aws;
mod batch;
mod calendar;
pub mod clickhouse;
pub mod dynamodb;
pub mod fake;
pub mod http;
mod http_common;
pub mod influxdb;
mod json_tags;
mod kinds;
pub mod parquet;
pub mod postgres;
pub mod redshift;
pub mod replay;
pub mod runtime;
mod series_table;
pub mod settings;
mod shape;
mod sink;
pub mod sqlite;
mod text;
mod tried;

pub use batch::{Batch, BatchId, Point, Rejection};
pub use kinds::{BuildSink, KINDS, Kind, Setting, SinkContext, find_kind};
pub use series_table::{SeriesTable, SeriesView};
pub use shape::{Selector, Shape};
pub use sink::{Answer, Effect, Encoded, LedgerEnd, SeriesTotal, Sink, SinkError, TimeRange, Usage};
