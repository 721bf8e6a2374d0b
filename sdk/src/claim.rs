//! Claims: which sink writes which partitions to a destination, as the destination itself records it.
//!
//! Two sinks that share a destination overwrite or double each other's counts, and so do two incarnations of one topic.
//! Settings show only the sinks of one file, so the destination holds a [`Claim`] for each partition that is written to it.
//! A worker reads the claims, adds its own before it seals the first batch of a partition, and reads them
//! again after that: of two workers that start at the same moment, at least one sees the other.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tallybus_bus::{StreamId, TopicPartition};

use crate::SinkError;

/// One partition of one incarnation of a topic, written by one sink.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// The consumer group of the sink that writes it; a sink's replayed dead letters belong to the same owner.
    pub owner: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The incarnation of the topic, as text ([`StreamId`]).
    pub stream: String,
    /// The tags that the sink adds to every series (`select.tags`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// How points are placed ([`Sink::lasting_layout`](crate::Sink::lasting_layout)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
}

/// Records in a destination which sinks write to it. Entries are opaque texts of at most [`Claim::MAX_LENGTH`] bytes.
///
/// [`Claims::entries`] returns every entry whose [`Claims::add`] was acknowledged before the call, whichever process added it.
#[async_trait]
pub trait Claims: Send + Sync {
    /// Every entry; none where the destination does not exist yet and the sink may create it.
    ///
    /// # Errors
    /// The destination did not respond, or cannot be read. An error says nothing about the entries.
    async fn entries(&self) -> Result<Vec<String>, SinkError>;

    /// Adds an entry durably; adding it again changes nothing.
    ///
    /// # Errors
    /// It may or may not have been added.
    async fn add(&self, entry: &str) -> Result<(), SinkError>;

    /// Removes an entry; removing one that is not there changes nothing.
    ///
    /// # Errors
    /// It may or may not have been removed.
    async fn remove(&self, entry: &str) -> Result<(), SinkError>;

    /// Records durably with an entry how far its partition had been written: every batch that ends at `offset` or before is in
    /// the destination. A destination that keeps a ledger needs no marks.
    ///
    /// # Errors
    /// It may or may not have been recorded.
    async fn mark(&self, entry: &str, offset: u64) -> Result<(), SinkError> {
        let _ = (entry, offset);
        Ok(())
    }

    /// The entries that were marked, each with its mark or an older one. A destination that was restored from a backup has
    /// the marks of then.
    ///
    /// # Errors
    /// As [`Claims::entries`].
    async fn marks(&self) -> Result<Vec<(String, u64)>, SinkError> {
        Ok(Vec::new())
    }

    /// How often a partition that is written is marked; `None` where the destination keeps a ledger.
    fn marks_every(&self) -> Option<Duration> {
        None
    }

    /// Whether sinks that add different values of one tag to every series cannot affect each other.
    fn keeps_tags_apart(&self) -> bool {
        false
    }
}

impl dyn Claims + '_ {
    /// Every entry as the claim that it is.
    ///
    /// # Errors
    /// As [`Claims::entries`] and [`Claim::parse`].
    pub async fn held(&self) -> Result<Vec<Claim>, SinkError> {
        self.entries().await?.iter().map(|entry| Claim::parse(entry)).collect()
    }
}

/// Why a partition must not be written to a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Another sink writes to the destination.
    OtherSink(Claim),
    /// The destination holds another incarnation of the topic.
    OtherStream(Claim),
    /// The sink has written to the destination under settings that place points elsewhere.
    OtherLayout(Claim),
}

impl Claim {
    /// The longest entry, in bytes: topic, owner and stream always fit.
    pub const MAX_LENGTH: usize = 1_000;

    /// A sink's claim on a partition.
    pub fn new(owner: &str, at: &TopicPartition, stream: &StreamId, tags: &BTreeMap<String, String>) -> Self {
        Self {
            owner: owner.to_owned(),
            topic: at.topic.to_string(),
            partition: at.partition,
            stream: stream.to_string(),
            tags: tags.clone(),
            layout: None,
        }
    }

    /// The same, with how points are placed.
    #[must_use]
    pub fn with_layout(self, layout: Option<String>) -> Self {
        Self { layout, ..self }
    }

