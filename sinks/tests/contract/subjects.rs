//! The backends that the contract runs against, each with its ways to be away, to lock out and to refuse.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sinks::fake::{FakeBackend, FakeSink};
use tallybus_sinks::settings::Section;
use tallybus_sinks::{Sink, SinkContext, find_kind};
use tallybus_tests::{FaultProxy, InfluxOptions, InfluxServer, InfluxV2, Mode, flux};

use crate::batches::{Maker, SECOND, settle_all};

/// A backend of some kind, under some settings.
pub(crate) struct Subject {
    /// What the test is called.
    pub(crate) name: &'static str,
    /// The kind in the table; `fake` is in none.
    pub(crate) kind: &'static str,
    /// Starts what serves all cases; `None` where it is not installed and need not be.
    pub(crate) start: fn() -> Option<Box<dyn Server>>,
}

/// Serves one case after the other.
pub(crate) trait Server {
    /// Empty, and nobody else's.
    fn backend(&self) -> Box<dyn Backend>;
}

/// An empty backend.
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Another empty one.
    fn fresh(&self) -> Box<dyn Backend>;
    /// A worker's sink of these topics.
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink>;
    /// A worker's sink of one topic.
    fn sink(&self, window: i64) -> Arc<dyn Sink> {
        self.sink_of(window, &["tallybus.counters"])
    }
    /// A sink that may not write here; its secret, if it has one, is `wrong-secret`.
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink>;
    /// Lets everybody in.
    fn let_in(&self) {}
    /// Whether it can be reached.
    fn set_away(&self, away: bool);
    /// Makes it refuse points of this series in the window of one second that starts here.
    async fn refuse(&self, series: &Series, start: i64);
    /// Whether the sink may answer with a split.
    fn takes_parts(&self) -> bool;
}

pub(crate) fn subjects() -> Vec<Subject> {
    vec![
        Subject { name: "fake", kind: "fake", start: || Some(Box::new(FakeServer)) },
        Subject { name: "sqlite", kind: "sqlite", start: || Some(Box::new(SqliteServer)) },
        Subject { name: "influxdb, v1", kind: "influxdb", start: InfluxServerV1::start },
        Subject { name: "influxdb, v2", kind: "influxdb", start: InfluxServerV2::start },
    ]
}

/// Makes a sink the way the settings do.
pub(crate) fn build(kind: &str, table: Value, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
    let Value::Object(table) = table else { panic!("settings are a table") };
    let problems = Rc::new(RefCell::new(Vec::new()));
    let mut section = Section::root(&table, Rc::clone(&problems));
    let build = (find_kind(kind).expect("the kind").parse)(&mut section);
    section.finish();
    assert!(problems.borrow().is_empty(), "{:?}", problems.borrow());
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    build.expect("no problems")(&SinkContext { name: "tested".to_owned(), topics, window }).expect("a sink")
}

struct FakeServer;

impl Server for FakeServer {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(FakeCase(FakeBackend::new()))
    }
}

struct FakeCase(Arc<FakeBackend>);

impl Drop for FakeCase {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.0.violations(), [""; 0]);
        }
    }
}

#[async_trait]
impl Backend for FakeCase {
    fn fresh(&self) -> Box<dyn Backend> {
        FakeServer.backend()
    }
    fn sink_of(&self, window: i64, _topics: &[&str]) -> Arc<dyn Sink> {
        Arc::new(FakeSink::new(Arc::clone(&self.0), window))
    }
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        self.0.set_locked(Some("nobody is let in"));
        self.sink(window)
    }
    fn let_in(&self) {
        self.0.set_locked(None);
    }
    fn set_away(&self, away: bool) {
        self.0.set_away(away);
    }
    async fn refuse(&self, series: &Series, _start: i64) {
        let series = series.clone();
        self.0.refuse(move |found| *found == series);
    }
    fn takes_parts(&self) -> bool {
        false
    }
}

struct SqliteServer;

impl Server for SqliteServer {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(SqliteCase { dir: tempfile::tempdir().expect("a folder") })
    }
}

struct SqliteCase {
    dir: tempfile::TempDir,
}

impl SqliteCase {
    fn path(&self) -> PathBuf {
        self.dir.path().join("counters.db")
    }
    fn build(&self, create: bool, window: i64) -> Arc<dyn Sink> {
        build("sqlite", json!({"path": self.path(), "create": create}), window, &["tallybus.counters"])
    }
}

#[async_trait]
impl Backend for SqliteCase {
    fn fresh(&self) -> Box<dyn Backend> {
        SqliteServer.backend()
    }
    fn sink_of(&self, window: i64, _topics: &[&str]) -> Arc<dyn Sink> {
        self.build(true, window)
    }
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        self.build(false, window)
    }
    /// Another process holds the file; the time that a writer waits for it is part of what is tested.
    fn set_away(&self, away: bool) {
        HOLDER.with_borrow_mut(|holder| {
            *holder = away.then(|| {
                let connection = rusqlite::Connection::open(self.path()).expect("the file");
                connection.execute_batch("BEGIN IMMEDIATE").expect("the lock");
                connection
            });
        });
    }
    /// The row is full already.
    async fn refuse(&self, series: &Series, start: i64) {
        let full = Maker::new(SECOND, 9).batch(&[(series.clone(), start, i64::MAX as u64)]);
        settle_all(&*self.sink(SECOND), &full).await;
    }
    fn takes_parts(&self) -> bool {
        false
    }
}

thread_local! {
    static HOLDER: RefCell<Option<rusqlite::Connection>> = const { RefCell::new(None) };
}

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
}
