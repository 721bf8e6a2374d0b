//! The bake-off of this machine: every backend that runs here, one of them behind a slow network, and one that loses a line in
//! a thousand. Writes docs/bake-off.json and docs/bake-off.html, after checking what a comparison has to show:
//!
//! - the backend that loses is named, and ranked in nothing;
//! - the slow one never comes before the same backend without its network;
//! - requests and bytes are those that a proxy before the backend has counted, within 2 %;
//! - a second run contradicts no rank of the first one.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tallybus_benches::report;
use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{Bus, NewRecord, TopicOptions};
use tallybus_tests::{DynamoDbFront, FaultProxy, Mode, Posted, Redshift};

const TOPIC: &str = "tallybus.counters";
const PARTITIONS: u32 = 4;
const EVENTS_OF_A_MESSAGE: u64 = 500;
const SERIES: u64 = 1_000;
/// What the slow network adds to every request.
const SLOW: Duration = Duration::from_millis(50);
/// One line in so many is lost.
const LOST: u64 = 1_000;
/// How far a figure may be from the proxy's.
const TOLERANCE: f64 = 0.02;

#[derive(Parser)]
struct Options {
    /// How many events are compared.
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// Rounds that count.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// For how many seconds probes are sent.
    #[arg(long, default_value_t = 30)]
    probes: u64,
    /// Writes the two files there instead of into docs/.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let servers = Servers::start()?;
    let dir = tempfile::tempdir()?;
    fill(&dir.path().join("bus.db"), options.events)?;
    let settings = dir.path().join("tallybus.toml");
    fs::write(&settings, toml(&servers.settings(dir.path())))?;

    let first = compare(&options, dir.path(), &settings, "first", options.probes)?;
    is_named_and_not_ranked(&first)?;
    is_never_before(&first, "influxdb-far", "influxdb")?;
    let second = compare(&options, dir.path(), &settings, "second", options.probes)?;
    contradicts_nothing(&first, &second)?;
    let counted = compare_counted(&options, dir.path(), &settings, &servers.counted)?;
    println!("{counted}");

    let out = options.out.unwrap_or_else(|| report::root().join("docs"));
    for end in ["json", "html"] {
        fs::copy(dir.path().join(format!("first.{end}")), out.join(format!("bake-off.{end}")))?;
    }
    println!("written to {}", out.display());
    Ok(())
}

/// The backends, for as long as they are compared.
struct Servers {
    postgres: tallybus_tests::PostgresServer,
    clickhouse: tallybus_tests::ClickHouseServer,
    redshift: Redshift,
    dynamodb: DynamoDbFront,
    /// Before InfluxDB: counts.
    counted: FaultProxy,
    far: FaultProxy,
    losing: FaultProxy,
    _influx: tallybus_tests::InfluxServer,
    _dynamodb: tallybus_tests::DynamoDbServer,
}

impl Servers {
    fn start() -> Result<Self> {
        let missing = "a server is missing; run tests/install-servers.sh";
        let influx = tallybus_tests::influxdb().context(missing)?;
        let clickhouse = tallybus_tests::clickhouse().context(missing)?;
        let postgres = tallybus_tests::postgres().context(missing)?;
        let dynamodb = tallybus_tests::dynamodb().context(missing)?;
        for database in ["near", "far", "losing"] {
            influx.create_database(database)?;
        }
        let [counted, far, losing] = [Mode::Pass, Mode::Delay(SLOW), Mode::LoseLines(LOST)].map(|mode| {
            let proxy = FaultProxy::start(&influx.url())?;
            proxy.set(mode);
            anyhow::Ok(proxy)
        });
        Ok(Self {
            redshift: tallybus_tests::redshift(&postgres),
            dynamodb: DynamoDbFront::start(&dynamodb.url())?,
            counted: counted?,
            far: far?,
            losing: losing?,
            postgres,
            clickhouse,
            _influx: influx,
            _dynamodb: dynamodb,
        })
    }

