//! The real engine behind a proxy: version 1 itself, version 2 through a front.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::Sink;
use tallybus_tests::{FaultProxy, InfluxOptions, InfluxServer, InfluxV2, Mode, flux};

use super::{Backend, Server, Subject, Trouble, build, mode_of};

pub(crate) const V1: Subject = Subject { name: "influxdb, v1", kind: "influxdb", start: InfluxServerV1::start };
pub(crate) const V2: Subject = Subject { name: "influxdb, v2", kind: "influxdb", start: InfluxServerV2::start };

/// Each case has a database of its own, and a proxy that can be away.
struct Influx {
    server: InfluxServer,
    cases: AtomicU64,
}

impl Influx {
    fn database(&self) -> String {
        let name = format!("case {}", self.cases.fetch_add(1, Ordering::SeqCst));
        self.server.create_database(&name).expect("a database");
        name
    }
    /// A value of another type makes the engine refuse integers from then on.
    fn refuse(&self, database: &str, authorization: &[(String, String)], series: &Series, start: i64) {
        let mut line = Vec::new();
        tallybus_schemas::line::write_series_key(&mut line, series.name(), series.tags()).expect("a key");
        line.extend_from_slice(format!(" value=1.5 {}", start + 999_999_999).as_bytes());
        let target = format!("/write?db={}", tallybus_tests::http::percent_encode(database));
        let answer = tallybus_tests::http::send(&self.server.url(), "POST", &target, authorization, &line);
        assert_eq!(answer.expect("an answer").status, 204);
    }
}

struct InfluxServerV1(Arc<Influx>);

const USER: &str = "tallybus";
const PASSWORD: &str = "a passw:rd";

impl InfluxServerV1 {
    fn start() -> Option<Box<dyn Server>> {
        let options = InfluxOptions { auth: Some((USER.to_owned(), PASSWORD.to_owned())), ..InfluxOptions::default() };
        let server = tallybus_tests::influxdb_with(options)?;
        Some(Box::new(Self(Arc::new(Influx { server, cases: AtomicU64::new(0) }))))
    }
}

impl Server for InfluxServerV1 {
    fn backend(&self) -> Box<dyn Backend> {
        let proxy = FaultProxy::start(&self.0.server.url()).expect("a proxy");
        Box::new(InfluxCaseV1 { influx: Arc::clone(&self.0), database: self.0.database(), proxy })
    }
}

struct InfluxCaseV1 {
    influx: Arc<Influx>,
    database: String,
    proxy: FaultProxy,
}

impl InfluxCaseV1 {
    fn settings(&self, password: &str) -> Value {
        json!({"url": self.proxy.url(), "api": "v1", "database": self.database, "username": USER, "password": password})
    }
}

#[async_trait]
impl Backend for InfluxCaseV1 {
    fn fresh(&self) -> Box<dyn Backend> {
        InfluxServerV1(Arc::clone(&self.influx)).backend()
    }
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        build("influxdb", self.settings(PASSWORD), window, topics)
    }
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        build("influxdb", self.settings("wrong-secret"), window, &["tallybus.counters"])
    }
    fn set_away(&self, away: bool) {
        self.proxy.set(if away { Mode::Refuse } else { Mode::Pass });
    }
    async fn refuse(&self, series: &Series, start: i64) {
        let header = format!("Basic {}", BASIC);
        self.influx.refuse(&self.database, &[("Authorization".to_owned(), header)], series, start);
    }
    fn takes_parts(&self) -> bool {
        true
    }
    fn trouble(&self, trouble: Option<Trouble>) -> bool {
        self.proxy.set(mode_of(trouble));
        true
    }
}

/// `tallybus:a passw:rd`.
const BASIC: &str = "dGFsbHlidXM6YSBwYXNzdzpyZA==";

struct InfluxServerV2 {
    influx: Arc<Influx>,
    front: Arc<InfluxV2>,
}

impl InfluxServerV2 {
    fn start() -> Option<Box<dyn Server>> {
        let server = tallybus_tests::influxdb()?;
        let front = InfluxV2::start(&server).expect("a front");
        front.on_query(flux::sink_queries());
        let influx = Arc::new(Influx { server, cases: AtomicU64::new(0) });
        Some(Box::new(Self { influx, front: Arc::new(front) }))
    }
}

impl Server for InfluxServerV2 {
    fn backend(&self) -> Box<dyn Backend> {
        let proxy = FaultProxy::start(&self.front.url()).expect("a proxy");
        let (influx, front) = (Arc::clone(&self.influx), Arc::clone(&self.front));
        Box::new(InfluxCaseV2 { bucket: influx.database(), influx, front, proxy })
    }
}

struct InfluxCaseV2 {
    influx: Arc<Influx>,
    front: Arc<InfluxV2>,
    bucket: String,
    proxy: FaultProxy,
}

impl InfluxCaseV2 {
    fn settings(&self, token: &str) -> Value {
        json!({"url": self.proxy.url(), "org": InfluxV2::ORG, "bucket": self.bucket, "token": token})
    }
}

#[async_trait]
impl Backend for InfluxCaseV2 {
    fn fresh(&self) -> Box<dyn Backend> {
        InfluxServerV2 { influx: Arc::clone(&self.influx), front: Arc::clone(&self.front) }.backend()
    }
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        build("influxdb", self.settings(InfluxV2::TOKEN), window, topics)
    }
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        build("influxdb", self.settings("wrong-secret"), window, &["tallybus.counters"])
    }
    fn set_away(&self, away: bool) {
        self.proxy.set(if away { Mode::Refuse } else { Mode::Pass });
    }
    async fn refuse(&self, series: &Series, start: i64) {
        self.influx.refuse(&self.bucket, &[], series, start);
    }
    fn takes_parts(&self) -> bool {
        true
    }
    fn trouble(&self, trouble: Option<Trouble>) -> bool {
        self.proxy.set(mode_of(trouble));
        true
    }
}
