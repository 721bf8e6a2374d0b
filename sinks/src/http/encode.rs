//! Encodes a batch as the bytes of a request. Pure.

use std::io::{self, Write as _};

use flate2::write::GzEncoder;
use tallybus_sdk::{Batch, Encoded};

use super::format::Format;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The compression of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Everything besides the batch that determines the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) format: Format,
    pub(super) compression: Compression,
    /// The number of values of the slot label.
    pub(super) slots: u64,
}

impl Form {
    /// As it appears in the sink's layout fingerprint. The leading number changes whenever the same batch would be
    /// encoded as different bytes.
    pub(super) fn describe(&self) -> String {
        let compression = match self.compression {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        format!("1,format={},compression={compression},slots={}", self.format.name(), self.slots)
    }

    pub(super) fn encode(&self, batch: &Batch) -> Encoded {
        let (text, rejected) = self.format.render(batch, self.slots);
        let body = if text.is_empty() { text } else { self.compress(text) };
        Encoded::bytes(body, rejected)
    }

    /// Compression into memory does not fail; if it ever did, the plain text would be sent, which is recognised by its
    /// first bytes.
    fn compress(&self, text: Vec<u8>) -> Vec<u8> {
        let compressed = match self.compression {
            Compression::None => return text,
            Compression::Gzip => gzip(&text),
            Compression::Zstd => zstd::bulk::compress(&text, zstd::DEFAULT_COMPRESSION_LEVEL),
        };
        compressed.unwrap_or(text)
    }
}

/// The same bytes for the same text, always: no file name, no time.
fn gzip(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), flate2::Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

/// The value of `Content-Encoding` for a body.
pub(super) fn content_encoding(format: Format, body: &[u8]) -> Option<&'static str> {
    if format == Format::Prometheus {
        return Some("snappy");
    }
    if body.starts_with(&GZIP_MAGIC) {
        return Some("gzip");
    }
    body.starts_with(&ZSTD_MAGIC).then_some("zstd")
}

/// Its size in bytes before compression, read from the compressed data.
pub(super) fn plain_len(format: Format, body: &[u8]) -> u64 {
    let sent = u64::try_from(body.len()).unwrap_or(u64::MAX);
    match content_encoding(format, body) {
        Some("snappy") => snap::raw::decompress_len(body).ok().and_then(|len| u64::try_from(len).ok()).unwrap_or(sent),
        // The last four bytes; bodies are far under 4 GiB.
        Some("gzip") => body.last_chunk::<4>().map_or(sent, |len| u64::from(u32::from_le_bytes(*len))),
        Some("zstd") => zstd::zstd_safe::get_frame_content_size(body).ok().flatten().unwrap_or(sent),
        _ => sent,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tallybus_schemas::{Coordinate, Series};
    use tallybus_sdk::{BatchId, Point};

    use super::*;

    fn batch() -> Batch {
        let series: Vec<Series> = (0..50).map(|n| Series::from_sorted(&format!("n{n}"), &[])).collect();
        let point = |n: u32| {
            let first = Coordinate { partition: 0, offset: u64::from(n), index: 0 };
            Point { series: n % 50, time: i64::from(n / 50) * 1_000_000_000, value: 7, events: 1, first }
        };
        Batch {
            id: BatchId { topic: "t".into(), partition: 0, first: 0, end: 500 },
            topic_index: 0,
            series: Arc::new(series.into_iter().collect()),
            points: (0..500).map(point).collect(),
            window: 1_000_000_000,
            part: String::new(),
            stream: None,
            recovered: false,
        }
    }

    #[test]
    fn a_body_says_how_it_was_compressed_and_how_long_it_was() {
        let form = |format, compression| Form { format, compression, slots: 1 };
        let body = |form: Form| form.encode(&batch()).as_bytes().unwrap().clone();
        let plain = body(form(Format::Json, Compression::None));
        assert_eq!(content_encoding(Format::Json, &plain), None);
        assert_eq!(plain_len(Format::Json, &plain), plain.len() as u64);
        for (compression, name) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
            let form = form(Format::Json, compression);
            let compressed = body(form);
            assert_eq!(compressed, body(form));
            assert!(compressed.len() < plain.len() / 4);
            assert_eq!(content_encoding(Format::Json, &compressed), Some(name));
            assert_eq!(plain_len(Format::Json, &compressed), plain.len() as u64);
        }
        let snappy = body(form(Format::Prometheus, Compression::None));
        assert_eq!(content_encoding(Format::Prometheus, &snappy), Some("snappy"));
        assert!(plain_len(Format::Prometheus, &snappy) > snappy.len() as u64);
        let empty = Batch { points: Vec::new(), ..batch() };
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            assert_eq!(form(Format::NdJson, compression).encode(&empty), Encoded::default());
        }
    }

    #[test]
    fn the_shape_names_what_the_bytes_follow_from() {
        let form = Form { format: Format::Otlp, compression: Compression::Zstd, slots: 8 };
        assert_eq!(form.describe(), "1,format=otlp,compression=zstd,slots=8");
    }
}
