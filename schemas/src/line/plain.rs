//! The plain form in which nearly all lines are written, read in a few steps: `key value=1i 1700000000000000000`, one
//! space at each gap.
//!
//! What is read here means exactly what [`super::decode`] reads. Whatever is not plain, or wrong, is left to it from the
//! line's start.
//!
//! # Why a raw key identifies its series
//! The raw key is the line up to its first space. [`Plain::remember`] gives it to the receiver only after it has read all of
//! it itself: no backslash, so that neither its last nor any other byte could change what the space after it means; no
//! line's end, so that it is of one line; no `#` before it, so that it is no comment. So wherever a line begins with
//! the same bytes and a space, it is the same name with the same tags, and need not be parsed.

use crate::message::Message;
use crate::scan::{number, plain_until};
use crate::scratch::PlainTags;
use crate::{RawSeriesKey, Receiver, SchemaError};

/// The plain shape of a line. Its key is not parsed yet.
pub(super) struct Plain {
    /// Begin and end of name and tags in the message.
    key: (usize, usize),
    pub(super) value: u64,
    pub(super) time: Option<i64>,
    /// Where the next line begins.
    pub(super) end: usize,
}

/// Reads the line that begins at `start`; `None` unless it is plain.
pub(super) fn read(message: &[u8], start: usize) -> Option<Plain> {
    let line = &message[start..];
    let gap = memchr::memchr(b' ', line)?;
    let (value, rest) = number(line[gap..].strip_prefix(b" value=")?)?;
    let [b'i' | b'u', rest @ ..] = rest else { return None };
    if value == 0 {
        return None;
    }
    let (time, rest) = match rest.strip_prefix(b" ") {
        None => (None, rest),
        Some(digits) => {
            let (time, rest) = number(digits)?;
            (Some(i64::try_from(time).ok()?), rest)
        }
    };
    let next = match rest {
        [] => rest,
        [b'\n', next @ ..] | [b'\r', b'\n', next @ ..] => next,
        _ => return None,
    };
    Some(Plain { key: (start, start + gap), value, time, end: message.len() - next.len() })
}

impl Plain {
    /// It has no separate tags, which the raw keys of other encodings always have.
    pub(super) fn raw_key<'a>(&self, message: &'a [u8]) -> RawSeriesKey<'a> {
        let (name, _) = message[self.key.0..].split_at(self.key.1 - self.key.0);
        // Not the literal `b""`: its pointer is dangling, and the C library's comparison takes 70 ns to read there.
        RawSeriesKey { name, tags: &name[..0] }
    }

    /// Announces the series and has its raw key remembered; `None` where the key is not plain or not a series'.
    pub(super) fn remember<'a>(
        &self,
        message: &mut Message<'a>,
        receiver: &mut dyn Receiver,
    ) -> Result<Option<u32>, SchemaError> {
        let key = &message.text()?[self.key.0..self.key.1];
        let mut tags = PlainTags::new();
        let Some(name) = read_key(key, &mut tags) else { return Ok(None) };
        let series = tags.announce(name, receiver);
        if let Some(series) = series {
            receiver.remember(self.raw_key(message.bytes), series);
        }
        Ok(series)
    }
}

/// Reads a key whole and returns its name; `None` unless all of it is plain and printable.
fn read_key<'a>(key: &'a str, tags: &mut PlainTags<'a>) -> Option<&'a str> {
    let (name, mut rest) = key.split_at_checked(plain_until::<b',', b','>(key.as_bytes()))?;
    if name.starts_with('#') {
        return None;
    }
    while !rest.is_empty() {
        let pair = rest.strip_prefix(',')?;
        let (key, after) = pair.split_at_checked(plain_until::<b',', b'='>(pair.as_bytes()))?;
        let after = after.strip_prefix('=')?;
        let (value, after) = after.split_at_checked(plain_until::<b',', b'='>(after.as_bytes()))?;
        tags.push(key, value)?;
        rest = after;
    }
    Some(name)
}
