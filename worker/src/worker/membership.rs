//! A worker's ownership: its membership in the group, and where each partition begins.

use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(feature = "simulation")]
use tallybus_bus::Committed;
use tallybus_bus::{
    Assignment, Bus, BusError, GroupOptions, OffsetRange, PollWaker, StreamId, Subscriber, TopicPartition,
};
use tallybus_sdk::replayed::{Seen, keys_below};
use tallybus_sdk::{SealMetadata, SealMetadataError, Sink, StartAt, Written};

use super::WorkerOptions;
use crate::builder::BatchBuilder;
use crate::notes::{Note, read_notes};
use crate::partition_task::{PartitionTask, TaskStart, changed};
use crate::records::RecordSource;
#[cfg(feature = "simulation")]
use crate::simulation::Mutant;
use crate::status::HaltCause;

/// A worker's membership in its consumer group.
pub(super) struct Membership {
    bus: Arc<dyn Bus>,
    /// `None` while it is no member.
    subscriber: Option<Box<dyn Subscriber>>,
    /// Partitions that are owned but cannot continue, and why.
    stopped: BTreeMap<TopicPartition, (HaltCause, String)>,
    /// The incarnation of each topic that this worker has written; it outlives the group's offsets, which a bus may delete
    /// together with a topic.
    streams: BTreeMap<Arc<str>, StreamId>,
    next_epoch: u64,
}

impl Membership {
    /// Of a worker that has not joined its group yet.
    pub(super) fn outside(bus: Arc<dyn Bus>) -> Self {
        Self { bus, subscriber: None, stopped: BTreeMap::new(), streams: BTreeMap::new(), next_epoch: 0 }
    }

    /// Whether it is a member of the group.
    pub(super) fn is_member(&self) -> bool {
        self.subscriber.is_some()
    }

    /// The member; `None` while it is none.
    pub(super) fn subscriber(&mut self) -> Option<&mut dyn Subscriber> {
        match &mut self.subscriber {
            Some(subscriber) => Some(subscriber.as_mut()),
            None => None,
        }
    }

    /// What ends the member's waits; `None` while it is none.
    pub(super) fn waker(&self) -> Option<PollWaker> {
        self.subscriber.as_ref().map(|subscriber| subscriber.waker())
    }

    /// Joins the group, as a new member. Partitions owned before now belong to another member, or are assigned again.
    pub(super) fn join_again(&mut self, options: &WorkerOptions) -> Result<(), BusError> {
        self.stopped.clear();
        self.subscriber = Some(subscribe(self.bus.as_ref(), options)?);
        Ok(())
    }

    /// Leaves the group at once, so that other members need not wait for the session to time out.
    pub(super) fn leave(&mut self) {
        self.stopped.clear();
        if let Some(subscriber) = self.subscriber.take() {
            subscriber.leave();
        }
    }

    /// Partitions that are owned but cannot continue, and why.
    pub(super) fn stopped(&self) -> &BTreeMap<TopicPartition, (HaltCause, String)> {
        &self.stopped
    }

    /// Marks a partition as owned but stopped, so that no other worker fails in the same way.
    pub(super) fn stop(&mut self, at: TopicPartition, cause: HaltCause, reason: String) {
        self.stopped.insert(at, (cause, reason));
    }

    /// The partition is no longer owned, or is started again.
    pub(super) fn forget(&mut self, at: &TopicPartition) {
        self.stopped.remove(at);
    }

    /// Reads the notes of the group when it has no offset of some of these partitions, and the bus may have forgotten it; none
    /// otherwise.
    ///
    /// # Errors
    /// The notes cannot be read: whether the group was there before is unknown.
    pub(super) fn notes_for(&self, assignments: &[Assignment], options: &WorkerOptions) -> Result<Vec<Note>, BusError> {
        let is_known = assignments.iter().all(|assignment| assignment.committed.is_some());
        if is_known || !self.bus.forgets_groups() {
            return Ok(Vec::new());
        }
        read_notes(self.bus.as_ref(), &options.progress_topic, &options.group)
    }