    fn settings(&self, dir: &Path) -> Value {
        let influx = |proxy: &FaultProxy, database: &str| {
            // Not compressed, so that the proxy finds its lines.
            json!({"kind": "influxdb", "api": "v1", "url": proxy.url(), "database": database, "gzip": false, "create": true})
        };
        json!({
            "bus": {"kind": "embedded", "path": dir.join("bus.db"), "topic": TOPIC, "partitions": PARTITIONS},
            "sinks": {
                "sqlite": {"kind": "sqlite", "path": dir.join("counters.db")},
                "parquet": {"kind": "parquet", "path": dir.join("files"), "create": true},
                "postgres": {
                    "kind": "postgres", "host": "127.0.0.1", "port": self.postgres.port(), "database": "counters",
                    "user": self.postgres.user(), "password": self.postgres.password(), "create": true,
                },
                "influxdb": influx(&self.counted, "near"),
                "influxdb-far": influx(&self.far, "far"),
                "influxdb-losing": influx(&self.losing, "losing"),
                "clickhouse": {
                    "kind": "clickhouse", "url": self.clickhouse.url(), "user": self.clickhouse.user(),
                    "password": self.clickhouse.password(), "create": true,
                },
                "dynamodb": {
                    "kind": "dynamodb", "table": "counters", "endpoint": self.dynamodb.url(), "region": "eu-west-1",
                    "access_key_id": "bench", "secret_access_key": "none", "create": true,
                },
                "redshift": {
                    "kind": "redshift", "workgroup": Redshift::WORKGROUP, "database": Redshift::DATABASE,
                    "region": "us-east-1", "endpoint": self.redshift.url(), "access_key_id": Redshift::ACCESS_KEY,
                    "secret_access_key": "secret", "create": true,
                },
            },
        })
    }
}

/// Tables of plain values as TOML, which writes them as JSON does.
fn toml(settings: &Value) -> String {
    let mut text = String::new();
    let mut table = |name: &str, values: &Value| {
        text.push_str(&format!("[{name}]\n"));
        for (key, value) in values.as_object().into_iter().flatten() {
            text.push_str(&format!("{key} = {value}\n"));
        }
    };
    table("bus", &settings["bus"]);
    for (name, values) in settings["sinks"].as_object().into_iter().flatten() {
        table(&format!("sinks.{name}"), values);
    }
    text
}

/// Fills a bus with events of the last two minutes.
fn fill(file: &Path, events: u64) -> Result<()> {
    let bus = EmbeddedBus::open(file)?;
    bus.create_topic(TOPIC, &TopicOptions::new(PARTITIONS))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let begin = u64::try_from(now)? - 120_000_000_000;
    let step = 120_000_000_000 / events.max(1);
    let mut publisher = bus.publisher()?;
    let (mut sent, mut stored, mut deliveries) = (0, 0, Vec::new());
    for message in 0..events.div_ceil(EVENTS_OF_A_MESSAGE) {
        let numbers = message * EVENTS_OF_A_MESSAGE..events.min((message + 1) * EVENTS_OF_A_MESSAGE);
        let lines: Vec<String> = numbers
            .map(|number| {
                let series = number % SERIES;
                format!(
                    r#"{{"name":"http.requests","value":{},"ts":{},"tags":{{"route":"/v1/{}","status":"{}"}}}}"#,
                    1 + number % 7,
                    begin + number * step,
                    series / 4,
                    200 + 100 * (series % 4),
                )
            })
            .collect();
        let payload = lines.join("\n");
        let partition = u32::try_from(message % u64::from(PARTITIONS))?;
        let record = NewRecord {
            topic: TOPIC,
            partition: Some(partition),
            key: None,
            payload: payload.as_bytes(),
            headers: &[],
        };
        publisher.publish(record, message)?;
        sent += 1;
        publisher.poll(Duration::ZERO, &mut deliveries);
        stored += deliveries.drain(..).filter(|delivery| delivery.outcome.is_ok()).count();
    }
    while stored < sent {
        publisher.poll(Duration::from_millis(20), &mut deliveries);
        for delivery in deliveries.drain(..) {
            delivery.outcome?;
            stored += 1;
        }
    }
    Ok(())
}

/// Runs a comparison and reads its result.
fn compare(options: &Options, dir: &Path, settings: &Path, name: &str, probes: u64) -> Result<Value> {
    run(options, dir, settings, name, probes, &[])
}

fn run(options: &Options, dir: &Path, settings: &Path, name: &str, probes: u64, more: &[&str]) -> Result<Value> {
    let program = std::env::current_exe()?.with_file_name("tallybus");
    let (json, page) = (dir.join(format!("{name}.json")), dir.join(format!("{name}.html")));
    let status = Command::new(program)
        .args(["compare", "run", "--shadow", "--rounds", &options.rounds.to_string()])
        .args(["--probe-time", &format!("{probes}s")])
        .args(more)
        .arg("--config")
        .arg(settings)
        .arg("--out")
        .arg(&json)
        .arg("--page")
        .arg(&page)
        .current_dir(dir)
        .status()?;
    // 1: a sink is not equal, as it should be.
    ensure!(matches!(status.code(), Some(0 | 1)), "the comparison could not run: {status}");
    Ok(serde_json::from_slice(&fs::read(json)?)?)
}

