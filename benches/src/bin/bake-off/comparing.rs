//! Runs `tallybus compare`, and reads its results.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stream::{PARTITIONS, TOPIC, fill};

/// A directory with a bus, in which comparisons run.
pub(super) struct Workplace {
    dir: TempDir,
}

impl Workplace {
    /// A bus with so many events.
    pub(super) fn with_events(events: u64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fill(&dir.path().join("bus.db"), events)?;
        Ok(Self { dir })
    }

    /// Leaves it, with all results; answers its name.
    pub(super) fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Compares these sinks, tables of settings by name, with more options; the result is in `NAME.json`.
    pub(super) fn compare(&self, name: &str, sinks: &Value, more: &[&str]) -> Result<Value> {
        let settings = self.file(&format!("{name}.toml"));
        let bus = json!({"kind": "embedded", "path": self.file("bus.db"), "topic": TOPIC, "partitions": PARTITIONS});
        fs::write(&settings, toml(&bus, sinks))?;
        let result = self.file(&format!("{name}.json"));
        let status = tallybus()?
            .args(["compare", "run", "--shadow"])
            .args(more)
            .arg("--config")
            .arg(&settings)
            .arg("--out")
            .arg(&result)
            .current_dir(self.path())
            .status()?;
        // 1: a sink is not equal.
        ensure!(matches!(status.code(), Some(0 | 1)), "the comparison {name} could not run: {status}");
        read(&result)
    }
}

/// The program, which is built beside this one.
pub(super) fn tallybus() -> Result<Command> {
    let program = std::env::current_exe()?.with_file_name("tallybus");
    ensure!(program.exists(), "{} is missing: cargo build --release -p tallybus-command", program.display());
    Ok(Command::new(program))
}

/// A result.
pub(super) fn read(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// The sinks of a result.
pub(super) fn sinks(result: &Value) -> impl Iterator<Item = &Value> {
    result["sinks"].as_array().into_iter().flatten()
}

/// Tables of plain values as TOML, which writes them as JSON does.
fn toml(bus: &Value, sinks: &Value) -> String {
    let mut text = String::new();
    let mut table = |name: &str, values: &Value| {
        text.push_str(&format!("[{name}]\n"));
        for (key, value) in values.as_object().into_iter().flatten() {
            text.push_str(&format!("{key} = {value}\n"));
        }
    };
    table("bus", bus);
    for (name, values) in sinks.as_object().into_iter().flatten() {
        table(&format!("sinks.{name}"), values);
    }
    text
}
