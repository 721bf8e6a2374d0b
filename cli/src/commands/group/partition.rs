//! What a group holds for each partition.

use serde_json::{Value, json};
use tallybus_bus::{Bus, Committed, Observer, OffsetRange, StreamId, TopicPartition};
use tallybus_sdk::{SealMetadata, SealMetadataError, Shape, Written};

use crate::failure::Failure;
use crate::text::grouped;

/// What the group holds for a partition.
pub(super) enum Held {
    /// It never committed, or the bus has deleted its offset.
    Nothing,
    /// A worker's commit, or an operator's by this command.
    Ours(u64, SealMetadata),
    /// An offset that cannot be used, and why.
    Unusable(u64, SealMetadataError),
}

/// A partition of the group's topics.
pub(super) struct Found {
    pub(super) at: TopicPartition,
    pub(super) held: Held,
    pub(super) range: OffsetRange,
    pub(super) stream: StreamId,
}

/// Reads the partitions of the group's topics.
pub(super) fn find(observer: &dyn Observer, group: &str, topics: &[String]) -> Result<Vec<Found>, Failure> {
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let of: Vec<(&str, &str)> = topics.iter().map(|topic| (group, *topic)).collect();
    // In this order: a group that advances in the meantime is never past an end that is read later.
    let (streams, committed) = (observer.stream_ids(&topics)?, observer.committed(&of)?);
    let ranges = observer.offsets(&topics)?;
    let mut found = Vec::new();
    for (((topic, stream), committed), ranges) in topics.iter().zip(streams).zip(committed).zip(ranges) {
        for ((partition, committed), range) in (0..).zip(committed).zip(ranges) {
            let held = match committed {
                None => Held::Nothing,
                Some(Committed { offset, metadata }) => match SealMetadata::parse(offset, &metadata) {
                    Ok(seal) => Held::Ours(offset, seal),
                    Err(error) => Held::Unusable(offset, error),
                },
            };
            found.push(Found { at: TopicPartition::new(topic, partition), held, range, stream: stream.clone() });
        }
    }
    Ok(found)
}

/// Where a partition is set.
pub(super) struct Place<'f> {
    pub(super) found: &'f Found,
    pub(super) to: u64,
    /// What the destination holds, so that a worker halts at one that holds less.
    pub(super) written: Option<Written>,
}

/// Sets the group's offsets to these: nothing is sealed, and everything before them is taken for settled.
///
/// # Errors
/// The bus did not respond, or a worker of the group runs.
pub(super) fn set(bus: &dyn Bus, group: &str, shape: &Shape, places: &[Place<'_>]) -> Result<(), Failure> {
    let mut commits = Vec::with_capacity(places.len());
    for Place { found, to, written } in places {
        let seal = SealMetadata::new(found.stream.clone(), Vec::new(), shape).with_written(written.clone());
        let metadata = seal.to_metadata().map_err(Failure::failed)?;
        commits.push((found.at.clone(), Committed { offset: *to, metadata }));
    }
    Ok(bus.reset_group(group, &commits)?)
}

impl Held {
    pub(super) fn offset(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Ours(offset, _) | Self::Unusable(offset, _) => Some(*offset),
        }
    }
}

impl Found {
    /// Whose offset it is.
    fn stream(&self) -> String {
        match &self.held {
            Held::Nothing => "no offset".to_owned(),
            Held::Unusable(..) => "set by another program".to_owned(),
            Held::Ours(_, SealMetadata { stream: None, .. }) => "not recorded (earlier version)".to_owned(),
            Held::Ours(_, SealMetadata { stream: Some(stream), .. }) if *stream == self.stream => "present".to_owned(),
            Held::Ours(_, SealMetadata { stream: Some(stream), .. }) => format!("another topic's: {stream}"),
        }
    }

    pub(super) fn as_row(&self) -> Vec<String> {
        let sealed = match &self.held {
            Held::Ours(_, seal) => seal.sealed_end().map_or("-".to_owned(), grouped),
            Held::Nothing | Held::Unusable(..) => "-".to_owned(),
        };
        let settled = self.held.offset().map_or("-".to_owned(), grouped);
        let range = format!("{} to {}", grouped(self.range.first), grouped(self.range.end));
        vec![self.at.to_string(), settled, sealed, range, self.stream()]
    }

    pub(super) fn as_json(&self) -> Value {
        let (ends, of) = match &self.held {
            Held::Ours(_, seal) => (seal.ends.clone(), seal.stream.as_ref().map(ToString::to_string)),
            Held::Nothing | Held::Unusable(..) => (Vec::new(), None),
        };
        let error = match &self.held {
            Held::Unusable(_, error) => Some(error.to_string()),
            Held::Nothing | Held::Ours(..) => None,
        };
        json!({
            "partition": self.at.to_string(),
            "settled": self.held.offset(),
            "sealed_ends": ends,
            "stream": of,
            "topic_stream": self.stream.to_string(),
            "first": self.range.first,
            "end": self.range.end,
            "error": error,
        })
    }

    /// Whether the group holds an offset of the topic before it was recreated.
    pub(super) fn is_of_another_topic(&self) -> bool {
        matches!(&self.held, Held::Ours(_, seal) if seal.stream.as_ref().is_some_and(|of| *of != self.stream))
    }
}
