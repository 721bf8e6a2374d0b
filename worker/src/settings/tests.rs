use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tallybus_bus::BusAddress;
use tallybus_sdk::{Batch, BuildSink, DeliveryGuarantee, Encoded, Setting, Sink, SinkError, StartAt, WriteOutcome};

use super::*;

struct Nothing;

#[async_trait]
impl Sink for Nothing {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::ExactlyOnce
    }
    async fn check(&self) -> Result<(), SinkError> {
        Ok(())
    }
    async fn write(&self, _batch: &Batch, _encoded: &Encoded) -> WriteOutcome {
        WriteOutcome::Done
    }
}

/// One setting of every type.
fn parse(section: &mut ConfigTable<'_>) -> Option<BuildSink> {
    let url = section.required_url("url");
    let token = section.required_secret("token");
    section.string("note");
    section.bool("gzip");
    section.integer_within("port", 1, 65_535);
    section.choice("api", &["v1", "v2"]);
    url.and(token)?;
    if section.has_problems() {
        return None;
    }
    Some(Box::new(|_| Ok(Arc::new(Nothing))))
}

const fn setting(key: &'static str) -> Setting {
    Setting { key, default: None, help: "" }
}

static TEST_KINDS: &[Kind] = &[Kind {
    name: "testdb",
    summary: "for tests",
    delivery_guarantee: DeliveryGuarantee::ExactlyOnce,
    mechanism: "",
    settings: &[setting("url"), setting("token"), setting("note"), setting("gzip"), setting("port"), setting("api")],
    parse,
    questions: &[],
    storage: None,
    shadow: None,
}];

fn read(value: Value) -> Result<Settings, Vec<Problem>> {
    Settings::from_value(&value, TEST_KINDS)
}

fn problems(value: Value) -> Vec<String> {
    read(value).unwrap_err().iter().map(ToString::to_string).collect()
}

/// A valid bus, and one valid sink changed by `change`.
fn with_sink(change: Value) -> Value {
    let mut sink = json!({ "kind": "testdb", "url": "http://db:1", "token": "t" });
    for (key, value) in change.as_object().unwrap() {
        sink[key] = value.clone();
    }
    json!({ "bus": { "kind": "embedded", "path": "bus.db" }, "sinks": { "a": sink } })
}

fn with_bus(bus: Value) -> Value {
    json!({ "bus": bus })
}

#[test]
fn defaults() {
    let settings = read(with_sink(json!({}))).unwrap();
    assert_eq!(settings.bus, BusSettings::new(BusAddress::parse("embedded:bus.db").unwrap()));
    assert_eq!((settings.bus.topic.as_str(), settings.bus.partitions), ("tallybus.counters", 4));
    let sink = settings.sink("a").unwrap();
    assert_eq!((sink.group(), sink.dead_letter_topic()), ("tallybus.a".to_owned(), "tallybus.dead.a".to_owned()));
    assert_eq!(sink.topics, ["tallybus.counters"]);
    assert_eq!(sink.limits, tallybus_sdk::BatchLimits::default());
    assert_eq!(sink.shape, tallybus_sdk::Shape::everything());
    assert_eq!(sink.start_at, StartAt::Oldest);
    assert!(sink.accept_gaps.is_empty());
    assert!(sink.make().is_ok());
}

#[test]
fn everything_given() {
    let mut value = with_sink(json!({
        "topics": ["x", "y"],
        "batch": { "max_events": "10", "max_bytes": "1 KiB", "max_delay": "250ms" },
        "window": "0s",
        "select": { "names": ["http.*"], "drop_tags": "instance, pod", "tags": { "env": "prod" } },
        "start_at": "newest",
        "accept_gaps": ["x/0/0-10"],
        "note": "n", "gzip": "TRUE", "port": "8086", "api": "v1",
    }));
    value["bus"] = json!({
        "kind": "kafka", "brokers": "a:9092, b:9092", "topic": "t", "partitions": "8",
        "kafka": { "security.protocol": "SSL", "linger": { "ms": 5 } },
        "encodings": { "x": "json", "y": "json" },
    });
    let settings = read(value).unwrap();
    assert_eq!((settings.bus.topic.as_str(), settings.bus.partitions), ("t", 8));
    let (brokers, properties) = (settings.bus.address.place(), settings.bus.address.properties());
    assert_eq!(brokers, "a:9092,b:9092");
    assert_eq!(properties.get("linger.ms").map(String::as_str), Some("5"));
    let sink = settings.sink("a").unwrap();
    assert_eq!(sink.topics, ["x", "y"]);
    assert_eq!((sink.limits.max_events, sink.limits.max_bytes), (10, 1_024));
    assert_eq!(sink.limits.max_delay, Duration::from_millis(250));
    assert_eq!((sink.shape.window, sink.shape.encoding.as_deref()), (0, Some("json")));
    assert_eq!(sink.shape.drop_tags, ["instance", "pod"]);
    assert_eq!(sink.shape.tags["env"], "prod");
    assert_eq!(sink.start_at, StartAt::Newest);
    assert_eq!(sink.accept_gaps, ["x/0/0-10"]);
}

