//! Helpers shared by several backends.

#[cfg(any(feature = "aws", feature = "parquet"))]
pub(crate) mod aws;
#[cfg(feature = "aws")]
pub(crate) mod calendar;
#[cfg(any(feature = "aws", feature = "clickhouse"))]
pub(crate) mod claim_log;
#[cfg(any(feature = "aws", feature = "influxdb", feature = "parquet"))]
pub(crate) mod fingerprint;
#[cfg(any(feature = "aws", feature = "clickhouse", feature = "http", feature = "influxdb", feature = "parquet"))]
pub(crate) mod http;
#[cfg(any(feature = "aws", feature = "clickhouse", feature = "http", feature = "postgres", feature = "sqlite"))]
pub(crate) mod json_tags;
#[cfg(any(feature = "clickhouse", feature = "influxdb"))]
pub(crate) mod lines;
#[cfg(any(feature = "influxdb", feature = "parquet"))]
pub(crate) mod marks;
pub(crate) mod questions;
pub(crate) mod shadow;
