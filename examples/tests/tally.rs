//! The load generator's own tally must equal what arrives in the backends.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use tallybus_e2e::{Fixture, Process, Tally, influx_tally, sqlite_tally};

#[test]
fn what_the_load_saw_is_what_the_backends_hold() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    influx.create_database("counts").unwrap();
    let fixture = Fixture::new(&format!(
        r#"
[bus]
kind = "kafka"
brokers = "{}"
partitions = 4

[sinks.influx]
kind = "influxdb"
url = "{}"
api = "v1"
database = "counts"

[sinks.local]
kind = "sqlite"
path = "{{dir}}/counters.db"
"#,
        kafka.bootstrap(),
        influx.url()
    ));
    // Nobody has created the topic: the service does.
    let mut command = Command::new(env!("CARGO_BIN_EXE_http-service"));
    command.args(["--bus", &format!("kafka://{}", kafka.bootstrap()), "--listen", "127.0.0.1:0"]);
    command.stdout(Stdio::piped());
    let mut service = Process::start(command);
    let mut output = BufReader::new(service.child().stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();

    let mut workers = [fixture.worker("influx", "influx"), fixture.worker("local", "local")];
    let load = Command::new(env!("CARGO_BIN_EXE_http-load"))
        .args(["--address", &address, "--requests", "60000"])
        .output()
        .unwrap();
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    let expected: Tally = serde_json::from_slice(&load.stdout).unwrap();
    assert!(service.terminate(Duration::from_secs(20)).success(), "the service delivers everything before it ends");

    fixture.wait_until_equal(expected.values().sum(), Duration::from_secs(60));
    for worker in &mut workers {
        assert!(worker.terminate(Duration::from_secs(20)).success());
    }
    assert_eq!(without_collector_tags(sqlite_tally(&fixture.path("counters.db"))), expected);
    assert_eq!(without_collector_tags(influx_tally(&influx, "counts")), expected);
}

/// The load does not know the tags that the collector adds.
fn without_collector_tags(tally: Tally) -> Tally {
    let mut plain = Tally::new();
    for (series, total) in tally {
        let (name, tags) = series.trim_end_matches('}').split_once('{').unwrap();
        let kept: BTreeMap<String, String> = tags
            .split(',')
            .filter_map(|tag| tag.split_once('='))
            .filter(|(key, _)| !["service", "instance"].contains(key))
            .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
            .collect();
        *plain.entry(tallybus_e2e::series(name, &kept)).or_default() += total;
    }
    plain
}
