//! Asks who knows how far a group's partitions are counted: the destination, and the notes of the group's workers.

use std::time::Duration;

use tallybus_bus::Bus;
use tallybus_worker::settings::SinkSettings;
use tallybus_worker::{Holdings, Note, WorkerOptions, holdings, read_notes};

use super::known::Told;
use super::partition::{Found, Held};
use crate::failure::Failure;
use crate::output::Output;
use crate::waiting::waiting;

/// A destination that does not answer within this time is one of which nothing is known.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What was answered.
pub(super) struct Asked {
    /// `None` where the destination was not asked, or did not answer.
    holdings: Option<Holdings>,
    /// The last note of each partition of the group.
    pub(super) notes: Vec<Note>,
    /// What is not known, and why, for people.
    pub(super) unknown: Vec<String>,
}

impl Asked {
    /// Asks; an answer that does not come is not an error, but leaves unknown what it would say. `options`: of the worker of
    /// this group. `offline`: the destination is not asked.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn of(
        found: &[Found],
        bus: &dyn Bus,
        sink: &SinkSettings,
        options: &WorkerOptions,
        offline: bool,
        output: &Output,
    ) -> Result<Self, Failure> {
        let (mut notes, mut unknown) = (Vec::new(), None);
        let is_needed = found.iter().any(|found| !matches!(found.held, Held::Ours(..)));
        if is_needed && bus.forgets_groups() {
            match read_notes(bus, &options.progress_topic, &options.group) {
                Ok(found) => notes = found,
                Err(error) => {
                    unknown = Some(format!(
                        "what the group's workers have noted on {} is unknown: {error}",
                        options.progress_topic
                    ));
                }
            }
        }
        let mut asked = Self::with_notes(notes, found, sink, options, offline, output)?;
        asked.unknown.splice(0..0, unknown);
        Ok(asked)
    }

    /// The same where the notes have been read.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn with_notes(
        notes: Vec<Note>,
        found: &[Found],
        sink: &SinkSettings,
        options: &WorkerOptions,
        offline: bool,
        output: &Output,
    ) -> Result<Self, Failure> {
        let mut asked = Self { holdings: None, notes, unknown: Vec::new() };
        if offline {
            asked.unknown.push("the destination was not asked (--offline): what it holds is unknown".to_owned());
            return Ok(asked);
        }
        let what = format!("the backend of the sink {}", sink.name);
        match waiting(output, &what, || ask_destination(found, sink, options))? {
            Ok(holdings) => asked.holdings = Some(holdings),
            Err(reason) => {
                asked.unknown.push(format!("the destination does not answer, what it holds is unknown: {reason}"));
            }
        }
        Ok(asked)
    }

    /// What is told of one of the partitions; `place`: where it stands among them.
    pub(super) fn told(&self, place: usize, found: &Found) -> Told<'_> {
        let of_this = |note: &&Note| note.at() == found.at && note.stream == found.stream.as_str();
        let note = self.notes.iter().find(of_this).map(|note| note.offset).filter(|offset| *offset <= found.range.end);
        Told {
            holding: self.holdings.as_ref().and_then(|holdings| holdings.partitions.get(place)),
            destination: self.holdings.as_ref().and_then(|holdings| holdings.destination.as_deref()),
            note,
        }
    }
}

/// Returns what the destination holds, or why that is unknown.
fn ask_destination(
    found: &[Found],
    settings: &SinkSettings,
    options: &WorkerOptions,
) -> Result<Result<Holdings, String>, Failure> {
    let partitions: Vec<_> = found.iter().map(|found| (found.at.clone(), found.stream.clone())).collect();
    let runtime = super::super::start_runtime()?;
    let sink = match settings.make() {
        Ok(sink) => sink,
        Err(error) => return Ok(Err(error.to_string())),
    };
    Ok(runtime.block_on(async {
        let answer = tokio::time::timeout(TIMEOUT, holdings(sink.as_ref(), options, &partitions)).await;
        sink.close().await;
        match answer {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
        }
    }))
}
