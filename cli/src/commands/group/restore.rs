use clap::Args;
use serde_json::{Value, json};
use tallybus_sdk::Written;
use tallybus_worker::read_notes;

use super::Which;
use super::ask::Asked;
use super::change::{ADD_YES, Change};
use super::consequence::Consequence;
use super::known::Known;
use super::partition::{Found, Place, find, set};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, count_of, grouped};
use crate::waiting::waiting_for_bus;
use crate::{Global, config};

/// Put a group back that the bus has forgotten, from the notes that its workers made.
///
/// Kafka forgets a group that was idle for `offsets.retention.minutes`. Workers note how far their group has come, every ten
/// seconds and when they stop. Only partitions without an offset are set; without --yes nothing is. A note of a worker that was
/// killed may be up to ten seconds behind: the command asks the destination, whose ledger or mark then says where to continue;
/// in one without, those seconds are counted again. Where messages would be counted twice or never, it needs --accept-double or
/// --accept-loss beside --yes.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    change: Change,
}

/// What can be done for a partition.
enum Remedy {
    /// The group has an offset.
    None(u64),
    /// Set this offset.
    Set(Restored),
    /// Why it cannot be restored.
    Impossible(String),
}

/// An offset to set, and what that means.
struct Restored {
    to: u64,
    known: Known,
    consequence: Consequence,
    written: Option<Written>,
}

impl Remedy {
    fn text(&self, found: &Found, place: &str) -> String {
        match self {
            Self::None(offset) => format!("has the offset {}", grouped(*offset)),
            Self::Set(one) if one.consequence == Consequence::default() => {
                format!("is restored to {}", grouped(one.to))
            }
            Self::Set(one) => {
                let means = one.consequence.text(&one.known, place, found.range, one.to);
                format!("is restored to {}; {means}", grouped(one.to))
            }
            Self::Impossible(reason) => reason.clone(),
        }
    }

    fn restored(&self) -> Option<&Restored> {
        match self {
            Self::Set(one) => Some(one),
            Self::None(_) | Self::Impossible(_) => None,
        }
    }
}

impl Restore {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = self.change.settings(&self.which, global)?;
        let (sink, group, topics) = self.which.of(&settings)?;
        let options = self.which.options(sink);
        let bus = config::open_bus(&settings)?;
        if !bus.forgets_groups() {
            return Err(Failure::could_not_look("this bus forgets no group, so that its workers make no notes"));
        }
        let (notes, found) = waiting_for_bus(output, bus.as_ref(), || {
            let notes = read_notes(bus.as_ref(), &options.progress_topic, &group)?;
            Ok::<_, Failure>((notes, find(bus.observer()?.as_ref(), &group, &topics)?))
        })?;
        let asked = Asked::with_notes(notes, &found, sink, &options, self.change.offline, output)?;
        let remedies: Vec<Remedy> = (0..).zip(&found).map(|(at, found)| remedy(at, found, &asked)).collect();
        let of = |(found, remedy): (_, &Remedy)| {
            let one = remedy.restored()?;
            Some(Place { found, to: one.to, written: one.written.clone() })
        };
        let to: Vec<Place<'_>> = found.iter().zip(&remedies).filter_map(of).collect();
        let place = sink.kind.name;
        let refusal = self.refusal(&found, &remedies, place);
        if !output.json {
            output.print(&format!("group {group}"))?;
            let mut table = Table::new(&["partition", "what happens"]);
            for (partition, remedy) in found.iter().zip(&remedies) {
                table.row(vec![partition.at.to_string(), remedy.text(partition, place)]);
            }
            output.table(&table)?;
            asked.unknown.iter().try_for_each(|text| output.wrapped(text))?;
        }
        let is_changed = self.change.yes && refusal.is_none() && !to.is_empty();
        if is_changed {
            set(bus.as_ref(), &group, &sink.shape, &to)?;
        }
        if output.json {
            let partitions: Vec<Value> =
                found.iter().zip(&remedies).map(|(found, remedy)| as_json(found, remedy, place)).collect();
            let unknown = &asked.unknown;
            output.print(
                &json!({ "group": group, "changed": is_changed, "unknown": unknown, "partitions": partitions })
                    .to_string(),
            )?;
        }
        let done = is_changed.then(|| format!("{} restored", count_of(to.len() as u64, "offset")));
        let nothing = if to.is_empty() { "nothing to restore" } else { ADD_YES };
        self.change.conclude(refusal, done, nothing, output)
    }

    /// Why the change needs more than --yes; `None` if it does not.
    fn refusal(&self, found: &[Found], remedies: &[Remedy], place: &str) -> Option<String> {
        let doubles = |one: &Restored| !self.change.accept_double && one.consequence.doubles(&one.known);
        let loses = |one: &Restored| !self.change.accept_loss && one.consequence.loses();
        let set = || found.iter().zip(remedies).filter_map(|(found, remedy)| Some((found, remedy, remedy.restored()?)));
        let refused: Vec<String> = set()
            .filter(|(.., one)| doubles(one) || loses(one))
            .map(|(found, remedy, _)| format!("{} {}. ", found.at, remedy.text(found, place)))
            .collect();
        if refused.is_empty() {
            return None;
        }
        let flag = |is_set: bool, flag: &'static str| if is_set { flag } else { "" };
        Some(format!(
            "{}To accept it nevertheless: `tallybus group restore {}{}{} --yes{}{}`",
            refused.concat(),
            self.which.sink,
            flag(self.which.replay, " --replay"),
            flag(self.change.offline, " --offline"),
            flag(self.change.accept_double || set().any(|(.., one)| doubles(one)), " --accept-double"),
            flag(self.change.accept_loss || set().any(|(.., one)| loses(one)), " --accept-loss"),
        ))
    }
}

/// What can be done for the partition at this place among all.
fn remedy(at: usize, found: &Found, asked: &Asked) -> Remedy {
    if let Some(offset) = found.held.offset() {
        return Remedy::None(offset);
    }
    let Some(note) = asked.notes.iter().find(|note| note.at() == found.at) else {
        return Remedy::Impossible("has neither an offset nor a note".to_owned());
    };
    if note.stream != found.stream.as_str() {
        return Remedy::Impossible(format!("the note is of another topic: {}", note.stream));
    }
    if note.offset > found.range.end {
        return Remedy::Impossible(format!(
            "the note says {}, but the partition ends at {}",
            grouped(note.offset),
            grouped(found.range.end)
        ));
    }
    let told = asked.told(at, found);
    let known = Known::of(found, &told);
    let to = known.best(found.range).unwrap_or(note.offset);
    let consequence = Consequence::of(&known, found.range, to);
    let written = known.written(found, &told, to);
    Remedy::Set(Restored { to, known, consequence, written })
}

fn as_json(found: &Found, remedy: &Remedy, place: &str) -> Value {
    let one = remedy.restored();
    let mut value = json!({
        "partition": found.at.to_string(),
        "to": one.map(|one| one.to),
        "means": remedy.text(found, place),
    });
    if let (Some(one), Some(value)) = (one, value.as_object_mut())
        && let Value::Object(counts) = one.consequence.as_json(&one.known)
    {
        value.extend(counts);
    }
    value
}
