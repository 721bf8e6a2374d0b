//! One server of each kind for all tests of this process: started by the first test that needs it, ended with the process.

use std::sync::OnceLock;

use tallybus_tests::{
    ClickHouseServer, DynamoDbServer, InfluxOptions, InfluxServer, InfluxV2, MotoServer, PostgresServer, flux,
};

/// The administrator of [`influxdb_with_login`].
pub(crate) const INFLUX_USER: &str = "tallybus";
pub(crate) const INFLUX_PASSWORD: &str = "a passw:rd";

pub(crate) fn clickhouse() -> Option<&'static ClickHouseServer> {
    static SERVER: OnceLock<Option<ClickHouseServer>> = OnceLock::new();
    SERVER.get_or_init(tallybus_tests::clickhouse).as_ref()
}

pub(crate) fn dynamodb() -> Option<&'static DynamoDbServer> {
    static SERVER: OnceLock<Option<DynamoDbServer>> = OnceLock::new();
    SERVER.get_or_init(tallybus_tests::dynamodb).as_ref()
}

/// Without authentication.
pub(crate) fn influxdb() -> Option<&'static InfluxServer> {
    static SERVER: OnceLock<Option<InfluxServer>> = OnceLock::new();
    SERVER.get_or_init(tallybus_tests::influxdb).as_ref()
}

pub(crate) fn influxdb_with_login() -> Option<&'static InfluxServer> {
    static SERVER: OnceLock<Option<InfluxServer>> = OnceLock::new();
    let auth = Some((INFLUX_USER.to_owned(), INFLUX_PASSWORD.to_owned()));
    let start = || tallybus_tests::influxdb_with(InfluxOptions { auth, ..InfluxOptions::default() });
    SERVER.get_or_init(start).as_ref()
}

/// Version 2's interface in front of [`influxdb`].
pub(crate) fn influxdb_v2() -> Option<&'static InfluxV2> {
    static FRONT: OnceLock<Option<InfluxV2>> = OnceLock::new();
    let start = || {
        let front = InfluxV2::start(influxdb()?).expect("a front");
        front.on_query(flux::sink_queries());
        Some(front)
    };
    FRONT.get_or_init(start).as_ref()
}

/// With the bucket of each sink that needs one.
pub(crate) fn s3() -> Option<&'static MotoServer> {
    static SERVER: OnceLock<Option<MotoServer>> = OnceLock::new();
    let start = || {
        let server = tallybus_tests::s3()?;
        for bucket in [super::parquet::BUCKET, super::redshift::BUCKET] {
            server.create_bucket(bucket).expect("a bucket");
        }
        Some(server)
    };
    SERVER.get_or_init(start).as_ref()
}

pub(crate) fn postgres() -> Option<&'static PostgresServer> {
    static SERVER: OnceLock<Option<PostgresServer>> = OnceLock::new();
    SERVER.get_or_init(tallybus_tests::postgres).as_ref()
}

/// The PostgreSQL behind the Redshift stand-in.
pub(crate) fn warehouse() -> Option<&'static PostgresServer> {
    static SERVER: OnceLock<Option<PostgresServer>> = OnceLock::new();
    SERVER.get_or_init(tallybus_tests::postgres).as_ref()
}
