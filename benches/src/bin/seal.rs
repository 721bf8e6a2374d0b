//! What stable batches cost: the drain by a worker that seals each batch before it writes it, and by the same worker without
//! seals, which commits offsets once they are written, as consumers usually do. The second one keeps no promise.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use config::{Config, File, FileFormat};
use serde::Serialize;
use tallybus_benches::drain::{Contender, Drained, Lab, Settings};
use tallybus_benches::machine::Machine;
use tallybus_benches::report::Table;
use tallybus_benches::results::{self, median};
use tallybus_benches::table;
use tallybus_benches::workload::{Input, Workload};
use tallybus_worker::settings::{self, Settings as SinkSettings};
use tallybus_worker::{Worker, WorkerOptions};

/// As the `tallybus` command has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Compares a worker that seals with one that commits the usual way.
#[derive(Debug, Parser)]
struct Options {
    /// How often each of the two drains each topic; the table has medians.
    #[arg(long, default_value_t = 9)]
    repeat: usize,
    /// A small run, for trying: a tenth of the events, twice.
    #[arg(long)]
    quick: bool,
    /// Writes the result there too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Instead of all this: is one of the two workers.
    #[arg(long, hide = true, requires = "config")]
    worker: Option<String>,
    #[arg(long, hide = true)]
    config: Option<PathBuf>,
}

const SEALED: &str = "sealed";
const UNSEALED: &str = "unsealed";

/// Input, events, and events in a batch: the default, and what the drain benchmark takes.
const CASES: [(Input, u64, u64); 3] =
    [(Input::Json, 2_000_000, 5_000), (Input::Json, 2_000_000, 10_000), (Input::Native, 10_000_000, 10_000)];

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    command: String,
    tables: Vec<Table>,
    cases: Vec<Case>,
}

#[derive(Debug, Serialize)]
struct Case {
    input: String,
    events: u64,
    batch_events: u64,
    sealed: Vec<Drained>,
    unsealed: Vec<Drained>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let (Some(kind), Some(config)) = (&options.worker, &options.config) {
        return work(config, kind == SEALED);
    }
    let program = std::env::current_exe()?;
    let contender = |kind: &str| Contender {
        name: kind.to_owned(),
        program: program.clone(),
        arguments: vec!["--worker".to_owned(), kind.to_owned()],
    };
    let (sealed, unsealed) = (contender(SEALED), contender(UNSEALED));
    let mut lab = Lab::open()?;
    let mut report = Report {
        machine: Machine::this(),
        command: "cargo xtask bench seal".to_owned(),
        tables: Vec::new(),
        cases: Vec::new(),
    };
    for (number, (input, events, batch_events)) in CASES.into_iter().enumerate() {
        let (events, rounds) = if options.quick { (events / 10, 2) } else { (events, options.repeat) };
        // A topic is known by its workload, so that each case has a number of events of its own.
        let events = events + u64::try_from(number)?;
        let workload = Workload { input, events, series: 1_000, partitions: 4 };
        let settings = Settings::plain(batch_events);
        let topic = lab.fill(&workload)?;
        let mut case =
            Case { input: input.to_string(), events, batch_events, sealed: Vec::new(), unsealed: Vec::new() };
        for round in 0..rounds {
            // Whoever comes first in a round comes second in the next.
            for turn in [round % 2, 1 - round % 2] {
                let (contender, runs) =
                    if turn == 0 { (&sealed, &mut case.sealed) } else { (&unsealed, &mut case.unsealed) };
                let drained = lab.drain(contender, &topic, &workload, &settings)?;
                let cpu = drained.worker.per_million(events).total();
                eprintln!("  {input} {}: {}/s, {cpu:.3} CPU-s per 1M", contender.name, table::rate(drained.rate));
                runs.push(drained);
            }
        }
        report.cases.push(case);
    }
    let shown = shown(&report.cases);
    println!("{}", shown.markdown());
    report.tables.push(shown);
    if let Some(file) = &options.json {
        results::write(file, &report)?;
    }
    Ok(())
}

fn shown(cases: &[Case]) -> Table {
    let columns = [
        "input, events a batch",
        "sealed, events/s",
        "unsealed, events/s",
        "cost",
        "sealed, CPU-s per 1M",
        "unsealed, CPU-s per 1M",
        "cost",
    ];
    let mut shown = Table::new("seal", &columns);
    for case in cases {
        let rate = |runs: &[Drained]| median(runs.iter().map(|run| run.rate).collect());
        let cpu =
            |runs: &[Drained]| median(runs.iter().map(|run| run.worker.per_million(case.events).total()).collect());
        let (rates, cpus) = ([rate(&case.sealed), rate(&case.unsealed)], [cpu(&case.sealed), cpu(&case.unsealed)]);
        shown.row([
            format!("{}, {}", case.input, table::grouped(case.batch_events)),
            table::rate(rates[0]),
            table::rate(rates[1]),
            format!("{:+.1} %", (1.0 - rates[0] / rates[1]) * 100.0),
            format!("{:.3}", cpus[0]),
            format!("{:.3}", cpus[1]),
            format!("{:+.1} %", (cpus[0] / cpus[1] - 1.0) * 100.0),
        ]);
    }
    shown.note =
        "Medians; a negative cost is noise. The broker gathers commits for 5 ms, as brokers do by default.".to_owned();
    shown
}

/// A worker as `tallybus run --until-caught-up` has it, with seals or without.
fn work(config: &Path, is_sealed: bool) -> Result<()> {
    let text = std::fs::read_to_string(config)?;
    let value: serde_json::Value =
        Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).build()?.try_deserialize()?;
    let settings =
        SinkSettings::from_value(&value, tallybus_sinks::KINDS).map_err(|problems| anyhow!("{problems:?}"))?;
    let found = settings.sinks.first().context("no sink")?;
    let options = WorkerOptions { until_caught_up: true, ..found.worker_options() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bus = settings::open_bus(&settings.bus)?;
    let mut worker = Worker::new(bus, found.make()?, runtime.handle().clone(), options)?;
    if !is_sealed {
        worker = worker.without_seals();
    }
    let outcome = worker.run()?;
    ensure!(outcome.drained, "not everything was written");
    Ok(())
}
