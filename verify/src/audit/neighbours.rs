//! The other sinks that write to a sink's destination, as its claims name them.

use tallybus_schemas::Series;
use tallybus_sdk::{Claim, SinkError};

use super::AuditedSink;

/// What the claims of a destination say of other sinks.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Tags of which each of their series has one, and none of ours: key and value.
    tags: Vec<(String, String)>,
    /// Another sink whose counts cannot be told from ours: its claim, for operators.
    pub(super) claimed_by: Option<String>,
}

impl Neighbours {
    /// Reads the claims; none where the destination holds no claims.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) async fn read(sink: &AuditedSink) -> Result<Self, SinkError> {
        let Some(claims) = sink.sink.claims() else { return Ok(Self::default()) };
        let mut held = Vec::new();
        for entry in claims.entries().await? {
            held.push(Claim::parse(&entry)?);
        }
        Ok(Self::of(sink, &held, claims.keeps_tags_apart()))
    }

    fn of(sink: &AuditedSink, held: &[Claim], keeps_tags_apart: bool) -> Self {
        let mut neighbours = Self::default();
        for claim in held.iter().filter(|claim| claim.owner != sink.group) {
            let differs = |(key, ours): &(&String, &String)| claim.tags.get(*key).is_some_and(|theirs| theirs != *ours);
            match sink.shape.tags.iter().find(differs).filter(|_| keeps_tags_apart) {
                Some((key, _)) => {
                    let tag = (key.clone(), claim.tags.get(key).cloned().unwrap_or_default());
                    if !neighbours.tags.contains(&tag) {
                        neighbours.tags.push(tag);
                    }
                }
                None => {
                    let place = || format!("group {} writes {}/{} there", claim.owner, claim.topic, claim.partition);
                    neighbours.claimed_by.get_or_insert_with(place);
                }
            }
        }
        neighbours
    }

    /// Whether a series is that of another sink.
    pub(super) fn own(&self, series: &Series) -> bool {
        self.tags.iter().any(|(key, value)| series.tag(key) == Some(value))
    }
}
