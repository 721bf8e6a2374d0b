use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde_json::{Value, json};
use tallybus_sdk::dead_letter::{REJECTED, UNDECODABLE};
use tallybus_verify::replay::{DeadLetterEntry, DeadLetterIndex, State};

use super::{FilterArgs, read, state};
use crate::csv::{Csv, CsvOption};
use crate::failure::{Failure, Verdict};
use crate::output::{Output, number};
use crate::text::{self, Table, count_of, grouped};
use crate::{Global, config, times};

/// Summarise dead letters by sink and reason.
///
/// Reasons that differ only in numbers are grouped. Read-only.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this sink; repeatable.
    #[arg(long = "sink", value_name = "NAME")]
    sinks: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// List each dead letter on its own line.
    #[arg(long)]
    dead_letters: bool,
    #[command(flatten)]
    csv: CsvOption,
}

/// Dead letters of one reason and state.
#[derive(Default)]
struct Group {
    reason: String,
    dead_letters: u64,
    events: u64,
    value: u128,
}

impl List {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let csv = self.csv.is_set(output)?;
        let settings = config::load_without_secrets(global)?;
        let chosen = crate::selection::select(&settings, &self.sinks)?;
        let filter = self.filter.filter()?;
        let bus = config::open_bus(&settings)?;
        let observer = bus.observer()?;
        let mut sinks = Vec::new();
        for sink in chosen {
            let all = read(bus.as_ref(), observer.as_ref(), sink, output)?;
            let dead_letters: Vec<&DeadLetterEntry> =
                all.dead_letters.iter().filter(|dead_letter| filter.takes(dead_letter)).collect();
            if output.json || csv {
                sinks.push(self.as_json(&sink.name, &all, &dead_letters));
            } else {
                self.show(&sink.name, &dead_letters, output)?;
            }
            if !output.json {
                tell(&sink.name, &all, output);
            }
        }
        if csv {
            self.as_csv(&sinks).report(output)?;
        } else if output.json {
            output.print(&json!({ "sinks": sinks }).to_string())?;
        }
        Ok(Verdict::Good)
    }

    fn show(&self, name: &str, dead_letters: &[&DeadLetterEntry], output: &Output) -> Result<(), Failure> {
        output.print(&format!("{name}: {}", Sums::of(dead_letters).describe()))?;
        let mut table = match self.dead_letters {
            true => Table::new(&["  dead letter", "state", ">events", ">value", "what", "reason"]),
            false => Table::new(&["  state", ">dead letters", ">events", ">value", "reason"]),
        };
        if self.dead_letters {
            dead_letters.iter().for_each(|dead_letter| table.row(row(dead_letter)));
        } else {
            for ((state, _), group) in groups(dead_letters) {
                let counts = [grouped(group.dead_letters), grouped(group.events), grouped(group.value)];
                table.row([vec![format!("  {state}")], counts.to_vec(), vec![group.reason]].concat());
            }
        }
        if !dead_letters.is_empty() {
            output.table(&table)?;
            let states: BTreeSet<&str> = dead_letters.iter().map(|dead_letter| state(dead_letter)).collect();
            for state in states {
                output.print(&format!("  {state}: {}", meaning(state, name)))?;
            }
        }
        Ok(())
    }

    /// One row for each reason and state, or for each dead letter.
    fn as_csv(&self, sinks: &[Value]) -> Csv {
        let (rows, columns) = match self.dead_letters {
            true => ("each", &["key", "state", "kind", "events", "value", "name", "tags", "time", "reason"][..]),
            false => ("groups", &["state", "dead_letters", "events", "value", "reason"][..]),
        };
        let mut table = Csv::new(std::iter::once("sink").chain(columns.iter().copied()));
        for sink in sinks {
            for row in sink[rows].as_array().into_iter().flatten() {
                let cells = columns.iter().map(|column| row[*column].clone());
                table.row(std::iter::once(sink["name"].clone()).chain(cells));
            }
        }
        table
    }

    fn as_json(&self, name: &str, all: &DeadLetterIndex, dead_letters: &[&DeadLetterEntry]) -> Value {
        let sums = Sums::of(dead_letters);
        let groups: Vec<Value> = groups(dead_letters)
            .into_iter()
            .map(|((state, _), group)| {
                json!({
                    "state": state, "reason": group.reason, "dead_letters": group.dead_letters, "events": group.events,
                    "value": number(group.value),
                })
            })
            .collect();
        let each = self
            .dead_letters
            .then(|| dead_letters.iter().map(|dead_letter| dead_letter_json(dead_letter)).collect::<Vec<_>>());
        json!({
            "name": name, "dead_letters": sums.dead_letters, "value": number(sums.value), "open": sums.open,
            "open_value": number(sums.open_value), "pending": all.pending, "gone": all.gone, "foreign": all.foreign, "elsewhere": all.elsewhere, "lost_history": all.lost_history, "groups": groups, "each": each,
        })
    }
}

