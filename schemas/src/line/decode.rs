use std::borrow::Cow;

use super::encode::{is_special_in_name, is_special_in_tag, is_unescaped_in_name};
use super::plain;
use crate::canonical::{MAX_TAGS, TOO_MANY_TAGS};
use crate::error::excerpt;
use crate::json::whole;
use crate::message::Message;
use crate::scratch::{TagList, Tags};
use crate::time::{TOO_EARLY, TOO_LATE, nanoseconds};
use crate::{Encoding, Receiver, SchemaError, SeriesError, TimeUnit};

/// Decodes line after line. `is_thorough` takes no line for a plain one.
pub(crate) fn decode<'a>(
    message: &mut Message<'a>,
    record_time: i64,
    is_thorough: bool,
    mut tags: Tags<'_, 'a>,
    receiver: &mut dyn Receiver,
) -> Result<u32, SchemaError> {
    let (mut start, mut lines, mut events) = (0, 0_usize, 0);
    while start < message.bytes.len() {
        lines += 1;
        if !is_thorough && let Some(end) = decode_plain(message, start, record_time, receiver)? {
            events += 1;
            start = end;
            continue;
        }

        let text = message.text()?;
        let end = memchr::memchr(b'\n', &message.bytes[start..]).map_or(text.len(), |length| start + length + 1);
        let line = &text[start..end];
        let mut cursor = Cursor { text, at: start, end: start + line.trim_end_matches(BLANK).len() };
        cursor.skip_blank();
        if cursor.peek().is_some_and(|byte| byte != b'#') {
            decode_line(&mut cursor, record_time, message.time_unit, tags.list(), receiver).map_err(|fault| {
                SchemaError {
                    encoding: Encoding::Influx.name(),
                    field: format!("line {lines} {}", fault.field),
                    position: fault.position.unwrap_or(cursor.at),
                    reason: fault.reason.to_owned(),
                }
            })?;
            events += 1;
        }
        start = end;
    }
    Ok(events)
}

/// Takes the line at `start` if it is plain, and returns where it ends.
fn decode_plain<'a>(
    message: &mut Message<'a>,
    start: usize,
    record_time: i64,
    receiver: &mut dyn Receiver,
) -> Result<Option<usize>, SchemaError> {
    let Some(line) = plain::read(message.bytes, start) else { return Ok(None) };
    let time = match line.time {
        Some(number) => nanoseconds(number, message.time_unit).ok(),
        None => Some(record_time).filter(|time| *time >= 0),
    };
    let Some(time) = time else { return Ok(None) };
    let series = match receiver.lookup(line.raw_key(message.bytes)) {
        Some(series) => series,
        None => match line.remember(message, receiver)? {
            Some(series) => series,
            None => return Ok(None),
        },
    };
    receiver.event(series, line.value, time);
    Ok(Some(line.end))
}

/// The whitespace allowed between the parts of a line, and around it.
const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

const VALUE: &str = "fields.value";
const TIMESTAMP: &str = "timestamp";

struct Fault {
    field: String,
    /// Its position; `None` for where the cursor stopped.
    position: Option<usize>,
    reason: &'static str,
}

fn fault(field: impl Into<String>, reason: &'static str) -> Fault {
    Fault { field: field.into(), position: None, reason }
}

fn decode_line<'a>(
    cursor: &mut Cursor<'a>,
    record_time: i64,
    time_unit: Option<TimeUnit>,
    tags: &mut TagList<'a>,
    receiver: &mut dyn Receiver,
) -> Result<(), Fault> {
    let start = cursor.at;
    let name = cursor.text_until(is_special_in_name, is_unescaped_in_name);
    if name.is_empty() {
        return Err(fault("name", "the line has no measurement"));
    }
    tags.texts.clear();
    while cursor.skip(b',') {
        read_tag(cursor, tags)?;
    }
    if !cursor.skip_blank() {
        return Err(fault(VALUE, "the line has no fields after its tags"));
    }
    let value = read_fields(cursor)?;
    let time = read_time(cursor, record_time, time_unit)?;

    let series = tags.announce(&name, receiver).map_err(|SeriesError { field, reason }| Fault {
        field,
        position: Some(start),
        reason,
    })?;
    receiver.event(series, value, time);
    Ok(())
}

fn read_tag<'a>(cursor: &mut Cursor<'a>, tags: &mut TagList<'a>) -> Result<(), Fault> {
    // Here and not only at the end, so that the list stays small.
    if tags.texts.len() == MAX_TAGS {
        return Err(fault("tags", TOO_MANY_TAGS));
    }
    let key = cursor.text_until(is_special_in_tag, is_special_in_tag);
    if !cursor.skip(b'=') {
        return Err(fault(format!("tags.{}", excerpt(&key)), "the tag has no value: write key=value"));
    }
    let value = cursor.text_until(is_special_in_tag, is_special_in_tag);
    if cursor.peek() == Some(b'=') {
        let reason = "an equals sign in a tag value must be escaped with a backslash";
        return Err(fault(format!("tags.{}", excerpt(&key)), reason));
    }
    tags.texts.push((key, value));
    Ok(())
}