#[test]
fn what_kafkas_client_does_not_take_is_a_problem_of_the_settings() {
    let refused = |kafka: Value| problems(with_bus(json!({ "kind": "kafka", "brokers": "a:1", "kafka": kafka })));
    let wrong = refused(json!({ "acks": 1, "no.such": "s3cret" }));
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(
        wrong[0].starts_with("bus.kafka: `acks` cannot be set")
            && wrong[0].contains("`no.such` is not a librdkafka property")
    );
    assert!(!wrong[0].contains("s3cret"), "{wrong:?}");
    // The mechanism that librdkafka uses when none is named.
    let wrong = refused(json!({ "security.protocol": "SASL_SSL" }));
    assert!(wrong[0].contains("set `sasl.mechanism`"), "{wrong:?}");
}

#[test]
fn all_problems_at_once_with_their_paths() {
    let mut value = with_sink(json!({
        "urll": "x", "url": "ftp://db", "token": "env:TALLYBUS_TEST_NO_SUCH_VARIABLE", "gzip": 3, "window": "1 parsec",
        "batch": { "max_event": 3, "max_bytes": [] },
    }));
    value["sinks"]["b"] = json!({ "kind": "influx" });
    value["sinks"]["C"] = json!({ "kind": "testdb", "url": "http://db", "token": "t" });
    value["bus"]["partition"] = json!(3);
    value["sink"] = json!({});
    assert_eq!(
        problems(value),
        [
            "bus.partition: unknown key `partition`, did you mean `partitions`?",
            "sink: unknown key `sink`, did you mean `sinks`?",
            "sinks.C: a sink's name must consist of a-z, 0-9, _ and -, because its group and topic are named after it",
            "sinks.a.batch.max_bytes: expected a size such as \"4 MiB\", found a list",
            "sinks.a.batch.max_event: unknown key `max_event`, did you mean `max_events`?",
            "sinks.a.gzip: expected true or false, found a number",
            "sinks.a.token: the environment variable TALLYBUS_TEST_NO_SUCH_VARIABLE is not set; export it, or use \
             file:PATH",
            "sinks.a.url: expected a URL such as \"http://127.0.0.1:8086\", found the scheme `ftp`",
            "sinks.a.urll: unknown key `urll`, did you mean `url`?",
            "sinks.a.window: expected a duration such as \"250ms\", \"1s\", \"5m\" or \"1h\", found \"1 parsec\"",
            "sinks.b.kind: unknown kind `influx`, expected one of `testdb`",
        ]
    );
}

