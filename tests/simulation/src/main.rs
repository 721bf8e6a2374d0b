//! `cargo xtask simulate`: lives lives, prints those that fail with the faults that matter.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tallybus_simulation::{Mutant, Report, live, shrink};

/// Lives of workers in virtual time, with faults in seeded order.
#[derive(Parser)]
#[command(name = "cargo xtask simulate")]
struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many lives, each with the next seed.
    #[arg(long, default_value_t = 1_000)]
    lives: u64,
    /// Breaks the workers in each way that is known, and says how many lives it took to notice; at most `lives` for each.
    #[arg(long)]
    mutants: bool,
}

fn main() -> ExitCode {
    let Options { seed, lives, mutants } = Options::parse();
    if mutants {
        return break_workers(seed, lives);
    }
    let began = Instant::now();
    let (mut steps, mut faults, mut events, mut halted, mut failed) = (0, 0, 0, 0_u64, 0_u64);
    let (mut writes, mut recovered, mut commits, mut drains) = (0, 0, 0, 0);
    for seed in seed..seed + lives {
        let report = live(seed);
        steps += report.steps;
        faults += report.plan.len() as u64;
        events += report.events;
        writes += report.writes;
        recovered += report.recovered;
        commits += report.commits;
        drains += report.drains;
        halted += u64::from(report.is_halted);
        if !report.violations.is_empty() {
            failed += 1;
            tell(&shrink(report));
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{lives} lives, {steps} steps, {faults} faults, {events} events, {commits} commits, {writes} writes ({recovered} of batches that were found sealed), {drains} times a worker was drained; {halted} halted as their faults ask for, {failed} \
         failed; {seconds:.1} s"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn break_workers(seed: u64, lives: u64) -> ExitCode {
    let mut unnoticed = 0;
    for mutant in Mutant::ALL {
        Mutant::set(Some(*mutant));
        let found = (seed..seed + lives).map(live).find(|report| !report.violations.is_empty());
        Mutant::set(None);
        match found {
            Some(report) => {
                let first = report.violations.first().map_or("", String::as_str);
                println!("{mutant:?}: noticed by life {} (seed {}): {first}", report.seed - seed + 1, report.seed);
            }
            None => {
                unnoticed += 1;
                println!("{mutant:?}: NOT noticed in {lives} lives");
            }
        }
    }
    if unnoticed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(report: &Report) {
    println!("seed {}:", report.seed);
    for (step, fault) in &report.plan {
        println!("  step {step}: {fault:?}");
    }
    for violation in &report.violations {
        println!("  violated: {violation}");
    }
}
