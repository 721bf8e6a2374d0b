//! The real engine behind a proxy: version 1 itself, version 2 through a front.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::batches::{SECOND, START};
use tallybus_sdk::testkit::contract::{Backend, NetworkFault, Server};
use tallybus_sdk::{ForeignKind, ShadowName, Sink};
use tallybus_tests::{FaultProxy, InfluxServer, InfluxV2, Mode};

use super::servers::{self, INFLUX_PASSWORD, INFLUX_USER};
use super::{build, mode_of, number, questions, shadow_of};

mod v1 {
    tallybus_sdk::testkit::contract!(super::InfluxServerV1::new().as_ref());
}

mod v2 {
    tallybus_sdk::testkit::contract!(super::InfluxServerV2::new().as_ref());
}

/// Each case has a database of its own, and a proxy that can be away.
#[derive(Clone, Copy)]
struct Influx(&'static InfluxServer);

impl Influx {
    fn database(&self) -> String {
        let name = format!("case {}", number());
        self.0.create_database(&name).expect("a database");
        name
    }
    /// Points of another program. The front of version 2 knows no texts as values.
    fn add_foreign(&self, database: &str, authorization: &[(String, String)], with_text: bool) -> Vec<ForeignKind> {
        let next = START + SECOND;
        let mut lines = format!("a,k=v value=-5i {next}\nwarmth value=1.5 {next}\na,k=v value=5i -5");
        let mut kinds = vec![ForeignKind::Negative, ForeignKind::Fraction];
        if with_text {
            lines.push_str(&format!("\nwords value=\"x\" {next}\nfloats value=5 {next}"));
            kinds.extend([ForeignKind::ValueType, ForeignKind::ValueType]);
        }
        kinds.push(ForeignKind::BeforeEpoch);
        let target = format!("/write?db={}", tallybus_tests::http::percent_encode(database));
        let answer = tallybus_tests::http::send(&self.0.url(), "POST", &target, authorization, lines.as_bytes());
        assert_eq!(answer.expect("an answer").status, 204);
        kinds
    }
    /// A value of another type makes the engine refuse integers from then on.
    fn refuse(&self, database: &str, authorization: &[(String, String)], series: &Series, start: i64) {
        let mut line = Vec::new();
        tallybus_schemas::line::write_series_key(&mut line, series.name(), series.tags()).expect("a key");
        line.extend_from_slice(format!(" value=1.5 {}", start + 999_999_999).as_bytes());
        let target = format!("/write?db={}", tallybus_tests::http::percent_encode(database));
        let answer = tallybus_tests::http::send(&self.0.url(), "POST", &target, authorization, &line);
        assert_eq!(answer.expect("an answer").status, 204);
    }
}

#[derive(Clone, Copy)]
pub(crate) struct InfluxServerV1(Influx);

impl InfluxServerV1 {
    pub(crate) fn new() -> Option<Self> {
        servers::influxdb_with_login().map(|server| Self(Influx(server)))
    }

    pub(crate) fn case(&self) -> InfluxCaseV1 {
        let proxy = FaultProxy::start(&self.0.0.url()).expect("a proxy");
        InfluxCaseV1 { server: *self, database: self.0.database(), proxy }
    }
}

impl Server for InfluxServerV1 {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(self.case())
    }
}

pub(crate) struct InfluxCaseV1 {
    server: InfluxServerV1,
    database: String,
    proxy: FaultProxy,
}

impl InfluxCaseV1 {
    /// Name and password of a user who may write and read this database, and nothing else.
    pub(crate) fn ordinary_user(&self) -> (String, String) {
        let (user, password) = (format!("user {}", number()), "an ordinary passw:rd".to_owned());
        let grant = format!(
            "CREATE USER \"{user}\" WITH PASSWORD '{password}'; GRANT ALL ON \"{}\" TO \"{user}\"",
            self.database
        );
        let header = ("Authorization".to_owned(), format!("Basic {BASIC}"));
        let target = format!("/query?q={}", tallybus_tests::http::percent_encode(&grant));
        let answer = tallybus_tests::http::send(&self.server.0.0.url(), "POST", &target, &[header], b"");
        assert_eq!(answer.expect("an answer").status, 200);
        (user, password)
    }

