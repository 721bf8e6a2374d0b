use std::mem;

use crate::native::NativeScratch;
use crate::scratch::TagList;
use crate::{ENCODING_HEADER, Encoding, Receiver, SchemaError, json, line, native};

/// Decodes messages of every encoding, one after the other; keeps its working memory between them.
///
/// It holds no state otherwise: the same bytes always give the same events. What one call needs is at most 32 times
/// the message's size plus a few kilobytes, whatever the message claims to hold.
#[derive(Debug, Default)]
pub struct Decoder {
    tags: TagList<'static>,
    native: NativeScratch,
}

impl Decoder {
    /// Allocates nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands the message's events to `receiver`, in order, and returns their number.
    ///
    /// Without an `encoding` it is recognised. `record_time_ns` is the record's own timestamp in nanoseconds since the
    /// Unix epoch; it becomes the time of events that carry none. An empty list of events is a message of 0 events.
    ///
    /// # Errors
    /// The message is not what it should be. Events handed over before the error do not count; see [`Receiver`].
    pub fn decode(
        &mut self,
        encoding: Option<Encoding>,
        payload: &[u8],
        record_time_ns: i64,
        receiver: &mut dyn Receiver,
    ) -> Result<u32, SchemaError> {
        let refuse = |reason: String| SchemaError {
            encoding: encoding.map_or("unknown", Encoding::name),
            field: "message".to_owned(),
            position: 0,
            reason,
        };
        if payload.is_empty() {
            return Err(refuse("the message is empty, it holds no event".to_owned()));
        }
        // So that offsets and counts fit 32 bits everywhere below.
        if u32::try_from(payload.len()).is_err() {
            return Err(refuse("the message is larger than 4 GiB".to_owned()));
        }
        let Some(encoding) = encoding.or_else(|| Encoding::recognise(payload)) else {
            return Err(refuse(format!(
                "neither a native batch nor JSON nor line protocol: name the encoding in the header `{ENCODING_HEADER}`"
            )));
        };
        if encoding == Encoding::Native {
            return native::decode(&mut self.native, payload, receiver);
        }

        let text = std::str::from_utf8(payload).map_err(|error| SchemaError {
            encoding: encoding.name(),
            field: "message".to_owned(),
            position: error.valid_up_to(),
            reason: "not UTF-8".to_owned(),
        })?;
        let mut tags = mem::take(&mut self.tags).recycled();
        let outcome = if encoding == Encoding::Json {
            json::decode(text, record_time_ns, &mut tags, receiver)
        } else {
            line::decode(text, record_time_ns, &mut tags, receiver)
        };
        self.tags = tags.recycled();
        outcome
    }
}
