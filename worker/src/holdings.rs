//! What a destination says of how far a group has written a partition to it.

use tallybus_bus::{StreamId, TopicPartition};
use tallybus_sdk::{Sink, SinkError, Written};

use super::WorkerOptions;
use super::claims::{conflict_with, read_claims};

/// What a destination says of one partition of a sink's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// Its ledger: everything before the offset is written, as far as there was anything to write, and nothing from there on.
    Ledger(u64),
    /// It keeps no ledger, but has the group's claim. Everything before the mark is written, and more may be; 0 without a
    /// mark.
    Marked(u64),
    /// It has no claim of the group on the partition, which precedes the first write.
    Nothing,
    /// It has a claim of another sink, or of another incarnation of the topic: nothing is written to it.
    Excluded,
    /// Its kind keeps no record.
    Untold,
}

/// What the destination of a sink says of these partitions, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The destination's short name in commits ([`Written::destination_id`]); `None` if its kind names none.
    pub destination: Option<String>,
    /// One for each partition.
    pub partitions: Vec<Holding>,
}

/// Reads what the sink's destination says of these partitions. Writes nothing.
///
/// # Errors
/// The destination did not respond, or cannot be read: nothing is known of it.
pub async fn holdings(
    sink: &dyn Sink,
    options: &WorkerOptions,
    partitions: &[(TopicPartition, StreamId)],
) -> Result<Holdings, SinkError> {
    let held = read_claims(sink).await?;
    let owner = options.owner(sink);
    let mut found = Vec::with_capacity(partitions.len());
    for (at, stream) in partitions {
        let ledger = sink.ledger_end(&at.topic, at.partition).await?;
        let Some(held) = &held else {
            found.push(ledger.map_or(Holding::Untold, |end| Holding::Ledger(end.offset)));
            continue;
        };
        let ours = owner.claim(at, stream);
        let is_claimed = ours.is_among(&held.claims);
        found.push(match ledger {
            // A ledger knows a partition by topic and number: under the claim of another it says nothing of this group.
            _ if !is_claimed && conflict_with(&ours, &held.claims, sink).is_some() => Holding::Excluded,
            Some(end) => Holding::Ledger(end.offset),
            None if is_claimed => Holding::Marked(held.mark_of(&ours)),
            None => Holding::Nothing,
        });
    }
    let destination = sink.destination().map(|name| Written::destination_id(&name));
    Ok(Holdings { destination, partitions: found })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use tallybus_sdk::Claim;
    use tallybus_sdk::testkit::{FakeBackend, FakeSink};

    use super::*;

    const GROUP: &str = "tallybus.fake";

    async fn held(sink: &FakeSink) -> Result<Holding, SinkError> {
        let at = TopicPartition::new("t", 0);
        let found = holdings(sink, &WorkerOptions::of_a_test(GROUP, &["t"]), &[(at, "sim:2".parse().unwrap())]).await?;
        Ok(found.partitions[0].clone())
    }

    async fn claim(sink: &FakeSink, group: &str, stream: &str, mark: Option<u64>) {
        let at = TopicPartition::new("t", 0);
        let entry = Claim::new(group, &at, &stream.parse().unwrap(), &BTreeMap::new()).to_entry().unwrap();
        let claims = sink.claims().unwrap();
        claims.add(&entry).await.unwrap();
        if let Some(mark) = mark {
            claims.mark(&entry, mark).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_ledger_counts_only_where_the_destination_is_not_another_sinks_or_topics() {
        for (claimed, expected) in [
            (None, Holding::Ledger(30)),
            (Some((GROUP, "sim:2")), Holding::Ledger(30)),
            (Some((GROUP, "sim:1")), Holding::Excluded),
            (Some(("tallybus.other", "sim:2")), Holding::Excluded),
        ] {
            let backend = FakeBackend::new();
            backend.set_ledger_end("t", 0, 30);
            let sink = FakeSink::new(backend);
            if let Some((group, stream)) = claimed {
                claim(&sink, group, stream, None).await;
            }
            assert_eq!(held(&sink).await.unwrap(), expected, "{claimed:?}");
        }
    }

    #[tokio::test]
    async fn without_a_ledger_the_claim_and_its_mark_count_and_without_claims_nothing_is_told() {
        for (claimed, expected) in [
            (None, Holding::Nothing),
            (Some((GROUP, "sim:2", None)), Holding::Marked(0)),
            (Some((GROUP, "sim:2", Some(20))), Holding::Marked(20)),
            (Some((GROUP, "sim:1", Some(20))), Holding::Excluded),
        ] {
            let sink = FakeSink::new(FakeBackend::new()).without_ledger();
            if let Some((group, stream, mark)) = claimed {
                claim(&sink, group, stream, mark).await;
            }
            assert_eq!(held(&sink).await.unwrap(), expected, "{claimed:?}");
        }
        let sink = FakeSink::new(FakeBackend::new()).without_claims();
        assert_eq!(held(&sink).await.unwrap(), Holding::Untold);
    }

    #[tokio::test]
    async fn a_destination_that_does_not_respond_says_nothing() {
        let backend = FakeBackend::new();
        backend.set_away(true);
        assert!(held(&FakeSink::new(Arc::clone(&backend))).await.is_err());
        assert!(held(&FakeSink::new(Arc::clone(&backend)).without_ledger()).await.is_err());
    }
}
