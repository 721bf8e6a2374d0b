use std::time::Instant;

use rdkafka::message::{BorrowedMessage, Message};

use super::raw::MessageHeaders;
use crate::{Record, TopicPartition};

/// A partition that the group gave to this member, from its announcement to its release.
pub(super) struct Owned {
    pub(super) at: TopicPartition,
    /// librdkafka fetches it.
    pub(super) started: bool,
    /// The group takes it away; nothing of it is delivered any more.
    pub(super) leaving: bool,
    /// Another member has it already.
    pub(super) lost: bool,
    /// Its end was told and nothing came since.
    pub(super) ended: bool,
    /// One past what was delivered last.
    pub(super) next: u64,
    /// Where it ended when the group gave it.
    pub(super) end: u64,
    /// When a commit for it was refused because the broker does not know this member.
    pub(super) disowned: Option<Instant>,
}

/// What this member owns.
#[derive(Default)]
pub(super) struct Partitions {
    owned: Vec<Owned>,
    /// Where the last record belonged: records come in runs.
    last: usize,
}

impl Partitions {
    pub(super) fn announce(&mut self, at: TopicPartition) {
        self.owned.retain(|owned| owned.at != at);
        self.owned.push(Owned {
            at,
            started: false,
            leaving: false,
            lost: false,
            ended: false,
            next: 0,
            end: 0,
            disowned: None,
        });
    }

    pub(super) fn get(&mut self, at: &TopicPartition) -> Option<&mut Owned> {
        self.owned.iter_mut().find(|owned| owned.at == *at)
    }

    pub(super) fn forget(&mut self, at: &TopicPartition) {
        self.owned.retain(|owned| owned.at != *at);
    }

    pub(super) fn may_commit(&self, at: &TopicPartition) -> bool {
        self.owned.iter().any(|owned| owned.at == *at && !owned.lost)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Owned> {
        self.owned.iter()
    }

    /// Hands a record over if its partition is delivered and it is not one from before the last start.
    pub(super) fn hand_over(&mut self, message: &BorrowedMessage<'_>, each: &mut dyn FnMut(Record<'_>)) -> bool {
        let (Ok(partition), Ok(offset)) = (u32::try_from(message.partition()), u64::try_from(message.offset())) else {
            return false;
        };
        let topic = message.topic();
        let is_it = |owned: &Owned| owned.at.partition == partition && *owned.at.topic == *topic;
        if !self.owned.get(self.last).is_some_and(is_it) {
            let Some(found) = self.owned.iter().position(is_it) else { return false };
            self.last = found;
        }
        let Some(owned) = self.owned.get_mut(self.last) else { return false };
        if !owned.started || owned.leaving || offset < owned.next {
            return false;
        }
        owned.next = offset + 1;
        owned.ended = false;
        each(record(message, topic, partition, offset, &MessageHeaders(message)));
        true
    }

    /// The partitions of that number whose end an event can mean. Where it can be another topic's, nothing is told of one
    /// of which records are known that were not delivered: `last_seen_end` may be from an earlier ownership.
    pub(super) fn ended(
        &mut self,
        partition: i32,
        last_seen_end: impl Fn(&TopicPartition) -> Option<u64>,
    ) -> Vec<TopicPartition> {
        let mut candidates: Vec<&mut Owned> =
            self.owned.iter_mut().filter(|owned| u32::try_from(partition) == Ok(owned.at.partition)).collect();
        if candidates.len() > 1 {
            candidates.retain(|owned| last_seen_end(&owned.at).is_some_and(|end| owned.next >= end.max(owned.end)));
        }
        candidates.retain(|owned| owned.started && !owned.leaving && !owned.ended);
        candidates
            .into_iter()
            .map(|owned| {
                owned.ended = true;
                owned.at.clone()
            })
            .collect()
    }
}

/// A record as the seam hands it over: nothing of it is copied.
pub(super) fn record<'a>(
    message: &'a BorrowedMessage<'_>,
    topic: &'a str,
    partition: u32,
    offset: u64,
    headers: &'a dyn crate::Headers,
) -> Record<'a> {
    Record {
        topic,
        partition,
        offset,
        time_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key(),
        payload: message.payload().unwrap_or_default(),
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same partition of two topics, of which the group has ten records each.
    fn two_topics() -> Partitions {
        let mut partitions = Partitions::default();
        for topic in ["a", "b"] {
            let at = TopicPartition::new(topic, 0);
            partitions.announce(at.clone());
            let owned = partitions.get(&at).unwrap();
            (owned.started, owned.end) = (true, 10);
        }
        partitions
    }

    fn told(partitions: &mut Partitions, last_seen_end: u64) -> Vec<String> {
        partitions.ended(0, |_| Some(last_seen_end)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_end_seen_in_an_earlier_ownership_ends_nothing() {
        let mut partitions = two_topics();
        partitions.get(&TopicPartition::new("a", 0)).unwrap().next = 10;
        // What was seen of `b` is as old as its beginning: its records are yet to come.
        partitions.get(&TopicPartition::new("b", 0)).unwrap().next = 4;
        assert_eq!(told(&mut partitions, 4), ["a/0"]);
        partitions.get(&TopicPartition::new("b", 0)).unwrap().next = 10;
        assert_eq!(told(&mut partitions, 10), ["b/0"]);
        assert_eq!(told(&mut partitions, 10), [""; 0], "an end is told once");
    }

    #[test]
    fn the_end_of_a_partition_that_leaves_is_not_anothers() {
        let mut partitions = two_topics();
        partitions.get(&TopicPartition::new("b", 0)).unwrap().leaving = true;
        assert_eq!(told(&mut partitions, 10), [""; 0]);
        partitions.forget(&TopicPartition::new("b", 0));
        assert_eq!(told(&mut partitions, 10), ["a/0"], "with one topic an end needs no guess");
    }
}
