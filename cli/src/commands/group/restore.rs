use clap::Args;
use serde_json::{Value, json};
use tallybus_bus::{BusError, Committed};
use tallybus_sdk::SealMetadata;
use tallybus_worker::read_notes;

use super::Which;
use super::partition::find;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, count_of, grouped};
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
        let observer = bus.observer()?;
        let notes = read_notes(bus.as_ref(), &sink.worker_options().progress_topic, &group)?;
        let found = find(observer.as_ref(), &group, &topics)?;
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
        let to = found.iter().zip(&remedies).filter_map(|(partition, remedy)| Some((partition, remedy.offset()?)));
        let mut commits = Vec::new();
        for (partition, offset) in to {
            let seal = SealMetadata::new(partition.stream.clone(), Vec::new(), &sink.shape);
            let metadata = seal.to_metadata().map_err(Failure::failed)?;
            commits.push((partition.at.clone(), Committed { offset, metadata }));
        }
        if !output.json {
            output.print(&format!("group {group}"))?;
            let mut table = Table::new(&["partition", "what happens"]);
            for (partition, remedy) in found.iter().zip(&remedies) {
                table.row(vec![partition.at.to_string(), remedy.text()]);
            }
            table.lines_within(output.width()).iter().try_for_each(|line| output.print(line))?;
        }
        let changes = self.yes && !commits.is_empty();
        if changes {
            match bus.reset_group(&group, &commits) {
                Ok(()) => {}
                Err(error @ BusError::GroupInUse(_)) => return Err(Failure::failed(error)),
                Err(error) => return Err(error.into()),
            }
        }
        if output.json {
            let partitions = found.iter().zip(&remedies).map(|(partition, remedy)| {
                json!({ "partition": partition.at.to_string(), "to": remedy.offset(), "means": remedy.text() })
            });
            let partitions: Vec<Value> = partitions.collect();
            output.print(&json!({ "group": group, "changed": changes, "partitions": partitions }).to_string())?;
        } else if changes {
            output.print(&format!("{} restored", count_of(commits.len() as u64, "offset")))?;
        } else if commits.is_empty() {
            output.print("nothing to restore")?;
        } else {
            output.print("nothing was changed; to make the change, stop the sink's workers and add --yes")?;
        }
        Ok(Verdict::Good)
    }
}
