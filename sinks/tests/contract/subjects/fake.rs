//! The smallest sink there is.

use std::sync::Arc;

use async_trait::async_trait;
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::batches::START;
use tallybus_sdk::testkit::contract::{Backend, Server};
use tallybus_sdk::testkit::{FakeBackend, FakeSink};
use tallybus_sdk::{Foreign, ForeignKind, QUESTIONS, Sink};

tallybus_sdk::testkit::contract!(Some(&FakeServer));

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
    fn questions(&self) -> &'static [&'static str] {
        QUESTIONS
    }
    fn names_version(&self) -> bool {
        true
    }
    fn least_storage(&self) -> Option<u64> {
        Some(1)
    }
    fn fresh(&self) -> Box<dyn Backend> {
        FakeServer.backend()
    }
    fn sink_of(&self, window: i64, _topics: &[&str]) -> Arc<dyn Sink> {
        Arc::new(FakeSink::new(Arc::clone(&self.0)).with_window(window))
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
    async fn add_foreign(&self) -> Vec<ForeignKind> {
        let kinds = vec![ForeignKind::Tags, ForeignKind::Negative];
        kinds.iter().for_each(|kind| self.0.add_foreign(START, Foreign::new(*kind, "a point of another program")));
        kinds
    }
    async fn set_ledger_back(&self, topic: &str, partition: u32, offset: Option<u64>) {
        self.0.set_back(topic, partition, offset.unwrap_or(0));
    }
    fn takes_parts(&self) -> bool {
        false
    }
}
