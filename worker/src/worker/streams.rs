//! Confirms that the topics are still the ones that the partitions' records came from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::{BusError, StreamId};

use super::Worker;
use crate::status::HaltCause;

/// How soon a failed query is repeated.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// How often the topics are looked at while nothing waits for it: a recreated topic is then reported although it has nothing
/// to read yet.
const ASK_IDLE: Duration = Duration::from_secs(5);

/// The state of the query for the topics' incarnations: one at a time.
#[derive(Default)]
pub(super) enum StreamCheck {
    /// None was made yet.
    #[default]
    Never,
    /// The last one was answered at this time.
    Answered(Instant),
    /// Not answered yet.
    InFlight,
    /// The last one failed; the next one not before this time.
    Failed(Instant),
}

impl Worker {
    /// Starts a query when batches wait for one, or the last one was long ago: it rides along with the commits, so that a batch
    /// is sealed by the commit after the answer.
    pub(super) fn query_streams(&mut self) {
        match self.stream_check {
            StreamCheck::InFlight => return,
            StreamCheck::Failed(until) if self.clock.now() < until => return,
            StreamCheck::Never | StreamCheck::Answered(_) | StreamCheck::Failed(_) => {}
        }
        let is_awaited = self.tasks.iter().any(|task| task.awaits_stream());
        let is_due = match self.stream_check {
            StreamCheck::Answered(at) => self.clock.now() >= at + ASK_IDLE,
            _ => true,
        };
        if self.tasks.is_empty() || !(is_awaited || is_due) {
            return;
        }
        let Some(subscriber) = self.membership.subscriber() else { return };
        match subscriber.query_streams() {
            Ok(()) => {
                self.tasks.iter_mut().for_each(|task| task.stream_query_started());
                self.stream_check = StreamCheck::InFlight;
            }
            Err(error) => self.stream_query_failed(&error),
        }
    }

    pub(super) fn streams_answered(&mut self, answer: Result<Vec<(Arc<str>, StreamId)>, BusError>) {
        let streams = match answer {
            Ok(streams) => streams,
            Err(error) => return self.stream_query_failed(&error),
        };
        self.stream_check = StreamCheck::Answered(self.clock.now());
        let mut changed = Vec::new();
        for owned in self.tasks.owned_mut() {
            let found = streams.iter().find(|(topic, _)| *topic == owned.task.at.topic).map(|(_, stream)| stream);
            match owned.task.stream_query_answered(found) {
                Ok(()) => owned.hand_over(),
                Err(reason) => changed.push((owned.task.at.clone(), reason)),
            }
        }
        for (at, reason) in changed {
            self.stop_partition(&at, HaltCause::Recreated, reason);
        }
    }

    fn stream_query_failed(&mut self, error: &BusError) {
        self.stream_check = StreamCheck::Failed(self.clock.now() + ASK_AGAIN);
        self.tasks.iter_mut().for_each(|task| task.stream_query_failed());
        self.bus_failures.note(&error.to_string());
    }
}
