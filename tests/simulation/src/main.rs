//! `cargo xtask simulate`: lives lives, prints those that fail with the faults that matter.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tallybus_simulation::{Report, live, shrink};

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
}

fn main() -> ExitCode {
    let Options { seed, lives } = Options::parse();
    let began = Instant::now();
    let (mut steps, mut faults, mut events, mut halted, mut failed) = (0, 0, 0, 0_u64, 0_u64);
    let (mut writes, mut recovered, mut commits) = (0, 0, 0);
    for seed in seed..seed + lives {
        let report = live(seed);
        steps += report.steps;
        faults += report.plan.len() as u64;
        events += report.events;
        writes += report.writes;
        recovered += report.recovered;
        commits += report.commits;
        halted += u64::from(report.is_halted);
        if !report.violations.is_empty() {
            failed += 1;
            tell(&shrink(report));
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{lives} lives, {steps} steps, {faults} faults, {events} events, {commits} commits, {writes} writes ({recovered} of batches that were found sealed); {halted} halted as their faults ask for, {failed} \
         failed; {seconds:.1} s"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
