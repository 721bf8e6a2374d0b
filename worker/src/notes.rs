//! Notes of how far groups have come, on a topic of their own, for buses that may forget groups.
//!
//! Kafka deletes the offsets of a group that was idle for `offsets.retention.minutes`, and those of a topic that is deleted. A
//! worker whose group has no offset would begin at the oldest record, and count again what was counted. So workers note what
//! their group has committed, with the incarnation of the topic. A worker that finds a note and no offset stops, and `tallybus
//! group restore` commits what was noted. A note may be behind the group, never ahead of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tallybus_bus::{Bus, BusError, StreamId, TopicPartition, read_topic};

use super::dead_letter::DeadLetterPublisher;
use super::failure_log::FailureLog;

/// How often the progress of a partition is noted while it changes.
const EVERY: Duration = Duration::from_secs(10);
/// How long the bus may return nothing before reading notes fails.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How far a group had come in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The topic's incarnation, as text.
    pub stream: String,
    /// The group had settled everything before it.
    pub offset: u64,
}

impl Note {
    /// Which partition.
    pub fn at(&self) -> TopicPartition {
        TopicPartition::new(&self.topic, self.partition)
    }

    /// Later notes of the same partition have the same key, so that the topic can be compacted.
    fn key(&self) -> String {
        format!("{}|{}|{}", self.group, self.topic, self.partition)
    }
}

/// The last note of each partition of a group, in order; none when the topic does not exist.
///
/// # Errors
/// The bus could not be read.
pub fn read_notes(bus: &dyn Bus, topic: &str, group: &str) -> Result<Vec<Note>, BusError> {
    read_notes_of(bus, topic, &|of| of == group)
}

/// As [`read_notes`], of all groups that `takes` says.
///
/// # Errors
/// The bus could not be read.
pub fn read_notes_of(bus: &dyn Bus, topic: &str, takes: &dyn Fn(&str) -> bool) -> Result<Vec<Note>, BusError> {
    let observer = bus.observer()?;
    if observer.partitions_of(topic)?.is_none() {
        return Ok(Vec::new());
    }
    let mut last: HashMap<(String, TopicPartition), Note> = HashMap::new();
    read_topic(bus, observer.as_ref(), topic, STALL_TIMEOUT, &mut |record| {
        // What other programs write there is no note.
        let Ok(note) = serde_json::from_slice::<Note>(record.payload) else { return };
        if takes(&note.group) {
            last.insert((note.group.clone(), note.at()), note);
        }
    })?;
    let mut notes: Vec<Note> = last.into_values().collect();
    notes.sort_by(|a, b| (&a.group, &a.topic, a.partition).cmp(&(&b.group, &b.topic, b.partition)));
    Ok(notes)
}

/// Notes the progress of one worker's partitions.
pub(crate) struct ProgressNotes {
    topic: String,
    group: String,
    /// What was noted last.
    noted: HashMap<TopicPartition, (StreamId, u64)>,
    next: Instant,
    failures: FailureLog,
}

impl ProgressNotes {
    pub(crate) fn new(topic: &str, group: &str, now: Instant, failures: FailureLog) -> Self {
        let (topic, group) = (topic.to_owned(), group.to_owned());
        Self { topic, group, noted: HashMap::new(), next: now + EVERY, failures }
    }

    /// Notes what has changed since the last notes, at intervals. Does not block.
    pub(crate) fn note(
        &mut self,
        now: Instant,
        committed: impl Iterator<Item = (TopicPartition, StreamId, u64)>,
        publisher: &mut DeadLetterPublisher,
    ) {
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        match publisher.take_note_error() {
            Some(reason) => {
                // Which of them it was is not known: all are noted again.
                self.noted.clear();
                self.failures.note(&reason);
            }
            None => self.failures.over(),
        }
        self.note_now(committed, publisher);
    }

    /// Notes nothing for an interval, because the bus does not answer, which the worker reports: notes that fail meanwhile are no
    /// failure of their own, and are published again.
    pub(crate) fn put_off(&mut self, now: Instant, publisher: &mut DeadLetterPublisher) {
        self.next = now + EVERY;
        if publisher.take_note_error().is_some() {
            self.noted.clear();
        }
    }

    /// Notes what has changed, whenever the last notes were.
    pub(crate) fn note_now(
        &mut self,
        committed: impl Iterator<Item = (TopicPartition, StreamId, u64)>,
        publisher: &mut DeadLetterPublisher,
    ) {
        for (at, stream, offset) in committed {
            if self.noted.get(&at).is_some_and(|(known, noted)| *known == stream && *noted == offset) {
                continue;
            }
            let note = Note {
                group: self.group.clone(),
                topic: at.topic.to_string(),
                partition: at.partition,
                stream: stream.to_string(),
                offset,
            };
            let payload = match serde_json::to_vec(&note) {
                Ok(payload) => payload,
                Err(error) => return self.failures.note(&error.to_string()),
            };
            if let Err(error) = publisher.publish_note(&self.topic, &note.key(), &payload) {
                return self.failures.note(&error.to_string());
            }
            self.noted.insert(at, (stream, offset));
        }
    }
}

#[cfg(test)]
mod tests;
