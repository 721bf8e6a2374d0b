use std::borrow::Cow;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Field, FieldSeed, Text, Time, Value, tag_value};
use crate::canonical::{MAX_TAGS, TOO_MANY_TAGS};
use crate::error::excerpt;
use crate::scratch::TagList;
use crate::{Encoding, Receiver, SchemaError};

/// Decodes one object, an array, or objects one after the other.
pub(crate) fn decode<'de>(
    text: &'de str,
    record_time: i64,
    tags: &mut TagList<'de>,
    receiver: &mut dyn Receiver,
) -> Result<u32, SchemaError> {
    let is_array = skip_blank(text, 0).1.starts_with('[');
    let mut state = State { record_time, tags, receiver, is_array, events: 0, place: Place::Event };
    if is_array {
        let end = parse(text, 0, ArraySeed(&mut state)).map_err(|error| state.refuse(text, 0, &error))?;
        let (end, rest) = skip_blank(text, end);
        if !rest.is_empty() {
            let reason = "nothing may follow the array".to_owned();
            return Err(SchemaError { encoding: NAME, field: "message".to_owned(), position: end, reason });
        }
        return Ok(state.events);
    }

    let mut start = 0;
    loop {
        let end = parse(text, start, EventSeed(&mut state)).map_err(|error| state.refuse(text, start, &error))?;
        let (next, rest) = skip_blank(text, end);
        if rest.is_empty() {
            return Ok(state.events);
        }
        start = next;
    }
}

const NAME: &str = Encoding::Json.name();

/// Parses one JSON value that begins at `start`, and returns where it ends.
fn parse<'de, S: DeserializeSeed<'de>>(text: &'de str, start: usize, seed: S) -> Result<usize, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(&text[start..]);
    seed.deserialize(&mut parser)?;
    Ok(start + parser.into_iter::<IgnoredAny>().byte_offset())
}

fn skip_blank(text: &str, from: usize) -> (usize, &str) {
    let rest = text[from..].trim_start_matches([' ', '\t', '\r', '\n']);
    (text.len() - rest.len(), rest)
}

/// Where in the message's structure the decoder is, for the error it may meet.
enum Place {
    Event,
    Field(Field),
    UnknownField(String),
    /// The last of the tags read so far.
    Tag,
    /// As [`crate::SeriesError`] names it.
    Series(String),
}

struct State<'m, 'de> {
    record_time: i64,
    tags: &'m mut TagList<'de>,
    receiver: &'m mut dyn Receiver,
    is_array: bool,
    events: u32,
    place: Place,
}

impl State<'_, '_> {
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
                format!("tags.{}", self.tags.texts.last().map_or_else(String::new, |(key, _)| excerpt(key)))
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

/// The byte that a line and column of `serde_json` stand for.
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
        state.tags.texts.clear();
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
                Field::Time => time = Some(fields.next_value_seed(Time)?),
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
            return Err(A::Error::custom("an event needs a name"));
        };
        let time = time.unwrap_or(state.record_time);
        if time < 0 {
            state.place = Place::Field(Field::Time);
            return Err(A::Error::custom("the event has no time, and neither has the record"));
        }
        let series = match state.tags.announce(&name, state.receiver) {
            Ok(series) => series,
            Err(error) => {
                state.place = Place::Series(error.field);
                return Err(A::Error::custom(error.reason));
            }
        };
        state.receiver.event(series, value.unwrap_or(1), time);
        state.events += 1;
        // What is wrong between two events belongs to the second.
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
            if state.tags.texts.len() == MAX_TAGS {
                return Err(A::Error::custom(TOO_MANY_TAGS));
            }
            state.tags.texts.push((key, Cow::Borrowed("")));
            state.place = Place::Tag;
            let raw: &'de RawValue = tags.next_value()?;
            let value = tag_value(raw).map_err(A::Error::custom)?;
            if let Some(tag) = state.tags.texts.last_mut() {
                tag.1 = value;
            }
        }
    }
}
