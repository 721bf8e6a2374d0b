//! ClickHouse's engine behind a proxy; each case has a database of its own.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::{Backend, NetworkFault, Server};
use tallybus_sdk::{ForeignKind, ShadowName, Sink};
use tallybus_tests::{ClickHouseServer, FaultProxy, Mode};

use super::{build, number, questions, servers, shadow_of};

tallybus_sdk::testkit::contract!(ClickHouse::new().as_ref());

#[derive(Clone, Copy)]
pub(crate) struct ClickHouse(&'static ClickHouseServer);

impl ClickHouse {
    pub(crate) fn new() -> Option<Self> {
        servers::clickhouse().map(Self)
    }

    pub(crate) fn case(&self) -> ClickHouseCase {
        let database = format!("case {}", number());
        let case =
            ClickHouseCase { clickhouse: *self, database, proxy: FaultProxy::start(&self.0.url()).expect("a proxy") };
        let ddl = case.with(&json!({})).ddl().expect("statements");
        case.run(&ddl);
        case
    }
}

impl Server for ClickHouse {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(self.case())
    }
}

pub(crate) struct ClickHouseCase {
    clickhouse: ClickHouse,
    pub(crate) database: String,
    pub(crate) proxy: FaultProxy,
}

impl ClickHouseCase {
    fn settings(&self) -> Value {
        let server = self.clickhouse.0;
        json!({
            "url": self.proxy.url(), "database": self.database, "user": server.user(), "password": server.password(),
            "create": true
        })
    }

    pub(crate) fn with(&self, more: &Value) -> Arc<dyn Sink> {
        let mut settings = self.settings();
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        build("clickhouse", settings, 1_000_000_000, &["tallybus.counters"])
    }

    /// Statements, around the proxy; answers what the last one did.
    pub(crate) fn run(&self, statements: &str) -> String {
        let is_said = |statement: &&str| statement.lines().any(|line| !line.is_empty() && !line.starts_with("--"));
        let statements = statements.split(";\n").filter(is_said);
        statements.map(|statement| self.clickhouse.0.query(statement).expect("run")).last().unwrap_or_default()
    }
}

/// As ClickHouse's server answers: the text, and the code in a header.
pub(crate) fn exception(status: u16, code: u32, text: &str) -> Mode {
    Mode::Answer {
        status,
        headers: vec![("X-ClickHouse-Exception-Code".to_owned(), code.to_string())],
        body: format!("Code: {code}. DB::Exception: {text}\n"),
    }
}

#[async_trait]
impl Backend for ClickHouseCase {
    fn shadow(&self, window: i64, name: &ShadowName) -> Option<Arc<dyn Sink>> {
        Some(build("clickhouse", shadow_of("clickhouse", self.settings(), name), window, &["tallybus.counters"]))
    }
    fn questions(&self) -> &'static [&'static str] {
        questions("clickhouse")
    }
    fn names_version(&self) -> bool {
        true
    }
    fn least_storage(&self) -> Option<u64> {
        Some(1)
    }
    fn fresh(&self) -> Box<dyn Backend> {
        self.clickhouse.backend()
    }
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        build("clickhouse", self.settings(), window, topics)
    }
    fn sink_locked_out(&self, _window: i64) -> Arc<dyn Sink> {
        self.with(&json!({"password": "wrong-secret"}))
    }
    fn set_away(&self, away: bool) {
        self.proxy.set(if away { Mode::Refuse } else { Mode::Pass });
    }
    async fn refuse(&self, series: &Series, _start: i64) {
        assert!(!series.name().contains('\''));
        self.run(&format!(
            "ALTER TABLE `{}`.counters ADD CONSTRAINT refused CHECK name != '{}'",
            self.database,
            series.name()
        ));
    }
    async fn add_foreign(&self) -> Vec<ForeignKind> {
        self.run(&format!(
            "INSERT INTO `{}`.counters (time, name, tags, value) VALUES (fromUnixTimestamp64Nano(toInt64(-5), 'UTC'), 'a', {{}}, 5)",
            self.database
        ));
        vec![ForeignKind::BeforeEpoch]
    }
    fn takes_parts(&self) -> bool {
        true
    }
    fn inject(&self, fault: Option<NetworkFault>) -> bool {
        self.proxy.set(match fault {
            None => Mode::Pass,
            Some(NetworkFault::Throttled) => {
                exception(500, 202, "Too many simultaneous queries. Maximum: 100. (TOO_MANY_SIMULTANEOUS_QUERIES)")
            }
            Some(NetworkFault::Slow(pause)) => Mode::Delay(pause),
            Some(NetworkFault::CutRequest) => Mode::CutRequest,
            Some(NetworkFault::CutAnswer) => Mode::ApplyThenCut,
        });
        true
    }
}
