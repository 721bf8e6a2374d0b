use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tallybus_verify::compare::{Aspect, Change, Diff, Outcome, Summary, VerdictChange};

use super::show::read;
use super::table::figure_in;
use crate::Global;
use crate::csv::{Csv, CsvOption};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, count_of, wrap};

/// Show what got better and what got worse from one result to another.
///
/// A figure is better or worse only where the two intervals are apart, and by more than the noise floor of both results. Exit
/// status 0: nothing is worse; 1: something is worse, or a sink holds or answers wrongly what it did not before; 2: the
/// results cannot be compared.
#[derive(Debug, Args)]
pub(crate) struct DiffCommand {
    /// The older result.
    old: PathBuf,
    /// The newer result.
    new: PathBuf,
    /// Compare results of different events too, which says little.
    #[arg(long)]
    any_workload: bool,
    #[command(flatten)]
    csv: CsvOption,
}

impl DiffCommand {
    pub(crate) fn run(&self, _global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let csv = self.csv.is_set(output)?;
        let (old, new) = (read(&self.old)?, read(&self.new)?);
        let diff = Diff::of(&old, &new, self.any_workload).map_err(|error| {
            let hint = if self.any_workload { "" } else { "; --any-workload compares results of different events" };
            Failure::could_not_look(format!("{error}{hint}"))
        })?;
        if output.json {
            output.report(&as_json(&diff)?.to_string())?;
        } else if csv {
            as_csv(&diff).report(output)?;
            diff.notes.iter().for_each(|note| output.say(&format!("note: {note}")));
        } else {
            lines(&diff, output.width()).iter().try_for_each(|line| output.report(line))?;
        }
        Ok(if diff.has_worse() { Verdict::Bad } else { Verdict::Good })
    }
}

fn as_json(diff: &Diff) -> Result<Value, Failure> {
    let failed = |error| Failure::failed(format!("the difference cannot be written as JSON: {error}"));
    let mut value = serde_json::to_value(diff).map_err(failed)?;
    value["kind"] = json!("tallybus.compare.diff");
    value["worse"] = json!(diff.has_worse());
    Ok(value)
}

fn as_csv(diff: &Diff) -> Csv {
    let columns = ["sink", "figure", "unit", "old", "old low", "old high", "new", "new low", "new high", "outcome"];
    let mut csv = Csv::new(columns);
    for Change { sink, aspect, old, new, outcome, .. } in &diff.changes {
        let figures = |summary: &Option<Summary>| match summary {
            Some(summary) => [json!(summary.median), json!(summary.low), json!(summary.high)],
            None => [Value::Null, Value::Null, Value::Null],
        };
        let head = [json!(sink), json!(aspect), json!(aspect.unit().to_string())].into_iter();
        csv.row(head.chain(figures(old)).chain(figures(new)).chain([json!(outcome)]));
    }
    for VerdictChange { sink, what, outcome, .. } in &diff.verdicts {
        let none = std::iter::repeat_n(Value::Null, 7);
        csv.row([json!(sink), json!(what)].into_iter().chain(none).chain([json!(outcome)]));
    }
    csv
}

fn lines(diff: &Diff, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for VerdictChange { sink, what, outcome, now } in &diff.verdicts {
        lines.extend(wrap(&format!("{}: {sink}: {what}: {now}", words(*outcome)), width));
    }
    let mut sinks: Vec<&str> = Vec::new();
    for change in &diff.changes {
        if !sinks.contains(&change.sink.as_str()) {
            sinks.push(&change.sink);
        }
    }
    for sink in sinks {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let mut table = Table::new(&[sink, ">old", ">new", ">change", "outcome"]);
        for change in diff.changes.iter().filter(|change| change.sink == sink) {
            table.row(row(change));
        }
        lines.extend(table.lines_within(width));
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    let count = |outcome| diff.changes.iter().filter(|change| change.outcome == outcome).count() as u64;
    let worse = diff.verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Worse).count() as u64;
    let summary = format!(
        "{} better, {} worse, {} without a difference seen; {}",
        count_of(count(Outcome::Better), "figure"),
        count(Outcome::Worse),
        count(Outcome::NoDifferenceSeen),
        match worse {
            0 => "nothing that was right is wrong".to_owned(),
            worse => format!("{worse} right before and wrong now"),
        }
    );
    lines.extend(wrap(&summary, width));
    for note in &diff.notes {
        lines.extend(wrap(&format!("note: {note}"), width));
    }
    lines
}

fn row(Change { aspect, old, new, noise, outcome, .. }: &Change) -> Vec<String> {
    let figure = |summary: &Option<Summary>| summary.as_ref().map_or_else(|| "-".to_owned(), |one| shown(*aspect, one));
    let difference = match (old, new) {
        (Some(old), Some(new)) if old.median > 0.0 => format!("{:+.1} %", (new.median / old.median - 1.0) * 100.0),
        _ => "-".to_owned(),
    };
    let outcome = match outcome {
        Outcome::NoDifferenceSeen if *noise > 0.0 => {
            format!("no difference seen (noise {:.1} %)", noise.min(10.0) * 100.0)
        }
        outcome => words(*outcome).to_owned(),
    };
    vec![format!("  {}", aspect.title()), figure(old), figure(new), difference, outcome]
}

fn shown(aspect: Aspect, summary: &Summary) -> String {
    figure_in(summary.median, aspect.unit())
}

fn words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Better => "better",
        Outcome::Worse => "WORSE",
        Outcome::NoDifferenceSeen => "no difference seen",
        Outcome::New => "not known before",
        Outcome::NoLongerKnown => "no longer known",
    }
}
