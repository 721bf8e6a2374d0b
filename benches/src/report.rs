//! The tables that the README and `docs/performance.md` show, as they stand in the files of `benches/results`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// What is shown of a file of results; a file may hold more.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// What it was measured on.
    pub machine: MachineName,
    /// The command that measures again.
    #[serde(default)]
    pub command: String,
    /// In the order to show them.
    #[serde(default)]
    pub tables: Vec<Table>,
}

/// A machine, whole or as one line of text.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum MachineName {
    /// As [`Machine`] says it.
    Whole(Machine),
    /// As a program without [`Machine`] says it.
    Line(String),
}

impl std::fmt::Display for MachineName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(machine) => machine.fmt(f),
            Self::Line(line) => f.write_str(line),
        }
    }
}

/// One table, its cells formatted as they are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// As the marker in a document names it; unique over all results. Of a-z, 0-9, `-` and `_`.
    pub name: String,
    /// One line above it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The headings. The first column stands to the left, the others to the right.
    pub columns: Vec<String>,
    /// As many cells in each as there are columns.
    pub rows: Vec<Vec<String>>,
    /// What a reader must know to read it, below it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Table {
    /// A table with these columns and no row.
    pub fn new(name: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { name: name.to_owned(), columns, ..Self::default() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// As Markdown, with title and note.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        if !self.title.is_empty() {
            text.push_str(&format!("{}\n\n", self.title));
        }
        push_row(&mut text, &self.columns);
        text.push_str("|---|");
        text.push_str(&"---:|".repeat(self.columns.len().saturating_sub(1)));
        text.push('\n');
        self.rows.iter().for_each(|row| push_row(&mut text, row));
        if !self.note.is_empty() {
            text.push_str(&format!("\n{}\n", self.note));
        }
        text
    }

    fn check(&self) -> Result<()> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        ensure!(
            !self.name.is_empty() && self.name.chars().all(legal),
            "table name {:?}: use a-z, 0-9, - and _",
            self.name
        );
        let uneven = self.rows.iter().find(|row| row.len() != self.columns.len());
        ensure!(uneven.is_none(), "table {:?} has {} columns, but a row {uneven:?}", self.name, self.columns.len());
        Ok(())
    }
}

fn push_row(text: &mut String, cells: &[String]) {
    text.push('|');
    for cell in cells {
        text.push_str(&format!(" {} |", cell.replace('|', "\\|")));
    }
    text.push('\n');
}

/// The root of the source tree.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

impl Report {
    /// Reads a file of results.
    ///
    /// # Errors
    /// It is not there, or its tables are not what they should be.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let report: Self = serde_json::from_str(&text).with_context(|| format!("{} is no result", file.display()))?;
        for table in &report.tables {
            table.check().with_context(|| file.display().to_string())?;
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("drain_gzip", &["input", "CPU-s"]);
        table.row(["a|b".to_owned(), "0.8".to_owned()]);
        table
    }

    #[test]
    fn a_table_becomes_markdown() {
        let plain = "| input | CPU-s |\n|---|---:|\n| a\\|b | 0.8 |\n";
        assert_eq!(table().markdown(), plain);
        let told = Table { title: "Above.".to_owned(), note: "Below.".to_owned(), ..table() };
        assert_eq!(told.markdown(), format!("Above.\n\n{plain}\nBelow.\n"));
    }

    #[test]
    fn a_file_may_hold_more_than_tables() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("drain.json");
        let read = |value: serde_json::Value| {
            fs::write(&file, value.to_string()).unwrap();
            Report::read(&file)
        };
        let report = read(serde_json::json!({
            "machine": { "cores": 2, "model": "m", "memory_mib": 7, "kernel": "6" }, "raw": [1], "command": "c", "tables": [table()],
        }))
        .unwrap();
        assert_eq!(
            (report.machine.to_string().as_str(), &report.tables),
            ("2 cores of m, 7 MiB, Linux 6", &vec![table()])
        );
        assert!(read(serde_json::json!({ "machine": "one line" })).unwrap().tables.is_empty());

        let mut uneven = table();
        uneven.row(["only one".to_owned()]);
        let unnamed = Table { name: "Drain it".to_owned(), ..table() };
        for wrong in [uneven, unnamed] {
            read(serde_json::json!({ "machine": "m", "tables": [wrong] })).unwrap_err();
        }
    }
}
