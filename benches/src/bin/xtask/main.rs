//! The chores of this repository: `cargo xtask --help`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod bench;
mod command;
mod flame;
mod instructions;
mod markers;
mod picture;
mod stacks;
mod tables;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The chores of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measures: builds what is needed, runs the benchmarks, writes benches/results and the tables made of them.
    Bench {
        /// Which ones; all unless named.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// A short run for trying; nothing is written.
        #[arg(long)]
        quick: bool,
    },
    /// Writes the tables of README.md and docs/performance.md again, from benches/results.
    Tables {
        /// Writes nothing; fails when a table is not what the results say.
        #[arg(long)]
        check: bool,
    },
    /// Counts the instructions of the hot paths and fails when one has risen by more than a tenth over the baseline.
    Instructions {
        /// Only these cases.
        #[arg(value_name = "CASE")]
        cases: Vec<String>,
        /// Makes what is counted now the baseline.
        #[arg(long, conflicts_with = "why")]
        bless: bool,
        /// Says which functions one case spends its instructions in.
        #[arg(long, value_name = "CASE", conflicts_with = "cases")]
        why: Option<String>,
    },
    /// Lives lives of workers in virtual time, with faults in seeded order; a life that fails is printed with the faults that
    /// matter.
    Simulate {
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// How many lives, each with the next seed.
        #[arg(long, default_value_t = 10_000)]
        lives: u64,
        /// Breaks the workers in each way that is known, and says how many lives it took to notice; at most `lives` for each.
        #[arg(long)]
        mutants: bool,
    },
    /// Records where CPU time goes, as target/flame/NAME.svg and a table of the widest frames.
    Flame {
        /// A case of `cargo xtask instructions`, or a benchmark: then it is the worker that is shown.
        name: String,
        /// What the benchmark is given, after `--`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Options::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Bench { names, quick } => bench::run(&names, quick),
        Task::Tables { check } => tables::run(check),
        Task::Instructions { why: Some(case), .. } => instructions::why(&case),
        Task::Instructions { cases, bless, .. } => instructions::run(&cases, bless),
        Task::Simulate { seed, lives, mutants } => simulate(seed, lives, mutants),
        Task::Flame { name, arguments } => flame::run(&name, &arguments),
    }
}

fn simulate(seed: u64, lives: u64, mutants: bool) -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["run", "--release", "--quiet", "-p", "tallybus-simulation", "--"]);
    cargo.args(["--seed", &seed.to_string(), "--lives", &lives.to_string()]);
    command::run(cargo.args(mutants.then_some("--mutants")))
}
