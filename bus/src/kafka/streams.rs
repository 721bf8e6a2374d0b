//! Queries for the stream ids of a member's topics that do not block its polling thread.

use std::sync::Arc;
use std::time::Duration;

use super::lookup::Lookup;
use super::raw::TopicIdAnswers;
use super::waker::Waker;
use crate::{BusError, StreamId};

/// The longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait for the cluster's id, which the client knows from its first answer on.
const CLUSTER: Duration = Duration::from_millis(100);

/// The topics that exist and their stream ids.
pub(super) type Streams = Vec<(Arc<str>, StreamId)>;

/// The query under way, at most one. It uses the client of a [`Lookup`]: on the consumer's own connection it would wait
/// behind a fetch. It must be dropped before that client.
pub(super) struct StreamQuery {
    answers: TopicIdAnswers,
    topics: Vec<Arc<str>>,
    is_open: bool,
}

impl StreamQuery {
    pub(super) fn new(lookup: &Lookup, topics: &[String], waker: &Waker) -> Result<Self, BusError> {
        let topics = topics.iter().map(|topic| topic.as_str().into()).collect();
        Ok(Self { answers: lookup.topic_id_answers(waker)?, topics, is_open: false })
    }

    /// Starts a query, unless one is under way: that one may have been answered before this call, so it does not count.
    pub(super) fn start(&mut self, lookup: &Lookup) -> Result<(), BusError> {
        if self.is_open {
            return Err(BusError::Unavailable("the previous query for topic ids has not been answered yet".to_owned()));
        }
        lookup.ask_topic_ids(&mut self.answers, &names(&self.topics), TIMEOUT)?;
        self.is_open = true;
        Ok(())
    }

    /// The answer to the query under way, if it has come.
    pub(super) fn poll(&mut self, lookup: &Lookup) -> Option<Result<Streams, BusError>> {
        if !self.is_open {
            return None;
        }
        let ids = self.answers.poll(Duration::ZERO)?;
        self.is_open = false;
        let streams = lookup.streams_of(&names(&self.topics), ids, CLUSTER);
        Some(streams.map(|streams| {
            let named = self.topics.iter().cloned().zip(streams);
            named.filter_map(|(topic, stream)| Some((topic, stream?))).collect()
        }))
    }
}

fn names(topics: &[Arc<str>]) -> Vec<&str> {
    topics.iter().map(|topic| &**topic).collect()
}
