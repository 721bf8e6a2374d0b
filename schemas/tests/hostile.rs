//! Messages made to hurt: refused with field and position, never a panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test stops at the first surprise"
)]

mod support;

use support::bodies;
use tallybus_schemas::{Encoding, SchemaError};

fn refused(encoding: Encoding, message: impl AsRef<[u8]>) -> SchemaError {
    bodies::decode(Some(encoding), message.as_ref()).unwrap_err()
}

#[test]
fn golden_messages_cut_at_every_byte() {
    for encoding in Encoding::ALL {
        for (_, message) in support::golden(encoding) {
            for end in 0..message.len() {
                support::body(encoding)(&message[..end]);
            }
        }
    }
}

#[test]
fn golden_messages_with_every_bit_flipped() {
    for encoding in Encoding::ALL {
        for (_, message) in support::golden(encoding) {
            for bit in 0..message.len() * 8 {
                let mut damaged = message.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                support::body(encoding)(&damaged);
            }
        }
    }
}

#[test]
fn an_empty_message_is_no_event() {
    for encoding in Encoding::ALL {
        let error = refused(encoding, "");
        assert_eq!((error.encoding, error.field.as_str()), (encoding.name(), "message"));
    }
    let error = bodies::decode(None, b"").unwrap_err();
    assert_eq!(error.to_string(), "unknown: message at byte 0: the message is empty, it holds no event");
}

#[test]
fn an_unrecognised_message_says_how_to_name_its_encoding() {
    for garbage in ["hello world", "\u{1}", "a,b,c", " \n "] {
        let error = bodies::decode(None, garbage.as_bytes()).unwrap_err();
        assert_eq!(error.encoding, "unknown");
        assert!(error.reason.contains("`tallybus-encoding`"), "{error}");
    }
}

#[test]
fn deep_nesting() {
    const DEPTH: usize = 500_000;
    for opening in ["[", "{\"tags\":", "{\"name\":\"n\",\"tags\":{\"k\":", "[{\"ts\":", "{\"value\":["] {
        let repeated = opening.repeat(DEPTH / opening.len());
        assert_eq!(refused(Encoding::Json, &repeated).encoding, "json");
        let nested = format!("{opening}{}", "[".repeat(DEPTH));
        assert_eq!(refused(Encoding::Json, &nested).encoding, "json");
        let closed = format!("{{\"name\":\"n\",\"tags\":{{\"k\":{}{}}}}}", "[".repeat(DEPTH), "]".repeat(DEPTH));
        assert_eq!(refused(Encoding::Json, &closed).field, "tags.k");
    }
}

#[test]
fn invalid_utf8_is_found_where_it_is() {
    let error = refused(Encoding::Json, b"{\"name\":\"\xff\"}");
    assert_eq!((error.position, error.reason.as_str()), (9, "not UTF-8"));
    let error = refused(Encoding::Influx, b"a\xc3 value=1i");
    assert_eq!((error.position, error.reason.as_str()), (1, "not UTF-8"));
    let error = refused(Encoding::Native, b"\x08\x01\x42\x01a\x42\x01\xff");
    assert_eq!((error.field.as_str(), error.position, error.reason.as_str()), ("strings[1]", 6, "not UTF-8"));
}

#[test]
fn declared_lengths_beyond_the_end() {
    for length in [b"\x7f".as_slice(), b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"] {
        for field in [0x12, 0x42, 0x4a, 0x52, 0x5a, 0x62, 0x6a, 0x72, 0x7a, 0x82] {
            let mut message = vec![0x08, 0x01, field];
            if field == 0x82 {
                message.push(1);
            }
            message.extend_from_slice(length);
            message.extend_from_slice(&[0; 20]);
            let error = refused(Encoding::Native, &message);
            assert_eq!(error.reason, "the length goes beyond the end of the message");
            assert_eq!(error.position, message.len() - 20 - length.len());
        }
    }
}

#[test]
fn a_megabyte_of_garbage() {
    let mut garbage = support::garbage(1, 1 << 20);
    let _ = bodies::decode(None, &garbage);
    for encoding in Encoding::ALL {
        refused(encoding, &garbage);
        for start in [b"\x08\x01".as_slice(), b"{\"name\":\"", b"[", b"a value=1i\n", b"\x08\x01\x42\xff\xff\x3f"] {
            garbage[..start.len()].copy_from_slice(start);
            refused(encoding, &garbage);
        }
    }
    for byte in 0..=u8::MAX {
        for encoding in Encoding::ALL {
            let _ = bodies::decode(Some(encoding), &vec![byte; 50_000]);
        }
    }
}

#[test]
fn many_lines_take_time_in_proportion() {
    // Quadratic behaviour would make this test last for minutes.
    let objects = "{\"name\":\"n\"}\n".repeat(200_000);
    assert_eq!(bodies::decode(None, objects.as_bytes()).unwrap().len(), 200_000);
    let lines = "n value=1i\n".repeat(200_000);
    assert_eq!(bodies::decode(None, lines.as_bytes()).unwrap().len(), 200_000);
    let escapes = format!("{} value=1i", "\\ ".repeat(500_000));
    assert_eq!(refused(Encoding::Influx, escapes).reason, "is longer than 512 bytes");
}
