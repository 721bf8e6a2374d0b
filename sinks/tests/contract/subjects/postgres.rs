//! A real PostgreSQL behind a proxy; each case has a role and a schema of its own.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::batches::START;
use tallybus_sdk::testkit::contract::{Backend, NetworkFault, Server};
use tallybus_sdk::{ForeignKind, ShadowName, Sink};
use tallybus_tests::{PostgresServer, TcpMode, TcpProxy};

use super::{build, number, questions, servers, shadow_of};

tallybus_sdk::testkit::contract!(Postgres::new().as_ref());

pub(crate) const PASSWORD: &str = "it's a passw:rd";

#[derive(Clone, Copy)]
pub(crate) struct Postgres(&'static PostgresServer);

impl Postgres {
    pub(crate) fn new() -> Option<Self> {
        servers::postgres().map(Self)
    }

    pub(crate) fn case(&self) -> PostgresCase {
        let name = format!("case {}", number());
        let proxy = TcpProxy::start(self.0.port()).expect("a proxy");
        let case = PostgresCase { postgres: *self, name, proxy };
        let password = PASSWORD.replace('\'', "''");
        case.administer(&format!(
            "CREATE ROLE \"{0}\" LOGIN PASSWORD '{password}'; CREATE SCHEMA \"{0}\" AUTHORIZATION \"{0}\"",
            case.name
        ));
        let sink = case.sink_of(1_000_000_000, &["tallybus.counters"]);
        apart(async move { sink.prepare().await.expect("tables") });
        case
    }
}

impl Server for Postgres {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(self.case())
    }
}

/// Runs it on a thread of its own, for callers that may be inside a runtime or not.
pub(crate) fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work)
    };
    std::thread::spawn(run).join().expect("no panic")
}

pub(crate) struct PostgresCase {
    postgres: Postgres,
    pub(crate) name: String,
    pub(crate) proxy: TcpProxy,
}

impl PostgresCase {
    pub(crate) fn settings(&self) -> Value {
        json!({
            "host": "127.0.0.1", "port": self.proxy.port(), "database": "counters", "user": self.name,
            "password": PASSWORD, "schema": self.name, "create": true
        })
    }

    pub(crate) fn with(&self, more: &Value) -> Arc<dyn Sink> {
        let mut settings = self.settings();
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        build("postgres", settings, 1_000_000_000, &["tallybus.counters"])
    }

    /// Statements of the administrator, around the proxy; answers the first column of the last row.
    pub(crate) fn administer(&self, statements: &str) -> Option<String> {
        let login = self.login();
        let statements = statements.to_owned();
        apart(async move {
            let (client, connection) = login.connect(tokio_postgres::NoTls).await.expect("the administrator");
            tokio::spawn(connection);
            let messages =
                client.simple_query(&statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
            messages.iter().rev().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
        })
    }

    /// Runs it in a transaction of the administrator's that stays open as long as what comes back.
    pub(crate) async fn hold(&self, statement: &str) -> tokio_postgres::Client {
        let (client, connection) = self.login().connect(tokio_postgres::NoTls).await.expect("the administrator");
        tokio::spawn(connection);
        client.batch_execute(&format!("BEGIN; {statement}")).await.expect("held");
        client
    }

    fn login(&self) -> tokio_postgres::Config {
        let server = self.postgres.0;
        let mut login = tokio_postgres::Config::new();
        login.host("127.0.0.1").port(server.port()).dbname("counters").user(server.user()).password(server.password());
        login
    }

    pub(crate) fn limit(&self, connections: i32) {
        self.administer(&format!("ALTER ROLE \"{}\" CONNECTION LIMIT {connections}", self.name));
        self.end_connections();
    }

    pub(crate) fn end_connections(&self) {
        self.administer(&format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{}'",
            self.name
        ));
    }
}

#[async_trait]
impl Backend for PostgresCase {
    fn shadow(&self, window: i64, name: &ShadowName) -> Option<Arc<dyn Sink>> {
        Some(build("postgres", shadow_of("postgres", self.settings(), name), window, &["tallybus.counters"]))
    }
    fn questions(&self) -> &'static [&'static str] {
        questions("postgres")
    }
    fn names_version(&self) -> bool {
        true
    }
    fn least_storage(&self) -> Option<u64> {
        Some(1)
    }
    fn fresh(&self) -> Box<dyn Backend> {
        self.postgres.backend()
    }
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        build("postgres", self.settings(), window, topics)
    }
    fn sink_locked_out(&self, _window: i64) -> Arc<dyn Sink> {
        self.with(&json!({"password": "wrong-secret"}))
    }
    fn set_away(&self, away: bool) {
        self.proxy.set(if away { TcpMode::Cut } else { TcpMode::Pass });
    }
    async fn refuse(&self, series: &Series, _start: i64) {
        assert!(!series.name().contains('\''));
        self.administer(&format!(
            "ALTER TABLE \"{}\".counters ADD CONSTRAINT refused CHECK (name <> '{}')",
            self.name,
            series.name()
        ));
    }
    async fn add_foreign(&self) -> Vec<ForeignKind> {
        let row = |time_ns: i64, tags: &str, value: i64| {
            format!("(to_timestamp({time_ns} / 1000000000), {time_ns}, 'a', '{tags}', {value}, 'other', 0, 0)")
        };
        let ours = r#"{"k":"v"}"#;
        let rows =
            [row(START, "[]", 5), row(START, r#"{"k":4}"#, 5), row(START, ours, -5), row(-2_000_000_000, ours, 5)];
        self.administer(&format!("INSERT INTO \"{}\".counters VALUES {}", self.name, rows.join(", ")));
        vec![ForeignKind::Tags, ForeignKind::Tags, ForeignKind::Negative, ForeignKind::BeforeEpoch]
    }
    async fn set_ledger_back(&self, topic: &str, partition: u32, offset: Option<u64>) {
        let ledger = format!("\"{}\".counters_ledger", self.name);
        self.administer(&format!("DELETE FROM {ledger} WHERE topic = '{topic}' AND partition = {partition}"));
        if let Some(offset) = offset {
            self.administer(&format!("INSERT INTO {ledger} VALUES ('{topic}', {partition}, {offset})"));
        }
    }
    fn takes_parts(&self) -> bool {
        false
    }
    fn inject(&self, fault: Option<NetworkFault>) -> bool {
        match fault {
            None => {
                self.proxy.set(TcpMode::Pass);
                self.limit(-1);
            }
            // The server itself says that the role has too many connections.
            Some(NetworkFault::Throttled) => self.limit(0),
            Some(NetworkFault::Slow(pause)) => self.proxy.set(TcpMode::Delay(pause)),
            // Beyond what logging in takes, in the midst of the rows.
            Some(NetworkFault::CutRequest) => self.proxy.set(TcpMode::CutRequest(4_000)),
            Some(NetworkFault::CutAnswer) => self.proxy.set(TcpMode::CutAnswerTo(b"COMMIT".to_vec())),
        }
        true
    }
}
