//! Formats that are not counter events, recognised by their first bytes, so that a refusal says what was sent.

/// What a refused message looks like, and what to send instead; `None` when it looks like nothing in particular.
///
/// Only for messages that a decoder refused: some of these bytes may begin a valid message too.
pub(crate) fn looks_like(payload: &[u8]) -> Option<&'static str> {
    const COMPRESSED: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gzip: send it uncompressed, and let the Kafka producer compress (`compression.type`)"),
        (b"\x28\xb5\x2f\xfd", "zstd: send it uncompressed, and let the Kafka producer compress (`compression.type`)"),
        (b"\x04\x22\x4d\x18", "LZ4: send it uncompressed, and let the Kafka producer compress (`compression.type`)"),
        (
            b"\xff\x06\0\0sNaPpY",
            "snappy: send it uncompressed, and let the Kafka producer compress (`compression.type`)",
        ),
        (b"PK\x03\x04", "a ZIP archive: send it uncompressed"),
    ];
    const OTHERS: [(&[u8], &str); 3] = [
        (b"\xff\xfe", "UTF-16 text: send UTF-8"),
        (b"\xfe\xff", "UTF-16 text: send UTF-8"),
        (b"Obj\x01", "an Avro file: send JSON or line protocol"),
    ];
    let known = COMPRESSED.iter().chain(&OTHERS).find(|(start, _)| payload.starts_with(start));
    if let Some((_, what)) = known {
        return Some(what);
    }
    match payload {
        // The magic byte, four bytes of the schema's number, and the message.
        [0, _, _, _, _, _, ..] => {
            Some("a message of Confluent's schema registry (magic byte 0): use a serializer without the registry")
        }
        [b'<', ..] => Some("XML or HTML: send JSON or line protocol"),
        // A map or an array, and in it a key or another map.
        [0x80..=0x8f, 0xa1..=0xbf | 0xd9, ..]
        | [0xde, _, _, 0xa1..=0xbf | 0xd9, ..]
        | [0x90..=0x9f, 0x81..=0x8f, ..] => Some("MessagePack: send JSON or line protocol"),
        // A map of a few pairs, and in it a text.
        [0xa1..=0xb7 | 0xbf, 0x61..=0x78, ..] => Some("CBOR: send JSON or line protocol"),
        _ if is_otlp(payload) => {
            Some("OTLP (protobuf): Tallybus reads JSON, line protocol and its collector's batches")
        }
        _ if is_statsd(payload) => Some("StatsD: send JSON or line protocol"),
        _ => None,
    }
}

/// Field 1 with a message in it, whose field 1 is a message too: resource metrics with their resource.
fn is_otlp(payload: &[u8]) -> bool {
    let Some((length, rest)) = payload.strip_prefix(b"\x0a").and_then(short_varint) else { return false };
    length <= rest.len() && (rest.starts_with(b"\x0a") || rest.starts_with(b"\x12"))
}

fn short_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

/// `name:5|c`, with anything after it.
fn is_statsd(payload: &[u8]) -> bool {
    let line = payload.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Some(colon) = memchr::memchr(b':', line) else { return false };
    let Some(bar) = memchr::memchr(b'|', &line[colon..]) else { return false };
    let number = std::str::from_utf8(&line[colon + 1..colon + bar]).unwrap_or_default();
    colon > 0 && number.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_message_of_another_format_is_named() {
        let samples: [(&[u8], &str); 14] = [
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"\x04\x22\x4d\x18\x64", "LZ4"),
            (b"\xff\x06\0\0sNaPpY\0", "snappy"),
            (b"PK\x03\x04", "ZIP"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"Obj\x01\x04", "Avro"),
            (b"\0\0\0\0\x07{\"name\":\"hits\"}", "Confluent"),
            (b"<html>", "XML or HTML"),
            (b"\x81\xa4name\xa4hits", "MessagePack"),
            (b"\xa1\x64name\x64hits", "CBOR"),
            (b"\x0a\x04\x0a\x02\x08\x01", "OTLP"),
            (b"page.views:5|c", "StatsD"),
            (b"page.views:7|c|#env:prod\nb:1|c", "StatsD"),
        ];
        for (payload, expected) in samples {
            let said = looks_like(payload).unwrap_or_default();
            assert!(said.starts_with(expected) || said.contains(expected), "{payload:?}: {said}");
        }
        for nothing in [&b""[..], b"hello", b"{\"name\":1}", b"a:b|c", b"hits value=x", b"\0\0"] {
            assert_eq!(looks_like(nothing), None, "{nothing:?}");
        }
    }
}
