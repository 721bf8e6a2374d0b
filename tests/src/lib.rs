//! The real servers that tests run against, and the faults put between them and the program under test.
//!
//! Every server is a fresh process with a directory of its own, listens on 127.0.0.1 only, on free ports, and ends with the
//! test process, however that ends.
//!
//! A server that is not installed: with `CI=true` or `TALLYBUS_REQUIRE_SERVERS=1` the test fails and says what to
//! install; on a user's machine it prints a line that starts with `SKIPPED` and the test returns. `tests/install-servers.sh`
//! installs all of them.
//!
//! ```no_run
//! #[test]
//! fn counts_arrive() {
//!     let Some(kafka) = tallybus_tests::kafka() else { return };
//!     println!("{}", kafka.bootstrap());
//! }
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a helper of tests stops the test at the first surprise, and talks to whoever runs it"
)]

mod daemon;
mod dynamodb_front;
pub mod faults;
pub mod flux;
mod front;
pub mod http;
mod influx_v2;
pub mod json_schema;
mod places;
mod ports;
mod process;
mod receiver;
mod redshift;
// The SDK's own file: `bus` and `collector` test with this crate, so it cannot depend on the SDK, which depends on `bus`.
#[path = "../../sdk/src/rng.rs"]
mod rng;
mod servers;
mod tcp_faults;
mod tls;

pub use daemon::Daemon;
pub use dynamodb_front::{DynamoDbFront, FrontMode};
pub use faults::{FaultProxy, Mode, Posted};
pub use influx_v2::{FluxTranslation, InfluxV2};
pub use ports::free_port;
pub use receiver::{Receiver, SeriesKey};
pub use redshift::{FailedToken, Redshift, RedshiftBehaviour, RedshiftIsolation, RedshiftStatement};
pub use rng::Rng;
pub use servers::clickhouse::ClickHouseServer;
pub use servers::dynalite::{DynamoDbServer, call as call_dynamodb};
pub use servers::influxdb::{InfluxOptions, InfluxServer};
pub use servers::kafka::KafkaServer;
pub use servers::kafka_acl::KafkaAcl;
pub use servers::moto::MotoServer;
pub use servers::postgres::PostgresServer;
pub use servers::victoria_metrics::VictoriaMetricsServer;
pub use tcp_faults::{TcpMode, TcpProxy};
pub use tls::{Certificates, TlsFront};

/// Starts a Kafka of its own; `None` when it is not installed and need not be.
///
/// # Panics
/// When it is installed but does not start, or is missing where it is required.
pub fn kafka() -> Option<KafkaServer> {
    kafka_with(&[])
}

/// The same, with properties of the broker that are to be other than tests mostly need them.
///
/// # Panics
/// As [`kafka`].
pub fn kafka_with(properties: &[(&str, &str)]) -> Option<KafkaServer> {
    present("Kafka", KafkaServer::missing())?;
    Some(KafkaServer::start(properties).unwrap_or_else(|error| panic!("Kafka does not start: {error:#}")))
}

/// Starts a Kafka broker that takes this user only, by SASL's PLAIN mechanism without TLS; `None` as [`kafka`].
///
/// # Panics
/// As [`kafka`].
pub fn kafka_with_sasl(user: &str, password: &str) -> Option<KafkaServer> {
    present("Kafka", KafkaServer::missing())?;
    Some(KafkaServer::start_with_sasl(user, password).unwrap_or_else(|error| panic!("Kafka does not start: {error:#}")))
}

/// Starts a Kafka broker that takes these users by SASL over TLS and grants each only what its access control lists say; `None` as
/// [`kafka`].
///
/// # Panics
/// As [`kafka`].
pub fn secure_kafka(certificates: &Certificates, users: &[(&str, &str)]) -> Option<KafkaServer> {
    present("Kafka", KafkaServer::missing())?;
    let started = KafkaServer::start_secure(certificates, users);
    Some(started.unwrap_or_else(|error| panic!("Kafka does not start: {error:#}")))
}

/// Starts an InfluxDB 1.x of its own; `None` when it is not installed and need not be.
///
/// # Panics
/// When it is installed but does not start, or is missing where it is required.
pub fn influxdb() -> Option<InfluxServer> {
    influxdb_with(InfluxOptions::default())
}

