//! What an increment costs, side by side with the libraries that people would use instead and with the limits of the
//! machine; what a series weighs; what a flush costs, and whether counting notices it.
//!
//! From the repository's root:
//! `cargo run --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers`,
//! with `-- --quick` for a look, `-- --json benches/results/hot_path.json` to keep the tables.
//!
//! Each part runs in a process of its own, because a process never forgets a series.

mod allocations;
mod bus;
mod clock;
mod flush;
mod forms;
mod libraries;
mod paths;
mod results;
mod series;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use results::{Results, Table};

const COMMAND: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers -- \
                       --json benches/results/hot_path.json";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How often each thing is measured; medians are shown.
    pub rounds: usize,
    /// What one measurement of an increment takes, about.
    pub slice_ms: u64,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut quick, mut json, mut part) = (false, None::<PathBuf>, None::<String>);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => quick = true,
            "--json" => json = Some(arguments.next().context("--json takes a file")?.into()),
            "--part" => part = Some(arguments.next().context("--part takes a name")?),
            other => bail!("{other:?} is not known: expected --quick, --json FILE, --part NAME"),
        }
    }
    let effort = if quick { Effort { rounds: 3, slice_ms: 2 } } else { Effort { rounds: 15, slice_ms: 10 } };
    match part {
        Some(part) => {
            println!("{}", serde_json::to_string(&run(&part, effort)?)?);
            Ok(())
        }
        None => all(quick, json),
    }
}

/// One part, in this process.
fn run(part: &str, effort: Effort) -> Result<Table> {
    match part.split_once(':') {
        None if part == "paths" => Ok(paths::table(effort)),
        None if part == "first-use" => series::first_use(effort),
        None if part == "flush" => flush::table(effort),
        None if part == "disturbance" => flush::disturbance(effort),
        Some(("weight", library)) => series::weight(library, effort),
        _ => bail!("no part {part:?}"),
    }
}

fn all(quick: bool, json: Option<PathBuf>) -> Result<()> {
    let part = |name: &str| child(name, quick).and_then(show);
    let mut tables = vec![part("paths")?, part("first-use")?];
    let mut weights: Option<Table> = None;
    for library in series::LIBRARIES {
        let one = child(&format!("weight:{library}"), quick)?;
        match &mut weights {
            Some(weights) => weights.rows.extend(one.rows),
            None => weights = Some(one),
        }
    }
    tables.extend(weights.map(show).transpose()?);
    tables.push(part("flush")?);
    tables.push(part("disturbance")?);
    let Some(path) = json else { return Ok(()) };
    ensure!(!quick, "--quick measures too little to be kept: leave out --json");
    Results { machine: results::machine(), command: COMMAND.to_owned(), tables }.write(&path)?;
    Ok(())
}

/// One part, in a process of its own.
fn child(part: &str, quick: bool) -> Result<Table> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--part", part]).args(quick.then_some("--quick")).stderr(Stdio::inherit());
    let output = command.output()?;
    ensure!(output.status.success(), "part {part} ended with {}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("part {part}"))
}

fn show(table: Table) -> Result<Table> {
    println!("\n{}", table.title);
    let rows = || std::iter::once(&table.columns).chain(&table.rows);
    let widths: Vec<usize> = (0..table.columns.len())
        .map(|column| rows().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows() {
        let cells = row.iter().zip(&widths).enumerate();
        let line: Vec<String> = cells
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        println!("{}", line.join("  "));
    }
    println!("{}", table.note);
    Ok(table)
}
