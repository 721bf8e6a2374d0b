//! A file of this test's own.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::batches::{Maker, SECOND, START, settle_all};
use tallybus_sdk::testkit::contract::{Backend, Server};

use tallybus_sdk::{ForeignKind, ShadowName, Sink};

use super::{build, questions, shadow_of};

tallybus_sdk::testkit::contract!(Some(&SqliteServer));

struct SqliteServer;

impl Server for SqliteServer {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(SqliteCase { dir: tempfile::tempdir().expect("a directory") })
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
    fn shadow(&self, window: i64, name: &ShadowName) -> Option<Arc<dyn Sink>> {
        Some(build("sqlite", shadow_of("sqlite", json!({"path": self.path()}), name), window, &["tallybus.counters"]))
    }
    fn questions(&self) -> &'static [&'static str] {
        questions("sqlite")
    }
    fn names_version(&self) -> bool {
        true
    }
    fn least_storage(&self) -> Option<u64> {
        Some(1)
    }
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
    async fn add_foreign(&self) -> Vec<ForeignKind> {
        let connection = rusqlite::Connection::open(self.path()).expect("the file");
        let next = START + SECOND;
        let rows = format!(
            "INSERT INTO counters VALUES ('a', 'x', {next}, 5), ('a', '{{\"k\":4}}', {next}, 5), \
             ('a', '{{\"k\":\"v\"}}', {next}, -5), ('a', '{{\"k\":\"v\"}}', -5, 5)"
        );
        connection.execute_batch(&rows).expect("rows");
        vec![ForeignKind::Tags, ForeignKind::Tags, ForeignKind::Negative, ForeignKind::BeforeEpoch]
    }
    async fn set_ledger_back(&self, topic: &str, partition: u32, offset: Option<u64>) {
        let connection = rusqlite::Connection::open(self.path()).expect("the file");
        connection.execute("DELETE FROM ledger WHERE topic = ?1 AND partition = ?2", (topic, partition)).expect("rows");
        if let Some(offset) = offset {
            connection.execute("INSERT INTO ledger VALUES (?1, ?2, ?3)", (topic, partition, offset)).expect("a row");
        }
    }
    fn takes_parts(&self) -> bool {
        false
    }
}

thread_local! {
    static HOLDER: RefCell<Option<rusqlite::Connection>> = const { RefCell::new(None) };
}
