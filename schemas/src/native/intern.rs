use std::hash::{Hash, Hasher};

use rustc_hash::{FxHashMap, FxHasher};

/// Numbers sequences (of bytes: strings; of numbers: series) in the order in which they come, each once.
///
/// All sequences are stored in one vector, so that nothing is allocated per sequence, and nothing at all once it has
/// grown.
#[derive(Debug)]
pub(super) struct Interner<T> {
    items: Vec<T>,
    entries: Vec<Entry>,
    /// The newest entry of each hash.
    newest: FxHashMap<u64, u32>,
}

#[derive(Debug)]
struct Entry {
    end: usize,
    /// An older entry of the same hash.
    older: Option<u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { items: Vec::new(), entries: Vec::new(), newest: FxHashMap::default() }
    }
}

impl<T: Copy + Eq + Hash> Interner<T> {
    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.entries.clear();
        self.newest.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The sequence's number, and whether it is new.
    pub(super) fn intern(&mut self, sequence: &[T]) -> (u32, bool) {
        let mut hasher = FxHasher::default();
        sequence.hash(&mut hasher);
        let hash = hasher.finish();
        let newest = self.newest.get(&hash).copied();
        let mut candidate = newest;
        while let Some(number) = candidate {
            if self.get(number) == sequence {
                return (number, false);
            }
            candidate = self.entries[number as usize].older;
        }
        // Four thousand million entries would be far beyond any message.
        let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.items.extend_from_slice(sequence);
        self.entries.push(Entry { end: self.items.len(), older: newest });
        self.newest.insert(hash, number);
        (number, true)
    }

    /// A number that no sequence has or gets.
    pub(super) fn skip(&mut self) -> u32 {
        let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(Entry { end: self.items.len(), older: None });
        number
    }

    fn get(&self, number: u32) -> &[T] {
        let number = number as usize;
        let start = if number == 0 { 0 } else { self.entries[number - 1].end };
        &self.items[start..self.entries[number].end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All sequences have the same hash: the worst case.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Alike(u32);

    impl Hash for Alike {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }

    #[test]
    fn numbers_each_sequence_once_even_when_hashes_collide() {
        let mut interner = Interner::default();
        for round in 0..3 {
            for value in 0..100 {
                assert_eq!(interner.intern(&[Alike(value), Alike(1)]), (value, round == 0));
            }
        }
        assert_eq!(interner.intern(&[]), (100, true));
        assert_eq!(interner.intern(&[]), (100, false));
        assert_eq!(interner.len(), 101);
        assert_eq!(interner.skip(), 101);
        assert_eq!(interner.intern(&[Alike(100)]), (102, true));
        assert_eq!(interner.intern(&[]), (100, false));
        interner.clear();
        assert_eq!(interner.intern(&[Alike(7)]), (0, true));
    }
}
