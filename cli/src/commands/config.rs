use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::Global;
use crate::config::{self, Effective, Origin, Part};
use crate::csv::{Csv, CsvOption};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::escape;

/// Inspect the settings.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    Show(Show),
}

impl Config {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let Self::Show(command) = self;
        command.run(global, output)
    }
}

/// Show the settings in effect, and where each comes from: file and line, environment variable, --bus, or default.
///
/// Secrets are shown as ***; references to them (env:NAME, file:PATH) as they are, with whether there is such a secret. The
/// value of a key that is not known is hidden too. Connects to nothing. Exit status 0: the settings are valid, 2: they are not.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Only this sink, and the bus; repeatable.
    #[arg(long = "sink", value_name = "NAME")]
    sinks: Vec<String>,
    #[command(flatten)]
    csv: CsvOption,
}

impl Show {
    fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let csv = self.csv.is_set(output)?;
        let (mut parts, failure) = config::effective(global)?;
        for name in &self.sinks {
            if !parts.iter().any(|part| is_of(part, name)) {
                return Err(Failure::could_not_look(format!("no sink {name:?} in the settings")));
            }
        }
        if !self.sinks.is_empty() {
            parts.retain(|part| part.table == "bus" || self.sinks.iter().any(|name| is_of(part, name)));
        }
        if output.json {
            output.report(&as_json(&parts, failure.as_ref()).to_string())?;
        } else if csv {
            let shown = as_json(&parts, failure.as_ref());
            let columns = ["key", "value", "from", "file", "line", "variable"];
            Csv::of(&columns, shown["settings"].as_array().map(Vec::as_slice).unwrap_or_default()).report(output)?;
        } else {
            for (number, part) in parts.iter().enumerate() {
                let between = if number > 0 { "\n" } else { "" };
                let title = if part.table.is_empty() { String::new() } else { format!("[{}]", part.table) };
                output.report(&format!("{between}{title}"))?;
                lines(&part.settings, output.width()).iter().try_for_each(|line| output.report(line))?;
            }
        }
        failure.map_or(Ok(Verdict::Good), Err)
    }
}

fn is_of(part: &Part, sink: &str) -> bool {
    part.table == tallybus_sdk::config::key_path(["sinks", sink])
}

fn as_json(parts: &[Part], failure: Option<&Failure>) -> Value {
    let mut settings = Vec::new();
    for part in parts {
        for Effective { key, value, origin } in &part.settings {
            let key = if part.table.is_empty() { key.clone() } else { format!("{}.{key}", part.table) };
            let mut setting = json!({ "key": key, "value": value });
            match origin {
                Origin::File(name, line) => {
                    setting["from"] = "file".into();
                    setting["file"] = name.as_str().into();
                    setting["line"] = (*line).into();
                }
                Origin::Variable(name) => {
                    setting["from"] = "variable".into();
                    setting["variable"] = name.as_str().into();
                }
                Origin::BusOption => setting["from"] = "--bus".into(),
                Origin::Default => setting["from"] = "default".into(),
            }
            settings.push(setting);
        }
    }
    let problems: Vec<Value> = match failure {
        Some(Failure::Settings { problems, .. }) => {
            problems.iter().map(|problem| json!({ "key": problem.path, "message": problem.message })).collect()
        }
        _ => Vec::new(),
    };
    json!({ "ok": failure.is_none(), "settings": settings, "problems": problems })
}

/// Key, value and origin in columns, within this width: what does not fit goes on in the next line.
fn lines(settings: &[Effective], width: usize) -> Vec<String> {
    /// The widest that the column of values gets for the sake of the origins beside it.
    const WIDEST: usize = 32;
    let length = |text: &str| text.chars().count();
    let keys = settings.iter().map(|setting| length(&setting.key)).max().unwrap_or(0);
    let values = settings.iter().map(|setting| length(&setting.value)).filter(|length| *length <= WIDEST).max();
    let values = values.unwrap_or(0);
    let indent = keys + 4;
    let room = width.saturating_sub(indent).max(16);
    let mut lines = Vec::new();
    for Effective { key, value, origin } in settings {
        let (value, origin) = (escape(value, false), origin.to_string());
        let line = format!("  {key:<keys$}  {value:<values$}  {origin}");
        if length(&line) <= width {
            lines.push(line);
            continue;
        }
        let pieces = cut(&value, room).into_iter().chain(cut(&origin, room));
        for (number, piece) in pieces.enumerate() {
            let key = if number == 0 { key } else { "" };
            lines.push(format!("  {key:<keys$}  {piece}"));
        }
    }
    lines
}

/// Pieces of at most this many characters.
fn cut(text: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(width).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_beside_goes_below_and_nothing_is_wider() {
        let setting =
            |key: &str, value: &str, origin| Effective { key: key.to_owned(), value: value.to_owned(), origin };
        let long = "TALLYBUS__SINKS__A__BATCH__MAX_EVENTS".to_owned();
        let shown = lines(
            &[
                setting("kind", "kafka", Origin::File("t.toml".to_owned(), Some(2))),
                setting("batch.max_events", "7", Origin::Variable(long)),
                setting("path", &"x".repeat(60), Origin::Default),
            ],
            40,
        );
        assert_eq!(
            shown,
            [
                "  kind              kafka  t.toml:2",
                "  batch.max_events  7",
                "                    TALLYBUS__SINKS__A__",
                "                    BATCH__MAX_EVENTS",
                &format!("  path              {}", "x".repeat(20)),
                &format!("                    {}", "x".repeat(20)),
                &format!("                    {}", "x".repeat(20)),
                "                    default",
            ]
        );
    }
}