    /// The entry in the destination. Tags for which there is no space are left out: then the sink cannot be shown to be
    /// apart from another one.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn to_entry(&self) -> Result<String, SinkError> {
        let failed = |error| SinkError::Halt(format!("the claim on {self} cannot be written: {error}"));
        let entry = serde_json::to_string(self).map_err(failed)?;
        if entry.len() <= Self::MAX_LENGTH {
            return Ok(entry);
        }
        serde_json::to_string(&Self { tags: BTreeMap::new(), ..self.clone() }).map_err(failed)
    }

    /// Parses an entry.
    ///
    /// # Errors
    /// No version of Tallybus up to this one wrote it.
    pub fn parse(entry: &str) -> Result<Self, SinkError> {
        serde_json::from_str(entry).map_err(|error| {
            SinkError::Halt(format!("the destination holds a claim that this version cannot read: {entry:?} ({error})"))
        })
    }

    /// Whether this sink has written this partition of this incarnation to the destination before.
    pub fn is_among(&self, held: &[Self]) -> bool {
        held.iter().any(|other| other.is_same(self))
    }

    /// Whether both are of one sink, and of one partition of one incarnation. The tags may have changed.
    pub fn is_same(&self, other: &Self) -> bool {
        (&other.owner, &other.topic, other.partition, &other.stream)
            == (&self.owner, &self.topic, self.partition, &self.stream)
    }

    /// The first of the claims that a destination holds which excludes this one. `tags_apart`: what
    /// [`Claims::keeps_tags_apart`] says there.
    pub fn conflict(&self, held: &[Self], tags_apart: bool) -> Option<Conflict> {
        held.iter().find_map(|other| {
            if other.owner != self.owner {
                return (!(tags_apart && other.tag_apart(&self.tags).is_some()))
                    .then(|| Conflict::OtherSink(other.clone()));
            }
            if other.topic == self.topic && other.stream != self.stream {
                return Some(Conflict::OtherStream(other.clone()));
            }
            (other.layout != self.layout).then(|| Conflict::OtherLayout(other.clone()))
        })
    }

    /// The first tag that this claim's sink adds, with its value, to which a sink that adds `tags` gives another value: no series
    /// can be of both sinks then.
    pub fn tag_apart(&self, tags: &BTreeMap<String, String>) -> Option<(&str, &str)> {
        let differs = |(name, value): &(&String, &String)| tags.get(*name).is_some_and(|other| other != *value);
        self.tags.iter().find(differs).map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} of topic {} by group {}", self.topic, self.partition, self.stream, self.owner)
    }
}

impl Conflict {
    /// Describes the conflict, what is safe and what to do. `destination`: its name, without secrets.
    pub fn describe(&self, ours: &Claim, destination: &str, tags_help: bool) -> String {
        let at = format!("{}/{}", ours.topic, ours.partition);
        let safe = format!("Nothing of {at} was written; its records are safe on the bus.");
        match self {
            Self::OtherSink(theirs) => {
                let tags = if tags_help {
                    "; or add a tag with a different value to each of the two sinks (`select.tags`)"
                } else {
                    ""
                };
                format!(
                    "{destination} is claimed by another sink: group {} writes {}/{} there, this one is {}. Two sinks would \
                     overwrite or double each other's counts. {safe} Give this sink a destination of its own{tags}; or, if \
                     the other sink is gone for good, remove its claim with `tallybus sink claims`",
                    theirs.owner, theirs.topic, theirs.partition, ours.owner
                )
            }
            Self::OtherStream(theirs) => format!(
                "{destination} holds counts of another topic {}: it was {} and is {} now. The topic or the bus was \
                 recreated, or another bus writes to this destination. {safe} Give the sink a new destination to count the \
                 present topic",
                ours.topic, theirs.stream, ours.stream
            ),
            Self::OtherLayout(theirs) => format!(
                "{destination} was written under other settings of this sink ({}) than it has now ({}): points of both could \
                 overwrite each other. {safe} Set the window, the topics and their order, and `max_partitions` as they were, or \
                 give the sink a new destination",
                layout_of(theirs),
                layout_of(ours)
            ),
        }
    }
}

