//! The text of one request, gzipped or not.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The typical length of a line without its key.
const TYPICAL_TAIL: usize = 32;

/// How many bytes of text are compressed at once: small enough to be still in the cache, large enough to be worth a
/// call.
const PIECE: usize = 32 << 10;

/// Collects lines.
pub(super) struct Lines {
    text: Vec<u8>,
    /// The compressor of `text`, applied a piece at a time.
    gzip: Option<GzEncoder<Vec<u8>>>,
    has_any: bool,
    outcome: io::Result<()>,
}

impl Lines {
    /// Allocates for this many lines, with keys of about this length.
    pub(super) fn new(gzip: bool, lines: usize, key: usize) -> Self {
        let expected = lines.saturating_mul(key + TYPICAL_TAIL);
        // The same bytes for the same text, always: no file name, no time.
        let encoder = || GzEncoder::new(Vec::with_capacity(expected / 8), Compression::fast());
        let room = if gzip { expected.min(PIECE + PIECE / 8) } else { expected };
        Self { text: Vec::with_capacity(room), gzip: gzip.then(encoder), has_any: false, outcome: Ok(()) }
    }

    /// Appends a line. `time` in nanoseconds.
    pub(super) fn push(&mut self, key: &[u8], value: u64, time: i64) {
        self.text.extend_from_slice(key);
        self.end_line(value, time);
    }

    /// Appends a line whose key `write` renders in place.
    ///
    /// # Errors
    /// That of `write`, which must then have appended nothing.
    pub(super) fn push_with<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        value: u64,
        time: i64,
    ) -> Result<(), E> {
        write(&mut self.text)?;
        self.end_line(value, time);
        Ok(())
    }

    fn end_line(&mut self, value: u64, time: i64) {
        let mut digits = itoa::Buffer::new();
        self.text.extend_from_slice(b" value=");
        self.text.extend_from_slice(digits.format(value).as_bytes());
        self.text.extend_from_slice(b"i ");
        self.text.extend_from_slice(digits.format(time).as_bytes());
        self.text.push(b'\n');
        if self.text.len() >= PIECE && self.gzip.is_some() {
            self.compress();
        }
    }

    /// Returns the body to send.
    ///
    /// # Errors
    /// The text could not be compressed.
    pub(super) fn finish(mut self) -> io::Result<Bytes> {
        self.compress();
        self.outcome?;
        match self.gzip {
            None => Ok(self.text.into()),
            Some(_) if !self.has_any => Ok(Bytes::new()),
            Some(encoder) => Ok(encoder.finish()?.into()),
        }
    }

    fn compress(&mut self) {
        let Some(encoder) = &mut self.gzip else { return };
        self.has_any |= !self.text.is_empty();
        if self.outcome.is_ok() {
            self.outcome = encoder.write_all(&self.text);
        }
        self.text.clear();
    }
}
