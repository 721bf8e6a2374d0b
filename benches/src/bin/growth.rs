//! What more series and more partitions cost: the drain benchmark over both.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use serde::Serialize;
use tallybus_benches::drain::{Contender, Drained, Lab, Settings};
use tallybus_benches::machine::Machine;
use tallybus_benches::report::Table;
use tallybus_benches::results::{self, median};
use tallybus_benches::table;
use tallybus_benches::workload::{Input, Workload};

/// Drains topics of more and more series and partitions.
#[derive(Debug, Parser)]
struct Options {
    /// How often each topic is drained; the table has medians.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Only this input: json, line or native.
    #[arg(long)]
    input: Option<Input>,
    /// A small run, for trying: a tenth of the events, once.
    #[arg(long)]
    quick: bool,
    /// Writes the result there too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const SERIES: [u64; 3] = [1_000, 100_000, 1_000_000];
const PARTITIONS: [u32; 4] = [1, 4, 16, 64];

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    command: String,
    tables: Vec<Table>,
    points: Vec<Point>,
}

/// One topic.
#[derive(Debug, Serialize)]
struct Point {
    input: String,
    events: u64,
    series: u64,
    partitions: u32,
    runs: Vec<Drained>,
}

impl Point {
    fn cpu(&self) -> f64 {
        median(self.runs.iter().map(|run| run.worker.per_million(self.events).total()).collect())
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let worker = Contender::own()?;
    let mut lab = Lab::open()?;
    let mut points = Vec::new();
    for input in Input::ALL {
        if options.input.is_some_and(|wanted| wanted != input) {
            continue;
        }
        // One text encoding tells what the other would.
        if options.input.is_none() && input == Input::Line {
            continue;
        }
        let events = if input == Input::Native { 8_000_000 } else { 2_000_000 };
        let (events, repeat) = if options.quick { (events / 10, 1) } else { (events, options.repeat) };
        for partitions in PARTITIONS {
            for series in SERIES {
                let workload = Workload { input, events, series, partitions };
                points.push(measure(&mut lab, &worker, workload, repeat)?);
            }
        }
    }
    let report = Report {
        machine: Machine::this(),
        command: "cargo xtask bench growth".to_owned(),
        tables: vec![shown(&points)],
        points,
    };
    println!("{}", report.tables[0].markdown());
    if let Some(file) = &options.json {
        results::write(file, &report)?;
    }
    Ok(())
}

fn measure(lab: &mut Lab, worker: &Contender, workload: Workload, repeat: usize) -> Result<Point> {
    let settings = Settings::plain(10_000);
    let Workload { input, events, series, partitions } = workload;
    let topic = lab.fill(&workload)?;
    let mut runs = Vec::new();
    for _ in 0..repeat {
        let drained = lab.drain(worker, &topic, &workload, &settings)?;
        eprintln!(
            "  {input}, {} series, {partitions} partitions: {}/s, {:.3} CPU-s per 1M, {} MB",
            table::grouped(series),
            table::rate(drained.rate),
            drained.worker.per_million(events).total(),
            drained.peak_rss / 1_000_000
        );
        runs.push(drained);
    }
    Ok(Point { input: input.to_string(), events, series, partitions, runs })
}

fn shown(points: &[Point]) -> Table {
    let columns =
        ["input", "partitions", "series", "events/s", "CPU-s per 1M", "of that at 1,000 series", "peak MB", "requests"];
    let mut shown = Table::new("growth", &columns);
    for point in points {
        let few = points
            .iter()
            .find(|few| few.input == point.input && few.partitions == point.partitions && few.series == SERIES[0]);
        #[allow(clippy::cast_precision_loss, reason = "bytes and requests lie far below 2^52")]
        let middle = |of: fn(&Drained) -> u64| median(point.runs.iter().map(|run| of(run) as f64).collect());
        shown.row([
            point.input.clone(),
            point.partitions.to_string(),
            table::grouped(point.series),
            table::rate(median(point.runs.iter().map(|run| run.rate).collect())),
            format!("{:.3}", point.cpu()),
            few.map_or_else(String::new, |few| format!("{:.2}", point.cpu() / few.cpu())),
            format!("{:.0}", middle(|run| run.peak_rss) / 1e6),
            format!("{:.0}", middle(|run| run.requests)),
        ]);
    }
    shown
}
