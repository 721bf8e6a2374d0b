//! How long an increment takes from `count!` until the backend has acknowledged it, and where that time goes.
//!
//! A service that counts (this process), Kafka, a worker (the real program) and a backend (this process) run together. The
//! load notes when it made each increment of each series. Whatever is on the bus or in a point is a sum of increments, but of
//! one series they come in order: so the sums, added up, tell for every single increment when it came by.
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

mod stages;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use stages::Latency;
use tallybus_benches::drain::broker;
use tallybus_benches::live::backend::Backend;
use tallybus_benches::live::clock;
use tallybus_benches::live::load::{Load, Rate};
use tallybus_benches::live::observer::Observer;
use tallybus_benches::live::worker::{self, Settings, Worker};
use tallybus_benches::machine::Machine;
use tallybus_benches::table::grouped;
use tallybus_benches::{report, results};
use tallybus_bus::kafka::KafkaBus;
use tallybus_bus::{Bus, TopicOptions};
use tallybus_tests::KafkaServer;
use tempfile::TempDir;

/// What passes before anything is counted in: connections, the first assignment, warm caches.
const WARM_UP: Duration = Duration::from_secs(4);
const PARTITIONS: u32 = 4;

#[derive(Parser)]
struct Arguments {
    /// How long each row is measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Increments a second.
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// How long the backend takes for a write, in milliseconds.
    #[arg(long, default_value_t = 0)]
    backend_ms: u64,
    /// A librdkafka property for the worker, as KEY=VALUE; repeatable.
    #[arg(long, value_parser = worker::property)]
    kafka: Vec<(String, String)>,
    /// A short run, for trying: 3 seconds.
    #[arg(long)]
    quick: bool,
    /// Writes the result there too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One way to set the pipeline up.
struct Row {
    name: &'static str,
    title: &'static str,
    flush_interval: Duration,
    max_delay: Duration,
}

const ROWS: [Row; 2] = [
    Row {
        name: "fresh",
        title: "Set up for freshness",
        flush_interval: Duration::from_millis(100),
        max_delay: Duration::from_millis(100),
    },
    Row {
        name: "defaults",
        title: "With the defaults",
        flush_interval: Duration::from_secs(1),
        max_delay: Duration::from_secs(1),
    },
];

#[derive(Serialize)]
struct Measured {
    machine: Machine,
    command: String,
    tables: Vec<report::Table>,
    per_second: u64,
    backend_ms: u64,
    rows: Vec<MeasuredRow>,
}

#[derive(Serialize)]
struct MeasuredRow {
    name: &'static str,
    flush_interval_ms: u128,
    max_delay_ms: u128,
    #[serde(flatten)]
    latency: Latency,
}

fn main() -> Result<()> {
    run(&Arguments::parse())
}

fn run(arguments: &Arguments) -> Result<()> {
    clock::begin();
    let kafka = broker()?;
    let (mut rows, mut tables) = (Vec::new(), Vec::new());
    for row in &ROWS {
        let latency = measure(&kafka, row, arguments)?;
        let shown = shown(row, &latency, arguments.rate);
        println!("{}", shown.markdown());
        tables.push(shown);
        rows.push(MeasuredRow {
            name: row.name,
            flush_interval_ms: row.flush_interval.as_millis(),
            max_delay_ms: row.max_delay.as_millis(),
            latency,
        });
    }
    let Some(file) = &arguments.json else { return Ok(()) };
    let measured = Measured {
        machine: Machine::this(),
        command: "cargo xtask bench latency".to_owned(),
        tables,
        per_second: arguments.rate,
        backend_ms: arguments.backend_ms,
        rows,
    };
    results::write(file, &measured)
}

fn measure(kafka: &KafkaServer, row: &Row, arguments: &Arguments) -> Result<Latency> {
    let folder = TempDir::new()?;
    let topic = format!("bench.latency.{}", row.name);
    let bus = KafkaBus::new(&kafka.bootstrap(), &BTreeMap::new())?;
    bus.create_topic(&topic, &TopicOptions::new(PARTITIONS))?;
    let observer = Observer::start(&bus, &topic, PARTITIONS)?;
    let backend = Backend::new(Duration::from_millis(arguments.backend_ms));
    let settings = Settings {
        brokers: kafka.bootstrap(),
        topic: topic.clone(),
        partitions: PARTITIONS,
        sink: row.name.to_owned(),
        url: backend.open(0)?,
        max_delay: row.max_delay,
        kafka: arguments.kafka.clone(),
    };
    let worker = Worker::start("worker", folder.path(), &settings)?;
    let collector = tallybus::builder().service("latency").instance("bench").topic(&topic);
    let collector =
        collector.flush_interval(row.flush_interval).start(tallybus::Connection::from_bus(Box::new(bus)))?;

    let load = Load::start(Rate { per_second: arguments.rate, threads: 4, series: 25 });
    thread::sleep(WARM_UP);
    let begin = clock::now();
    thread::sleep(Duration::from_secs(if arguments.quick { 3 } else { arguments.seconds }));
    let end = clock::now();
    let emissions = load.stop()?;
    let report = collector.shutdown(Duration::from_secs(10));
    ensure!(report.is_complete(), "the collector did not deliver everything: {report}");
    let emitted: u64 = emissions.iter().map(|(_, times)| times.len() as u64).sum();
    wait_for(&backend, emitted).with_context(|| format!("the worker's log ends with\n{}", worker.log_tail()))?;
    let sightings = observer.stop()?;
    drop(worker);

    let book = backend.book();
    ensure!(book.changed == 0 && book.total == emitted, "{} of {emitted} increments are in", book.total);
    stages::latency(&emissions, &sightings, &book.writes, begin..end, row.max_delay)
}

/// Waits until everything is in.
fn wait_for(backend: &Backend, emitted: u64) -> Result<()> {
    for _ in 0..200 {
        if backend.book().total >= emitted {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("only {} of {emitted} increments came", backend.book().total)
}

fn shown(row: &Row, latency: &Latency, per_second: u64) -> report::Table {
    let columns = ["milliseconds", "mean", "p50", "p90", "p99", "max"];
    let mut shown = report::Table::new(&format!("latency-{}", row.name), &columns);
    shown.title = format!(
        "{}: counters are flushed every {:?}, batches wait {:?}; {} increments a second.",
        row.title,
        row.flush_interval,
        row.max_delay,
        grouped(per_second)
    );
    for stage in &latency.stages {
        let cells = [stage.mean, stage.p50, stage.p90, stage.p99, stage.max].map(|ms| format!("{ms:.1}"));
        shown.row(std::iter::once(stage.name.to_owned()).chain(cells));
    }
    shown.note = format!(
        "{} increments, {} records, {} writes.",
        grouped(latency.increments),
        grouped(latency.records),
        grouped(latency.writes)
    );
    shown
}
