//! The bake-off of this machine: every backend that runs here, one of them behind a slow network, and one that loses a line in
//! a thousand. Writes docs/bake-off.json and docs/bake-off.html, after checking what a comparison has to show:
//!
//! - the backend that loses is named, and ranked in nothing;
//! - the slow one never comes before the same backend without its network;
//! - a second run contradicts no rank of the first one;
//! - requests and bytes are those that a proxy before the backend has counted, within 2 %;
//! - a sink compared with itself shows no difference in at least nine of ten comparisons;
//! - times from emit to queryable are what an observer of its own sees, and a pause of three seconds is in them.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

mod checks;
mod comparing;
mod counted;
mod observer;
mod postgres_wire;
mod published;
mod same;
mod servers;
mod stream;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use tallybus_benches::report;

use self::comparing::Workplace;
use self::servers::Servers;

#[derive(Parser)]
struct Options {
    /// How many events are compared.
    #[arg(long, default_value_t = 60_000)]
    events: u64,
    /// Rounds that count.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// For how many seconds probes are sent.
    #[arg(long, default_value_t = 30)]
    probes: u64,
    /// How often a sink is compared with itself.
    #[arg(long, default_value_t = 10)]
    same: u64,
    /// Only this part; all unless named.
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// What readers of the result must know of how it came about; repeatable.
    #[arg(long, value_name = "TEXT")]
    note: Vec<String>,
    /// Writes the two files there instead of into docs/.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A part of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// All backends, twice; writes the files.
    Backends,
    /// Requests and bytes against proxies.
    Counted,
    /// A sink against itself.
    Same,
    /// Times from emit to queryable against an observer, and with a pause.
    Observer,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let servers = Servers::start()?;
    let place = Workplace::with_events(options.events)?;
    let outcome = run(&options, &place, &servers);
    outcome.map_err(|error| error.context(format!("the results are left in {}", place.keep().display())))
}

fn run(options: &Options, place: &Workplace, servers: &Servers) -> Result<()> {
    let is_chosen = |part: Part| options.only.is_empty() || options.only.contains(&part);
    if is_chosen(Part::Counted) {
        counted::agree(place, servers, options.rounds)?;
    }
    if is_chosen(Part::Observer) {
        observer::agrees(place, servers)?;
    }
    if is_chosen(Part::Same) {
        same::show_no_difference(place, options.same)?;
    }
    if is_chosen(Part::Backends) {
        backends(options, place, servers)?;
    }
    Ok(())
}

fn backends(options: &Options, place: &Workplace, servers: &Servers) -> Result<()> {
    let sinks = servers.sinks(place.path());
    let (rounds, probes) = (options.rounds.to_string(), format!("{}s", options.probes));
    let more = ["--rounds", &rounds, "--probe-time", &probes];
    let first = place.compare("first", &sinks, &more)?;
    checks::is_named_and_not_ranked(&first)?;
    checks::is_never_before(&first, "influxdb-far", "influxdb")?;
    let second = place.compare("second", &sinks, &more)?;
    checks::contradicts_nothing(&first, &second)?;
    let out = options.out.clone().unwrap_or_else(|| report::root().join("docs"));
    published::publish(&place.file("first.json"), place.path(), &out, &options.note)
}
