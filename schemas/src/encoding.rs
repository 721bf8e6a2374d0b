use std::fmt;
use std::str::FromStr;

use memchr::{memchr, memchr_iter};
use thiserror::Error;

/// The record header that names a message's [`Encoding`].
pub const ENCODING_HEADER: &str = "tallybus-encoding";

/// How the events of a message are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The protobuf batch of `proto/tallybus/v1/batch.proto`: what the collector sends.
    Native,
    /// One event object, an array of them, or newline-delimited ones.
    Json,
    /// InfluxDB's line protocol.
    Influx,
}

/// Not the name of an encoding; change the setting or the header that contains it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown encoding {0:?}: use native, json or influx")]
pub struct UnknownEncoding(pub String);

impl Encoding {
    /// Every encoding.
    pub const ALL: [Self; 3] = [Self::Native, Self::Json, Self::Influx];

    /// Its name in the header and in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Json => "json",
            Self::Influx => "influx",
        }
    }

    /// Guesses the encoding from the message's first bytes; `None` when they match none. The message may still fail to
    /// decode.
    pub fn recognise(payload: &[u8]) -> Option<Self> {
        if payload.first() == Some(&NATIVE_FIRST_BYTE) {
            return Some(Self::Native);
        }
        match payload.trim_ascii_start().first() {
            Some(b'{' | b'[') => Some(Self::Json),
            _ if looks_like_lines(payload) => Some(Self::Influx),
            _ => None,
        }
    }
}

/// The key of protobuf field 1 as a varint: `version`, which every native message begins with. A backspace, in text.
const NATIVE_FIRST_BYTE: u8 = 0x08;

/// Whether the first line with content has a series, a space and a field.
fn looks_like_lines(payload: &[u8]) -> bool {
    let mut rest = payload;
    loop {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = rest[..end].trim_ascii();
        if !line.is_empty() && line[0] != b'#' {
            return has_series_and_field(line);
        }
        if end == rest.len() {
            return payload.trim_ascii_start().first() == Some(&b'#') && std::str::from_utf8(payload).is_ok();
        }
        rest = &rest[end + 1..];
    }
}

fn has_series_and_field(line: &[u8]) -> bool {
    let gap = memchr_iter(b' ', line).find(|&at| at > 0 && line[at - 1] != b'\\');
    gap.is_some_and(|gap| memchr(b'=', &line[gap..]).is_some()) && std::str::from_utf8(line).is_ok()
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Encoding {
    type Err = UnknownEncoding;

    fn from_str(name: &str) -> Result<Self, UnknownEncoding> {
        let known = Self::ALL.into_iter().find(|encoding| encoding.name() == name);
        known.ok_or_else(|| UnknownEncoding(crate::error::excerpt(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for encoding in Encoding::ALL {
            assert_eq!(encoding.to_string().parse(), Ok(encoding));
        }
        let error = "JSON".parse::<Encoding>().unwrap_err();
        assert_eq!(error.to_string(), "unknown encoding \"JSON\": use native, json or influx");
    }

    #[test]
    fn recognises_by_the_first_bytes() {
        let seen = |payload: &str| Encoding::recognise(payload.as_bytes());
        assert_eq!(seen("\u{8}\u{1}"), Some(Encoding::Native));
        assert_eq!(seen(" \n{"), Some(Encoding::Json));
        assert_eq!(seen("["), Some(Encoding::Json));
        assert_eq!(seen("\n# made by hand\nhits,a=b value=1i"), Some(Encoding::Influx));
        assert_eq!(seen("my\\ hits value=1i 1700000000000000000\r\n"), Some(Encoding::Influx));
        assert_eq!(seen("# nothing today\n"), Some(Encoding::Influx));
        for garbage in ["", " ", "hello", "hello world", "a=b", "a\\ b=c", "\u{1}\u{2} x=1", "\0"] {
            let expected = (garbage == "\u{1}\u{2} x=1").then_some(Encoding::Influx);
            assert_eq!(seen(garbage), expected, "{garbage:?}");
        }
        assert_eq!(Encoding::recognise(b"\xff\xfe x=1"), None);
    }
}