    /// Determines where an assigned partition begins, and creates the task that continues from there. `notes`: from
    /// [`Membership::notes_for`].
    ///
    /// # Errors
    /// The partition cannot continue: why, what is safe, and what to do.
    pub(super) fn begin(
        &mut self,
        assignment: Assignment,
        notes: &Result<Vec<Note>, BusError>,
        options: &WorkerOptions,
        sink: &dyn Sink,
    ) -> Result<(PartitionTask, u64), String> {
        let Assignment { at, stream, committed, range } = assignment;
        let topic_index = topic_index(&at, options)?;
        let shape = options.shape.clone();
        sink.has_place(topic_index, at.partition)?;
        let (mut offset, seal) = match &committed {
            #[cfg(feature = "simulation")]
            Some(Committed { offset, metadata }) if metadata.is_empty() && Mutant::ForeignCommitTaken.is_on() => {
                (*offset, SealMetadata::new(stream.clone(), Vec::new(), &shape))
            }
            Some(committed) => {
                let seal = SealMetadata::parse(committed.offset, &committed.metadata);
                (committed.offset, seal.map_err(|error| unusable(&error, options))?)
            }
            None => {
                let offset = if options.start_at == StartAt::Newest { range.end } else { range.first };
                (offset, SealMetadata::new(stream.clone(), Vec::new(), &shape))
            }
        };
        #[cfg(feature = "simulation")]
        let seal = if Mutant::SealedShapeIgnored.is_on() { SealMetadata { shape: None, ..seal } } else { seal };
        #[cfg(feature = "simulation")]
        if let (None, Ok(notes), true) = (&committed, notes, Mutant::ForgottenGroupFromTheEnd.is_on()) {
            let is_forgotten = notes.iter().any(|note| note.at() == at);
            offset = if is_forgotten { range.end } else { offset };
        }
        if committed.is_none() {
            check_notes(&at, &stream, notes, options, sink)?;
        }
        self.recognise(&at, offset, committed.is_some().then_some(&seal), &stream, &options.sink)?;
        let sealed_end = seal.sealed_end().unwrap_or(offset);
        if sealed_end > range.end {
            return Err(format!(
                "the group is at offset {sealed_end}, but {at} ends at {}: was the topic deleted and recreated? \
                 Give the sink a new destination and run `tallybus group reset`",
                range.end
            ));
        }
        #[cfg(feature = "simulation")]
        if Mutant::LostOffsetsPassed.is_on() {
            offset = offset.max(range.first);
        }
        if offset < range.first {
            let gap = format!("{at}/{offset}-{}", range.first);
            if seal.sealed_end().is_some() {
                return Err(format!(
                    "offsets {gap} are gone from the bus, and a batch that may have been written begins there; to continue \
                     without them, stop the sink's workers and run `tallybus group reset {} --to oldest --partition {at}`, \
                     which says what it means for the counts; and raise the topic's retention",
                    options.sink
                ));
            }
            if !options.accept_gaps.contains(&gap) {
                return Err(format!(
                    "offsets {gap} are gone from the bus before they were written; to continue without them \
                     set accept_gaps = [\"{gap}\"], and raise the topic's retention"
                ));
            }
            tracing::warn!(sink = options.sink, gap, "skipping lost offsets, as accepted in the settings");
            offset = range.first;
        }
        let under = seal.shape.as_ref().unwrap_or(&shape);
        if under.sink != shape.sink {
            return Err(format!(
                "a batch was sealed under sink settings {:?}, which are {:?} now: start once with the old settings to \
                 finish it",
                under.sink, shape.sink
            ));
        }
        let selector = under.selector()?;
        self.next_epoch += 1;
        let builder = BatchBuilder::new(at.topic.clone(), at.partition, topic_index, selector);
        let source = match options.replays {
            Some(_) => RecordSource::DeadLetters(self.seen_below(&at, offset, range)?),
            None => RecordSource::Events,
        };
        self.streams.insert(Arc::clone(&at.topic), stream.clone());
        let start = TaskStart {
            at,
            epoch: self.next_epoch,
            stream,
            offset,
            end: range.end,
            seal,
            committed,
            destination: sink.destination().map(|name| Written::destination_id(&name)),
            accept_gaps: options.accept_gaps.as_slice().into(),
        };
        Ok((PartitionTask::new(start, source, builder, options.limits, shape), offset))
    }

