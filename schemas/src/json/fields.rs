//! The values inside an event object, and the rules for each.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, Error, Unexpected, Visitor};
use serde_json::value::RawValue;

use super::number::canonical;
use crate::TimeUnit;
use crate::time::{TOO_EARLY, TOO_LATE, nanoseconds};

/// The fields of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Time,
    Name,
    Value,
    Tags,
}

impl Field {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Time => "ts",
            Self::Name => "name",
            Self::Value => "value",
            Self::Tags => "tags",
        }
    }
}

/// Reads a field's name; an unknown one comes back as it is written.
pub(super) struct FieldSeed;

impl<'de> DeserializeSeed<'de> for FieldSeed {
    type Value = Result<Field, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for FieldSeed {
    type Value = Result<Field, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ts, name, value or tags")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(match name {
            "ts" => Ok(Field::Time),
            "name" => Ok(Field::Name),
            "value" => Ok(Field::Value),
            "tags" => Ok(Field::Tags),
            unknown => Err(unknown.to_owned()),
        })
    }
}

/// Reads text, which is copied only if it has escapes.
pub(super) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Reads the increment.
pub(super) struct Value;

impl<'de> DeserializeSeed<'de> for Value {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_u64(self)
    }
}

impl Visitor<'_> for Value {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 1 to 18446744073709551615")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        if value == 0 {
            return Err(E::custom("must be greater than 0"));
        }
        Ok(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<u64, E> {
        if value == 0.0 {
            return Err(E::custom("must be greater than 0"));
        }
        whole(value).ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
    }
}

/// The integer that a float is; `None` for a fraction, and for one so large that neighbouring integers are one float.
pub(crate) fn whole(value: f64) -> Option<u64> {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    if !(1.0..=LARGEST).contains(&value) || value.fract() != 0.0 {
        return None;
    }
    // Such a float is written without a fraction or an exponent.
    format!("{value:.0}").parse().ok()
}

/// Reads a time, in nanoseconds since the Unix epoch; numbers are of the declared unit.
pub(super) struct Time(pub(super) Option<TimeUnit>);

impl<'de> DeserializeSeed<'de> for Time {
    type Value = i64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<i64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Time {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nanoseconds since the Unix epoch, or an RFC 3339 time")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<i64, E> {
        let number = i64::try_from(number).map_err(|_| E::custom(TOO_LATE))?;
        nanoseconds(number, self.0).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<i64, E> {
        if number < 0 { Err(E::custom(TOO_EARLY)) } else { nanoseconds(number, self.0).map_err(E::custom) }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<i64, E> {
        parse_time(text).map_err(E::custom)
    }
}

/// Reads an RFC 3339 time.
pub(super) fn parse_time(text: &str) -> Result<i64, &'static str> {
    let time: Timestamp =
        text.parse().map_err(|_| "not an RFC 3339 time with an offset, such as 2026-01-31T12:00:00.5Z")?;
    let time = i64::try_from(time.as_nanosecond()).map_err(|_| TOO_LATE)?;
    if time < 0 { Err(TOO_EARLY) } else { Ok(time) }
}

/// The text of a tag's value: `true` and `false` as they are written, equal numbers alike, nothing for `null`, which is no
/// tag.
pub(super) fn tag_value(raw: &RawValue) -> Result<Cow<'_, str>, &'static str> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') if !text.contains('\\') => Ok(Cow::Borrowed(text.trim_matches('"'))),
        Some(b'"') => serde_json::from_str(text).map(Cow::Owned).map_err(|_| "the string has an invalid escape"),
        Some(b'{' | b'[') | None => Err("must be a string, a number, true or false"),
        Some(b'n') => Ok(Cow::Borrowed("")),
        Some(b't' | b'f') => Ok(Cow::Borrowed(text)),
        Some(_) => canonical(text),
    }
}
