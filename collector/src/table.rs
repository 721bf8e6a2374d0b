//! An open hash table from a series' text to its [`Entry`], looked up without owning the text. One is shared by all
//! threads, and each thread has one of the series it counts itself.

use crate::hash;

/// A counter's name and tag keys: what the series of one call site have in common.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// Sorted.
    pub(crate) keys: &'static [&'static str],
    /// Where the hash of a series of this shape begins.
    pub(crate) hash: u64,
}

/// A series, or another way to write one (an *alias*: text that has to be changed to fit).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) shape: &'static Shape,
    /// Each value's length (two bytes) and text.
    values: &'static [u8],
    pub(crate) series: u32,
}

pub(crate) static NO_SHAPE: Shape = Shape { name: "", keys: &[], hash: 0 };

impl Entry {
    /// No entry.
    pub(crate) const NONE: Self = Self { shape: &NO_SHAPE, values: &[], series: u32::MAX };

    pub(crate) fn new(shape: &'static Shape, values: &'static [u8], series: u32) -> Self {
        Self { shape, values, series }
    }

    /// Whether the entry has these values.
    #[inline]
    pub(crate) fn has(&self, values: &[&str]) -> bool {
        let mut rest = self.values;
        for value in values {
            let Some((length, tail)) = rest.split_first_chunk::<2>() else { return false };
            let Some((stored, tail)) = tail.split_at_checked(usize::from(u16::from_le_bytes(*length))) else {
                return false;
            };
            if stored != value.as_bytes() {
                return false;
            }
            rest = tail;
        }
        rest.is_empty()
    }

    /// The values, in the order of the shape's keys.
    pub(crate) fn values(&self) -> impl Iterator<Item = &'static str> {
        let mut rest = self.values;
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (value, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = tail;
            std::str::from_utf8(value).ok()
        })
    }

    /// Bytes that the series adds to a message at most.
    pub(crate) fn len_estimate(&self) -> usize {
        let texts = self.shape.name.len() + self.shape.keys.iter().map(|key| key.len()).sum::<usize>();
        // Lengths and numbers around each text, and the event's own columns.
        texts + self.values.len() + 24 * (self.shape.keys.len() + 2)
    }

    /// The tags, sorted by key.
    pub(crate) fn tags(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.shape.keys.iter().copied().zip(self.values())
    }
}

/// The bytes that an [`Entry`] keeps of its values; `None` if one is too long to be kept.
pub(crate) fn pack(values: &[&str], into: &mut Vec<u8>) -> Option<()> {
    into.clear();
    for value in values {
        into.extend(u16::try_from(value.len()).ok()?.to_le_bytes());
        into.extend(value.as_bytes());
    }
    Some(())
}

/// The hash under which a series is kept.
pub(crate) fn hash_of(name: &str, keys: &[&str], values: &[&str]) -> u64 {
    hash::with_all(hash::with(hash::of_keys(keys), name), values)
}

/// See the module.
///
/// Hashes and entries are stored separately: twelve bytes per slot, a search walks over hashes only, and the table
/// grows without reading the entries, which are scattered in memory. That keeps the increment that triggers growth
/// short.
#[derive(Debug)]
pub(crate) struct Table {
    /// [`FREE`] where there is no entry. Grows by half, and at least an eighth of it is free.
    hashes: Vec<u32>,
    entries: Vec<Option<&'static Entry>>,
    used: usize,
}

const FREE: u32 = 0;

impl Table {
    pub(crate) const fn new() -> Self {
        Self { hashes: Vec::new(), entries: Vec::new(), used: 0 }
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, matches: impl Fn(&Entry) -> bool) -> Option<&'static Entry> {
        let hash = short(hash);
        let mut at = self.home(hash);
        // Ends at a free slot: at least an eighth of them are.
        loop {
            let Some(&stored) = self.hashes.get(at) else {
                if at == 0 {
                    return None;
                }
                at = 0;
                continue;
            };
            if stored == hash {
                let entry = (*self.entries.get(at)?)?;
                if matches(entry) {
                    return Some(entry);
                }
            } else if stored == FREE {
                return None;
            }
            at += 1;
        }
    }

    /// Where the search for a hash begins: in the order of the hashes, so that a table grows from front to back.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.hashes.len() as u64) >> 32) as usize
    }

    /// Adds an entry that is not in the table yet.
    pub(crate) fn insert(&mut self, hash: u64, entry: &'static Entry) {
        if (self.used + 1) * 8 > self.hashes.len() * 7 {
            let slots = (self.hashes.len() * 3 / 2).max(16);
            let hashes = std::mem::replace(&mut self.hashes, vec![FREE; slots]);
            let entries = std::mem::replace(&mut self.entries, vec![None; slots]);
            for (hash, entry) in hashes.into_iter().zip(entries).filter(|(hash, _)| *hash != FREE) {
                self.place(hash, entry);
            }
        }
        self.place(short(hash), Some(entry));
        self.used += 1;
    }

    fn place(&mut self, hash: u32, entry: Option<&'static Entry>) {
        let mut at = self.home(hash);
        while self.hashes[at] != FREE {
            at += 1;
            if at == self.hashes.len() {
                at = 0;
            }
        }
        self.hashes[at] = hash;
        self.entries[at] = entry;
    }
}

/// What is kept of a hash; never [`FREE`].
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
fn short(hash: u64) -> u32 {
    (hash as u32).max(FREE + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(values: &[&str], series: u32) -> &'static Entry {
        let mut packed = Vec::new();
        pack(values, &mut packed).unwrap();
        Box::leak(Box::new(Entry::new(&NO_SHAPE, packed.leak(), series)))
    }

    #[test]
    fn finds_what_was_put_in_and_nothing_else() {
        let mut table = Table::new();
        assert!(table.find(7, |_| true).is_none());
        // Few distinct hashes, the one that marks a free slot among them, at both ends: long runs of neighbours, and
        // some that go on at the front.
        let hash = |number: u32| u64::from(if number.is_multiple_of(2) { number % 97 } else { u32::MAX - number % 97 });
        for number in 0..2_000u32 {
            let text = number.to_string();
            table.insert(hash(number), entry(&["x", &text], number));
        }
        for number in 0..2_000u32 {
            let text = number.to_string();
            let found = table.find(hash(number), |entry| entry.has(&["x", &text])).unwrap();
            assert_eq!(found.series, number);
            assert!(table.find(hash(number), |entry| entry.has(&["y", &text])).is_none());
        }
    }

    #[test]
    fn values_are_compared_one_by_one() {
        let two = entry(&["ab", "c"], 0);
        assert!(two.has(&["ab", "c"]));
        assert!(!two.has(&["a", "bc"]) && !two.has(&["ab"]) && !two.has(&["ab", "c", ""]));
        assert_eq!(two.values().collect::<Vec<_>>(), ["ab", "c"]);
        assert!(entry(&[], 0).has(&[]));
        assert!(!entry(&[""], 0).has(&[]));
    }

    #[test]
    fn a_value_too_long_to_keep_is_refused() {
        assert!(pack(&[&"x".repeat(65_535)], &mut Vec::new()).is_some());
        assert!(pack(&[&"x".repeat(65_536)], &mut Vec::new()).is_none());
    }
}
