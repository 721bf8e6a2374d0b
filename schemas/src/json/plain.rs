//! The plain form in which nearly all events are written, read without a parser: no escapes, whole numbers, no field
//! twice or unknown.
//!
//! What is read here means exactly what the parser of [`super::decode`] reads. Whatever is not plain, or wrong, is left
//! to that parser from the event's start.
//!
//! # Why a raw key identifies its series
//! The raw key of a plain event is its name, the bytes between its quotes, and its tags, the bytes from `{` to the first
//! `}`. [`Plain::remember`] gives it to the receiver only after it has read both to the end itself: the name has neither
//! a quote nor a backslash, and the tags are an object in JSON's grammar whose strings have neither and whose other values
//! are `true`, `false` or numbers in their canonical form. Such a name, followed by the quote, and such an object each end where they end whatever follows them, and
//! hold nothing that something around them could change. So wherever [`read`] finds the same bytes again in the places
//! of a name and of tags, they are the same name and tags, and need not be parsed.
//!
//! `{"a":"x}y"}` shows why this is so strict: cut at the first `}`, it is `{"a":"x}`, not an object, never remembered.

use super::fields::parse_time;
use super::number::is_canonical;
use crate::message::Message;
use crate::scan::{number, plain_until};
use crate::scratch::PlainTags;
use crate::time::nanoseconds;
use crate::{RawSeriesKey, Receiver, SchemaError, TimeUnit};

/// The plain shape of an event. `name` and `tags` are not parsed yet.
pub(super) struct Plain {
    /// From where to where in the message, without the quotes.
    name: (usize, usize),
    /// From `{` to the first `}`.
    tags: Option<(usize, usize)>,
    pub(super) value: u64,
    pub(super) time: Option<i64>,
    /// Where the event ends in the message.
    pub(super) end: usize,
}

/// Reads the event that begins at `start` or after blanks there; `None` unless it is plain.
pub(super) fn read(message: &[u8], start: usize, time_unit: Option<TimeUnit>) -> Option<Plain> {
    let (mut name, mut tags, mut value, mut time) = (None, None, None, None);
    let mut rest = skip_blank(&message[start..]).strip_prefix(b"{")?;
    loop {
        rest = skip_blank(rest);
        if let Some(after) = rest.strip_prefix(b"\"ts\"") {
            let (read, after) = read_time(skip_colon(after)?, time_unit)?;
            rest = after;
            if time.replace(read).is_some() {
                return None;
            }
        } else if let Some(after) = rest.strip_prefix(b"\"name\"") {
            let after = skip_colon(after)?.strip_prefix(b"\"")?;
            let from = message.len() - after.len();
            let length = plain_until::<b'"', b'"'>(after);
            rest = after[length..].strip_prefix(b"\"")?;
            if name.replace((from, from + length)).is_some() {
                return None;
            }
        } else if let Some(after) = rest.strip_prefix(b"\"value\"") {
            let (read, after) = integer(skip_colon(after)?)?;
            rest = after;
            if read == 0 || value.replace(read).is_some() {
                return None;
            }
        } else {
            let object = skip_colon(rest.strip_prefix(b"\"tags\"")?)?;
            object.strip_prefix(b"{")?;
            let from = message.len() - object.len();
            let length = memchr::memchr(b'}', object)? + 1;
            rest = &object[length..];
            if tags.replace((from, from + length)).is_some() {
                return None;
            }
        }
        rest = skip_blank(rest);
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after;
            continue;
        }
        let end = message.len() - rest.strip_prefix(b"}")?.len();
        return Some(Plain { name: name?, tags, value: value.unwrap_or(1), time, end });
    }
}

impl Plain {
    /// `{}` is used for omitted tags, which means the same; so it is never taken for a raw key of another
    /// encoding, which has no separate tags.
    pub(super) fn raw_key<'a>(&self, message: &'a [u8]) -> RawSeriesKey<'a> {
        let tags = self.tags.map_or(b"{}".as_slice(), |(from, end)| &message[from..end]);
        RawSeriesKey { name: &message[self.name.0..self.name.1], tags }
    }

    /// Announces the series and has its raw key remembered; `None` where name or tags are not plain or not a series'.
    pub(super) fn remember<'a>(
        &self,
        message: &mut Message<'a>,
        receiver: &mut dyn Receiver,
    ) -> Result<Option<u32>, SchemaError> {
        let text = message.text()?;
        let name = &text[self.name.0..self.name.1];
        let mut tags = PlainTags::new();
        if read_tags(self.tags.map_or("{}", |(from, end)| &text[from..end]), &mut tags).is_none() {
            return Ok(None);
        }
        let series = tags.announce(name, receiver);
        if let Some(series) = series {
            receiver.remember(self.raw_key(message.bytes), series);
        }
        Ok(series)
    }
}

/// Reads an object of tags whole; `None` unless all its strings are plain and printable.
fn read_tags<'a>(object: &'a str, tags: &mut PlainTags<'a>) -> Option<()> {
    let mut rest = skip_blank_text(object.strip_prefix('{')?);
    if rest == "}" {
        return Some(());
    }
    loop {
        let (key, after) = string(rest)?;
        let after = skip_blank_text(skip_blank_text(after).strip_prefix(':')?);
        let (value, after) = if after.starts_with('"') { string(after)? } else { literal(after)? };
        tags.push(key, value)?;
        rest = skip_blank_text(after);
        if rest == "}" {
            return Some(());
        }
        rest = skip_blank_text(rest.strip_prefix(',')?);
    }
}

fn string(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('"')?;
    let (string, after) = inside.split_at_checked(plain_until::<b'"', b'"'>(inside.as_bytes()))?;
    Some((string, after.strip_prefix('"')?))
}

/// A number in its canonical form, `true` or `false`.
fn literal(text: &str) -> Option<(&str, &str)> {
    let is_end = |byte: u8| matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
    let (literal, after) = text.split_at_checked(text.bytes().position(is_end)?)?;
    (literal == "true" || literal == "false" || is_canonical(literal.as_bytes())).then_some((literal, after))
}

/// Reads a number of the declared unit or an RFC 3339 time.
fn read_time(bytes: &[u8], time_unit: Option<TimeUnit>) -> Option<(i64, &[u8])> {
    if let Some(inside) = bytes.strip_prefix(b"\"") {
        let (text, after) = inside.split_at(plain_until::<b'"', b'"'>(inside));
        return Some((parse_time(std::str::from_utf8(text).ok()?).ok()?, after.strip_prefix(b"\"")?));
    }
    let (time, after) = integer(bytes)?;
    Some((nanoseconds(i64::try_from(time).ok()?, time_unit).ok()?, after))
}

/// Reads a whole number that is not negative and has no sign, fraction, exponent or superfluous zero.
fn integer(bytes: &[u8]) -> Option<(u64, &[u8])> {
    // A number that continues as a fraction or an exponent does not end the field plainly, which is detected there.
    let (value, after) = number(bytes)?;
    let has_superfluous_zero = bytes[0] == b'0' && bytes.len() - after.len() > 1;
    (!has_superfluous_zero).then_some((value, after))
}

fn skip_colon(bytes: &[u8]) -> Option<&[u8]> {
    Some(skip_blank(skip_blank(bytes).strip_prefix(b":")?))
}

/// Skips JSON whitespace.
#[inline]
pub(super) fn skip_blank(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', after @ ..] = bytes {
        bytes = after;
    }
    bytes
}

fn skip_blank_text(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r', '\n'])
}