    pub(crate) fn sink_as(&self, user: &str, password: &str) -> Arc<dyn Sink> {
        let mut settings = self.settings(password);
        settings["username"] = json!(user);
        build("influxdb", settings, SECOND, &["tallybus.counters"])
    }

    fn settings(&self, password: &str) -> Value {
        json!({"url": self.proxy.url(), "api": "v1", "database": self.database, "username": INFLUX_USER, "password": password})
    }
}

#[async_trait]
impl Backend for InfluxCaseV1 {
    fn shadow(&self, window: i64, name: &ShadowName) -> Option<Arc<dyn Sink>> {
        Some(build(
            "influxdb",
            shadow_of("influxdb", self.settings(INFLUX_PASSWORD), name),
            window,
            &["tallybus.counters"],
        ))
    }
    fn questions(&self) -> &'static [&'static str] {
        questions("influxdb")
    }
    fn names_version(&self) -> bool {
        true
    }
    fn least_storage(&self) -> Option<u64> {
        Some(1)
    }
    fn fresh(&self) -> Box<dyn Backend> {
        self.server.backend()
    }
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        build("influxdb", self.settings(INFLUX_PASSWORD), window, topics)
    }
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        build("influxdb", self.settings("wrong-secret"), window, &["tallybus.counters"])
    }
    fn set_away(&self, away: bool) {
        self.proxy.set(if away { Mode::Refuse } else { Mode::Pass });
    }
    async fn refuse(&self, series: &Series, start: i64) {
        let header = format!("Basic {}", BASIC);
        self.server.0.refuse(&self.database, &[("Authorization".to_owned(), header)], series, start);
    }
    async fn add_foreign(&self) -> Vec<ForeignKind> {
        let header = format!("Basic {}", BASIC);
        self.server.0.add_foreign(&self.database, &[("Authorization".to_owned(), header)], true)
    }
    fn takes_parts(&self) -> bool {
        true
    }
    fn inject(&self, fault: Option<NetworkFault>) -> bool {
        self.proxy.set(mode_of(fault));
        true
    }
}

/// `tallybus:a passw:rd`.
const BASIC: &str = "dGFsbHlidXM6YSBwYXNzdzpyZA==";

#[derive(Clone, Copy)]
struct InfluxServerV2 {
    influx: Influx,
    front: &'static InfluxV2,
}

impl InfluxServerV2 {
    fn new() -> Option<Self> {
        Some(Self { front: servers::influxdb_v2()?, influx: Influx(servers::influxdb()?) })
    }
}

impl Server for InfluxServerV2 {
    fn backend(&self) -> Box<dyn Backend> {
        let proxy = FaultProxy::start(&self.front.url()).expect("a proxy");
        Box::new(InfluxCaseV2 { server: *self, bucket: self.influx.database(), proxy })
    }
}

struct InfluxCaseV2 {
    server: InfluxServerV2,
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
    fn shadow(&self, window: i64, name: &ShadowName) -> Option<Arc<dyn Sink>> {
        Some(build(
            "influxdb",
            shadow_of("influxdb", self.settings(InfluxV2::TOKEN), name),
            window,
            &["tallybus.counters"],
        ))
    }
    fn questions(&self) -> &'static [&'static str] {
        questions("influxdb")
    }
    fn names_version(&self) -> bool {
        true
    }
    fn least_storage(&self) -> Option<u64> {
        None
    }
    fn fresh(&self) -> Box<dyn Backend> {
        self.server.backend()
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
        self.server.influx.refuse(&self.bucket, &[], series, start);
    }
    async fn add_foreign(&self) -> Vec<ForeignKind> {
        self.server.influx.add_foreign(&self.bucket, &[], false)
    }
    fn takes_parts(&self) -> bool {
        true
    }
    fn inject(&self, fault: Option<NetworkFault>) -> bool {
        self.proxy.set(mode_of(fault));
        true
    }
}
