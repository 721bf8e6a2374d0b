//! What other languages and people send: JSON by `kcat`, with and without `ts`, twice in the same nanosecond, and garbage.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise, in its helpers too")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tallybus_e2e::{Fixture, Tally, assert_same, influx_tally, sqlite_tally};

fn produce(kcat: &Path, brokers: &str, topic: &str, lines: &str) {
    let mut child = Command::new(kcat)
        .args(["-P", "-b", brokers, "-t", topic, "-p", "0", "-X", "allow.auto.create.topics=false"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Each record as `(key, headers, payload)`.
fn consume(kcat: &Path, brokers: &str, topic: &str) -> Vec<(String, String, String)> {
    let output = Command::new(kcat)
        .args(["-C", "-b", brokers, "-t", topic, "-e", "-q", "-f", "%k\x1f%h\x1f%s\x1e"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\x1e')
        .map(|record| {
            let mut fields = record.split('\x1f').map(str::to_owned);
            (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap())
        })
        .collect()
}

#[test]
fn what_kcat_sends_is_counted_and_garbage_is_kept_aside() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    let Some(kcat) = tallybus_tests::program("kcat") else { return };
    influx.create_database("counts").unwrap();
    let settings = format!(
        r#"
[bus]
kind = "kafka"
brokers = "{}"
partitions = 2

[sinks.influx]
kind = "influxdb"
url = "{}"
api = "v1"
database = "counts"
batch = {{ max_delay = "100ms" }}

[sinks.local]
kind = "sqlite"
path = "{{dir}}/counters.db"
window = "0s"
batch = {{ max_events = 3, max_delay = "100ms" }}
"#,
        kafka.bootstrap(),
        influx.url()
    );
    let fixture = Fixture::new(&settings);
    fixture.must(&["topic", "create"]);
    let same = r#"{"ts":1700000000000000001,"name":"jobs","value":2,"tags":{"queue":"mail"}}"#;
    let lines = [
        same,
        same,
        r#"{"name":"jobs","tags":{"queue":"mail"}}"#,
        "this is no event",
        r#"{"ts":"2026-01-02T03:04:05.000000006+01:00","name":"bytes","value":18446744073709551}"#,
        r#"[{"ts":1700000000000000001,"name":"builds"},{"ts":1700000000000000001,"name":"builds","value":4}]"#,
        "builds,os=linux value=7i 1700000000000000009",
        r#"{"ts":1,"name":"jobs","value":-1}"#,
        same,
    ];
    produce(&kcat, &kafka.bootstrap(), "tallybus.counters", &(lines.join("\n") + "\n"));

    for sink in ["influx", "local"] {
        fixture.must(&["run", "--sink", sink, "--until-caught-up"]);
    }
    let expected: Tally =
        [("jobs{queue=\"mail\"}", 7), ("bytes", 18_446_744_073_709_551), ("builds", 5), ("builds{os=\"linux\"}", 7)]
            .into_iter()
            .map(|(series, total)| (series.to_owned(), total))
            .collect();
    assert_same("SQLite", &sqlite_tally(&fixture.path("counters.db")), &expected);
    assert_same("InfluxDB", &influx_tally(&influx, "counts"), &expected);

    for sink in ["influx", "local"] {
        let dead_letters = consume(&kcat, &kafka.bootstrap(), &format!("tallybus.dead.{sink}"));
        // The key of a record names the topic's incarnation too.
        let coordinate = |key: &str| {
            let (topic, rest) = key.split_once('@').unwrap();
            format!("{topic}/{}", rest.split_once('/').unwrap().1)
        };
        let keys: Vec<String> = dead_letters.iter().map(|(key, _, _)| coordinate(key)).collect();
        assert_eq!(
            keys,
            ["tallybus.counters/0/3", "tallybus.counters/0/7"],
            "one dead letter each, with its coordinate"
        );
        assert_eq!(
            (dead_letters[0].2.as_str(), dead_letters[1].2.as_str()),
            (lines[3], lines[7]),
            "the bytes as they came"
        );
        assert!(dead_letters[0].1.contains("tallybus-offset=3"), "{}", dead_letters[0].1);
        assert!(dead_letters[1].1.contains("value"), "the reason names the field: {}", dead_letters[1].1);
    }

    let (code, audit) = fixture.json(&["audit"]);
    assert_eq!((code, &audit["equal"]), (0, &json!(true)), "{audit:#}");
    let (code, count) = fixture.json(&["count", "--by", "queue", "--name", "jobs"]);
    assert_eq!((code, count["total"].as_u64(), count["events"].as_u64()), (0, Some(7), Some(4)), "{count:#}");

    let tapped = fixture.must(&["tap", "--from", "beginning", "--until-end", "--json"]);
    let events: Vec<Value> = tapped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 8, "{tapped}");
    assert_eq!(
        events[0],
        json!({"ts": 1_700_000_000_000_000_001_u64, "name": "jobs", "value": 2, "tags": {"queue": "mail"}})
    );
}

#[test]
fn a_dead_sink_leaves_the_other_at_full_speed() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let settings = format!(
        r#"
[bus]
kind = "kafka"
brokers = "{}"
partitions = 2

[sinks.nowhere]
kind = "influxdb"
url = "http://127.0.0.1:1"
api = "v1"
database = "counts"
batch = {{ max_events = 500, max_delay = "50ms" }}

[sinks.local]
kind = "sqlite"
path = "{{dir}}/counters.db"
batch = {{ max_events = 500, max_delay = "50ms" }}
"#,
        kafka.bootstrap()
    );
    let fixture = Fixture::new(&settings);
    fixture.must(&["topic", "create"]);
    let Some(kcat) = tallybus_tests::program("kcat") else { return };
    // Far more than the dead sink's partitions can hold.
    let line = |number: u64| format!("{{\"name\":\"n{}\",\"value\":1}}\n", number % 50);
    let lines: String = (0..60_000).map(line).collect();
    produce(&kcat, &kafka.bootstrap(), "tallybus.counters", &lines);

    // Both sinks in one process: the harder case.
    let mut command = fixture.tallybus(&["run"]);
    command.stderr(std::fs::File::create(fixture.path("both.log")).unwrap()).stdout(Stdio::null());
    let mut both = tallybus_e2e::Process::start(command);
    let deadline = std::time::Instant::now() + Duration::from_secs(40);
    loop {
        let (_, audit) = fixture.json(&["audit", "--sink", "local"]);
        if audit["sinks"][0]["total"] == 60_000 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{audit:#}\n{}", fixture.log_tail("both"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = fixture.log_tail("both");
    let told = log.lines().filter(|line| line.contains("nowhere") && line.contains("WARN")).count();
    assert!((1..=3).contains(&told), "the dead sink is told of once, not per batch ({told}):\n{log}");
    assert!(both.terminate(Duration::from_secs(30)).code().is_some(), "it stops when asked, whatever is stuck");

    // Nothing of it is lost: pointed at a server that is there, it would write from the first offset on.
    let (code, audit) = fixture.json(&["audit", "--sink", "nowhere"]);
    assert_eq!(code, 2, "a backend that cannot be read is no verdict: {audit:#}");
}
