use clap::Args;
use serde_json::{Value, json};
use tallybus_worker::read_notes;

use super::Which;
use super::partition::{Place, find, set};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, count_of, grouped};
use crate::waiting::waiting_for_bus;
use crate::{Global, config};

/// Put a group back that the bus has forgotten, from the notes that its workers made.
///
/// Kafka forgets a group that was idle for `offsets.retention.minutes`. Workers note how far their group has come, every ten
/// seconds and when they stop. Only partitions without an offset are set; without --yes nothing is. A note of a worker that was
/// killed may be up to ten seconds behind: a destination with a ledger then says where to continue, in another one those
/// seconds are counted again.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    which: Which,
    /// Make the change.
    #[arg(long)]
    yes: bool,
}

/// What can be done for a partition.
enum Remedy {
    /// The group has an offset.
    None(u64),
    /// Set this offset.
    Set(u64),
    /// Why it cannot be restored.
    Impossible(String),
}

impl Remedy {
    fn text(&self) -> String {
        match self {
            Self::None(offset) => format!("has the offset {}", grouped(*offset)),
            Self::Set(offset) => format!("is restored to {}", grouped(*offset)),
            Self::Impossible(reason) => reason.clone(),
        }
    }

    fn offset(&self) -> Option<u64> {
        match self {
            Self::Set(offset) => Some(*offset),
            Self::None(_) | Self::Impossible(_) => None,
        }
    }
}

impl Restore {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load(global)?;
        let (sink, group, topics) = self.which.of(&settings)?;
        let bus = config::open_bus(&settings)?;
        if !bus.forgets_groups() {
            return Err(Failure::could_not_look("this bus forgets no group, so that its workers make no notes"));
        }
        let (notes, found) = waiting_for_bus(output, bus.as_ref(), || {
            let notes = read_notes(bus.as_ref(), &sink.worker_options().progress_topic, &group)?;
            let found = find(bus.observer()?.as_ref(), &group, &topics)?;
            Ok::<_, Failure>((notes, found))
        })?;
        let mut remedies = Vec::new();
        for partition in &found {
            let noted = notes.iter().find(|note| note.at() == partition.at);
            remedies.push(match (partition.held.offset(), noted) {
                (Some(offset), _) => Remedy::None(offset),
                (None, None) => Remedy::Impossible("has neither an offset nor a note".to_owned()),
                (None, Some(note)) if note.stream != partition.stream.as_str() => {
                    Remedy::Impossible(format!("the note is of another topic: {}", note.stream))
                }
                (None, Some(note)) if note.offset > partition.range.end => Remedy::Impossible(format!(
                    "the note says {}, but the partition ends at {}",
                    grouped(note.offset),
                    grouped(partition.range.end)
                )),
                (None, Some(note)) => Remedy::Set(note.offset),
            });
        }
        let of = |(found, remedy): (_, &Remedy)| Some(Place { found, to: remedy.offset()?, written: None });
        let to: Vec<Place<'_>> = found.iter().zip(&remedies).filter_map(of).collect();
        if !output.json {
            output.print(&format!("group {group}"))?;
            let mut table = Table::new(&["partition", "what happens"]);
            for (partition, remedy) in found.iter().zip(&remedies) {
                table.row(vec![partition.at.to_string(), remedy.text()]);
            }
            output.table(&table)?;
        }
        let changes = self.yes && !to.is_empty();
        if changes {
            set(bus.as_ref(), &group, &sink.shape, &to)?;
        }
        if output.json {
            let partitions = found.iter().zip(&remedies).map(|(partition, remedy)| {
                json!({ "partition": partition.at.to_string(), "to": remedy.offset(), "means": remedy.text() })
            });
            let partitions: Vec<Value> = partitions.collect();
            output.print(&json!({ "group": group, "changed": changes, "partitions": partitions }).to_string())?;
        } else if changes {
            output.print(&format!("{} restored", count_of(to.len() as u64, "offset")))?;
        } else if to.is_empty() {
            output.print("nothing to restore")?;
        } else {
            output.print("nothing was changed; to make the change, stop the sink's workers and add --yes")?;
        }
        Ok(Verdict::Good)
    }
}
