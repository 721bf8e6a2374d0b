//! `cargo xtask tables`: the documents' tables follow from the results, and nobody types a figure.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tallybus_benches::report::{self, Report, Table};
use tallybus_benches::results;
use tallybus_sdk::{DeliveryGuarantee, QUESTIONS};

use crate::{bench, instructions, markers};

/// The documents that have generated parts.
const DOCUMENTS: [&str; 3] = ["docs/performance.md", "docs/sinks.md", "sinks/README.md"];

/// A part of this name and a file's holds all tables of the file.
const WHOLE_FILE: &str = "results/";

/// The kinds of sinks, with links as they are from `docs/`.
const KINDS_OF_DOCS: &str = "kinds_of_docs";
/// The same, with links as they are from `sinks/`.
const KINDS_OF_SINKS: &str = "kinds_of_sinks";
/// Which question each kind answers.
const QUESTIONS_OF_KINDS: &str = "questions_of_kinds";

/// Writes the generated parts, or fails when one of them is out of date.
pub(crate) fn run(check: bool) -> Result<()> {
    let known = Known::read()?;
    for document in DOCUMENTS {
        let file = report::root().join(document);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {document}"))?;
        let filled = markers::fill(&text, &mut |name| known.part(name)).with_context(|| document.to_owned())?;
        if filled == text {
            continue;
        }
        if check {
            bail!("the tables of {document} are not those of benches/results; run `cargo xtask tables`");
        }
        fs::write(&file, filled).with_context(|| format!("cannot write {document}"))?;
        println!("{document} has new tables");
    }
    Ok(())
}

/// All results there are.
struct Known {
    files: BTreeMap<&'static str, Report>,
    tables: BTreeMap<String, Table>,
}

impl Known {
    fn read() -> Result<Self> {
        let (mut files, mut tables) = (BTreeMap::new(), BTreeMap::new());
        for name in bench::names() {
            let file = results::folder().join(format!("{name}.json"));
            if file.exists() {
                add(&mut tables, &file, &read_file(&file, &mut files, name)?)?;
            }
        }
        add(&mut tables, &instructions::baseline_file(), &[instructions::table()?])?;
        Ok(Self { files, tables })
    }

    /// The text of a generated part. Of a benchmark that nobody has measured yet there is nothing to show; otherwise a table
    /// that no file has is a mistake.
    fn part(&self, name: &str) -> Result<String> {
        match name {
            KINDS_OF_DOCS => return Ok(kinds("../sinks/src")),
            KINDS_OF_SINKS => return Ok(kinds("src")),
            QUESTIONS_OF_KINDS => return Ok(questions()),
            _ => {}
        }
        if let Some(file) = name.strip_prefix(WHOLE_FILE) {
            ensure!(bench::names().any(|known| known == file), "no benchmark is called {file:?}");
            return Ok(self.measured(file).map(whole).unwrap_or_default());
        }
        if let Some(table) = self.tables.get(name) {
            return Ok(table.markdown());
        }
        let is_to_come = bench::names().any(|bench| name.starts_with(bench) && self.measured(bench).is_none());
        ensure!(is_to_come, "no results have a table {name:?}");
        Ok(String::new())
    }

    fn measured(&self, bench: &str) -> Option<&Report> {
        self.files.get(bench).filter(|report| !report.tables.is_empty())
    }
}

/// What each kind of sink is and promises; their directories lie in `directory`.
fn kinds(folder: &str) -> String {
    let mut text = "| kind | backend | a batch written twice counts | by |\n|---|---|---|---|\n".to_owned();
    for kind in tallybus_sinks::KINDS {
        let effect = match kind.delivery_guarantee {
            DeliveryGuarantee::ExactlyOnce => "once",
            DeliveryGuarantee::AtLeastOnce => "perhaps twice",
        };
        let link = format!("[`{}`]({folder}/{}/README.md)", kind.name, kind.name);
        text.push_str(&format!("| {link} | {} | {effect} | {} |\n", kind.summary, kind.mechanism));
    }
    text
}

fn questions() -> String {
    let cells = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = cells(
        [
            vec!["kind".to_owned()],
            QUESTIONS.iter().map(|name| format!("`{name}`")).collect(),
            vec!["storage".to_owned()],
        ]
        .concat(),
    );
    text.push_str(&cells(vec!["---".to_owned(); QUESTIONS.len() + 2]));
    for kind in tallybus_sinks::KINDS {
        let answered = |name: &&str| if kind.questions.contains(name) { "yes" } else { "not offered" }.to_owned();
        let storage = kind.storage.unwrap_or("not offered").to_owned();
        text.push_str(&cells(
            [vec![format!("`{}`", kind.name)], QUESTIONS.iter().map(answered).collect(), vec![storage]].concat(),
        ));
    }
    text
}

/// All tables of a file, and what they were measured with.
fn whole(report: &Report) -> String {
    let tables: String = report.tables.iter().map(|table| table.markdown() + "\n").collect();
    format!("{tables}Measured by `{}` on {}.\n", report.command, report.machine)
}

fn read_file(file: &Path, files: &mut BTreeMap<&'static str, Report>, name: &'static str) -> Result<Vec<Table>> {
    let report = Report::read(file)?;
    let tables = report.tables.clone();
    files.insert(name, report);
    Ok(tables)
}

fn add(tables: &mut BTreeMap<String, Table>, file: &Path, more: &[Table]) -> Result<()> {
    for table in more {
        let before = tables.insert(table.name.clone(), table.clone());
        ensure!(before.is_none(), "{}: another file has a table {:?} too", file.display(), table.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_say_what_the_results_say() {
        run(true).unwrap();
    }

    #[test]
    fn a_part_is_a_table_or_a_whole_file() {
        let mut table = Table::new("drain_gzip", &["input"]);
        table.row(["json".to_owned()]);
        let report = Report {
            machine: report::MachineName::Line("a machine".to_owned()),
            command: "cargo xtask bench drain".to_owned(),
            tables: vec![table.clone()],
        };
        let tables = BTreeMap::from([(table.name.clone(), table)]);
        let known = Known { files: BTreeMap::from([("drain", report)]), tables };
        let markdown = "| input |\n|---|\n| json |\n";
        let measured = "\nMeasured by `cargo xtask bench drain` on a machine.\n";
        assert_eq!(known.part("drain_gzip").unwrap(), markdown);
        assert_eq!(known.part("results/drain").unwrap(), format!("{markdown}{measured}"));
        assert_eq!(known.part("results/growth").unwrap() + &known.part("growth").unwrap(), "");
        for unknown in ["drain_json", "results/drained", "speed"] {
            known.part(unknown).unwrap_err();
        }
    }
}
