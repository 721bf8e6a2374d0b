use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};
use tallybus_verify::replay::{self, Letter, Letters};

use super::{FilterArgs, STALL_TIMEOUT, state};
use crate::failure::{Failure, Verdict};
use crate::output::{Output, number};
use crate::text::{self, Table, count_of, grouped};
use crate::{Global, config, times};

/// What stands in the dead letters, by sink and reason.
///
/// Reasons that differ in numbers only are one. Looks; changes nothing.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this sink; repeatable.
    #[arg(long = "sink", value_name = "NAME")]
    sinks: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Each letter in a line of its own.
    #[arg(long)]
    letters: bool,
}

/// Letters of one reason and state.
#[derive(Default)]
struct Group {
    reason: String,
    letters: u64,
    events: u64,
    value: u128,
}

impl List {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load(global)?;
        let chosen = crate::selection::select(&settings, &self.sinks)?;
        let filter = self.filter.filter()?;
        let bus = config::open_bus(&settings)?;
        let observer = bus.observer()?;
        let mut sinks = Vec::new();
        for sink in chosen {
            let all = replay::read(bus.as_ref(), observer.as_ref(), sink, STALL_TIMEOUT)?;
            let letters: Vec<&Letter> = all.letters.iter().filter(|letter| filter.takes(letter)).collect();
            if output.json {
                sinks.push(self.as_json(&sink.name, &all, &letters));
            } else {
                self.show(&sink.name, &all, &letters, output)?;
            }
        }
        if output.json {
            output.print(&json!({ "sinks": sinks }).to_string())?;
        }
        Ok(Verdict::Good)
    }

    fn show(&self, name: &str, all: &Letters, letters: &[&Letter], output: &Output) -> Result<(), Failure> {
        let value: u128 = letters.iter().map(|letter| u128::from(letter.value())).sum();
        output.print(&format!("{name}: {} worth {}", count_of(letters.len() as u64, "dead letter"), grouped(value)))?;
        let mut table = match self.letters {
            true => Table::new(&["  letter", "state", ">events", ">value", "what", "reason"]),
            false => Table::new(&["  state", ">letters", ">events", ">value", "reason"]),
        };
        if self.letters {
            letters.iter().for_each(|letter| table.row(row(letter)));
        } else {
            for ((state, _), group) in groups(letters) {
                let counts = [grouped(group.letters), grouped(group.events), grouped(group.value)];
                table.row([vec![format!("  {state}")], counts.to_vec(), vec![group.reason]].concat());
            }
        }
        if !letters.is_empty() {
            table.lines().iter().try_for_each(|line| output.print(line))?;
        }
        if all.pending > 0 {
            let pending = count_of(all.pending, "letter");
            output.say(&format!(
                "{name}: {pending} chosen and not written yet: `tallybus replay run --sink {name}` goes on"
            ));
        }
        if let Some(reason) = &all.lost_history {
            output.say(&format!("{name}: which were sent back before is not known any more: {reason}"));
        }
        if all.gone > 0 {
            output.say(&format!("{name}: {} gone by retention", count_of(all.gone, "letter")));
        }
        if all.strangers > 0 {
            output.say(&format!("{name}: {} no dead letters of this sink", count_of(all.strangers, "record")));
        }
        Ok(())
    }

    fn as_json(&self, name: &str, all: &Letters, letters: &[&Letter]) -> Value {
        let value: u128 = letters.iter().map(|letter| u128::from(letter.value())).sum();
        let groups: Vec<Value> = groups(letters)
            .into_iter()
            .map(|((state, _), group)| {
                json!({
                    "state": state, "reason": group.reason, "letters": group.letters, "events": group.events,
                    "value": number(group.value),
                })
            })
            .collect();
        let each = self.letters.then(|| letters.iter().map(|letter| letter_json(letter)).collect::<Vec<_>>());
        json!({
            "name": name, "letters": letters.len(), "value": number(value), "pending": all.pending, "gone": all.gone,
            "strangers": all.strangers, "lost_history": all.lost_history, "groups": groups, "each": each,
        })
    }
}

/// By state and by reason without its numbers.
fn groups(letters: &[&Letter]) -> BTreeMap<(&'static str, String), Group> {
    let mut groups: BTreeMap<(&'static str, String), Group> = BTreeMap::new();
    for letter in letters {
        let group = groups.entry((state(letter), without_numbers(&letter.reason))).or_default();
        if group.letters == 0 {
            group.reason.clone_from(&letter.reason);
        }
        group.letters += 1;
        group.events += u64::from(letter.events);
        group.value += u128::from(letter.value());
    }
    groups
}

fn without_numbers(reason: &str) -> String {
    let mut text = String::with_capacity(reason.len());
    for letter in reason.chars() {
        match letter.is_ascii_digit() {
            true if text.ends_with('#') => {}
            true => text.push('#'),
            false => text.push(letter),
        }
    }
    text
}

fn row(letter: &Letter) -> Vec<String> {
    vec![
        format!("  {}", letter.key),
        state(letter).to_owned(),
        grouped(letter.events),
        grouped(letter.value()),
        what(letter),
        letter.reason.clone(),
    ]
}

/// The series, or how large a record is that could not be decoded.
pub(super) fn what(letter: &Letter) -> String {
    match &letter.event {
        Some(event) => text::series(&event.series),
        None => format!("a record of {}", count_of(letter.cut_from.unwrap_or(letter.bytes as u64), "byte")),
    }
}

pub(super) fn letter_json(letter: &Letter) -> Value {
    let tags = |event: &tallybus_schemas::Event| {
        event.series.tags().iter().map(|(key, value)| (key.to_string(), Value::from(&**value))).collect::<Value>()
    };
    let event = letter.event.as_ref();
    json!({
        "key": letter.key,
        "state": state(letter),
        "reason": letter.reason,
        "kind": if letter.index.is_some() { "rejected" } else { "undecodable" },
        "events": letter.events,
        "value": letter.value(),
        "name": event.map(|event| event.series.name()),
        "tags": event.map(tags),
        "time": event.map_or_else(|| times::show(letter.time_ms.saturating_mul(1_000_000)), |event| times::show(event.time)),
        "batch": letter.batch,
        "bytes": letter.bytes,
        "cut_from": letter.cut_from,
        "replays": letter.replays,
        "origin": letter.origin,
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
