//! What the claims of a sink's destination say of the sink itself, and of the others that write there.

use tallybus_schemas::Series;
use tallybus_sdk::{Claim, SinkError};

use super::AuditedSink;

/// What the claims of a destination say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbours {
    /// Whether this sink has written there, under the present incarnations of its topics or earlier ones.
    pub(super) has_ours: bool,
    /// Tags of which each series of another sink has one, and none of ours: key and value.
    tags: Vec<(String, String)>,
    /// Another sink whose counts cannot be told from ours: its claim, for operators.
    pub(super) claimed_by: Option<String>,
}

impl Neighbours {
    /// Reads the claims; nothing where the destination holds none.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) async fn read(sink: &AuditedSink) -> Result<Self, SinkError> {
        let Some(claims) = sink.sink.claims() else { return Ok(Self::default()) };
        Ok(Self::of(sink, &claims.held().await?, claims.keeps_tags_apart()))
    }

    fn of(sink: &AuditedSink, held: &[Claim], keeps_tags_apart: bool) -> Self {
        let mut neighbours = Self::default();
        for claim in held {
            if claim.owner == sink.group {
                neighbours.has_ours = true;
                continue;
            }
            match claim.tag_apart(&sink.shape.tags).filter(|_| keeps_tags_apart) {
                Some((key, value)) => {
                    let tag = (key.to_owned(), value.to_owned());
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
