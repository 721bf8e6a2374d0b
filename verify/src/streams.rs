//! The present incarnations of the topics that dead letters come from.

use std::collections::HashMap;

use tallybus_bus::{BusError, Observer, StreamId};
use tallybus_sdk::dead_letter::DeadLetterHeaders;

/// The present incarnation of each topic that a sink reads, and of the topic that its dead letters are replayed from;
/// `None` for one that does not exist.
#[derive(Debug, Default)]
pub(crate) struct Streams(HashMap<String, Option<StreamId>>);

impl Streams {
    pub(crate) fn read<'t>(
        observer: &dyn Observer,
        topics: impl IntoIterator<Item = &'t String>,
    ) -> Result<Self, BusError> {
        let mut streams = HashMap::new();
        for topic in topics {
            let stream = match observer.stream_id_of(topic) {
                Ok(stream) => Some(stream),
                Err(BusError::NoTopic(_)) => None,
                Err(error) => return Err(error),
            };
            streams.insert(topic.clone(), stream);
        }
        Ok(Self(streams))
    }

    /// Whether a dead letter came from one of them. In a topic that was recreated, its offset is another record. Where
    /// the topic is gone, its dead letters are those of its last incarnation.
    pub(crate) fn has(&self, head: &DeadLetterHeaders<'_>) -> bool {
        let stream = self.0.get(head.topic);
        stream.is_some_and(|stream| stream.as_ref().is_none_or(|stream| head.is_of(stream)))
    }
}
