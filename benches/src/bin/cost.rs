//! What a million increments costs each backend, in the units that it bills: requests, bytes, write units, statements.
//!
//! The increments are of 1,000 series within a minute, as the collector publishes them: a message for each partition and
//! second. They wait on an embedded bus, so that batches are as large as the settings allow.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use serde::Serialize;
use serde_json::{Value, json};
use tallybus_benches::machine::Machine;
use tallybus_benches::report::Table;
use tallybus_benches::results;
use tallybus_benches::table::grouped;
use tallybus_bus::{NewRecord, TopicOptions};
use tallybus_schemas::{NativeEncoder, Origin};
use tallybus_sdk::{Usage, WindowsQuery};
use tallybus_worker::settings::{self, Settings};
use tallybus_worker::{Worker, WorkerOptions};

/// Counts what a million increments cost.
#[derive(Debug, Parser)]
struct Options {
    /// A small run, for trying: a tenth of the seconds.
    #[arg(long)]
    quick: bool,
    /// Writes the result there too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const TOPIC: &str = "tallybus.counters";
const PARTITIONS: u32 = 4;
const SERIES: u64 = 1_000;
const SECONDS: u64 = 60;
const INCREMENTS: u64 = 1_000_000;
const BASE_NS: u64 = 1_700_000_040_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    command: String,
    tables: Vec<Table>,
    cases: Vec<Case>,
}

#[derive(Debug, Serialize)]
struct Case {
    sink: String,
    settings: String,
    points: u64,
    usage: Vec<(String, f64)>,
}

/// A sink to run: what it is called in the table, what is said of its settings, and the settings.
struct Subject {
    sink: &'static str,
    note: &'static str,
    table: Value,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let seconds = if options.quick { SECONDS / 10 } else { SECONDS };
    let mut report = Report {
        machine: Machine::this(),
        command: "cargo xtask bench cost".to_owned(),
        tables: Vec::new(),
        cases: Vec::new(),
    };
    let servers = Servers::start()?;
    for subject in servers.subjects()? {
        let case = run(&subject, seconds).with_context(|| format!("{}, {}", subject.sink, subject.note))?;
        eprintln!("  {}, {}: {:?}", case.sink, case.settings, case.usage);
        report.cases.push(case);
    }
    let shown = shown(&report.cases, seconds);
    println!("{}", shown.markdown());
    report.tables.push(shown);
    if let Some(file) = &options.json {
        results::write(file, &report)?;
    }
    Ok(())
}

/// The backends, as long as they are asked.
struct Servers {
    influx: tallybus_tests::InfluxServer,
    dynamodb: tallybus_tests::DynamoDbServer,
    redshift: tallybus_tests::Redshift,
    s3: tallybus_tests::MotoServer,
    /// Behind the stand-in for Redshift.
    _postgres: tallybus_tests::PostgresServer,
}

impl Servers {
    fn start() -> Result<Self> {
        let missing = "a server is missing; run tests/install-servers.sh";
        let influx = tallybus_tests::influxdb().context(missing)?;
        let dynamodb = tallybus_tests::dynamodb().context(missing)?;
        let s3 = tallybus_tests::s3().context(missing)?;
        s3.create_bucket("staging")?;
        let postgres = tallybus_tests::postgres().context(missing)?;
        let redshift = tallybus_tests::redshift(&postgres);
        redshift.behave(|behaviour| behaviour.s3 = Some(s3.url()));
        Ok(Self { influx, dynamodb, redshift, s3, _postgres: postgres })
    }

    fn subjects(&self) -> Result<Vec<Subject>> {
        self.influx.create_database("counts")?;
        let influx = json!({"kind": "influxdb", "api": "v1", "url": self.influx.url(), "database": "counts"});
        let mut subjects = vec![Subject { sink: "influxdb", note: "window 1 s, gzip", table: influx }];
        let large = json!({"max_events": 50_000, "max_delay": "10s"});
        for (note, more) in [
            ("rollup, window 1 s", json!({})),
            ("rollup, window 1 m", json!({"window": "1m"})),
            ("rollup, window 1 m, batches of 50,000", json!({"window": "1m", "batch": large})),
            ("raw, each event of a collector", json!({"mode": "raw", "window": "0s"})),
        ] {
            subjects.push(Subject { sink: "dynamodb", note, table: self.dynamodb_table(subjects.len(), &more)? });
        }
        subjects.extend(self.redshift_tables());
        Ok(subjects)
    }

    fn redshift_tables(&self) -> [Subject; 2] {
        let redshift = json!({
            "kind": "redshift", "workgroup": tallybus_tests::Redshift::WORKGROUP,
            "database": tallybus_tests::Redshift::DATABASE, "region": "us-east-1", "endpoint": self.redshift.url(),
            "access_key_id": tallybus_tests::Redshift::ACCESS_KEY, "secret_access_key": "secret",
        });
        let mut copy = redshift.clone();
        copy["table"] = json!("copied");
        copy["mode"] = json!("copy");
        copy["staging"] = json!("s3://staging/cost");
        copy["staging_endpoint"] = json!(self.s3.url());
        copy["iam_role"] = json!("default");
        [
            Subject { sink: "redshift", note: "window 1 s, rows in statements", table: redshift },
            Subject { sink: "redshift", note: "window 1 s, COPY", table: copy },
        ]
    }

