use std::time::Duration;

use crate::{Access, BusError, Committed, OffsetRange, Resource, Retention, StreamId};

/// Queries topics and groups, without effect on either. It keeps its connections open, so a caller should create one
/// and keep it.
///
/// A query may name several topics, each once. The result is in their order, each topic's partitions by number, and
/// complete: whatever the bus does not report is an error, never a default value.
pub trait Observer: Send + Sync {
    /// Each topic's number of partitions; `None` for one that does not exist. Never creates it.
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError>;

    /// The offsets that each partition holds now.
    ///
    /// # Errors
    /// [`BusError::NoTopic`] when one does not exist.
    fn offsets(&self, topics: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError>;

    /// For each partition the end of what may be read now: its end, or less while a transaction is open before that.
    ///
    /// # Errors
    /// [`BusError::NoTopic`] when one does not exist.
    fn readable_ends(&self, topics: &[&str]) -> Result<Vec<Vec<u64>>, BusError> {
        let offsets = self.offsets(topics)?;
        Ok(offsets.iter().map(|ranges| ranges.iter().map(|range| range.end).collect()).collect())
    }

    /// For each partition the first offset whose record's own timestamp is `time_ms` (milliseconds since the Unix epoch) or
    /// later; the partition's end when there is none.
    ///
    /// # Errors
    /// [`BusError::NoTopic`] when one does not exist.
    fn offsets_at(&self, topics: &[&str], time_ms: i64) -> Result<Vec<Vec<u64>>, BusError>;

    /// What groups have committed: for each pair of a group and a topic, by partition.
    ///
    /// # Errors
    /// [`BusError::NoTopic`] when one does not exist.
    fn committed(&self, of: &[(&str, &str)]) -> Result<Vec<Vec<Option<Committed>>>, BusError>;

    /// The groups that the bus knows, by name: those with members or commits. Some may be hidden from this client.
    ///
    /// # Errors
    /// [`BusError::Settings`] when the bus has no such list, as by default.
    fn groups(&self) -> Result<Vec<String>, BusError> {
        Err(BusError::Settings("this bus does not list its groups".to_owned()))
    }

    /// The stream id of each topic: its current incarnation.
    ///
    /// # Errors
    /// [`BusError::NoTopic`] when one does not exist; [`BusError::Settings`] when the bus is too old to have stream
    /// ids.
    fn stream_ids(&self, topics: &[&str]) -> Result<Vec<StreamId>, BusError>;

    /// How long each topic keeps its records. A bus that says nothing else keeps them forever.
    ///
    /// # Errors
    /// [`BusError::Access`] when the bus does not tell this client.
    fn retention(&self, topics: &[&str]) -> Result<Vec<Retention>, BusError> {
        Ok(vec![Retention::default(); topics.len()])
    }

    /// After how long without a member and a commit the bus forgets a group's offsets; `None` if it never does.
    ///
    /// # Errors
    /// [`BusError::Access`] when the bus does not tell this client.
    fn forgets_groups_after(&self) -> Result<Option<Duration>, BusError> {
        Ok(None)
    }

    /// What this client may do with each of these, in their order. A bus that knows no access rights allows everything.
    fn access(&self, of: &[Resource]) -> Result<Vec<Access>, BusError> {
        Ok(vec![Access::all(); of.len()])
    }

    /// Whether this client may create a topic of this name, which does not exist. Nothing is created.
    fn may_create_topic(&self, _topic: &str) -> Result<bool, BusError> {
        Ok(true)
    }

    /// The name under which the bus grants this client its rights, such as `User:alice`; `None` where it has none, or only
    /// the bus knows it.
    fn principal(&self) -> Option<String> {
        None
    }

    /// [`Observer::partitions`] of one topic.
    fn partitions_of(&self, topic: &str) -> Result<Option<u32>, BusError> {
        only(self.partitions(&[topic])?)
    }

    /// [`Observer::offsets`] of one topic.
    fn offsets_of(&self, topic: &str) -> Result<Vec<OffsetRange>, BusError> {
        only(self.offsets(&[topic])?)
    }

    /// [`Observer::offsets_at`] of one topic.
    fn offsets_at_time(&self, topic: &str, time_ms: i64) -> Result<Vec<u64>, BusError> {
        only(self.offsets_at(&[topic], time_ms)?)
    }

    /// [`Observer::committed`] by one group for one topic.
    fn committed_by(&self, group: &str, topic: &str) -> Result<Vec<Option<Committed>>, BusError> {
        only(self.committed(&[(group, topic)])?)
    }

    /// [`Observer::stream_ids`] of one topic.
    fn stream_id_of(&self, topic: &str) -> Result<StreamId, BusError> {
        only(self.stream_ids(&[topic])?)
    }
}

fn only<T>(mut answers: Vec<T>) -> Result<T, BusError> {
    match (answers.pop(), answers.is_empty()) {
        (Some(answer), true) => Ok(answer),
        _ => Err(BusError::Fatal("the bus client answered one query several times, or not at all".to_owned())),
    }
}
