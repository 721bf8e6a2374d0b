use std::borrow::Cow;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Field, FieldSeed, Text, Time, Value, tag_value};
use super::plain::{self, skip_blank};
use crate::canonical::{MAX_TAGS, TOO_MANY_TAGS};
use crate::error::excerpt;
use crate::message::Message;
use crate::scratch::Tags;
use crate::{Encoding, Receiver, SchemaError, TimeUnit};

/// Decodes one object, an array, or objects one after the other. `is_thorough` leaves every event to the parser.
pub(crate) fn decode<'de>(
    message: &mut Message<'de>,
    record_time: i64,
    is_thorough: bool,
    tags: Tags<'_, 'de>,
    receiver: &mut dyn Receiver,
) -> Result<u32, SchemaError> {
    let rest = skip_blank(message.bytes);
    let is_array = rest.starts_with(b"[");
    let place = Place::Event;
    let time_unit = message.time_unit;
    let mut state = State { record_time, time_unit, is_thorough, tags, receiver, is_array, events: 0, taken: 0, place };
    if is_array {
        let end = state.array(message)?;
        let rest = skip_blank(&message.bytes[end..]);
        if !rest.is_empty() {
            message.text()?;
            let reason = "expected nothing after the array".to_owned();
            let position = message.bytes.len() - rest.len();
            return Err(SchemaError { encoding: NAME, field: "message".to_owned(), position, reason });
        }
        return Ok(state.events);
    }

    let mut start = 0;
    loop {
        let end = match state.plain(message, start)? {
            Some(end) => end,
            None => {
                let text = message.text()?;
                parse(text, start, EventSeed(&mut state)).map_err(|error| state.refuse(text, start, &error))?
            }
        };
        let rest = skip_blank(&message.bytes[end..]);
        if rest.is_empty() {
            return Ok(state.events);
        }
        start = message.bytes.len() - rest.len();
    }
}

const NAME: &str = Encoding::Json.name();

/// Parses one JSON value that begins at `start`, and returns where it ends.
fn parse<'de, S: DeserializeSeed<'de>>(text: &'de str, start: usize, seed: S) -> Result<usize, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(&text[start..]);
    seed.deserialize(&mut parser)?;
    Ok(start + parser.into_iter::<IgnoredAny>().byte_offset())
}

/// Where in the message's structure the decoder is, for the error it may meet.
enum Place {
    Event,
    Field(Field),
    UnknownField(String),
    /// The last of the tags read so far.
    Tag,
    /// The field, as [`crate::SeriesError`] names it.
    Series(String),
}

struct State<'m, 'de> {
    record_time: i64,
    time_unit: Option<TimeUnit>,
    is_thorough: bool,
    tags: Tags<'m, 'de>,
    receiver: &'m mut dyn Receiver,
    is_array: bool,
    events: u32,
    /// How many of the message's events the receiver has had already, when an array is parsed once more.
    taken: u32,
    place: Place,
}

impl<'de> State<'_, 'de> {
    /// Takes the event at `start` if it is plain, and returns where it ends.
    fn plain(&mut self, message: &mut Message<'de>, start: usize) -> Result<Option<usize>, SchemaError> {
        if self.is_thorough {
            return Ok(None);
        }
        let Some(event) = plain::read(message.bytes, start, self.time_unit) else { return Ok(None) };
        let time = event.time.unwrap_or(self.record_time);
        if time < 0 {
            return Ok(None);
        }
        let series = match self.receiver.lookup(event.raw_key(message.bytes)) {
            Some(series) => series,
            None => match event.remember(message, self.receiver)? {
                Some(series) => series,
                None => return Ok(None),
            },
        };
        self.receiver.event(series, event.value, time);
        self.events += 1;
        Ok(Some(event.end))
    }

    /// Takes the array that the message begins with, and returns where it ends.
    fn array(&mut self, message: &mut Message<'de>) -> Result<usize, SchemaError> {
        if let Some(end) = self.elements(message)? {
            return Ok(end);
        }
        // The array is invalid, and only a parser that reads it from its start reports the error with the right
        // position.
        self.taken = self.events;
        self.events = 0;
        let text = message.text()?;
        parse(text, 0, ArraySeed(self)).map_err(|error| self.refuse(text, 0, &error))
    }

    /// Takes events until the array ends, and returns where; `None` as soon as something is not plain or is invalid.
    fn elements(&mut self, message: &mut Message<'de>) -> Result<Option<usize>, SchemaError> {
        let bytes = message.bytes;
        let place_of = |rest: &[u8]| bytes.len() - rest.len();
        let Some(mut rest) = skip_blank(bytes).strip_prefix(b"[").map(skip_blank) else { return Ok(None) };
        if self.is_thorough {
            return Ok(None);
        }
        if let Some(after) = rest.strip_prefix(b"]") {
            return Ok(Some(place_of(after)));
        }
        loop {
            let start = place_of(rest);
            let end = match self.plain(message, start)? {
                Some(end) => end,
                None => match parse(message.text()?, start, EventSeed(self)) {
                    Ok(end) => end,
                    Err(_) => return Ok(None),
                },
            };
            rest = skip_blank(&bytes[end..]);
            if let Some(after) = rest.strip_prefix(b"]") {
                return Ok(Some(place_of(after)));
            }
            let Some(after) = rest.strip_prefix(b",") else { return Ok(None) };
            rest = skip_blank(after);
        }
    }

    fn refuse(&self, text: &str, start: usize, error: &serde_json::Error) -> SchemaError {
        let message = error.to_string();
        let suffix = format!(" at line {} column {}", error.line(), error.column());
        let reason = message.strip_suffix(&suffix).unwrap_or(&message);
        SchemaError {
            encoding: NAME,
            field: self.field(),
            position: start + offset(&text[start..], error.line(), error.column()),
            reason: clip(reason),
        }
    }

    fn field(&self) -> String {
        let within = match &self.place {
            Place::Event => String::new(),
            Place::Field(field) => field.name().to_owned(),
            Place::UnknownField(name) | Place::Series(name) => name.clone(),
            Place::Tag => {
                format!("tags.{}", self.tags.last_key().map_or_else(String::new, excerpt))
            }
        };
        match (self.is_array || self.events > 0, within.is_empty()) {
            (false, true) => "event".to_owned(),
            (false, false) => within,
            (true, true) => format!("[{}]", self.events),
            (true, false) => format!("[{}].{within}", self.events),
        }
    }
}

