//! The drain benchmark: Kafka → worker → a sink that counts, with the audit that nothing is missing or doubled.
//!
//! ```text
//! cargo build --release -p tallybus-command -p tallybus-benches
//! target/release/drain --input json
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tallybus_benches::drain::{self, Contender, Drained, Lab, Reading, Settings};
use tallybus_benches::machine::Machine;
use tallybus_benches::process::Cpu;
use tallybus_benches::report;
use tallybus_benches::results::{self, median};
use tallybus_benches::table::{Table, grouped, rate};
use tallybus_benches::workload::{Input, Workload};

/// Drains a topic through `tallybus run` into a sink that counts, and says what it cost.
#[derive(Debug, Parser)]
#[command(max_term_width = 110)]
struct Options {
    /// json, line, native or all.
    #[arg(long, default_value = "all", value_parser = inputs)]
    input: Inputs,
    /// How many events [default: 2,000,000; native 10,000,000].
    #[arg(long)]
    events: Option<u64>,
    /// Of the topic.
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    /// How many different series.
    #[arg(long, default_value_t = 1_000)]
    series: u64,
    /// How many drains; the table has their medians.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Compresses what goes to the sink: yes, no or both.
    #[arg(long, default_value = "both")]
    gzip: Gzip,
    /// The worker's binary, `PATH` or `NAME=PATH`; repeatable: then their runs alternate [default: beside this program].
    #[arg(long = "worker", value_name = "PATH")]
    workers: Vec<Contender>,
    /// The sink's batch.max_events.
    #[arg(long, default_value_t = 10_000)]
    batch_events: u64,
    /// The sink's batch.max_bytes.
    #[arg(long, default_value = "4 MiB")]
    batch_bytes: String,
    /// The sink's batch.max_delay.
    #[arg(long, default_value = "200ms")]
    batch_delay: String,
    /// A further line of the sink's table in the settings; repeatable.
    #[arg(long = "set", value_name = "KEY = VALUE")]
    set: Vec<String>,
    /// A property of librdkafka, as a line of `[bus.kafka]` in the settings; repeatable.
    #[arg(long = "kafka", value_name = "KEY = VALUE")]
    kafka: Vec<String>,
    /// Leaves out kcat and the plain reader.
    #[arg(long)]
    no_reference: bool,
    /// A small run, for trying: a tenth of the events, once.
    #[arg(long)]
    quick: bool,
    /// Writes the result there too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Instead of all this: reads a topic of so many messages and drops them.
    #[arg(long, hide = true, num_args = 3, value_names = ["BROKERS", "TOPIC", "MESSAGES"])]
    reader: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Gzip {
    Yes,
    No,
    Both,
}

#[derive(Debug, Clone)]
struct Inputs(Vec<Input>);

fn inputs(text: &str) -> Result<Inputs, String> {
    if text == "all" { Ok(Inputs(Input::ALL.to_vec())) } else { text.parse().map(|input| Inputs(vec![input])) }
}

/// All that was measured, for the file.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    command: String,
    tables: Vec<report::Table>,
    inputs: Vec<InputReport>,
}

#[derive(Debug, Serialize)]
struct InputReport {
    input: String,
    settings: Settings,
    events: u64,
    messages: u64,
    partitions: u32,
    series: u64,
    target: Target,
    references: Vec<(String, Reading)>,
    workers: Vec<WorkerReport>,
}

#[derive(Debug, Serialize)]
struct WorkerReport {
    name: String,
    /// In the middle of the runs, each figure by itself.
    median: Summary,
    runs: Vec<Drained>,
}

/// What the table shows: CPU-seconds are for each million of events.
#[derive(Debug, Clone, Copy, Serialize)]
struct Summary {
    rate: f64,
    worker: Cpu,
    sink: f64,
    broker: f64,
    peak_rss_mb: f64,
    requests: f64,
}

/// What is to be reached, uncompressed and at 1,000 series.
#[derive(Debug, Clone, Copy, Serialize)]
struct Target {
    cpu: f64,
    rate: f64,
    peak_rss_mb: f64,
}