    /// Checks that the offset belongs to the topic's present incarnation. `committed` is what the group committed.
    ///
    /// # Errors
    /// It belongs to another one: what happened, what is safe and what to do.
    fn recognise(
        &self,
        at: &TopicPartition,
        offset: u64,
        committed: Option<&SealMetadata>,
        stream: &StreamId,
        sink: &str,
    ) -> Result<(), String> {
        #[cfg(feature = "simulation")]
        if Mutant::NoStreamCheck.is_on() {
            return Ok(());
        }
        let expected = match committed {
            // Written by a worker or, on purpose, by an operator.
            Some(SealMetadata { stream: Some(expected), .. }) => expected,
            Some(SealMetadata { stream: None, .. }) => {
                tracing::info!(
                    sink, partition = %at, %stream, offset,
                    "the group's offset was committed by a version without stream ids; taking it as an offset of the topic's \
                     present incarnation"
                );
                return Ok(());
            }
            // The group has never been here, or the bus has deleted its offsets together with the topic.
            None => match self.streams.get(&at.topic) {
                Some(expected) => expected,
                None => return Ok(()),
            },
        };
        if expected == stream { Ok(()) } else { Err(changed(at, expected, Some(stream), offset)) }
    }

    /// Reads which dead letters precede `offset` in a replay topic.
    fn seen_below(&self, at: &TopicPartition, offset: u64, range: OffsetRange) -> Result<Seen, String> {
        if range.first > 0 {
            return Err(format!(
                "the partition begins at offset {}: it is no longer known which dead letters were written before that, so none \
                 is written again; this topic must keep its records for ever: remove its retention limits",
                range.first
            ));
        }
        keys_below(self.bus.as_ref(), at, offset).map_err(|error| error.to_string())
    }
}

/// Checks that no note says how far the group had come: it has no offset. A recreated topic is begun where everything that
/// is written names its incarnation, and nothing of the old one can be written over.
///
/// # Errors
/// A note says so, or the notes cannot be read.
fn check_notes(
    at: &TopicPartition,
    stream: &StreamId,
    notes: &Result<Vec<Note>, BusError>,
    options: &WorkerOptions,
    sink: &dyn Sink,
) -> Result<(), String> {
    #[cfg(feature = "simulation")]
    if Mutant::takes_forgotten_groups() || Mutant::NotesNotRead.is_on() {
        return Ok(());
    }
    let (topic, group) = (&options.progress_topic, &options.group);
    let notes = notes.as_ref().map_err(|error| {
        format!(
            "whether group {group} was here before is unknown, because its notes on {topic} cannot be read: \
             {error}. Nothing was written; the records are safe on the bus. Allow the worker to read {topic}, and restart it"
        )
    })?;
    let Some(Note { offset, stream: noted, .. }) = notes.iter().find(|note| note.at() == *at) else { return Ok(()) };
    if noted != stream.as_str() && sink.destination().is_none() {
        tracing::warn!(
            sink = options.sink,
            partition = %at,
            was = noted,
            is = %stream,
            "the topic was recreated: the new one is written under keys of its own, beside what was written of the old one"
        );
        return Ok(());
    }
    if noted != stream.as_str() {
        return Err(format!(
            "topic {} was recreated: it is {stream} now and was {noted}. Group {group} had settled {at} up to offset \
             {offset} of the old topic; nothing of the new one was written. To count the new topic from its beginning: give \
             the sink a new destination and run `tallybus group reset`",
            at.topic
        ));
    }
    Err(format!(
        "the bus has no offset of group {group} for {at}, but a note on {topic} says that it had settled everything before \
         offset {offset}: the group was deleted, or the bus forgot it (Kafka forgets a group that was idle for \
         offsets.retention.minutes). Nothing was written; the records are safe on the bus. Stop the sink's workers and run \
         `tallybus group restore`"
    ))
}

