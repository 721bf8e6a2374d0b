//! The servers of the backends, and the proxies before some of them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tallybus_tests::{DynamoDbFront, FaultProxy, Mode, Redshift};

/// What the slow network adds to every request.
const SLOW: Duration = Duration::from_millis(250);
/// One line in so many is lost.
const LOST: u64 = 1_000;

/// The backends, for as long as they are compared.
pub(super) struct Servers {
    pub(super) postgres: tallybus_tests::PostgresServer,
    clickhouse: tallybus_tests::ClickHouseServer,
    redshift: Redshift,
    dynamodb: DynamoDbFront,
    far: FaultProxy,
    losing: FaultProxy,
    pub(super) influx: tallybus_tests::InfluxServer,
    _dynamodb: tallybus_tests::DynamoDbServer,
}

impl Servers {
    pub(super) fn start() -> Result<Self> {
        let missing = "a server is missing; run tests/install-servers.sh";
        let influx = tallybus_tests::influxdb().context(missing)?;
        let clickhouse = tallybus_tests::clickhouse().context(missing)?;
        let postgres = tallybus_tests::postgres().context(missing)?;
        let dynamodb = tallybus_tests::dynamodb().context(missing)?;
        for database in ["near", "far", "losing"] {
            influx.create_database(database)?;
        }
        let [far, losing] = [Mode::Delay(SLOW), Mode::LoseLines(LOST)].map(|mode| {
            let proxy = FaultProxy::start(&influx.url())?;
            proxy.set(mode);
            anyhow::Ok(proxy)
        });
        Ok(Self {
            redshift: tallybus_tests::redshift(&postgres),
            dynamodb: DynamoDbFront::start(&dynamodb.url())?,
            far: far?,
            losing: losing?,
            postgres,
            clickhouse,
            influx,
            _dynamodb: dynamodb,
        })
    }

    /// The tables of settings of all sinks, by name.
    pub(super) fn sinks(&self, dir: &Path) -> Value {
        json!({
            "sqlite": {"kind": "sqlite", "path": dir.join("counters.db")},
            "parquet": {"kind": "parquet", "path": dir.join("files"), "create": true},
            "postgres": self.postgres_at(self.postgres.port()),
            "influxdb": influx(&self.influx.url(), "near"),
            "influxdb-far": influx(&self.far.url(), "far"),
            "influxdb-losing": lines(influx(&self.losing.url(), "losing")),
            "clickhouse-engine": {
                "kind": "clickhouse", "url": self.clickhouse.url(), "user": self.clickhouse.user(),
                "password": self.clickhouse.password(), "create": true,
            },
            "dynamodb-stand-in": {
                "kind": "dynamodb", "table": "counters", "endpoint": self.dynamodb.url(), "region": "eu-west-1",
                "access_key_id": "bench", "secret_access_key": "none", "create": true,
            },
            "redshift-stand-in": {
                "kind": "redshift", "workgroup": Redshift::WORKGROUP, "database": Redshift::DATABASE,
                "region": "us-east-1", "endpoint": self.redshift.url(), "access_key_id": Redshift::ACCESS_KEY,
                "secret_access_key": "secret", "create": true,
            },
        })
    }

    /// The settings of PostgreSQL behind this port.
    pub(super) fn postgres_at(&self, port: u16) -> Value {
        json!({
            "kind": "postgres", "host": "127.0.0.1", "port": port, "database": "counters",
            "user": self.postgres.user(), "password": self.postgres.password(), "create": true,
        })
    }
}

/// The settings of InfluxDB 1 at this URL.
pub(super) fn influx(url: &str, database: &str) -> Value {
    json!({"kind": "influxdb", "api": "v1", "url": url, "database": database, "create": true})
}

/// The same, not compressed, so that a proxy finds the lines.
fn lines(mut influx: Value) -> Value {
    influx["gzip"] = json!(false);
    influx
}