    /// A table of its own; dynalite counts write units as DynamoDB bills them.
    fn dynamodb_table(&self, number: usize, more: &Value) -> Result<Value> {
        let mut table = json!({"kind": "dynamodb", "table": format!("counts-{number}"), "endpoint": self.dynamodb.url(),
            "region": "eu-west-1", "access_key_id": "bench", "secret_access_key": "none"});
        let more = more.as_object().context("settings are a table")?;
        for (key, value) in more {
            table[key] = value.clone();
        }
        Ok(table)
    }
}

/// Writes everything that waits on a fresh bus, and looks whether all of it is there.
fn run(subject: &Subject, seconds: u64) -> Result<Case> {
    let dir = tempfile::tempdir()?;
    let total = fill(&dir.path().join("bus.db"), seconds)?;
    let value = json!({
        "bus": {"kind": "embedded", "path": dir.path().join("bus.db")},
        "sinks": {"measured": subject.table},
    });
    let settings = Settings::from_value(&value, tallybus_sinks::KINDS).map_err(|problems| anyhow!("{problems:?}"))?;
    let found = settings.sinks.first().context("no sink")?;
    let worker_options = WorkerOptions { until_caught_up: true, ..found.worker_options() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sink = found.make()?;
    if let Some(admin) = sink.admin() {
        runtime.block_on(admin.fix())?;
    }
    let bus = settings::open_bus(&settings.bus)?;
    let worker = Worker::new(bus, sink.clone(), runtime.handle().clone(), worker_options)?;
    let outcome = worker.run()?;
    ensure!(outcome.drained, "not everything was written");
    let usage: Vec<(String, f64)> =
        sink.usage().into_iter().map(|Usage { what, amount }| (what.to_owned(), amount)).collect();
    let read_back = sink.read_back().context("the sink cannot be read back")?;
    let held: u128 = runtime.block_on(read_back.collect(&WindowsQuery::default()))?.windows.values().sum();
    ensure!(held == u128::from(total), "the backend holds {held} of {total}");
    Ok(Case { sink: subject.sink.to_owned(), settings: subject.note.to_owned(), points: outcome.status.points, usage })
}

/// Publishes the increments; answers their sum.
fn fill(path: &Path, seconds: u64) -> Result<u64> {
    let value = json!({"bus": {"kind": "embedded", "path": path, "partitions": PARTITIONS}});
    let settings = Settings::from_value(&value, tallybus_sinks::KINDS).map_err(|problems| anyhow!("{problems:?}"))?;
    let bus = settings::open_bus(&settings.bus)?;
    bus.create_topic(TOPIC, &TopicOptions::new(PARTITIONS))?;
    let mut publisher = bus.publisher()?;
    let (mut total, mut deliveries, mut token) = (0, Vec::new(), 0);
    for partition in 0..PARTITIONS {
        let mut encoder = NativeEncoder::new(&[]);
        let mut sent = 0;
        for second in 0..seconds {
            let end = BASE_NS + second * SECOND_NS;
            for series in (0..SERIES).filter(|series| series % u64::from(PARTITIONS) == u64::from(partition)) {
                let route = format!("/v1/{series:06}");
                let tags = [("dc", "eu-w1"), ("route", route.as_str()), ("service", "api"), ("status", "200")];
                encoder.push_at("http.requests", &tags, share(series, second), i64::try_from(end)?);
            }
            sent += encoder.total();
            let mut producer = [0x5a; 16];
            producer[..4].copy_from_slice(&partition.to_be_bytes());
            let origin = Origin {
                producer,
                sequence: second + 1,
                interval_start: i64::try_from(end - SECOND_NS)?,
                interval_end: i64::try_from(end)?,
                partition_total: sent,
                emitted_total: sent,
            };
            let payload = encoder.finish(&origin);
            token += 1;
            let record =
                NewRecord { topic: TOPIC, partition: Some(partition), key: None, payload: &payload, headers: &[] };
            publisher.publish(record, token)?;
        }
        total += sent;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while publisher.in_flight() > 0 {
        ensure!(Instant::now() < deadline, "the bus does not take the messages");
        publisher.poll(Duration::from_millis(10), &mut deliveries);
    }
    Ok(total)
}

/// How often a series is counted in a second, so that all together make a million in a minute.
fn share(series: u64, second: u64) -> u64 {
    let cells = SERIES * SECONDS;
    let cell = second * SERIES + series;
    (cell + 1) * INCREMENTS / cells - cell * INCREMENTS / cells
}

fn shown(cases: &[Case], seconds: u64) -> Table {
    let mut shown = Table::new("cost", &["sink", "settings", "points", "used"]);
    for case in cases {
        let used = case.usage.iter().filter(|(_, amount)| *amount > 0.0);
        let used: Vec<String> = used.map(|(what, amount)| format!("{} {what}", amount_text(*amount))).collect();
        shown.row([case.sink.clone(), case.settings.clone(), grouped(case.points), used.join(", ")]);
    }
    shown.note = format!(
        "{} increments of {} series within {seconds} s, published by collectors once a second, read with batches of the default \
         size.",
        grouped(INCREMENTS * seconds / SECONDS),
        grouped(SERIES)
    );
    shown
}

fn amount_text(amount: f64) -> String {
    // Units are counted in halves at the smallest.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = amount.round().max(0.0) as u64;
    grouped(whole)
}
