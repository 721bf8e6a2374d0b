//! The backends that the contract runs against, each with its ways to be away, to lock out and to refuse.

pub(crate) mod clickhouse;
pub(crate) mod dynamodb;
pub(crate) mod fake;
pub(crate) mod http;
pub(crate) mod influxdb;
pub(crate) mod parquet;
pub(crate) mod postgres;
pub(crate) mod redshift;
pub(crate) mod sqlite;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tallybus_schemas::Series;
use tallybus_sdk::config::Section;
use tallybus_sdk::{Sink, SinkContext, find_kind};
use tallybus_sinks::KINDS;
use tallybus_tests::Mode;

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
    /// Whether the backend can refuse a point that another backend takes; files hold anything.
    fn refuses(&self) -> bool {
        true
    }
    /// Whether the sink may answer with a split.
    fn takes_parts(&self) -> bool;
    /// Puts trouble between sink and backend, or takes it away; `false` where nothing lies between them.
    fn trouble(&self, trouble: Option<Trouble>) -> bool {
        let _ = trouble;
        false
    }
}

/// What can go wrong on the way to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The backend asks for less, in its own words.
    Throttled,
    /// Every answer takes that long.
    Slow(Duration),
    /// The connection is cut in the middle of the request.
    CutRequest,
    /// The backend has done what it was asked to, and the connection is cut before it says so.
    CutAnswer,
}

/// The same for a proxy before a backend that speaks HTTP and throttles with 429.
pub(crate) fn mode_of(trouble: Option<Trouble>) -> Mode {
    match trouble {
        None => Mode::Pass,
        Some(Trouble::Throttled) => Mode::answer(429, r#"{"code":"too many requests","message":"slow down"}"#),
        Some(Trouble::Slow(pause)) => Mode::Delay(pause),
        Some(Trouble::CutRequest) => Mode::CutRequest,
        Some(Trouble::CutAnswer) => Mode::ApplyThenCut,
    }
}

/// Makes a sink the way the settings do.
pub(crate) fn build(kind: &str, table: Value, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
    let Value::Object(table) = table else { panic!("settings are a table") };
    let problems = Rc::new(RefCell::new(Vec::new()));
    let mut section = Section::root(&table, Rc::clone(&problems));
    let build = (find_kind(KINDS, kind).expect("the kind").parse)(&mut section);
    section.finish();
    assert!(problems.borrow().is_empty(), "{:?}", problems.borrow());
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    build.expect("no problems")(&SinkContext { name: "tested".to_owned(), topics, window }).expect("a sink")
}
