//! Memory that is never freed, without an allocator's overhead for each small piece.

use crate::table::Entry;

const TEXT_BLOCK: usize = 16 * 1024;
const ENTRY_BLOCK: usize = 64;

/// Allocates pieces that live as long as the process.
pub(crate) struct Arena {
    text: &'static mut [u8],
    entries: &'static mut [Entry],
}

impl Arena {
    pub(crate) const fn new() -> Self {
        Self { text: &mut [], entries: &mut [] }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &'static [u8] {
        if self.text.len() < bytes.len() {
            self.text = vec![0; TEXT_BLOCK.max(bytes.len())].leak();
        }
        let (piece, rest) = std::mem::take(&mut self.text).split_at_mut(bytes.len());
        self.text = rest;
        piece.copy_from_slice(bytes);
        piece
    }

    pub(crate) fn text(&mut self, text: &str) -> &'static str {
        std::str::from_utf8(self.bytes(text.as_bytes())).unwrap_or_default()
    }

    pub(crate) fn entry(&mut self, entry: Entry) -> &'static Entry {
        if self.entries.is_empty() {
            self.entries = vec![Entry::NONE; ENTRY_BLOCK].leak();
        }
        match std::mem::take(&mut self.entries).split_first_mut() {
            Some((piece, rest)) => {
                self.entries = rest;
                *piece = entry;
                piece
            }
            None => Box::leak(Box::new(entry)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::NO_SHAPE;

    #[test]
    fn pieces_keep_what_was_put_in() {
        let mut arena = Arena::new();
        let texts: Vec<String> = (0..5_000).map(|number| "x".repeat(number % 50) + &number.to_string()).collect();
        let kept: Vec<&str> = texts.iter().map(|text| arena.text(text)).collect();
        assert_eq!(kept, texts);
        let large = "y".repeat(TEXT_BLOCK * 2);
        assert_eq!(arena.text(&large), large);
        let entries: Vec<&Entry> = (0..200).map(|series| arena.entry(Entry::new(&NO_SHAPE, &[], series))).collect();
        assert!(entries.iter().zip(0..).all(|(entry, series)| entry.series == series));
    }
}
