use clap::Args;
use serde_json::{Value, json};
use tallybus_sdk::{Kind, Setting, find_kind};
use tallybus_worker::settings::COMMON_SETTINGS;

use crate::Global;
use crate::csv::{Csv, CsvOption};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, wrap};

/// List the kinds of sinks of this build, with their delivery guarantees and settings.
#[derive(Debug, Args)]
pub(crate) struct Sinks {
    /// Only this kind.
    kind: Option<String>,
    #[command(flatten)]
    csv: CsvOption,
}

impl Sinks {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let kinds: Vec<&Kind> = match &self.kind {
            None => global.kinds.iter().collect(),
            Some(name) => vec![find_kind(global.kinds, name).ok_or_else(|| unknown(global.kinds, name))?],
        };
        if self.csv.is_set(output)? {
            let mut table = Csv::new(["kind", "delivery_guarantee", "setting", "default", "help"]);
            for kind in &kinds {
                add(&mut table, Some(kind), kind.settings);
            }
            add(&mut table, None, COMMON_SETTINGS);
            table.report(output)?;
            return Ok(Verdict::Good);
        }
        if output.json {
            let kinds: Vec<Value> = kinds.iter().map(|kind| as_json(kind)).collect();
            output.print(&json!({ "kinds": kinds, "settings": settings_json(COMMON_SETTINGS) }).to_string())?;
            return Ok(Verdict::Good);
        }
        for kind in kinds {
            paragraph(&format!("{}: {}", kind.name, kind.summary), "", output)?;
            let twice = format!("a batch written twice: {}: {}", kind.delivery_guarantee, kind.mechanism);
            paragraph(&twice, "  ", output)?;
            show(kind.settings, output)?;
            output.print("")?;
        }
        output.print("settings of every sink:")?;
        show(COMMON_SETTINGS, output)?;
        Ok(Verdict::Good)
    }
}

/// Adds the settings of a kind, or those of every sink.
fn add(table: &mut Csv, kind: Option<&Kind>, settings: &[Setting]) {
    for setting in settings {
        table.row([
            kind.map(|kind| kind.name).into(),
            kind.map(|kind| kind.delivery_guarantee.to_string()).into(),
            setting.key.into(),
            setting.default.into(),
            setting.help.into(),
        ]);
    }
}

fn unknown(kinds: &[Kind], name: &str) -> Failure {
    let known: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    Failure::could_not_look(format!("unknown kind {name:?}: this build has {}", known.join(", ")))
}

fn show(settings: &[Setting], output: &Output) -> Result<(), Failure> {
    let mut table = Table::new(&["  setting", "default", "meaning"]);
    for setting in settings {
        let key = format!("  {}", setting.key);
        table.row(vec![key, setting.default.unwrap_or("-").to_owned(), setting.help.to_owned()]);
    }
    // Sentences, which nobody reads in lines of 200 characters.
    table.lines_within(output.width()).iter().try_for_each(|line| output.print(line))
}

fn paragraph(text: &str, indent: &str, output: &Output) -> Result<(), Failure> {
    let lines = wrap(text, output.width().saturating_sub(indent.len()));
    lines.iter().try_for_each(|line| output.print(&format!("{indent}{line}")))
}

fn as_json(kind: &Kind) -> Value {
    json!({
        "name": kind.name,
        "summary": kind.summary,
        "delivery_guarantee": kind.delivery_guarantee.to_string(),
        "mechanism": kind.mechanism,
        "settings": settings_json(kind.settings),
    })
}

fn settings_json(settings: &[Setting]) -> Value {
    let one = |setting: &Setting| json!({ "key": setting.key, "default": setting.default, "help": setting.help });
    settings.iter().map(one).collect()
}
