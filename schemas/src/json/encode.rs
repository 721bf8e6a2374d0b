use std::io::Write;

use jiff::Timestamp;

use crate::time::nanoseconds;
use crate::{Event, Series};

/// Appends the event as one line of JSON, without the line's end. Decodes to an equal event.
pub fn write_event(out: &mut Vec<u8>, event: &Event) {
    write_increment(out, &event.series, event.value, event.time);
}

/// [`write_event`] for an event whose series is kept elsewhere.
pub fn write_increment(out: &mut Vec<u8>, series: &Series, value: u64, time: i64) {
    // Writing to a vector cannot fail.
    let _ = match early_time(time) {
        None => write!(out, "{{\"ts\":{time},\"name\":"),
        Some(time) => write!(out, "{{\"ts\":\"{time}\",\"name\":"),
    };
    write_string(out, series.name());
    let _ = write!(out, ",\"value\":{},\"tags\":{{", value);
    for (index, (key, value)) in series.tags().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, key);
        out.push(b':');
        write_string(out, value);
    }
    out.extend_from_slice(b"}}");
}

/// A time whose number would be taken for one of another unit, for RFC 3339.
fn early_time(time: i64) -> Option<Timestamp> {
    let is_early = nanoseconds(time, None).is_err();
    Timestamp::from_nanosecond(i128::from(time)).ok().filter(|_| is_early)
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 | 0x7f => {
                let _ = write!(out, "\\u{byte:04x}");
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