/// The same, with options.
///
/// # Panics
/// As [`influxdb`].
pub fn influxdb_with(options: InfluxOptions) -> Option<InfluxServer> {
    present("InfluxDB", InfluxServer::missing())?;
    Some(InfluxServer::start(options).unwrap_or_else(|error| panic!("InfluxDB does not start: {error:#}")))
}

/// Starts a PostgreSQL of its own; `None` when it is not installed and need not be.
///
/// # Panics
/// When it is installed but does not start, or is missing where it is required.
pub fn postgres() -> Option<PostgresServer> {
    present("PostgreSQL", PostgresServer::missing())?;
    Some(PostgresServer::start().unwrap_or_else(|error| panic!("PostgreSQL does not start: {error:#}")))
}

/// Starts a Redshift Data API before this PostgreSQL.
///
/// # Panics
/// When it does not start.
pub fn redshift(postgres: &PostgresServer) -> Redshift {
    Redshift::start(postgres).unwrap_or_else(|error| panic!("the Redshift stand-in does not start: {error:#}"))
}

/// Starts an S3 of its own (moto); `None` when it is not installed and need not be.
///
/// # Panics
/// When it is installed but does not start, or is missing where it is required.
pub fn s3() -> Option<MotoServer> {
    present("moto", MotoServer::missing())?;
    Some(MotoServer::start().unwrap_or_else(|error| panic!("moto does not start: {error:#}")))
}

/// Starts a ClickHouse of its own; `None` when it is not installed and need not be.
///
/// # Panics
/// When it is installed but does not start, or is missing where it is required.
pub fn clickhouse() -> Option<ClickHouseServer> {
    present("ClickHouse", ClickHouseServer::missing())?;
    Some(ClickHouseServer::start().unwrap_or_else(|error| panic!("ClickHouse does not start: {error:#}")))
}

/// Starts a DynamoDB (dynalite) of its own; `None` when it is not installed and need not be.
///
/// # Panics
/// When it is installed but does not start, or is missing where it is required.
pub fn dynamodb() -> Option<DynamoDbServer> {
    present("dynalite", DynamoDbServer::missing())?;
    Some(DynamoDbServer::start().unwrap_or_else(|error| panic!("dynalite does not start: {error:#}")))
}

/// Starts a VictoriaMetrics of its own; `None` when it is not installed and need not be.
///
/// # Panics
/// When it is installed but does not start, or is missing where it is required.
pub fn victoria_metrics() -> Option<VictoriaMetricsServer> {
    victoria_metrics_with(&[])
}

/// The same, with more flags.
///
/// # Panics
/// As [`victoria_metrics`].
pub fn victoria_metrics_with(flags: &[&str]) -> Option<VictoriaMetricsServer> {
    present("VictoriaMetrics", VictoriaMetricsServer::missing())?;
    let started = VictoriaMetricsServer::start(flags);
    Some(started.unwrap_or_else(|error| panic!("VictoriaMetrics does not start: {error:#}")))
}

/// Whether `program` can be run, for tests that use an independent observer such as `kcat`; speaks up like the servers do when not.
///
/// # Panics
/// When it is missing where it is required.
pub fn program(program: &str) -> Option<std::path::PathBuf> {
    let found = places::program(program);
    let missing = found.is_none().then(|| format!("`{program}` is not installed"));
    present(program, missing)?;
    found
}

/// A file that `tests/install-servers.sh` fetches below the servers' directory, such as a tool that checks `deploy/`; speaks up
/// like the servers do when it is not there.
///
/// # Panics
/// When it is missing where it is required.
pub fn fetched(file: &str) -> Option<std::path::PathBuf> {
    let path = places::servers_dir().join(file);
    let missing = (!path.exists()).then(|| format!("{} is not there", path.display()));
    present(file, missing)?;
    Some(path)
}

/// Whether a missing server fails the test instead of skipping it.
pub fn servers_are_required() -> bool {
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0" && value != "false");
    set("CI") || set("TALLYBUS_REQUIRE_SERVERS")
}

fn present(server: &str, missing: Option<String>) -> Option<()> {
    let Some(missing) = missing else { return Some(()) };
    if servers_are_required() {
        panic!("{server} is required here: {missing}; run tests/install-servers.sh");
    }
    eprintln!("SKIPPED: this test needs {server}: {missing}; run tests/install-servers.sh");
    None
}