/// Converts a line and column of `serde_json` into a byte offset.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (before + column).min(text.len())
}

/// A reason may quote the message: a hostile one must not flood a log.
fn clip(reason: &str) -> String {
    const MOST: usize = 200;
    match reason.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

struct ArraySeed<'s, 'm, 'de>(&'s mut State<'m, 'de>);

impl<'de> DeserializeSeed<'de> for ArraySeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ArraySeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(EventSeed(self.0))?.is_some() {}
        Ok(())
    }
}

struct EventSeed<'s, 'm, 'de>(&'s mut State<'m, 'de>);

impl<'de> DeserializeSeed<'de> for EventSeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EventSeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an event object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let state = self.0;
        state.tags.list().texts.clear();
        let (mut name, mut value, mut time, mut has_tags) = (None, None, None, false);
        loop {
            state.place = Place::Event;
            let Some(field) = fields.next_key_seed(FieldSeed)? else { break };
            let field = match field {
                Ok(field) => field,
                Err(unknown) => {
                    state.place = Place::UnknownField(excerpt(&unknown));
                    return Err(A::Error::custom("unknown field: an event has ts, name, value and tags"));
                }
            };
            state.place = Place::Field(field);
            let is_repeated = match field {
                Field::Time => time.is_some(),
                Field::Name => name.is_some(),
                Field::Value => value.is_some(),
                Field::Tags => has_tags,
            };
            if is_repeated {
                return Err(A::Error::custom("the field is given twice"));
            }
            match field {
                Field::Time => time = Some(fields.next_value_seed(Time(state.time_unit))?),
                Field::Name => name = Some(fields.next_value_seed(Text)?),
                Field::Value => value = Some(fields.next_value_seed(Value)?),
                Field::Tags => {
                    fields.next_value_seed(TagsSeed(state))?;
                    has_tags = true;
                }
            }
        }

        let Some(name) = name else {
            state.place = Place::Field(Field::Name);
            return Err(A::Error::custom("the event has no name"));
        };
        let time = time.unwrap_or(state.record_time);
        if time < 0 {
            state.place = Place::Field(Field::Time);
            return Err(A::Error::custom("the event has no time, and neither has the record"));
        }
        if state.events < state.taken {
            state.events += 1;
            state.place = Place::Event;
            return Ok(());
        }
        let series = match state.tags.list().announce(&name, state.receiver) {
            Ok(series) => series,
            Err(error) => {
                state.place = Place::Series(error.field);
                return Err(A::Error::custom(error.reason));
            }
        };
        state.receiver.event(series, value.unwrap_or(1), time);
        state.events += 1;
        // An error between two events is attributed to the second.
        state.place = Place::Event;
        Ok(())
    }
}

struct TagsSeed<'s, 'm, 'de>(&'s mut State<'m, 'de>);

impl<'de> DeserializeSeed<'de> for TagsSeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TagsSeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of tags")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut tags: A) -> Result<(), A::Error> {
        let state = self.0;
        loop {
            state.place = Place::Field(Field::Tags);
            let Some(key) = tags.next_key_seed(Text)? else { return Ok(()) };
            // Here and not only at the end, so that the list stays small.
            if state.tags.list().texts.len() == MAX_TAGS {
                return Err(A::Error::custom(TOO_MANY_TAGS));
            }
            state.tags.list().texts.push((key, Cow::Borrowed("")));
            state.place = Place::Tag;
            let raw: &'de RawValue = tags.next_value()?;
            let value = tag_value(raw).map_err(A::Error::custom)?;
            if let Some(tag) = state.tags.list().texts.last_mut() {
                tag.1 = value;
            }
        }
    }
}