#[test]
fn each_wrong_value_of_a_sink() {
    for (change, expected) in [
        (
            json!({ "kind": "testbd" }),
            "sinks.a.kind: unknown kind `testbd`, expected one of `testdb`, did you mean `testdb`?",
        ),
        (json!({ "kind": null }), "sinks.a.kind: missing required setting: expected one of `testdb`"),
        (json!({ "kind": 5 }), "sinks.a.kind: expected a string, found a number"),
        (json!({ "url": null }), "sinks.a.url: missing required setting: expected an http or https URL"),
        (
            json!({ "token": null }),
            "sinks.a.token: missing required setting: expected env:NAME, file:PATH or the secret itself",
        ),
        (
            json!({ "token": 12 }),
            "sinks.a.token: expected a string (env:NAME, file:PATH or the secret itself), found a number",
        ),
        (json!({ "token": "" }), "sinks.a.token: is empty: expected a value, env:NAME or file:PATH"),
        (json!({ "port": 0 }), "sinks.a.port: must be between 1 and 65535, not 0"),
        (json!({ "port": -1 }), "sinks.a.port: expected a whole number from 0, found a negative number"),
        (json!({ "port": 1.5 }), "sinks.a.port: expected a whole number from 0, found a number with a fraction"),
        (json!({ "port": "many" }), "sinks.a.port: expected a whole number from 0, found a string"),
        (json!({ "note": ["a"] }), "sinks.a.note: expected a string, found a list"),
        (json!({ "api": "v3" }), "sinks.a.api: unknown value `v3`, expected one of `v1`, `v2`, did you mean `v2`?"),
        (json!({ "topics": [] }), "sinks.a.topics: is empty; omit it to use the bus's own topic"),
        (json!({ "topics": ["a", "a"] }), "sinks.a.topics: \"a\" is listed twice"),
        (
            json!({ "topics": ["tallybus.dead.a"] }),
            "sinks.a.topics: \"tallybus.dead.a\" holds dead letters; to send them to their sink again, use `tallybus replay run`",
        ),
        (json!({ "topics": ["a", 1] }), "sinks.a.\"topics[1]\": expected a string, found a number"),
        (json!({ "window": "10us" }), "sinks.a.window: must be at least 1ms, or 0s for one point per event"),
        (
            json!({ "window": 5 }),
            "sinks.a.window: expected a duration such as \"250ms\", \"1s\", \"5m\" or \"1h\", found 5",
        ),
        (json!({ "batch": 5 }), "sinks.a.batch: expected a table, found a number"),
        (json!({ "batch": { "max_events": 0 } }), "sinks.a.batch.max_events: must be between 1 and 10000000, not 0"),
        (json!({ "batch": { "max_delay": "2h" } }), "sinks.a.batch.max_delay: must be at most 1h"),
        (json!({ "select": { "tags": { "a": [] } } }), "sinks.a.select.tags.a: expected a string, found a list"),
        (
            json!({ "select": { "tags": { "a": "" } } }),
            "sinks.a.select.tags: the tag \"a\" = \"\" is empty; a tag has a key and a value",
        ),
        (
            json!({ "start_at": "middle" }),
            "sinks.a.start_at: unknown value `middle`, expected one of `oldest`, `newest`",
        ),
        (
            json!({ "accept_gaps": ["0-10"] }),
            "sinks.a.accept_gaps: \"0-10\" is not in the form topic/partition/first-end",
        ),
        (
            json!({ "accept_gaps": ["t/0/10-10"] }),
            "sinks.a.accept_gaps: \"t/0/10-10\" is not in the form topic/partition/first-end",
        ),
    ] {
        assert_eq!(problems(with_sink(change)), [expected.replace("\"topics[1]\"", "topics[1]")]);
    }
    let glob = problems(with_sink(json!({ "select": { "names": ["["] } })));
    assert!(glob[0].starts_with("sinks.a.select.names: name pattern \"[\""), "{glob:?}");
    let names: Vec<String> = (0..500).map(|number| format!("some.long.counter.name.{number}")).collect();
    let long = problems(with_sink(json!({ "select": { "names": names } })));
    assert!(long[0].contains("too long for the commit metadata"), "{long:?}");
}

