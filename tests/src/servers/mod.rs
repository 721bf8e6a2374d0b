//! One file per server.

pub(crate) mod clickhouse;
pub(crate) mod dynalite;
pub(crate) mod influxdb;
pub(crate) mod kafka;
pub(crate) mod kafka_acl;
pub(crate) mod moto;
pub(crate) mod postgres;
pub(crate) mod victoria_metrics;
