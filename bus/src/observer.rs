use crate::{BusError, Committed, OffsetRange, StreamId};

/// Answers questions about topics and groups, without effect on either. It keeps its connections open, so that a caller makes one
/// and asks it for as long as the caller lives.
///
/// A question may name several topics, each once. It is answered in their order, each topic's partitions by number, or not
/// at all: what the bus does not tell is an error, never a value.
pub trait Observer: Send + Sync {
    /// Each topic's number of partitions; `None` for one that does not exist. Never creates it.
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError>;

    /// What each partition holds now.
    ///
    /// # Errors
    /// [`BusError::NoTopic`] when one does not exist.
    fn offsets(&self, topics: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError>;

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

    /// Which incarnation of each topic this is.
    ///
    /// # Errors
    /// [`BusError::NoTopic`] when one does not exist; [`BusError::Settings`] when the bus is too old to tell.
    fn stream_ids(&self, topics: &[&str]) -> Result<Vec<StreamId>, BusError>;

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
        _ => Err(BusError::Fatal("the bus client answered one question several times, or not at all".to_owned())),
    }
}
