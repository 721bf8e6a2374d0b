use serde_json::{Value, json};
use tallybus_sdk::config::read_for_test;

use super::*;

fn read(table: Value) -> (Option<BuildSink>, Vec<String>) {
    read_for_test(&table, parse)
}

fn with(more: Value) -> Value {
    let mut table = json!({"url": "http://h/v1/events?site=1"});
    for (key, value) in more.as_object().unwrap() {
        table[key] = value.clone();
    }
    table
}

fn context(window: i64) -> SinkContext {
    SinkContext { name: "s".to_owned(), topics: vec!["t".to_owned()], window }
}

#[test]
fn the_least_and_the_most_are_read() {
    for table in [
        with(json!({})),
        with(json!({"format": "ndjson", "compression": "zstd", "method": "PUT", "idempotency_key": ""})),
        with(json!({"format": "prometheus", "slots": 4, "read": "victoriametrics", "read_url": "http://h"})),
        with(json!({"format": "datadog", "slots": 1, "headers": {"DD-API-KEY": "0123456789"}})),
        with(json!({"hmac": {"header": "X-Sig", "secret": "s", "algorithm": "sha512", "signs": "key.body"}})),
        with(json!({"max_body": "1 MiB", "timeout": "5s", "check_url": "http://h/health", "idempotent": true})),
    ] {
        let (built, problems) = read(table.clone());
        assert_eq!(problems, [""; 0], "{table}");
        built.unwrap()(&context(1_000_000_000)).unwrap();
    }
}

#[test]
fn every_problem_is_named() {
    for (table, expected) in [
        (json!({}), "url: missing required setting"),
        (with(json!({"format": "jsn"})), "format: unknown value `jsn`, expected one of"),
        (with(json!({"format": "datadog"})), "slots: is missing"),
        (with(json!({"format": "prometheus", "compression": "gzip"})), "compression: leave it out"),
        (
            with(json!({"format": "statsd", "idempotency_key": "", "idempotent": true})),
            "idempotent: no server can recognise a repeated request",
        ),
        (with(json!({"method": "CONNECT"})), "method: is not a method"),
        (with(json!({"method": "PO ST"})), "method: is not a method"),
        (with(json!({"idempotency_key": "a b"})), "idempotency_key: is not a valid HTTP header name"),
        (with(json!({"timeout": "0s"})), "timeout: must be greater"),
        (with(json!({"max_body": 0})), "max_body: must be at least 1"),
        (with(json!({"slots": 0})), "slots: must be between 1 and 1000000"),
        (with(json!({"read": "rows"})), "read_url: is missing"),
        (with(json!({"headers": {"a b": "c"}})), "headers.\"a b\": is not a valid HTTP header name"),
        (with(json!({"headers": {"Content-Length": "1"}})), "headers.Content-Length: is set by the sink itself"),
        (with(json!({"headers": {"a": "b\nc"}})), "headers.a: holds characters"),
        (with(json!({"headers": {"a": "env:TALLYBUS_NO_SUCH"}})), "TALLYBUS_NO_SUCH is not set"),
        (with(json!({"headers": {"a": "Bearer env:TALLYBUS_NO_SUCH"}})), "TALLYBUS_NO_SUCH is not set"),
        (with(json!({"hmac": {"header": "X"}})), "hmac.secret: missing required setting"),
        (with(json!({"hmac": {"header": "X", "secret": "s", "sings": "body"}})), "did you mean `signs`?"),
        (
            with(json!({"idempotency_key": "", "hmac": {"header": "X", "secret": "s", "signs": "key.body"}})),
            "hmac: signs a key that",
        ),
        (with(json!({"ca": "/nowhere.pem"})), "ca: cannot read the file /nowhere.pem"),
        (with(json!({"client_cert": "/nowhere.pem"})), "client_key: is missing"),
        (with(json!({"client_key": "/nowhere.pem"})), "client_cert: is missing"),
        (with(json!({"partial_success": "ignore"})), "partial_success: unknown value `ignore`, expected one of"),
        (with(json!({"idempotant": true})), "did you mean `idempotent`?"),
    ] {
        let (built, problems) = read(table.clone());
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected} is not in {problems:?}");
        assert!(built.is_none() || expected.contains("did you mean"), "{table}");
    }
}

#[test]
fn a_format_that_needs_a_window_says_so() {
    for (format, needs) in
        [("prometheus", true), ("datadog", true), ("otlp", false), ("influx", false), ("json", false)]
    {
        let (built, _) = read(with(json!({"format": format, "slots": 1})));
        let made = built.unwrap()(&context(0));
        assert_eq!(made.is_err(), needs, "{format}");
        if let Err(error) = made {
            assert!(error.to_string().contains("set a window"), "{error}");
        }
    }
}

#[test]
fn a_files_content_and_a_word_before_it_make_a_header() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "t0ken\n").unwrap();
    let (mut secrets, mut renewed) = (Vec::new(), Vec::new());
    let (_, value) =
        header("Authorization", &format!("Bearer file:{}", path.display()), &mut secrets, &mut renewed).unwrap();
    assert_eq!(value, "Bearer t0ken");
    assert!(value.is_sensitive());
    assert_eq!(secrets.iter().map(Secret::expose).collect::<Vec<_>>(), ["t0ken"]);
    header("Authorization", "Basic dXNlcjpwYXNz", &mut secrets, &mut renewed).unwrap();
    assert!(secrets.iter().any(|secret| secret.expose() == "dXNlcjpwYXNz"));
    let before = secrets.len();
    header("Content-Type", "application/vnd.acme+json", &mut secrets, &mut renewed).unwrap();
    header("X-Version", "2", &mut secrets, &mut renewed).unwrap();
    assert_eq!(secrets.len(), before);
}

#[test]
fn a_problem_shows_no_secret() {
    let (built, problems) = read(with(json!({"headers": {"Authorization": "very-secret\u{7}"}})));
    assert!(built.is_none());
    assert!(!format!("{problems:?}").contains("very-secret"));
}
