use crate::{Encoding, SchemaError};

/// A message of a text encoding. Its bytes are checked to be text on the first call of [`Message::text`].
///
/// Not needed as long as every event is ASCII around a remembered raw key: what is remembered was valid text.
/// Whatever is refused was asked for as text before, so that a message that is none is always refused for that.
pub(crate) struct Message<'a> {
    pub(crate) bytes: &'a [u8],
    text: Option<&'a str>,
    encoding: Encoding,
}

impl<'a> Message<'a> {
    pub(crate) fn new(encoding: Encoding, bytes: &'a [u8]) -> Self {
        Self { bytes, text: None, encoding }
    }

    /// The whole message as text.
    pub(crate) fn text(&mut self) -> Result<&'a str, SchemaError> {
        if let Some(text) = self.text {
            return Ok(text);
        }
        let text = std::str::from_utf8(self.bytes).map_err(|error| SchemaError {
            encoding: self.encoding.name(),
            field: "message".to_owned(),
            position: error.valid_up_to(),
            reason: "not UTF-8".to_owned(),
        })?;
        self.text = Some(text);
        Ok(text)
    }
}