/// The message for commit metadata that cannot be used; who shows it names the partition.
fn unusable(error: &SealMetadataError, options: &WorkerOptions) -> String {
    format!("group {}: {error}", options.group)
}

fn subscribe(bus: &dyn Bus, options: &WorkerOptions) -> Result<Box<dyn Subscriber>, BusError> {
    let group_options = GroupOptions::default().with_client_id(format!("tallybus-{}", options.sink));
    bus.subscriber(&options.group, &options.topics, &group_options)
}

/// The index of a partition's topic in the settings, which identifies it in the backend.
fn topic_index(at: &TopicPartition, options: &WorkerOptions) -> Result<u32, String> {
    if let Some(index) = options.replays {
        return Ok(index);
    }
    #[cfg(feature = "simulation")]
    if Mutant::UnknownTopicIsIndexZero.is_on() {
        let place = options.topics.iter().position(|topic| **topic == *at.topic);
        return Ok(place.and_then(|place| u32::try_from(place).ok()).unwrap_or(0));
    }
    let place = options.topics.iter().position(|topic| **topic == *at.topic).ok_or_else(|| {
        format!(
            "the group was assigned {at}, but this sink's topics are {}: does another program use the group {}?",
            options.topics.join(", "),
            options.group
        )
    })?;
    u32::try_from(place).map_err(|error| format!("the sink has too many topics: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_of_a_topic_that_is_not_the_sinks_is_not_begun() {
        let options = WorkerOptions::of_a_test("tallybus.fake", &["first", "second"]);
        let index = |topic: &str| topic_index(&TopicPartition::new(topic, 0), &options);
        assert_eq!(index("second"), Ok(1));
        let reason = index("theirs").unwrap_err();
        assert!(reason.contains("was assigned theirs/0") && reason.contains("topics are first, second"), "{reason}");
        let replays = WorkerOptions { replays: Some(2), ..options };
        assert_eq!(topic_index(&TopicPartition::new("tallybus.replay.fake", 0), &replays), Ok(2));
    }

    #[test]
    fn dead_letters_before_the_offset_are_known_and_must_not_be_gone() {
        let world = super::super::tests::World::new(1);
        let membership = world.start().worker.membership;
        let at = TopicPartition::new("progress", 0);
        let mut publisher = membership.bus.publisher().unwrap();
        for key in [b"a", b"b", b"c"] {
            let (topic, key) = (&*at.topic, Some(&key[..]));
            let record = tallybus_bus::NewRecord { topic, partition: Some(0), key, payload: b"", headers: &[] };
            publisher.publish(record, 1).unwrap();
            publisher.poll(std::time::Duration::ZERO, &mut Vec::new());
        }
        let seen = membership.seen_below(&at, 2, OffsetRange { first: 0, end: 3 }).unwrap();
        let keys: std::collections::BTreeSet<&[u8]> = seen.iter().map(|key| &**key).collect();
        assert_eq!(keys, std::collections::BTreeSet::from([&b"a"[..], &b"b"[..]]));
        for first in [1, 2] {
            let reason = membership.seen_below(&at, 2, OffsetRange { first, end: 3 }).unwrap_err();
            assert!(reason.starts_with(&format!("the partition begins at offset {first}")), "{reason}");
        }
    }
}
