//! `cargo xtask instructions`: what a hot path takes in instructions, against a baseline.
//!
//! A count of instructions hardly varies from run to run, however busy the machine is, so that a rise of a tenth can fail a
//! build where a time could not. What one operation takes is the difference between a case done n times and 2n times.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tallybus_benches::report::{self, Table};
use tallybus_benches::table;

use crate::command;

/// A rise by more than this part fails.
const TOLERANCE: f64 = 0.10;

/// What is committed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baseline {
    /// The compiler that the counts come from: another one makes other instructions.
    rustc: String,
    cases: BTreeMap<String, Count>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Count {
    operation: String,
    instructions: f64,
}

/// A line of `instructions list`.
struct Case {
    name: String,
    times: u64,
    operations: u64,
    operation: String,
}

pub(crate) fn baseline_file() -> PathBuf {
    report::root().join("benches/instructions.json")
}

/// The baseline, for the documents.
pub(crate) fn table() -> Result<Table> {
    let baseline = read_baseline()?;
    let mut table = Table::new("instructions", &["operation", "case", "instructions"]);
    for (name, count) in &baseline.cases {
        table.row([count.operation.clone(), format!("`{name}`"), shown(count.instructions)]);
    }
    table.note = format!("Counted by `cargo xtask instructions --bless` with {}.", baseline.rustc);
    Ok(table)
}

/// Counts, compares, and takes over what was counted if told to.
pub(crate) fn run(wanted: &[String], bless: bool) -> Result<()> {
    command::run(command::cargo().args(["build", "--release", "-p", "tallybus-benches", "--bin", "instructions"]))?;
    let cases = list()?;
    if let Some(unknown) = wanted.iter().find(|name| !cases.iter().any(|case| case.name == **name)) {
        let known: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        bail!("no case is called {unknown:?}; there are {}", known.join(", "));
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let chosen: Vec<&Case> = cases.iter().filter(|case| is_wanted(&case.name)).collect();
    let counted = count_all(&chosen)?;
    let rustc = rustc()?;
    if bless {
        let mut baseline = if wanted.is_empty() { Baseline::default() } else { read_baseline()? };
        baseline.cases.retain(|name, _| cases.iter().any(|case| case.name == *name));
        baseline.rustc = rustc;
        baseline.cases.extend(counted);
        return write_baseline(&baseline);
    }
    let mut baseline = read_baseline()?;
    baseline.cases.retain(|name, _| is_wanted(name));
    let verdict = compare(&baseline, &counted);
    println!("{}", verdict.table);
    for line in &verdict.remarks {
        println!("{line}");
    }
    if verdict.faults.is_empty() {
        return Ok(());
    }
    let mut message = verdict.faults.join("\n");
    message.push_str("\n`cargo xtask instructions --why CASE` tells where they go.");
    message.push_str("\nIf that is what it should cost: `cargo xtask instructions --bless`, and commit the baseline.");
    if rustc != baseline.rustc {
        message.push_str(&format!(
            "\nThe baseline was counted with {}, this is {rustc}: see what the commit before this one counts.",
            baseline.rustc
        ));
    }
    bail!(message)
}

/// Which functions a case spends its instructions in.
pub(crate) fn why(name: &str) -> Result<()> {
    build_with_names()?;
    let cases = list()?;
    let case = cases.iter().find(|case| case.name == name).with_context(|| format!("no case is called {name:?}"))?;
    let file = command::target()?.join("instructions.callgrind");
    callgrind(&case.name, 2 * case.times, Some(&file))?;
    let (text, _) = command::output(Command::new("callgrind_annotate").arg("--auto=no").arg(&file))?;
    println!("{text}");
    Ok(())
}

/// Builds the cases with the names of functions in them, which a release leaves out. Only the last step is done again.
pub(crate) fn build_with_names() -> Result<()> {
    let program = ["rustc", "--release", "-p", "tallybus-benches", "--bin", "instructions", "--", "-C", "strip=none"];
    command::run(command::cargo().args(program))
}

/// How often a case is repeated for one count.
pub(crate) fn times(name: &str) -> Result<u64> {
    let found = list()?.into_iter().find(|case| case.name == name);
    Ok(found.with_context(|| format!("neither a benchmark nor a case is called {name:?}"))?.times)
}

fn list() -> Result<Vec<Case>> {
    let (text, _) = command::output(Command::new(command::built("instructions")?).arg("list"))?;
    text.lines().map(|line| parse(line).with_context(|| format!("not a case: {line:?}"))).collect()
}

fn parse(line: &str) -> Option<Case> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, times, operations, operation] = fields[..] else { return None };
    Some(Case {
        name: name.to_owned(),
        times: times.parse().ok()?,
        operations: operations.parse().ok()?,
        operation: operation.to_owned(),
    })
}

