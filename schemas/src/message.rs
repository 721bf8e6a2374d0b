use crate::{Encoding, SchemaError, TimeUnit};

/// A message of a text encoding. The first call of [`Message::text`] checks that its bytes are UTF-8.
///
/// Not needed as long as every event is ASCII around a remembered raw key: what is remembered was valid text.
/// Before any other refusal the text is requested, so a message that is not UTF-8 is always refused for that reason.
pub(crate) struct Message<'a> {
    pub(crate) bytes: &'a [u8],
    text: Option<&'a str>,
    encoding: Encoding,
    /// The declared unit of times that are written as numbers.
    pub(crate) time_unit: Option<TimeUnit>,
}

impl<'a> Message<'a> {
    pub(crate) fn new(encoding: Encoding, bytes: &'a [u8], time_unit: Option<TimeUnit>) -> Self {
        Self { bytes, text: None, encoding, time_unit }
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
