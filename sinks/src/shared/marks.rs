//! The text of a mark: an offset, and the claim that it belongs to.

use tallybus_sdk::SinkError;

pub(crate) fn mark_text(entry: &str, offset: u64) -> String {
    format!("{offset} {entry}")
}

/// The entry and its offset. `place`: where the text is kept, for the message.
pub(crate) fn parse_mark(text: &str, place: &str) -> Result<(String, u64), SinkError> {
    let parsed = text.split_once(' ').and_then(|(offset, entry)| Some((entry.to_owned(), offset.parse().ok()?)));
    parsed.ok_or_else(|| {
        SinkError::Halt(format!(
            "{place} contains {text:?}, which Tallybus did not write: find out what did, and remove it"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_another_text_is_refused() {
        assert_eq!(
            parse_mark(&mark_text("{\"a b\": 1}", u64::MAX), "x").unwrap(),
            ("{\"a b\": 1}".to_owned(), u64::MAX)
        );
        for wrong in ["", "{}", "-1 {}", "1"] {
            assert!(matches!(parse_mark(wrong, "x"), Err(SinkError::Halt(_))), "{wrong:?}");
        }
    }
}