/// One case at a time on each core.
fn count_all(cases: &[&Case]) -> Result<BTreeMap<String, Count>> {
    let (next, counted) = (Mutex::new(cases.iter()), Mutex::new(BTreeMap::new()));
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next().copied();
    let work = || -> Result<()> {
        while let Some(case) = take() {
            let count = Count { operation: case.operation.clone(), instructions: rounded(count(case)?) };
            counted.lock().unwrap_or_else(PoisonError::into_inner).insert(case.name.clone(), count);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let spawned: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        spawned
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(counted.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn count(case: &Case) -> Result<f64> {
    let (once, twice) = (callgrind(&case.name, case.times, None)?, callgrind(&case.name, 2 * case.times, None)?);
    let more = twice.checked_sub(once).with_context(|| format!("{}: twice as often took less", case.name))?;
    #[allow(clippy::cast_precision_loss, reason = "counts lie far below 2^52")]
    let each = more as f64 / (case.times * case.operations) as f64;
    Ok(each)
}

fn callgrind(name: &str, times: u64, file: Option<&Path>) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    let file = file.unwrap_or(Path::new("/dev/null"));
    let out = format!("--callgrind-out-file={}", file.display());
    // What else the environment holds makes no difference then.
    valgrind.args(["--tool=callgrind", &out]).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    valgrind.arg(command::built("instructions")?).args(["run", name, &times.to_string()]);
    let (_, said) = command::output(&mut valgrind)?;
    let total = said.lines().find_map(|line| line.split_once("Collected :"));
    let total = total.and_then(|(_, number)| number.trim().parse().ok());
    total.with_context(|| format!("valgrind does not say what it counted:\n{said}"))
}

fn rustc() -> Result<String> {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let (version, _) = command::output(Command::new(program).arg("--version").current_dir(report::root()))?;
    Ok(version.trim().to_owned())
}

fn read_baseline() -> Result<Baseline> {
    let file = baseline_file();
    let text = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}; `cargo xtask instructions --bless` writes it", file.display()))?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

fn write_baseline(baseline: &Baseline) -> Result<()> {
    for (name, count) in &baseline.cases {
        println!("{name:<20} {:>12}", shown(count.instructions));
    }
    let mut text = serde_json::to_string_pretty(baseline)?;
    text.push('\n');
    fs::write(baseline_file(), text).context("cannot write the baseline")
}

/// Three digits are more than a tolerance of a tenth needs, and fewer change with every blessing.
fn rounded(instructions: f64) -> f64 {
    let scale = 10_f64.powf(2.0 - instructions.abs().max(1.0).log10().floor()).min(10.0);
    (instructions * scale).round() / scale
}

fn shown(instructions: f64) -> String {
    if instructions < 100.0 { format!("{instructions:.1}") } else { table::rate(instructions) }
}

/// What a comparison comes to.
struct Verdict {
    table: table::Table,
    /// Worth to know.
    remarks: Vec<String>,
    /// Why the check fails.
    faults: Vec<String>,
}

fn compare(baseline: &Baseline, counted: &BTreeMap<String, Count>) -> Verdict {
    let mut table = table::Table::new(&["case", "baseline", "now", "change"]);
    let (mut remarks, mut faults) = (Vec::new(), Vec::new());
    for (name, count) in counted {
        let now = count.instructions;
        let Some(before) = baseline.cases.get(name).map(|count| count.instructions) else {
            table.row([name.clone(), "-".to_owned(), shown(now), "new".to_owned()]);
            faults.push(format!("{name} has no baseline"));
            continue;
        };
        let change = now / before - 1.0;
        let percent = format!("{:+.1} %", change * 100.0);
        table.row([name.clone(), shown(before), shown(now), percent.clone()]);
        let from_to = format!("from {} to {} instructions", shown(before), shown(now));
        // A baseline of nothing, or a count that is none, fits nothing.
        if !change.is_finite() || now > before * (1.0 + TOLERANCE) {
            faults.push(format!("{name} rose by more than a tenth ({percent}), {from_to}: {}", count.operation));
        } else if now < before * (1.0 - TOLERANCE) {
            remarks.push(format!(
                "{name} fell by more than a tenth ({percent}), {from_to}; keep it: `cargo xtask instructions --bless`"
            ));
        }
    }
    for name in baseline.cases.keys().filter(|name| !counted.contains_key(*name)) {
        faults.push(format!("the baseline has a case {name} that is no more"));
    }
    Verdict { table, remarks, faults }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(cases: &[(&str, f64)]) -> BTreeMap<String, Count> {
        let count = |instructions| Count { operation: "do it".to_owned(), instructions };
        cases.iter().map(|&(name, instructions)| (name.to_owned(), count(instructions))).collect()
    }

    fn verdict(before: &[(&str, f64)], now: &[(&str, f64)]) -> Verdict {
        compare(&Baseline { rustc: String::new(), cases: counts(before) }, &counts(now))
    }

    #[test]
    fn a_rise_over_a_tenth_fails_and_a_fall_is_reported() {
        let before = [("a", 100.0), ("b", 100.0), ("c", 100.0), ("d", 100.0)];
        let found = verdict(&before, &[("a", 110.0), ("b", 110.2), ("c", 90.0), ("d", 89.0)]);
        assert_eq!(found.faults.len(), 1);
        assert!(
            found.faults[0].starts_with("b rose by more than a tenth (+10.2 %), from 100 to 110"),
            "{found:?}",
            found = found.faults
        );
        assert_eq!(found.remarks.len(), 1);
        assert!(found.remarks[0].starts_with("d fell"));
    }

    #[test]
    fn cases_and_baseline_must_name_the_same() {
        assert_eq!(verdict(&[("gone", 1.0)], &[]).faults.len(), 1);
        assert_eq!(verdict(&[], &[("new", 1.0)]).faults.len(), 1);
        assert_eq!(verdict(&[("a", 0.0)], &[("a", 0.0)]).faults.len(), 1);
    }

    #[test]
    fn counts_keep_three_digits() {
        let cases = [(0.0, 0.0), (7.06, 7.1), (12.04, 12.0), (252.25, 252.0), (2714.02, 2710.0), (13_738.8, 13_700.0)];
        for (exact, expected) in cases {
            assert!((rounded(exact) - expected).abs() < 1e-6, "{exact}: {}", rounded(exact));
        }
    }

    #[test]
    fn a_case_is_a_line_of_four_fields() {
        let case = parse("a\t10\t2\tdo it").unwrap();
        assert_eq!((case.name.as_str(), case.times, case.operations, case.operation.as_str()), ("a", 10, 2, "do it"));
        assert!(parse("a\t10\tdo it").is_none() && parse("a\tx\t2\tdo it").is_none());
    }
}