fn layout_of(claim: &Claim) -> &str {
    claim.layout.as_deref().unwrap_or("none")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(owner: &str, topic: &str, partition: u32, stream: &str, tags: &[(&str, &str)]) -> Claim {
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Claim::new(owner, &TopicPartition::new(topic, partition), &stream.parse().unwrap(), &tags)
    }

    #[test]
    fn an_entry_is_read_back_as_the_claim_that_it_was() {
        for claim in [claim("tallybus.a", "t", 3, "kafka:c:x", &[]), claim("g", "t \"", 0, "sim:1", &[("k", "ü\n")])] {
            assert_eq!(Claim::parse(&claim.to_entry().unwrap()).unwrap(), claim);
        }
        let entry = claim("tallybus.a", "t", 3, "kafka:c:x", &[]).to_entry().unwrap();
        assert_eq!(entry, r#"{"owner":"tallybus.a","topic":"t","partition":3,"stream":"kafka:c:x"}"#);
        assert!(Claim::parse("{}").is_err() && Claim::parse("").is_err());
        let long = claim("g", "t", 0, "sim:1", &[("k", &"v".repeat(Claim::MAX_LENGTH))]);
        assert_eq!(long.to_entry().unwrap(), claim("g", "t", 0, "sim:1", &[]).to_entry().unwrap());
        let widest = StreamId::MAX_LENGTH - "kafka::x".len();
        let stream = format!("kafka:{}:x", "c".repeat(widest));
        let longest = claim(
            &format!("{}.tallybus.{}", "n".repeat(100), "s".repeat(100)),
            &"t".repeat(249),
            u32::MAX,
            &stream,
            &[],
        );
        assert!(longest.to_entry().unwrap().len() <= Claim::MAX_LENGTH);
    }

    #[tokio::test]
    async fn a_destination_has_no_marks_and_keeps_no_tags_apart_unless_it_says_so() {
        struct Plain;
        #[async_trait]
        impl Claims for Plain {
            async fn entries(&self) -> Result<Vec<String>, SinkError> {
                Ok(vec!["an entry".to_owned()])
            }
            async fn add(&self, _: &str) -> Result<(), SinkError> {
                Ok(())
            }
            async fn remove(&self, _: &str) -> Result<(), SinkError> {
                Ok(())
            }
        }
        Plain.mark("an entry", 5).await.unwrap();
        assert_eq!(Plain.marks().await.unwrap(), []);
        assert_eq!((Plain.marks_every(), Plain.keeps_tags_apart()), (None, false));
    }

    #[test]
    fn a_claim_shows_whose_it_is_and_of_what() {
        let text = claim("tallybus.a", "t", 3, "sim:1", &[("k", "v")]).to_string();
        assert_eq!(text, "t/3 of topic sim:1 by group tallybus.a");
    }

    #[test]
    fn another_sink_conflicts_whatever_it_writes() {
        let ours = claim("tallybus.a", "t", 0, "sim:1", &[]);
        assert_eq!(ours.conflict(&[], false), None);
        assert_eq!(ours.conflict(std::slice::from_ref(&ours), false), None);
        for theirs in [claim("tallybus.b", "t", 0, "sim:1", &[]), claim("tallybus.b", "other", 7, "sim:2", &[])] {
            let held = [ours.clone(), theirs.clone()];
            assert_eq!(ours.conflict(&held, false), Some(Conflict::OtherSink(theirs)));
        }
    }

    #[test]
    fn another_incarnation_of_the_topic_conflicts() {
        let (ours, old) = (claim("g", "t", 0, "sim:2", &[]), claim("g", "t", 5, "sim:1", &[]));
        let held = [old.clone()];
        assert_eq!(ours.conflict(&held, false), Some(Conflict::OtherStream(old)));
        assert_eq!(ours.conflict(&[claim("g", "u", 0, "sim:1", &[])], false), None, "another topic");
    }

    #[test]
    fn sinks_with_different_values_of_one_added_tag_do_not_conflict_where_series_are_kept_apart() {
        let ours = claim("a", "t", 0, "sim:1", &[("env", "prod"), ("x", "1")]);
        for (theirs, conflicts) in [
            (vec![("env", "stage")], false),
            (vec![("env", "prod"), ("x", "2")], false),
            (vec![("env", "prod")], true),
            (vec![("region", "eu")], true),
            (vec![], true),
        ] {
            let held = [claim("b", "t", 0, "sim:1", &theirs)];
            assert_eq!(ours.conflict(&held, true).is_some(), conflicts, "{theirs:?}");
            assert!(ours.conflict(&held, false).is_some(), "{theirs:?}");
        }
    }

    #[test]
    fn a_claim_is_ours_only_with_the_same_partition_and_incarnation() {
        let ours = claim("g", "t", 1, "sim:1", &[]);
        assert!(ours.is_among(&[claim("g", "t", 1, "sim:1", &[("a", "b")])]), "the tags may have changed since");
        for other in [
            claim("h", "t", 1, "sim:1", &[]),
            claim("g", "u", 1, "sim:1", &[]),
            claim("g", "t", 2, "sim:1", &[]),
            claim("g", "t", 1, "sim:2", &[]),
        ] {
            assert!(!ours.is_among(&[other]));
        }
    }

    #[test]
    fn a_conflict_names_both_and_the_way_out() {
        let ours = claim("tallybus.a", "t", 0, "sim:2", &[]);
        let other = Conflict::OtherSink(claim("tallybus.b", "u", 4, "sim:1", &[]));
        let text = other.describe(&ours, "counts.db", false);
        assert!(text.starts_with("counts.db is claimed by another sink: group tallybus.b writes u/4"), "{text}");
        assert!(text.contains("this one is tallybus.a") && text.contains("a destination of its own; or, if"), "{text}");
        assert!(other.describe(&ours, "x", true).contains("select.tags"));
        let layout = |text: &str| ours.clone().with_layout(Some(text.to_owned()));
        let conflict = layout("window=2").conflict(&[layout("window=1")], true).unwrap();
        assert_eq!(conflict, Conflict::OtherLayout(layout("window=1")));
        let text = conflict.describe(&layout("window=2"), "x", true);
        assert!(text.contains("(window=1) than it has now (window=2)"), "{text}");
        assert_eq!(layout("window=1").conflict(&[layout("window=1")], true), None);
        let old = Conflict::OtherStream(claim("tallybus.a", "t", 0, "sim:1", &[]));
        let text = old.describe(&ours, "counts.db", false);
        assert!(text.contains("it was sim:1 and is sim:2 now") && text.ends_with("count the present topic"), "{text}");
    }
}
