//! The eight backends of Tallybus: one directory each, and [`KINDS`], the table of them.
//!
//! A backend is written against `tallybus-sdk` and nothing else of Tallybus: it checks itself, writes one batch, reads totals
//! back and closes. The worker (`tallybus-worker`) polls, seals, retries, publishes dead letters and stops. See `README.md`
//! beside this crate for how to add a backend.

#[cfg(feature = "clickhouse")]
pub mod clickhouse;
#[cfg(feature = "aws")]
pub mod dynamodb;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "influxdb")]
pub mod influxdb;
mod kinds;
#[cfg(feature = "parquet")]
pub mod parquet;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "aws")]
pub mod redshift;
#[cfg_attr(
    not(all(
        feature = "aws",
        feature = "clickhouse",
        feature = "http",
        feature = "influxdb",
        feature = "parquet",
        feature = "postgres",
        feature = "sqlite"
    )),
    allow(dead_code, unused_imports, reason = "one family alone does not use all of it")
)]
mod shared;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use kinds::KINDS;
