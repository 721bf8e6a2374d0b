use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Names one incarnation of a topic: constant as long as the topic exists, and different once it has been deleted and
/// recreated. An offset means the same record only under the same stream id.
///
/// Written as `kind:id`, such as `kafka:<cluster id>:<topic id>`. A copy of an embedded bus's file keeps its ids, so
/// the ids do not distinguish records written afterwards to the original and to the copy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(Arc<str>);

/// A text that is not a stream id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a stream id: expected `kind:id` of at most 200 letters, digits and `-_.:+/=`")]
pub struct InvalidStreamId(String);

impl StreamId {
    /// The longest id that is accepted, in bytes.
    pub const MAX_LENGTH: usize = 200;

    /// The part of it that names the incarnation, for keys that must be short: what follows the last colon. It is the id
    /// that the bus gave the topic when it was created.
    pub fn short(&self) -> &str {
        self.0.rsplit(':').next().unwrap_or(&self.0)
    }

    /// The text, as [`FromStr`] reads it back.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for StreamId {
    type Err = InvalidStreamId;

    fn from_str(text: &str) -> Result<Self, InvalidStreamId> {
        let is_kind = |kind: &str| !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase());
        let is_id = |id: &str| {
            !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(&byte))
        };
        match text.split_once(':') {
            Some((kind, id)) if text.len() <= Self::MAX_LENGTH && is_kind(kind) && is_id(id) => Ok(Self(text.into())),
            _ => Err(InvalidStreamId(text.chars().take(Self::MAX_LENGTH).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_id_is_read_back_as_written_and_other_texts_are_refused() {
        for text in ["kafka:MkU3OEVBNTcwNTJENDM2Qg:AAAAAAAAAAAAAAAAAAAAAQ", "embedded:00ff"] {
            let id: StreamId = text.parse().unwrap();
            assert_eq!((id.to_string().as_str(), id.as_str()), (text, text));
            assert!(text.ends_with(&format!(":{}", id.short())) && !id.short().contains(':'), "{}", id.short());
        }
        let long = format!("embedded:{}", "0".repeat(StreamId::MAX_LENGTH));
        for text in ["", "embedded", "embedded:", ":00", "Kafka:1", "kafka:a b", "kafka:\n", "kafka:ä", &long] {
            assert!(text.parse::<StreamId>().is_err(), "{text:?}");
        }
    }
}