#[test]
fn each_wrong_value_of_the_bus() {
    for (bus, expected) in [
        (json!({}), "bus.kind: missing required setting: expected \"kafka\" or \"embedded\""),
        (
            json!({ "kind": "kafak", "brokers": "a:1" }),
            "bus.kind: unknown kind `kafak`: expected `kafka` or `embedded`, did you mean `kafka`?",
        ),
        (json!({ "kind": "kafka" }), "bus.brokers: missing required setting: expected a string"),
        (json!({ "kind": "kafka", "brokers": "" }), "bus.brokers: must not be empty"),
        (
            json!({ "kind": "kafka", "brokers": "a,:1" }),
            "bus.brokers: expected \"host:port\", several separated by commas; a host is missing",
        ),
        (
            json!({ "kind": "kafka", "brokers": "a:x" }),
            "bus.brokers: expected \"host:port\", several separated by commas; a port is a number from 1 to 65535",
        ),
        (
            json!({ "kind": "kafka", "brokers": "kafka://me:pw@a:9092" }),
            "bus.brokers: expected \"host:port\", several separated by commas, without a scheme, a path or credentials",
        ),
        (json!({ "kind": "kafka", "brokers": "a:1", "path": "x" }), "bus.path: is only valid with kind = \"embedded\""),
        (
            json!({ "kind": "embedded", "path": "x", "brokers": "a:1" }),
            "bus.brokers: is only valid with kind = \"kafka\"",
        ),
        (json!({ "kind": "embedded" }), "bus.path: missing required setting: expected a string"),
        (
            json!({ "kind": "embedded", "path": "x", "topic": "a b" }),
            "bus.topic: \"a b\" is not a valid topic name: expected 1 to 249 of the characters a-z A-Z 0-9 . _ -",
        ),
        (
            json!({ "kind": "embedded", "path": "x", "partitions": 0 }),
            "bus.partitions: must be between 1 and 100000, not 0",
        ),
        (
            json!({ "kind": "embedded", "path": "x", "encodings": { "t": "xml" } }),
            "bus.encodings: topic \"t\": unknown encoding \"xml\": use native, json or influx",
        ),
        (
            json!({ "kind": "kafka", "brokers": "a:1", "kafka": { "bootstrap.servers": "b:1" } }),
            "bus.kafka: `bootstrap.servers` cannot be set: `brokers` in [bus] says it",
        ),
        (
            json!({ "kind": "kafka", "brokers": "a:1", "kafka": { "sasl.password": "file:/nowhere/pw" } }),
            "bus.kafka: `sasl.password`: cannot read the file /nowhere/pw: No such file or directory (os error 2)",
        ),
    ] {
        assert_eq!(problems(with_bus(bus)), [expected]);
    }
    assert_eq!(problems(json!({})), ["bus: missing required table: add [bus] with kind = \"kafka\" or \"embedded\""]);
    assert_eq!(problems(json!([])), ["settings: expected tables"]);
}

#[test]
fn topics_of_one_sink_share_an_encoding() {
    let mut value = with_sink(json!({ "topics": ["x", "y"] }));
    value["bus"]["encodings"] = json!({ "x": "json" });
    let said = problems(value);
    assert_eq!(
        said,
        [
            "sinks.a.topics: these topics have different encodings or units of time (`encodings`, `time_units` in [bus]): give each its own sink"
        ]
    );
}

#[test]
fn a_secret_is_never_shown() {
    let wrong = with_sink(json!({ "url": "http://user:hunter2@db:1", "token": ["hunter2"], "gzip": "hunter2" }));
    let said = problems(wrong).join("\n");
    assert!(said.contains("sinks.a.url: must not contain credentials"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");

    let kafka = json!({ "kind": "kafka", "brokers": "a:1", "kafka": { "sasl.password": "hunter2" } });
    let settings = read(with_bus(kafka)).unwrap();
    let shown = format!("{settings:?}");
    assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn sinks_are_sorted_by_name() {
    let mut value = with_sink(json!({}));
    value["sinks"]["0-first"] = value["sinks"]["a"].clone();
    let names: Vec<_> = read(value).unwrap().sinks.into_iter().map(|sink| sink.name).collect();
    assert_eq!(names, ["0-first", "a"]);
}

#[test]
fn hostile_values_never_panic() {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        "(bus|sinks|kind|url|token|path|batch|select|tags|names|window|topics|max_bytes|kafka|encodings|brokers)",
        ".{0,4}",
    ];
    let value = leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    });
    proptest!(|(value in value)| {
        if let Err(problems) = read(value) {
            prop_assert!(!problems.is_empty());
        }
    });
}

#[test]
fn the_unit_of_a_topics_times_is_part_of_the_shape() {
    let mut value = with_sink(json!({}));
    value["bus"]["time_units"] = json!({ "tallybus.counters": "ms" });
    let settings = read(value.clone()).unwrap();
    assert_eq!(settings.sinks[0].shape.encoding.as_deref(), Some("ms"));
    value["bus"]["encodings"] = json!({ "tallybus.counters": "json" });
    assert_eq!(read(value.clone()).unwrap().sinks[0].shape.encoding.as_deref(), Some("json ms"));
    value["bus"]["time_units"] = json!({ "tallybus.counters": "sec" });
    assert_eq!(
        problems(value),
        ["bus.time_units: topic \"tallybus.counters\": unknown time unit \"sec\": use ns, us, ms or s"]
    );
}
