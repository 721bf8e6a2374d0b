//! The Redshift stand-in over a real PostgreSQL, behind a proxy; each case has a schema and a Data API of its own.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::{Backend, NetworkFault, Server};
use tallybus_sdk::{ForeignKind, ShadowName, Sink};
use tallybus_tests::{FaultProxy, Mode, MotoServer, PostgresServer, Redshift, http};

use super::postgres::apart;
use super::{build, mode_of, number, questions, servers, shadow_of};

mod insert {
    tallybus_sdk::testkit::contract!(super::Warehouse::new(false).as_ref());
}

mod copy {
    tallybus_sdk::testkit::contract!(super::Warehouse::new(true).as_ref());
}

pub(crate) const BUCKET: &str = "staging";
/// moto takes any key.
const STRANGER: &str =
    "AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

#[derive(Clone, Copy)]
pub(crate) struct Warehouse {
    postgres: &'static PostgresServer,
    s3: Option<&'static MotoServer>,
}

impl Warehouse {
    pub(crate) fn new(copies: bool) -> Option<Self> {
        let s3 = if copies { Some(servers::s3()?) } else { None };
        Some(Self { postgres: servers::warehouse()?, s3 })
    }

    /// With its tables.
    pub(crate) fn case(&self) -> RedshiftCase {
        let case = self.empty_case();
        let sink = case.with(&json!({"create": true}));
        apart(async move { sink.prepare().await.expect("tables") });
        case
    }

    pub(crate) fn empty_case(&self) -> RedshiftCase {
        let schema = format!("case {}", number());
        let redshift = tallybus_tests::redshift(self.postgres);
        let s3 = self.s3.map(MotoServer::url);
        redshift.behave(|behaviour| behaviour.s3.clone_from(&s3));
        redshift.administer(&format!("CREATE SCHEMA \"{schema}\""));
        let proxy = FaultProxy::start(&redshift.url()).expect("a proxy");
        RedshiftCase { warehouse: *self, schema, redshift, proxy, s3 }
    }
}

impl Server for Warehouse {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(self.case())
    }
}

pub(crate) struct RedshiftCase {
    warehouse: Warehouse,
    pub(crate) schema: String,
    pub(crate) redshift: Redshift,
    pub(crate) proxy: FaultProxy,
    s3: Option<String>,
}

impl RedshiftCase {
    fn settings(&self) -> Value {
        let mut settings = json!({
            "workgroup": Redshift::WORKGROUP, "database": Redshift::DATABASE, "schema": self.schema,
            "region": "us-east-1", "endpoint": self.proxy.url(), "timeout": "4s",
            "access_key_id": Redshift::ACCESS_KEY, "secret_access_key": "secret",
        });
        if let Some(s3) = &self.s3 {
            settings["mode"] = json!("copy");
            settings["staging"] = json!(format!("s3://{BUCKET}/{}", self.schema));
            settings["staging_endpoint"] = json!(s3);
            settings["iam_role"] = json!("arn:aws:iam::123456789012:role/redshift");
        }
        settings
    }

    pub(crate) fn with(&self, more: &Value) -> Arc<dyn Sink> {
        self.with_window(more, 1_000_000_000, &["tallybus.counters"])
    }

    fn with_window(&self, more: &Value, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        let mut settings = self.settings();
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        build("redshift", settings, window, topics)
    }

    /// How many objects of this case lie in S3.
    pub(crate) fn staged(&self) -> usize {
        let url = self.s3.as_deref().expect("a case that copies");
        let headers = [("Authorization".to_owned(), STRANGER.to_owned())];
        let answer = http::send(url, "GET", &format!("/{BUCKET}?list-type=2"), &headers, b"").expect("a list");
        let list = String::from_utf8_lossy(&answer.body).into_owned();
        list.matches(&format!("<Key>{}/", self.schema)).count()
    }

    /// Redshift finds S3 again.
    pub(crate) fn find_s3(&self) {
        self.redshift.behave(|behaviour| behaviour.s3.clone_from(&self.s3));
    }

    /// The first column of the last row.
    pub(crate) fn ask(&self, sql: &str) -> String {
        self.redshift.administer(sql).unwrap_or_default()
    }
}

#[async_trait]
impl Backend for RedshiftCase {
    fn shadow(&self, window: i64, name: &ShadowName) -> Option<Arc<dyn Sink>> {
        Some(build("redshift", shadow_of("redshift", self.settings(), name), window, &["tallybus.counters"]))
    }
    fn questions(&self) -> &'static [&'static str] {
        questions("redshift")
    }
    fn names_version(&self) -> bool {
        true
    }
    fn least_storage(&self) -> Option<u64> {
        Some(1)
    }
    fn fresh(&self) -> Box<dyn Backend> {
        self.warehouse.backend()
    }
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        self.with_window(&json!({}), window, topics)
    }
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        let stranger = json!({"access_key_id": "AKIASTRANGER", "secret_access_key": "wrong-secret"});
        self.with_window(&stranger, window, &["tallybus.counters"])
    }
    fn set_away(&self, away: bool) {
        self.proxy.set(if away { Mode::Refuse } else { Mode::Pass });
    }
    /// As if the table were too narrow for it.
    async fn refuse(&self, series: &Series, _start: i64) {
        assert!(!series.name().contains('\''));
        self.redshift.administer(&format!(
            "ALTER TABLE \"{}\".counters ADD CONSTRAINT refused CHECK (name <> '{}')",
            self.schema,
            series.name()
        ));
    }
    async fn add_foreign(&self) -> Vec<ForeignKind> {
        for (time, value) in [("2023-11-14 22:13:21", -5), ("1969-12-31 23:59:59", 5)] {
            self.redshift.administer(&format!(
                "INSERT INTO \"{}\".counters (window_start, nanos, name, value, topic, partition_id, first_offset) \
                 VALUES ('{time}', 0, 'a', {value}, 'other', 0, 0)",
                self.schema
            ));
        }
        vec![ForeignKind::Negative, ForeignKind::BeforeEpoch]
    }
    async fn set_ledger_back(&self, topic: &str, partition: u32, offset: Option<u64>) {
        let ledger = format!("\"{}\".counters_ledger", self.schema);
        self.ask(&format!("DELETE FROM {ledger} WHERE topic = '{topic}' AND partition_id = {partition}"));
        if let Some(offset) = offset {
            self.ask(&format!(
                "INSERT INTO {ledger} (topic, partition_id, next_offset, part) VALUES ('{topic}', {partition}, {offset}, 0)"
            ));
        }
    }
    fn takes_parts(&self) -> bool {
        true
    }
    fn inject(&self, fault: Option<NetworkFault>) -> bool {
        self.redshift.behave(|behaviour| behaviour.throttled = fault == Some(NetworkFault::Throttled));
        match fault {
            Some(NetworkFault::Throttled) => self.proxy.set(Mode::Pass),
            other => self.proxy.set(mode_of(other)),
        }
        true
    }
}