/// What the list leaves out.
fn tell(name: &str, all: &DeadLetterIndex, output: &Output) {
    if all.pending > 0 {
        let pending = count_of(all.pending, "dead letter");
        output.say(&format!(
            "{name}: {pending} chosen and not written yet: `tallybus replay run --sink {name}` continues"
        ));
    }
    if let Some(reason) = &all.lost_history {
        output.say(&format!("{name}: it is no longer known which were sent back before: {reason}"));
    }
    if all.gone > 0 {
        output.say(&format!("{name}: {} deleted by retention", count_of(all.gone, "dead letter")));
    }
    if all.elsewhere > 0 {
        output.say(&format!(
            "{name}: {} of other topics, or of a topic before it was recreated, not listed",
            count_of(all.elsewhere, "dead letter")
        ));
    }
    if all.foreign > 0 {
        output.say(&format!("{name}: {} not dead letters of this sink", count_of(all.foreign, "record")));
    }
}

/// How many dead letters there are and what they are worth, each once: one that was sent back and refused again is
/// counted only as the dead letter that it became.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    dead_letters: u64,
    value: u128,
    /// Those that are not replayed, so that their value is not in the backend.
    open: u64,
    open_value: u128,
}

impl Sums {
    fn of(dead_letters: &[&DeadLetterEntry]) -> Self {
        let mut sums = Self::default();
        for dead_letter in dead_letters.iter().filter(|one| !matches!(one.state, State::RefusedAgain(_))) {
            let value = u128::from(dead_letter.value());
            sums.dead_letters += 1;
            sums.value += value;
            if dead_letter.state != State::Replayed {
                sums.open += 1;
                sums.open_value += value;
            }
        }
        sums
    }

    fn describe(&self) -> String {
        let all = format!("{} worth {}", count_of(self.dead_letters, "dead letter"), grouped(self.value));
        match self.open == self.dead_letters {
            true => all,
            false => format!("{all}; {} worth {} not replayed", grouped(self.open), grouped(self.open_value)),
        }
    }
}

/// What a state means, and what can be done.
fn meaning(state: &str, sink: &str) -> String {
    match state {
        "dead" => format!("not in the backend; `tallybus replay run --sink {sink}` sends it back"),
        "chosen" => format!("sent back and not written yet; `tallybus replay run --sink {sink}` continues"),
        "replayed" => "sent back, and written to the backend".to_owned(),
        "replayed, refused again" => "sent back and refused; counted only as the dead letter that it became".to_owned(),
        "refused again" => format!(
            "what dead letters that were sent back became; not in the backend; `tallybus replay run --sink {sink} \
             --again` sends it once more"
        ),
        "not settled" => "its batch is not settled yet; its worker settles it first".to_owned(),
        "not replayable" => "not in the backend; it was too large for the topic, and truncated".to_owned(),
        other => other.to_owned(),
    }
}

/// By state, and by reason without its numbers.
fn groups(dead_letters: &[&DeadLetterEntry]) -> BTreeMap<(&'static str, String), Group> {
    let mut groups: BTreeMap<(&'static str, String), Group> = BTreeMap::new();
    for dead_letter in dead_letters {
        let group = groups.entry((state(dead_letter), without_numbers(&dead_letter.reason))).or_default();
        if group.dead_letters == 0 {
            group.reason.clone_from(&dead_letter.reason);
        }
        group.dead_letters += 1;
        group.events += u64::from(dead_letter.events);
        group.value += u128::from(dead_letter.value());
    }
    groups
}

fn without_numbers(reason: &str) -> String {
    let mut text = String::with_capacity(reason.len());
    for dead_letter in reason.chars() {
        match dead_letter.is_ascii_digit() {
            true if text.ends_with('#') => {}
            true => text.push('#'),
            false => text.push(dead_letter),
        }
    }
    text
}

fn row(dead_letter: &DeadLetterEntry) -> Vec<String> {
    vec![
        format!("  {}", dead_letter.key),
        state(dead_letter).to_owned(),
        grouped(dead_letter.events),
        grouped(dead_letter.value()),
        what(dead_letter),
        dead_letter.reason.clone(),
    ]
}

/// The series, or the size of an undecodable record.
pub(super) fn what(dead_letter: &DeadLetterEntry) -> String {
    match &dead_letter.event {
        Some(event) => text::series(&event.series),
        None => format!("a record of {}", count_of(dead_letter.cut_from.unwrap_or(dead_letter.bytes as u64), "byte")),
    }
}

pub(super) fn dead_letter_json(dead_letter: &DeadLetterEntry) -> Value {
    let tags = |event: &tallybus_schemas::Event| {
        event.series.tags().iter().map(|(key, value)| (key.to_string(), Value::from(&**value))).collect::<Value>()
    };
    let event = dead_letter.event.as_ref();
    json!({
        "key": dead_letter.key,
        "state": state(dead_letter),
        "reason": dead_letter.reason,
        "kind": if dead_letter.events > 0 { REJECTED } else { UNDECODABLE },
        "events": dead_letter.events,
        "value": dead_letter.value(),
        "name": event.map(|event| event.series.name()),
        "tags": event.map(tags),
        "time": event.map_or_else(|| times::show(dead_letter.time_ms.saturating_mul(1_000_000)), |event| times::show(event.time)),
        "batch": dead_letter.batch,
        "bytes": dead_letter.bytes,
        "cut_from": dead_letter.cut_from,
        "replays": dead_letter.replays,
        "origin": dead_letter.origin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_one_without_their_numbers() {
        assert_eq!(without_numbers("line 12, column 3: bad"), "line #, column #: bad");
        assert_eq!(without_numbers("line 7, column 45: bad"), "line #, column #: bad");
    }
}
