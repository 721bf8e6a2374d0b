//! `cargo xtask bench`.

use std::process::Command;

use anyhow::{Result, bail};
use tallybus_benches::{report, results};

use crate::{command, tables};

/// A benchmark, and how it is told to run.
struct Bench {
    name: &'static str,
    /// The peers' libraries stand in a crate of their own, outside the workspace.
    peers: bool,
}

const BENCHES: &[Bench] = &[
    Bench { name: "hot_path", peers: true },
    Bench { name: "drain", peers: false },
    Bench { name: "seal", peers: false },
    Bench { name: "growth", peers: false },
    Bench { name: "latency", peers: false },
    Bench { name: "failover", peers: false },
    Bench { name: "cost", peers: false },
];

/// Every benchmark's name: a file of results each.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    BENCHES.iter().map(|bench| bench.name)
}

/// Runs these benchmarks, or all of them, one after the other.
pub(crate) fn run(wanted: &[String], quick: bool) -> Result<()> {
    let known = || names().collect::<Vec<_>>().join(", ");
    if let Some(unknown) = wanted.iter().find(|name| !names().any(|known| known == **name)) {
        bail!("no benchmark is called {unknown:?}; there are {}", known());
    }
    let chosen = || BENCHES.iter().filter(|bench| wanted.is_empty() || wanted.iter().any(|name| name == bench.name));
    if chosen().any(|bench| !bench.peers) {
        build()?;
    }
    for bench in chosen() {
        println!("== {}", bench.name);
        let mut program = if bench.peers { peers()? } else { Command::new(command::built(bench.name)?) };
        match quick {
            true => program.arg("--quick"),
            false => program.arg("--json").arg(results::folder().join(format!("{}.json", bench.name))),
        };
        command::run(program.current_dir(report::root()))?;
    }
    if quick {
        return Ok(());
    }
    tables::run(false)
}

/// Builds the `tallybus` binary and the benchmarks.
pub(crate) fn build() -> Result<()> {
    let what = ["build", "--release", "-p", "tallybus-command", "-p", "tallybus-benches"];
    command::run(command::cargo().args(what))
}

/// Builds the `tallybus` binary with the names of functions in it, which a release leaves out. Only the last step is done
/// again.
pub(crate) fn build_worker_with_names() -> Result<()> {
    let what = ["rustc", "--release", "-p", "tallybus-command", "--bin", "tallybus", "--", "-C", "strip=none"];
    command::run(command::cargo().args(what))
}

fn peers() -> Result<Command> {
    let mut command = command::cargo();
    command.args(["run", "--release", "--manifest-path", "benches/peers/Cargo.toml", "--target-dir"]);
    command.arg(command::target()?.join("peers")).arg("--");
    Ok(command)
}
