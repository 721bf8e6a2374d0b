//! Another server behind the address in the settings: a proxy, a login page, another program's port. It answers every path with
//! success, so nothing that it says may be taken for the backend's, and asking again does not help.

use std::fmt::Debug;
use std::sync::Arc;

use serde_json::{Value, json};
use tallybus_sdk::testkit::contract::batches::{SECOND, batches, write};
use tallybus_sdk::{Sink, SinkError, WindowsQuery, WriteOutcome};
use tallybus_tests::{FaultProxy, Mode};

use crate::subjects::build;

const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>a, b, c\n</body></html>";

/// Settings of a sink of each kind that speaks HTTP, with its address at `url`.
fn kinds(url: &str) -> Vec<(&'static str, Value)> {
    let aws = |more: Value| {
        let mut table = json!({"region": "eu-west-1", "endpoint": url, "access_key_id": "a", "secret_access_key": "b",
            "timeout": "3s"});
        for (key, value) in more.as_object().unwrap() {
            table[key] = value.clone();
        }
        table
    };
    vec![
        ("influxdb", json!({"url": url, "api": "v1", "database": "d", "timeout": "3s"})),
        ("influxdb", json!({"url": url, "org": "o", "bucket": "b", "token": "t", "timeout": "3s"})),
        ("clickhouse", json!({"url": url, "timeout": "3s"})),
        ("dynamodb", aws(json!({"table": "counters"}))),
        ("redshift", aws(json!({"workgroup": "w", "database": "d"}))),
        ("parquet", aws(json!({"path": "s3://b/p"}))),
        ("http", json!({"url": url, "read_url": url, "idempotent": true, "timeout": "3s"})),
    ]
}

async fn behind(mode: &Mode) -> Vec<(String, Arc<dyn Sink>, FaultProxy)> {
    let mut found = Vec::new();
    for number in 0..kinds("http://127.0.0.1:1").len() {
        // Nothing is behind it: it answers by itself.
        let proxy = FaultProxy::start("http://127.0.0.1:1").unwrap();
        proxy.set(mode.clone());
        let (kind, table) = kinds(&proxy.url()).swap_remove(number);
        let sink = build(kind, table.clone(), SECOND, &["tallybus.counters"]);
        found.push((format!("{kind} {table}"), sink, proxy));
    }
    found
}

fn is_told<T: Debug>(what: &str, outcome: Result<T, SinkError>) {
    let error = outcome.expect_err(what);
    let SinkError::Halt(reason) = &error else { panic!("{what}: it would be asked again: {error}") };
    assert!(
        reason.contains("check `url`") || reason.contains("check `endpoint`") || reason.contains("check `read_url`"),
        "{what}: {reason}"
    );
}

fn page() -> Mode {
    let headers = vec![("Content-Type".to_owned(), "text/html; charset=utf-8".to_owned())];
    Mode::Answer { status: 200, headers, body: PAGE.to_owned() }
}

#[tokio::test]
async fn a_page_in_place_of_what_a_backend_holds_needs_an_operator() {
    for (kind, sink, _proxy) in behind(&page()).await {
        let windows = sink.read_back().expect("every kind is read").collect(&WindowsQuery::default()).await;
        is_told(&format!("{kind}: windows"), windows);
        if let Some(claims) = sink.claims() {
            is_told(&format!("{kind}: claims"), claims.entries().await);
        }
    }
}

#[tokio::test]
async fn a_check_of_a_backend_that_answers_with_a_page_needs_an_operator() {
    for (kind, sink, _proxy) in behind(&page()).await {
        // An API may have a page where it only tells that it is there.
        if !kind.starts_with("http ") {
            is_told(&format!("{kind}: check"), sink.check().await);
        }
    }
}

#[tokio::test]
async fn a_page_in_answer_to_a_write_is_no_success() {
    for (kind, sink, _proxy) in behind(&page()).await {
        let outcome = write(&*sink, &batches(1)[0]).await;
        assert!(matches!(outcome, WriteOutcome::Halt { .. }), "{kind}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_api_that_answers_with_a_page_is_written_to_where_the_settings_accept_it() {
    let proxy = FaultProxy::start("http://127.0.0.1:1").unwrap();
    proxy.set(page());
    let mut table = json!({"url": proxy.url(), "timeout": "3s"});
    let refused = write(&*build("http", table.clone(), SECOND, &["tallybus.counters"]), &batches(1)[0]).await;
    let WriteOutcome::Halt { reason } = refused else { panic!("{refused:?}") };
    assert!(reason.contains("nothing is known to be written") && reason.contains("`accept = \"any\"`"), "{reason}");
    table["accept"] = "any".into();
    let accepted = write(&*build("http", table, SECOND, &["tallybus.counters"]), &batches(1)[0]).await;
    assert_eq!(accepted, WriteOutcome::Done);
}

#[tokio::test]
async fn another_programs_json_in_place_of_what_a_backend_holds_needs_an_operator() {
    for (kind, sink, _proxy) in behind(&Mode::answer(200, "\"ok\"")).await {
        let windows = sink.read_back().expect("every kind is read").collect(&WindowsQuery::default()).await;
        is_told(&format!("{kind}: windows"), windows);
    }
}
