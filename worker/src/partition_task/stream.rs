//! Which incarnation of the topic a partition's records belong to.

use tallybus_bus::{StreamId, TopicPartition};

#[cfg(feature = "simulation")]
use crate::simulation::Mutant;

/// The topic's incarnation, and up to which offset the records that were delivered are known to belong to it.
///
/// The id was read before the partition was started. When a query that begins after a record was delivered answers the
/// same id, the topic was not recreated in between, so the record belongs to that incarnation. Batches are sealed, and
/// batches that were found sealed are written, only up to the offset that is confirmed in this way: an offset of a
/// recreated topic is never sealed or written under the old topic's name.
pub(super) struct ConfirmedStream {
    id: StreamId,
    /// Every record below this offset belongs to the incarnation.
    confirmed: u64,
    /// The next offset when the query in flight began.
    querying: Option<u64>,
}

impl ConfirmedStream {
    pub(super) fn new(id: StreamId) -> Self {
        Self { id, confirmed: 0, querying: None }
    }

    pub(super) fn id(&self) -> &StreamId {
        &self.id
    }

    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Whether records up to `end` are neither confirmed nor will be by the query in flight.
    pub(super) fn awaits(&self, end: u64) -> bool {
        end > self.confirmed && self.querying.is_none_or(|next| end > next)
    }

    /// A query begins; every record below `next` was delivered before.
    pub(super) fn query_started(&mut self, next: u64) {
        self.querying = Some(next);
    }

    /// Records that were confirmed long ago are confirmed again before they are sealed.
    pub(super) fn unconfirm(&mut self) {
        self.confirmed = 0;
        self.querying = None;
    }

    /// The query in flight was not answered.
    pub(super) fn query_failed(&mut self) {
        self.querying = None;
    }

    /// The query in flight was answered. An answer to a query that began before this partition was started confirms
    /// nothing.
    ///
    /// # Errors
    /// The topic has another incarnation, or none: what happened, what is safe and what to do.
    pub(super) fn query_answered(
        &mut self,
        at: &TopicPartition,
        settled: u64,
        found: Option<&StreamId>,
    ) -> Result<(), String> {
        let querying = self.querying.take();
        #[cfg(feature = "simulation")]
        if [Mutant::NoStreamCheck, Mutant::StreamNotConfirmed].iter().any(|mutant| mutant.is_on()) {
            self.confirmed = self.confirmed.max(querying.unwrap_or_default());
            return Ok(());
        }
        if found == Some(&self.id) {
            self.confirmed = self.confirmed.max(querying.unwrap_or_default());
            return Ok(());
        }
        Err(changed(at, &self.id, found, settled))
    }

    /// Only for the benchmark that writes without sealing.
    #[cfg(feature = "unsealed-benchmark")]
    pub(super) fn confirm_everything(&mut self) {
        self.confirmed = u64::MAX;
    }
}

/// The message for a topic whose incarnation is not the one that the group's offset belongs to.
pub(crate) fn changed(at: &TopicPartition, was: &StreamId, found: Option<&StreamId>, settled: u64) -> String {
    let what = match found {
        Some(found) => format!("was recreated: it is {found} now and was {was}"),
        None => format!("was deleted; it was {was}"),
    };
    format!(
        "topic {} {what}. The group's offset {settled} of {at} belongs to the old topic; nothing of another topic was \
         written under its name, and what was not written before the topic was deleted is gone from the bus. To count the \
         new topic from its beginning: give the sink a new destination, stop its workers and run `tallybus group reset`",
        at.topic
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> StreamId {
        text.parse().unwrap()
    }

    #[test]
    fn records_are_confirmed_by_a_query_that_began_after_them() {
        let (at, mut stream) = (TopicPartition::new("t", 0), ConfirmedStream::new(id("kafka:c:a")));
        assert!(stream.awaits(5));
        // A query that began before the partition was started.
        stream.query_answered(&at, 0, Some(&id("kafka:c:a"))).unwrap();
        assert_eq!(stream.confirmed(), 0);
        stream.query_started(5);
        assert!(!stream.awaits(5) && stream.awaits(6));
        assert_eq!(stream.confirmed(), 0, "not before the answer");
        stream.query_answered(&at, 0, Some(&id("kafka:c:a"))).unwrap();
        assert_eq!(stream.confirmed(), 5);
        assert!(!stream.awaits(5) && stream.awaits(6));
    }

    #[test]
    fn a_query_that_failed_confirms_nothing() {
        let mut stream = ConfirmedStream::new(id("kafka:c:a"));
        stream.query_started(5);
        stream.query_failed();
        assert!(stream.awaits(5));
        assert_eq!(stream.confirmed(), 0);
    }

    #[test]
    fn another_incarnation_or_none_is_an_error_that_names_both() {
        let at = TopicPartition::new("t", 3);
        for (found, expected) in [
            (
                Some(id("kafka:c:b")),
                "topic t was recreated: it is kafka:c:b now and was kafka:c:a. The group's offset 7 of t/3",
            ),
            (None, "topic t was deleted; it was kafka:c:a. The group's offset 7 of t/3"),
        ] {
            let mut stream = ConfirmedStream::new(id("kafka:c:a"));
            stream.query_started(9);
            let reason = stream.query_answered(&at, 7, found.as_ref()).unwrap_err();
            assert!(reason.starts_with(expected) && reason.ends_with("run `tallybus group reset`"), "{reason}");
            assert_eq!(stream.confirmed(), 0);
        }
    }
}
