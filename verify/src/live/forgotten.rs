use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Observer, StreamId};
use tallybus_worker::{Note, read_notes_of};

use super::look::{Look, Noted, SinkLook, Watched};

/// How long an answer is used again: notes are a topic of their own to read.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// Finds groups that the bus has forgotten: they hold no offset where their workers have noted one.
///
/// Kafka forgets a group that was idle for long, which looks like one that has never run.
#[derive(Debug)]
pub struct Forgotten {
    progress_topic: String,
    /// When the notes were read, and what they said of each sink.
    known: Option<(Duration, BTreeMap<String, Noted>)>,
}

impl Forgotten {
    /// Reads nothing yet. `progress_topic`: from [`tallybus_worker::settings::names::progress_topic`].
    pub fn new(progress_topic: &str) -> Self {
        Self { progress_topic: progress_topic.to_owned(), known: None }
    }

    /// Adds to a look what the workers of those sinks have noted that hold no offset in a partition with records. Where every
    /// group has its offsets, nothing is asked.
    pub fn add_to(&mut self, look: &mut Look, watched: &Watched, bus: &dyn Bus, observer: &dyn Observer) {
        let of: BTreeSet<&str> =
            look.sinks.iter().filter(|(_, sink)| is_without_offset(sink)).map(|(name, _)| name.as_str()).collect();
        if of.is_empty() {
            self.known = None;
            return;
        }
        let is_known = |(at, known): &(Duration, BTreeMap<String, Noted>)| {
            look.at.saturating_sub(*at) < ASK_EVERY && of.iter().all(|name| known.contains_key(*name))
        };
        let known = match self.known.take().filter(is_known) {
            Some((at, known)) => (at, known),
            None => (look.at, self.ask(&of, look, watched, bus, observer)),
        };
        for (name, noted) in &known.1 {
            if let Some(sink) = look.sinks.get_mut(name).filter(|sink| is_without_offset(sink)) {
                sink.noted = noted.clone();
            }
        }
        self.known = Some(known);
    }

    fn ask(
        &self,
        of: &BTreeSet<&str>,
        look: &Look,
        watched: &Watched,
        bus: &dyn Bus,
        observer: &dyn Observer,
    ) -> BTreeMap<String, Noted> {
        let sinks = watched.sinks.iter().filter(|sink| of.contains(sink.name.as_str()));
        let sinks: Vec<(&str, &str)> = sinks.map(|sink| (sink.name.as_str(), sink.group.as_str())).collect();
        let notes = read_notes_of(bus, &self.progress_topic, &|group| sinks.iter().any(|(_, of)| *of == group));
        let read = notes.and_then(|notes| Ok((streams(&notes, observer)?, notes)));
        let noted = |(name, group): &(&str, &str)| {
            let noted = match (&read, look.sinks.get(*name)) {
                (Ok((streams, notes)), Some(sink)) => match count(notes, streams, group, sink) {
                    0 => Noted::Nothing,
                    partitions => Noted::Offsets(partitions),
                },
                (Ok(_), None) => Noted::Nothing,
                (Err(error), _) => Noted::Unknown(format!("{} cannot be read: {error}", self.progress_topic)),
            };
            ((*name).to_owned(), noted)
        };
        sinks.iter().map(noted).collect()
    }
}

fn is_without_offset(sink: &SinkLook) -> bool {
    sink.partitions.iter().any(|partition| partition.settled.is_none() && partition.lag() > 0)
}

/// Partitions without an offset of which a note of their topic's present incarnation holds one.
fn count(notes: &[Note], streams: &BTreeMap<String, StreamId>, group: &str, sink: &SinkLook) -> u64 {
    let is_noted = |at: &tallybus_bus::TopicPartition| {
        notes.iter().any(|note| {
            let is_present = streams.get(&note.topic).is_some_and(|stream| stream.to_string() == note.stream);
            note.group == group && note.at() == *at && is_present
        })
    };
    let forgotten = sink.partitions.iter().filter(|partition| partition.settled.is_none() && is_noted(&partition.at));
    forgotten.count() as u64
}

/// The incarnations of the topics that the notes are of, those that still exist.
fn streams(notes: &[Note], observer: &dyn Observer) -> Result<BTreeMap<String, StreamId>, BusError> {
    let topics: BTreeSet<&str> = notes.iter().map(|note| note.topic.as_str()).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let counts = observer.partitions(&topics)?;
    let existing: Vec<&str> =
        topics.iter().zip(counts).filter(|(_, count)| count.is_some()).map(|(topic, _)| *topic).collect();
    if existing.is_empty() {
        return Ok(BTreeMap::new());
    }
    let streams = observer.stream_ids(&existing)?;
    Ok(existing.into_iter().map(str::to_owned).zip(streams).collect())
}
