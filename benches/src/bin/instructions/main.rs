//! One small case for each hot path, to be run under callgrind by `cargo xtask instructions`.
//!
//! `instructions list` names the cases; `instructions run CASE TIMES` does one that often. What an operation takes is
//! the difference of two runs, so whatever a case does once (start, settings, input) does not count. Nothing here
//! depends on a clock or on chance beyond what the difference and the tolerance absorb.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

mod collector;
mod memory_bus;
mod messages;
mod schemas;
mod sinks;

use anyhow::{Context, Result, bail, ensure};

/// A hot path.
struct Case {
    name: &'static str,
    /// What one operation is.
    operation: &'static str,
    /// How often `run` is told to repeat for one measurement; the other one repeats twice as often.
    times: u64,
    /// Operations in one repetition.
    operations: u64,
    run: fn(u64) -> Result<()>,
}

fn cases() -> impl Iterator<Item = &'static Case> {
    [collector::CASES, schemas::CASES, sinks::CASES].into_iter().flatten()
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => {
            for Case { name, operation, times, operations, .. } in cases() {
                println!("{name}\t{times}\t{operations}\t{operation}");
            }
            Ok(())
        }
        ["run", name, times] => {
            let case = cases().find(|case| case.name == name).with_context(|| format!("no case {name:?}"))?;
            ensure!(tallybus::__private::fix_seed(1), "the seed is fixed first");
            (case.run)(times.parse().context("TIMES is a number")?)
        }
        _ => bail!("usage: instructions list | instructions run CASE TIMES"),
    }
}