fn target(input: Input) -> Target {
    let (cpu, rate) = match input {
        Input::Json => (0.80, 1_300_000.0),
        Input::Line => (0.60, 1_600_000.0),
        Input::Native => (0.12, 5_000_000.0),
    };
    Target { cpu, rate, peak_rss_mb: 96.0 }
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let [brokers, topic, messages] = options.reader.as_slice() {
        return drain::discard(brokers, topic, messages.parse()?);
    }
    let workers = match options.workers.is_empty() {
        true => vec![Contender::own()?],
        false => options.workers.clone(),
    };
    let machine = Machine::this();
    println!("on {machine}");
    let mut lab = Lab::open()?;
    let mut report =
        Report { machine, command: "cargo xtask bench drain".to_owned(), tables: Vec::new(), inputs: Vec::new() };
    for &input in &options.input.0 {
        let measured = measure(&mut lab, &options, &workers, input);
        report.inputs.extend(measured.with_context(|| format!("draining {input}"))?);
    }
    for gzip in [false, true] {
        let inputs: Vec<&InputReport> = report.inputs.iter().filter(|input| input.settings.gzip == gzip).collect();
        if !inputs.is_empty() {
            report.tables.push(shown(&inputs, gzip));
        }
    }
    println!(
        "Peers (Telegraf, Redpanda Connect, Vector) are not installed here: docs/performance.md has what they were"
    );
    println!("measured with, on such a machine and with this workload.");
    if let Some(file) = &options.json {
        results::write(file, &report)?;
        println!("written to {}", file.display());
    }
    Ok(())
}

fn settings(options: &Options, gzip: bool) -> Settings {
    Settings {
        gzip,
        batch_events: options.batch_events,
        batch_bytes: options.batch_bytes.clone(),
        batch_delay: options.batch_delay.clone(),
        more: options.set.clone(),
        kafka: options.kafka.clone(),
    }
}

/// Fills a topic and drains it, without compression and with it.
fn measure(lab: &mut Lab, options: &Options, workers: &[Contender], input: Input) -> Result<Vec<InputReport>> {
    let mut events = options.events.unwrap_or(if input == Input::Native { 10_000_000 } else { 2_000_000 });
    if options.quick {
        events /= 10;
    }
    let workload = Workload { input, events, series: options.series, partitions: options.partitions };
    println!(
        "\n{input}: {} events in {} messages, {} series, {} partitions",
        grouped(events),
        grouped(workload.messages()),
        grouped(workload.series),
        workload.partitions,
    );
    let topic = lab.fill(&workload)?;

    let mut references = Vec::new();
    if !options.no_reference {
        references.push(("kcat, discarding".to_owned(), drain::read_with_kcat(lab, &topic, &workload)?));
        references.push(("rdkafka poll, discarding".to_owned(), drain::read_with_rdkafka(lab, &topic, &workload)?));
    }
    let mut reports = Vec::new();
    if options.gzip != Gzip::Yes {
        reports.push(drain_all(lab, options, workers, (&topic, &workload), (false, references))?);
    }
    if options.gzip != Gzip::No {
        reports.push(drain_all(lab, options, workers, (&topic, &workload), (true, Vec::new()))?);
    }
    Ok(reports)
}

fn drain_all(
    lab: &mut Lab,
    options: &Options,
    workers: &[Contender],
    (topic, workload): (&str, &Workload),
    (gzip, references): (bool, Vec<(String, Reading)>),
) -> Result<InputReport> {
    let events = workload.events;
    let mut runs: Vec<Vec<Drained>> = vec![Vec::new(); workers.len()];
    let rounds = if options.quick { 1 } else { options.repeat };
    for round in 1..=rounds {
        for (worker, runs) in workers.iter().zip(&mut runs) {
            let drained = lab.drain(worker, topic, workload, &settings(options, gzip))?;
            eprintln!(
                "  run {round} of {}: {}/s in {:.2} s, worker {:.3} CPU-s per 1M, {:.2} s until the first line, {:.2} s \
                 after the last",
                worker.name,
                rate(drained.rate),
                drained.seconds,
                drained.worker.per_million(events).total(),
                drained.until_first,
                drained.after_last,
            );
            runs.push(drained);
        }
    }
    let workers = workers.iter().zip(runs).map(|(worker, runs)| WorkerReport {
        name: worker.name.clone(),
        median: summarise(&runs, events),
        runs,
    });
    let report = InputReport {
        input: workload.input.to_string(),
        settings: settings(options, gzip),
        events,
        messages: workload.messages(),
        partitions: workload.partitions,
        series: workload.series,
        target: target(workload.input),
        references,
        workers: workers.collect(),
    };
    println!("{}", table(&report));
    Ok(report)
}

