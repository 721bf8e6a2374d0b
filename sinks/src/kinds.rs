use tallybus_sdk::Kind;

/// Every kind that this build has. A new sink is a directory, a feature and a line here.
pub const KINDS: &[Kind] = &[
    #[cfg(feature = "clickhouse")]
    crate::clickhouse::KIND,
    #[cfg(feature = "aws")]
    crate::dynamodb::KIND,
    #[cfg(feature = "http")]
    crate::http::KIND,
    #[cfg(feature = "influxdb")]
    crate::influxdb::KIND,
    #[cfg(feature = "parquet")]
    crate::parquet::KIND,
    #[cfg(feature = "postgres")]
    crate::postgres::KIND,
    #[cfg(feature = "aws")]
    crate::redshift::KIND,
    #[cfg(feature = "sqlite")]
    crate::sqlite::KIND,
];
