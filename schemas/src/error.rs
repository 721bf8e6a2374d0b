use thiserror::Error;

/// Why bytes are not counter events. The sender is always at fault; a retry never helps.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{encoding}: {field} at byte {position}: {reason}")]
pub struct SchemaError {
    /// Which decoder refused: `native`, `json`, `influx`; `unknown` when no encoding was named and none recognised.
    pub encoding: &'static str,
    /// The field, in the producer's terms: `tags.route`, `[3].value`, `line 2 timestamp`.
    pub field: String,
    /// Byte in the message where the decoder stopped.
    pub position: usize,
    /// What is wrong, and what was expected.
    pub reason: String,
}

/// Why a name and tags are not a series, or why a series cannot be written in some encoding.
///
/// The program that chose the name or the tag is at fault; a retry never helps.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct SeriesError {
    /// `name`, `tags` or `tags.<key>`.
    pub field: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl SeriesError {
    pub(crate) fn name(reason: &'static str) -> Self {
        Self { field: "name".to_owned(), reason }
    }

    pub(crate) fn tags(reason: &'static str) -> Self {
        Self { field: "tags".to_owned(), reason }
    }

    pub(crate) fn tag(key: &str, reason: &'static str) -> Self {
        Self { field: format!("tags.{}", excerpt(key)), reason }
    }
}

/// The beginning of a sender's text, fit for one line of a log, which hostile input must not flood.
pub(crate) fn excerpt(text: &str) -> String {
    const MOST: usize = 64;
    let mut short: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}
