use crate::message::Message;
use crate::native::NativeScratch;
use crate::scratch::{TagList, Tags};
use crate::{ENCODING_HEADER, Encoding, Receiver, SchemaError, TimeUnit, foreign, json, line, native};

/// Decodes messages of every encoding, one after the other; keeps its working memory between them.
///
/// It holds no state otherwise except the declared unit of times: the same bytes always give the same events. What one call needs is at most 32 times
/// the message's size plus a few kilobytes, whatever the message claims to hold.
#[derive(Debug, Default)]
pub struct Decoder {
    tags: TagList<'static>,
    native: NativeScratch,
    is_thorough: bool,
    time_unit: Option<TimeUnit>,
}

/// What some programs put before UTF-8 text; it is no part of the text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Decoder {
    /// Allocates nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder without fast paths, neither the raw series key cache nor plain events: the reference that tests compare
    /// with.
    #[doc(hidden)]
    pub fn thorough() -> Self {
        Self { is_thorough: true, ..Self::default() }
    }

    /// Declares the unit of the times that the next messages write as numbers; `None`: nanoseconds, and numbers that are
    /// most likely of another unit are refused.
    pub fn set_time_unit(&mut self, unit: Option<TimeUnit>) {
        self.time_unit = unit;
    }

    /// Hands the message's events to `receiver`, in order, and returns their number.
    ///
    /// Without an `encoding`, it is detected from the first bytes. `record_time_ns` is the record's own timestamp in
    /// nanoseconds since the Unix epoch, negative when it has none; it becomes the time of events that carry none. A byte
    /// order mark before text is skipped. An empty list of events is a
    /// message of 0 events.
    ///
    /// # Errors
    /// The message is invalid. Events handed over before the error do not count; see [`Receiver`].
    pub fn decode(
        &mut self,
        encoding: Option<Encoding>,
        payload: &[u8],
        record_time_ns: i64,
        receiver: &mut dyn Receiver,
    ) -> Result<u32, SchemaError> {
        self.decode_message(encoding, payload, record_time_ns, receiver).map_err(|mut error| {
            if let Some(what) = foreign::looks_like(payload) {
                error.reason = format!("{}; it looks like {what}", error.reason);
            }
            error
        })
    }

    fn decode_message(
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
        let text = match payload.strip_prefix(BYTE_ORDER_MARK) {
            Some(text) if encoding != Some(Encoding::Native) => text,
            _ => payload,
        };
        if text.is_empty() {
            return Err(refuse("the message is empty, it holds no event".to_owned()));
        }
        // So that offsets and counts fit 32 bits everywhere below.
        if u32::try_from(payload.len()).is_err() {
            return Err(refuse("the message is larger than 4 GiB".to_owned()));
        }
        let Some(encoding) = encoding.or_else(|| Encoding::recognise(text)) else {
            return Err(refuse(format!(
                "neither a native batch nor JSON nor line protocol: name the encoding in the header `{ENCODING_HEADER}`"
            )));
        };
        if encoding == Encoding::Native {
            return native::decode(&mut self.native, payload, receiver);
        }

        let mut message = Message::new(encoding, text, self.time_unit);
        let tags = Tags::of(&mut self.tags);
        let outcome = if encoding == Encoding::Json {
            json::decode(&mut message, record_time_ns, self.is_thorough, tags, receiver)
        } else {
            line::decode(&mut message, record_time_ns, self.is_thorough, tags, receiver)
        };
        outcome.map_err(|error| SchemaError { position: error.position + payload.len() - text.len(), ..error })
    }
}