/// The table of all inputs, as documents show it.
fn shown(inputs: &[&InputReport], gzip: bool) -> report::Table {
    let name = if gzip { "drain_gzip" } else { "drain" };
    let columns =
        ["input and program", "events/s", "CPU-s per 1M", "of the sink", "of the broker", "peak MB", "the target"];
    let mut table = report::Table::new(name, &columns);
    let seconds = |seconds: f64| format!("{seconds:.2}");
    for input in inputs {
        for (program, reading) in &input.references {
            let (cpu, broker) = (reading.cpu.per_million(input.events), reading.broker.per_million(input.events));
            let program = format!("{}: {program}", input.input);
            let (cpu, broker) = (seconds(cpu.total()), seconds(broker.total()));
            let peak = megabytes(reading.peak_rss);
            table.row([program, rate(reading.rate), cpu, "–".to_owned(), broker, peak, "–".to_owned()]);
        }
        let Target { cpu, rate: events, peak_rss_mb } = input.target;
        for WorkerReport { name, median, .. } in &input.workers {
            table.row([
                format!("{}: {name}{}", input.input, if gzip { ", gzip" } else { "" }),
                rate(median.rate),
                seconds(median.worker.total()),
                seconds(median.sink),
                seconds(median.broker),
                format!("{:.0}", median.peak_rss_mb),
                format!("{cpu:.2}; {}/s; {peak_rss_mb:.0} MB", rate(events)),
            ]);
        }
    }
    table
}

fn summarise(runs: &[Drained], events: u64) -> Summary {
    let middle = |of: &dyn Fn(&Drained) -> f64| median(runs.iter().map(of).collect());
    #[allow(clippy::cast_precision_loss, reason = "bytes and requests of a benchmark lie far below 2^52")]
    let real = |number: u64| number as f64;
    Summary {
        rate: middle(&|run| run.rate),
        worker: Cpu {
            user: middle(&|run| run.worker.per_million(events).user),
            system: middle(&|run| run.worker.per_million(events).system),
        },
        sink: middle(&|run| run.sink.per_million(events).total()),
        broker: middle(&|run| run.broker.per_million(events).total()),
        peak_rss_mb: middle(&|run| real(run.peak_rss) / 1e6),
        requests: middle(&|run| real(run.requests)),
    }
}

fn table(report: &InputReport) -> Table {
    let mut table =
        Table::new(&["", "events/s", "CPU-s per 1M", "user", "system", "sink", "broker", "peak MB", "requests"]);
    let seconds = |seconds: f64| format!("{seconds:.3}");
    for (name, reading) in &report.references {
        let (cpu, broker) = (reading.cpu.per_million(report.events), reading.broker.per_million(report.events));
        table.row([
            name.clone(),
            rate(reading.rate),
            seconds(cpu.total()),
            seconds(cpu.user),
            seconds(cpu.system),
            String::new(),
            seconds(broker.total()),
            megabytes(reading.peak_rss),
        ]);
    }
    for WorkerReport { name, median, .. } in &report.workers {
        table.row([
            name.clone(),
            rate(median.rate),
            seconds(median.worker.total()),
            seconds(median.worker.user),
            seconds(median.worker.system),
            seconds(median.sink),
            seconds(median.broker),
            format!("{:.0}", median.peak_rss_mb),
            format!("{:.0}", median.requests),
        ]);
    }
    let Target { cpu, rate: events, peak_rss_mb } = report.target;
    let mut cells = vec!["target".to_owned(), rate(events), seconds(cpu)];
    cells.extend(vec![String::new(); 4]);
    cells.push(format!("{peak_rss_mb:.0}"));
    table.row(cells);
    table
}

fn megabytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "a process has less than 2^52 bytes")]
    let bytes = bytes as f64;
    format!("{:.0}", bytes / 1e6)
}