fn sinks(result: &Value) -> impl Iterator<Item = &Value> {
    result["sinks"].as_array().into_iter().flatten()
}

/// The groups of each aspect, best first.
fn rankings(result: &Value) -> BTreeMap<String, Vec<Vec<String>>> {
    let groups = |ranking: &Value| -> Vec<Vec<String>> {
        let groups = ranking["groups"].as_array().into_iter().flatten();
        groups.map(|group| group.as_array().into_iter().flatten().map(text).collect()).collect()
    };
    let all = result["rankings"].as_array().into_iter().flatten();
    all.map(|ranking| (text(&ranking["aspect"]), groups(ranking))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn is_named_and_not_ranked(result: &Value) -> Result<()> {
    for sink in sinks(result) {
        let completeness = &sink["completeness"]["value"];
        let is_losing = sink["name"] == "influxdb-losing";
        ensure!(completeness["is_complete"] == !is_losing, "{}: {completeness}", sink["name"]);
        if is_losing {
            println!("influxdb-losing: missing {} of {}", completeness["missing"], completeness["expected"]);
        }
    }
    let ranked = rankings(result).into_values().flatten().flatten().any(|name| name == "influxdb-losing");
    ensure!(!ranked, "a sink that loses counts is ranked");
    Ok(())
}

/// The rank of a sink in an aspect.
fn rank(groups: &[Vec<String>], name: &str) -> Option<usize> {
    groups.iter().position(|group| group.iter().any(|other| other == name))
}

fn is_never_before(result: &Value, slow: &str, near: &str) -> Result<()> {
    let of_time = ["catch_up_rate", "write_time", "freshness_median", "freshness_p99"];
    for (aspect, groups) in rankings(result).iter().filter(|(aspect, _)| of_time.contains(&aspect.as_str())) {
        let (Some(slow), Some(near)) = (rank(groups, slow), rank(groups, near)) else {
            bail!("{aspect}: one of the two is not ranked: {groups:?}");
        };
        println!("{aspect}: far is {} places behind near", slow.saturating_sub(near));
        ensure!(slow >= near, "{aspect}: the slow one comes first: {groups:?}");
        ensure!(slow > near || aspect != "write_time", "{aspect}: no difference seen behind {SLOW:?}");
    }
    Ok(())
}

fn contradicts_nothing(first: &Value, second: &Value) -> Result<()> {
    let (first, second) = (rankings(first), rankings(second));
    let (mut same, mut unsure) = (0, 0);
    for (aspect, groups) in &first {
        let others = second.get(aspect).with_context(|| format!("{aspect} was not measured again"))?;
        let names: Vec<&String> = groups.iter().flatten().collect();
        for (number, one) in names.iter().enumerate() {
            for other in &names[number + 1..] {
                let before = rank(groups, one).cmp(&rank(groups, other));
                let after = rank(others, one).cmp(&rank(others, other));
                ensure!(before != after.reverse() || before.is_eq(), "{aspect}: {one} and {other} changed places");
                if before == after { same += 1 } else { unsure += 1 }
            }
        }
    }
    println!(
        "run twice: {same} pairs in the same order, {unsure} in order once and \"no difference seen\" once, none reversed"
    );
    Ok(())
}

/// Compares one sink alone, and its figures with those of the proxy before it.
fn compare_counted(options: &Options, dir: &Path, settings: &Path, proxy: &FaultProxy) -> Result<String> {
    let before = proxy.posted("/write");
    let result = run(options, dir, settings, "counted", 0, &["--sink", "influxdb", "--no-control"])?;
    let after = proxy.posted("/write");
    let posted = Posted { requests: after.requests - before.requests, bytes: after.bytes - before.bytes };
    let sink = sinks(&result).next().context("no sink")?;
    let rounds = sink["rounds"].as_array().context("no rounds")?;
    let sum = |what: &str| rounds.iter().filter_map(|round| round[what]["value"].as_f64()).sum::<f64>();
    // The proxy has seen the round that warms up as well.
    let share = (rounds.len() as f64 + 1.0) / rounds.len() as f64;
    let mut lines = Vec::new();
    for (what, ours, theirs) in
        [("requests", sum("requests"), posted.requests as f64), ("bytes", sum("bytes"), posted.bytes as f64)]
    {
        let difference = (ours * share / theirs - 1.0).abs();
        ensure!(difference <= TOLERANCE, "{what}: {} counted, {theirs} seen by the proxy", ours * share);
        lines.push(format!(
            "{what}: {:.0} counted, {theirs} seen by the proxy ({:.2} %)",
            ours * share,
            difference * 100.0
        ));
    }
    Ok(lines.join("\n"))
}