/// Reads the one field there may be.
fn read_fields(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    let mut value = None;
    loop {
        let key = cursor.text_until(is_special_in_tag, is_special_in_tag);
        if !cursor.skip(b'=') {
            return Err(fault(field_name(&key), "the field has no value: write value=1i"));
        }
        if key != "value" {
            return Err(fault(field_name(&key), "unknown field: a counter has the one integer field `value`"));
        }
        if value.is_some() {
            return Err(fault(VALUE, "the field is given twice"));
        }
        let start = cursor.at;
        let written = cursor.raw_until(|byte| matches!(byte, b',' | b' ' | b'\t'));
        let increment =
            parse_value(written).map_err(|reason| Fault { field: VALUE.to_owned(), position: Some(start), reason })?;
        value = Some(increment);
        if !cursor.skip(b',') {
            return Ok(increment);
        }
    }
}

fn field_name(key: &str) -> String {
    if key.is_empty() { "fields".to_owned() } else { format!("fields.{}", excerpt(key)) }
}

fn parse_value(written: &str) -> Result<u64, &'static str> {
    const NOT_AN_INTEGER: &str = "must be an integer from 1 to 18446744073709551615, written as 1i or 1u";
    let Some(digits) = written.strip_suffix(['i', 'u']) else {
        // `3.0` and `3`, which InfluxDB reads as floats, are whole numbers all the same.
        return match written.parse::<f64>() {
            Ok(0.0) => Err("must be greater than 0"),
            Ok(float) => whole(float).ok_or("the value is not a whole number: write an integer, as 1i or 1u"),
            Err(_) => Err(NOT_AN_INTEGER),
        };
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NOT_AN_INTEGER);
    }
    match digits.parse() {
        Ok(0) => Err("must be greater than 0"),
        Ok(value) => Ok(value),
        Err(_) => Err(NOT_AN_INTEGER),
    }
}

/// Reads the timestamp, if there is one, and the remainder of the line.
fn read_time(cursor: &mut Cursor<'_>, record_time: i64, time_unit: Option<TimeUnit>) -> Result<i64, Fault> {
    let is_apart = cursor.skip_blank();
    if cursor.peek().is_none() {
        if record_time < 0 {
            return Err(fault(TIMESTAMP, "the line has no timestamp, and neither has the record"));
        }
        return Ok(record_time);
    }
    if !is_apart {
        return Err(fault(TIMESTAMP, "expected a space before the timestamp"));
    }
    let start = cursor.at;
    let written = cursor.raw_until(|byte| matches!(byte, b' ' | b'\t'));
    let at_start = |reason| Fault { field: TIMESTAMP.to_owned(), position: Some(start), reason };
    let is_decimal = written.bytes().enumerate().all(|(at, byte)| byte.is_ascii_digit() || (at == 0 && byte == b'-'));
    if !is_decimal || written == "-" {
        return Err(at_start("must be an integer: nanoseconds since the Unix epoch"));
    }
    if written.starts_with('-') {
        return Err(at_start(TOO_EARLY));
    }
    let number = written.parse().map_err(|_| at_start(TOO_LATE))?;
    let time = nanoseconds(number, time_unit).map_err(at_start)?;
    cursor.skip_blank();
    if cursor.peek().is_some() {
        return Err(fault("end", "expected nothing after the timestamp"));
    }
    Ok(time)
}

/// Reads one line of a message; stops only at ASCII, so it is always at a character boundary.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes()[..self.end].get(self.at).copied()
    }

    /// Skips the byte if it is next.
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Skips blanks; returns whether there were any.
    fn skip_blank(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        self.at > start
    }

    fn raw_until(&mut self, is_end: fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(|byte| !is_end(byte)) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// Reads up to a special byte that has no backslash before it, and undoes the escapes. As in InfluxDB it is the
    /// byte just before that counts, even if that is a backslash's own backslash. `is_unescaped`: whether a backslash
    /// before the byte is dropped.
    fn text_until(&mut self, is_special: fn(u8) -> bool, is_unescaped: fn(u8) -> bool) -> Cow<'a, str> {
        let start = self.at;
        let mut is_escaped = false;
        let mut has_escapes = false;
        while let Some(byte) = self.peek() {
            if is_special(byte) && !is_escaped {
                break;
            }
            has_escapes |= is_escaped && is_unescaped(byte);
            is_escaped = byte == b'\\';
            self.at += 1;
        }
        let written = &self.text[start..self.at];
        if has_escapes { Cow::Owned(unescape(written, is_unescaped)) } else { Cow::Borrowed(written) }
    }
}

fn unescape(written: &str, is_special: fn(u8) -> bool) -> String {
    let mut text = String::with_capacity(written.len());
    let mut rest = written;
    while let Some(at) = rest.find('\\') {
        let is_escape = rest.as_bytes().get(at + 1).is_some_and(|&next| is_special(next));
        let kept = if is_escape { at } else { at + 1 };
        text.push_str(&rest[..kept]);
        rest = &rest[at + 1..];
        if is_escape {
            text.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    text.push_str(rest);
    text
}
