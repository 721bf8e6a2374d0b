//! What a group holds for each partition, and what moving it there means.

use serde_json::{Value, json};
use tallybus_bus::{Bus, Committed, Observer, OffsetRange, StreamId, TopicPartition};
use tallybus_sdk::{SealMetadata, SealMetadataError, Shape};

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

/// Sets the group's offsets to these: nothing is sealed, and everything before them is taken for settled.
///
/// # Errors
/// The bus did not respond, or a worker of the group runs.
pub(super) fn set(bus: &dyn Bus, group: &str, shape: &Shape, to: &[(&Found, u64)]) -> Result<(), Failure> {
    let mut commits = Vec::with_capacity(to.len());
    for (found, offset) in to {
        let seal = SealMetadata::new(found.stream.clone(), Vec::new(), shape);
        let metadata = seal.to_metadata().map_err(Failure::failed)?;
        commits.push((found.at.clone(), Committed { offset: *offset, metadata }));
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

    /// One past the last offset that may be in the backend.
    fn sealed_end(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Ours(offset, seal) => Some(seal.sealed_end().unwrap_or(*offset)),
            Self::Unusable(offset, _) => Some(*offset),
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

    /// What moving to `to` means for the counts.
    pub(super) fn consequence(&self, to: u64) -> String {
        let is_other =
            matches!(&self.held, Held::Ours(_, seal) if seal.stream.as_ref().is_some_and(|of| *of != self.stream));
        if is_other {
            return format!("begins the recreated topic at {to}; the old topic's counts stay in the destination");
        }
        let (Some(settled), Some(sealed_end)) = (self.held.offset(), self.held.sealed_end()) else {
            return match to.checked_sub(self.range.first) {
                Some(0) | None => "as a new group".to_owned(),
                Some(passed) => format!("{} never counted, unless the destination has them", messages(passed)),
            };
        };
        let mut parts = Vec::new();
        if to < settled {
            parts.push(format!(
                "{} read again: counted twice, unless the destination refuses them",
                messages(settled - to)
            ));
        }
        if sealed_end > settled {
            parts.push(format!("the seal up to {sealed_end} is given up: what it covers may be written already"));
        }
        if to > settled {
            parts.push(format!("{} never counted, unless the destination has them", messages(to - settled)));
        }
        if parts.is_empty() {
            parts.push("no message is read again or passed over".to_owned());
        }
        parts.join("; ")
    }
}

fn messages(count: u64) -> String {
    match count {
        1 => "1 message is".to_owned(),
        _ => format!("{} messages are", grouped(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(held: Option<(u64, &[u64], &str)>) -> Found {
        let held = held.map_or(Held::Nothing, |(offset, ends, stream)| {
            Held::Ours(offset, SealMetadata::new(stream.parse().unwrap(), ends.to_vec(), &Shape::everything()))
        });
        let range = OffsetRange { first: 5, end: 90 };
        Found { at: TopicPartition::new("t", 0), held, range, stream: "kafka:c:now".parse().unwrap() }
    }

    #[test]
    fn a_move_says_what_is_counted_again_or_never() {
        for (held, to, expected) in [
            (None, 5, "as a new group"),
            (None, 7, "2 messages are never counted, unless the destination has them"),
            (Some((50, &[] as &[u64], "kafka:c:now")), 50, "no message is read again or passed over"),
            (
                Some((50, &[], "kafka:c:now")),
                49,
                "1 message is read again: counted twice, unless the destination refuses them",
            ),
            (Some((50, &[], "kafka:c:now")), 90, "40 messages are never counted, unless the destination has them"),
            (
                Some((50, &[60], "kafka:c:now")),
                50,
                "the seal up to 60 is given up: what it covers may be written already",
            ),
            (
                Some((50, &[], "kafka:c:before")),
                5,
                "begins the recreated topic at 5; the old topic's counts stay in the destination",
            ),
        ] {
            assert_eq!(found(held).consequence(to), expected);
        }
    }
}
