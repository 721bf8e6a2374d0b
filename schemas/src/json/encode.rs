use std::io::Write;

use crate::Event;

/// Appends the event as one line of JSON, without the line's end. Decodes to an equal event.
pub fn write_event(out: &mut Vec<u8>, event: &Event) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{{\"ts\":{},\"name\":", event.time);
    write_string(out, event.series.name());
    let _ = write!(out, ",\"value\":{},\"tags\":{{", event.value);
    for (index, (key, value)) in event.series.tags().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, key);
        out.push(b':');
        write_string(out, value);
    }
    out.extend_from_slice(b"}}");
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
