//! The backends that the contract runs against, one file a kind: each with its ways to be away, to refuse access and to refuse
//! a point. The tests are named after file and variant: `subjects::influxdb::v1::a_batch_written_twice_counts_once`.
//!
//! Real servers are shared: one for all tests of the process, started by the first that needs it.

pub(crate) mod clickhouse;
pub(crate) mod dynamodb;
pub(crate) mod fake;
pub(crate) mod http;
pub(crate) mod influxdb;
pub(crate) mod parquet;
pub(crate) mod postgres;
pub(crate) mod redshift;
pub(crate) mod servers;
pub(crate) mod sqlite;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tallybus_sdk::config::ConfigTable;
use tallybus_sdk::testkit::contract::NetworkFault;
use tallybus_sdk::{ShadowName, Sink, SinkContext, find_kind};
use tallybus_sinks::KINDS;
use tallybus_tests::Mode;

/// A number that no other case of this process has: names of databases, tables and directories are made of it.
pub(crate) fn number() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// How a proxy makes the fault before a backend that speaks HTTP and throttles with 429.
pub(crate) fn mode_of(fault: Option<NetworkFault>) -> Mode {
    match fault {
        None => Mode::Pass,
        Some(NetworkFault::Throttled) => Mode::answer(429, r#"{"code":"too many requests","message":"slow down"}"#),
        Some(NetworkFault::Slow(pause)) => Mode::Delay(pause),
        Some(NetworkFault::CutRequest) => Mode::CutRequest,
        Some(NetworkFault::CutAnswer) => Mode::ApplyThenCut,
    }
}

/// The settings of a shadow destination, made from those of a sink; without the setting that lets it create, which is its own.
pub(crate) fn shadow_of(kind: &str, settings: Value, name: &ShadowName) -> Value {
    let Value::Object(mut settings) = settings else { panic!("settings are a table") };
    let change = find_kind(KINDS, kind).expect("the kind").shadow.expect("the kind has shadows");
    change(&mut settings, name).expect("a shadow");
    Value::Object(settings)
}

/// What the kind says that it answers, and whether it says how much storage it takes.
pub(crate) fn questions(kind: &str) -> &'static [&'static str] {
    find_kind(KINDS, kind).expect("the kind").questions
}

/// Makes a sink the way the settings do.
pub(crate) fn build(kind: &str, table: Value, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
    let Value::Object(table) = table else { panic!("settings are a table") };
    let problems = Rc::new(RefCell::new(Vec::new()));
    let mut section = ConfigTable::root(&table, Rc::clone(&problems));
    let build = (find_kind(KINDS, kind).expect("the kind").parse)(&mut section);
    section.finish();
    assert!(problems.borrow().is_empty(), "{:?}", problems.borrow());
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    build.expect("no problems")(&SinkContext { name: "tested".to_owned(), topics, window }).expect("a sink")
}
