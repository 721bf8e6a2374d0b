//! What a batch knows of the series in it: which there are, and which bytes named them. Both forget everything with the
//! batch, so that neither grows with the number of series ever seen.
//!
//! Producers choose the keys of these tables, so the hashes have a random seed: keys made to collide would make a worker
//! slow. Nothing of a batch's content depends on the seed.

use std::hash::{BuildHasher as _, Hasher as _};

use hashbrown::{DefaultHashBuilder, HashTable};
use tallybus_schemas::Spelling;
use tallybus_sdk::SeriesTable;

/// So many bytes of spellings a batch remembers; later ones are read anew each time they come.
const MAX_SPELLINGS: usize = 1 << 20;

/// So many bytes of them where hardly any came again in the batch before: enough to notice when that changes.
const FEW_SPELLINGS: usize = 1 << 15;

/// So many spellings tell whether they come again.
const ENOUGH: usize = 64;

/// Where hardly any comes again, only one in so many is looked for, and a find stands for so many.
const SELDOM: usize = 8;

/// A table or buffer that is not larger than this is not worth shrinking.
const SMALL: usize = 1 << 12;

/// Finds the series of a [`SeriesTable`].
#[derive(Debug)]
pub(super) struct SeriesIndex {
    /// Numbers of series.
    table: HashTable<u32>,
    /// Their hashes.
    hashes: Vec<u64>,
    hasher: DefaultHashBuilder,
    /// Odd, random.
    place: u64,
}

impl Default for SeriesIndex {
    fn default() -> Self {
        let hasher = DefaultHashBuilder::default();
        let place = hasher.hash_one("cuts") | 1;
        Self { table: HashTable::new(), hashes: Vec::new(), hasher, place }
    }
}

impl SeriesIndex {
    /// The number of a series; one that is new is appended to `series`.
    pub(super) fn number(&mut self, name: &str, tags: &[(&str, &str)], series: &mut SeriesTable) -> u32 {
        // Appended first: then hashing and comparing go over one text, whatever it consists of.
        let fresh = series.push(name, tags);
        let raw = series.raw(fresh);
        let hash = self.hash(raw);
        if let Some(&known) = self.table.find(hash, |&number| series.raw(number) == raw) {
            series.truncate(fresh as usize);
            return known;
        }
        self.hashes.push(hash);
        let hashes = &self.hashes;
        self.table.insert_unique(hash, fresh, |&number| hashes[number as usize]);
        fresh
    }

    /// Forgets the series from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.hashes.len() {
            self.table.retain(|number| (*number as usize) < len);
            self.hashes.truncate(len);
        }
    }

    /// Forgets everything; the memory is kept, unless it is far more than was needed.
    pub(super) fn clear(&mut self) {
        let used = self.hashes.len();
        self.table.clear();
        self.hashes.clear();
        if is_outsized(self.hashes.capacity(), used) {
            self.table.shrink_to(used, |_| 0);
            self.hashes.shrink_to(used);
        }
    }

    fn hash(&self, (text, ends): (&[u8], &[u32])) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        // Or else one text cut in many ways would be many series with one hash. A polynomial at a random place: whoever does
        // not know it cannot choose cuts that agree.
        let cuts = ends.iter().fold(0_u64, |sum, &end| (sum ^ u64::from(end)).wrapping_mul(self.place));
        hasher.write_u64(cuts);
        hasher.finish()
    }
}

/// Remembers which bytes named which series.
///
/// Where every event has a series of its own, remembering is in vain: it costs time and memory, and nothing comes again. So
/// a batch in which hardly anything did makes the next one learn little.
#[derive(Debug)]
pub(super) struct Spellings {
    table: HashTable<Spelled>,
    bytes: Vec<u8>,
    hasher: DefaultHashBuilder,
    /// How many were asked for since [`Self::clear`], and how many of them recalled.
    asked: usize,
    recalled: usize,
    /// The most that `bytes` may hold.
    limit: usize,
}

#[derive(Debug, Clone, Copy)]
struct Spelled {
    /// Place in `bytes`.
    begin: u32,
    name: u32,
    tags: u32,
    series: u32,
}

impl Spelled {
    fn end(&self) -> usize {
        self.begin as usize + self.name as usize + self.tags as usize
    }

    fn of<'b>(&self, bytes: &'b [u8]) -> Spelling<'b> {
        let (begin, name) = (self.begin as usize, self.name as usize);
        Spelling { name: &bytes[begin..begin + name], tags: &bytes[begin + name..self.end()] }
    }
}

impl Default for Spellings {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            bytes: Vec::new(),
            hasher: DefaultHashBuilder::default(),
            asked: 0,
            recalled: 0,
            limit: MAX_SPELLINGS,
        }
    }
}

impl Spellings {
    pub(super) fn recall(&mut self, spelling: Spelling<'_>) -> Option<u32> {
        let is_in_vain = self.limit == FEW_SPELLINGS && self.recalled < self.asked / 32;
        let one_in = if is_in_vain { SELDOM } else { 1 };
        self.asked += 1;
        if !self.asked.is_multiple_of(one_in) {
            return None;
        }
        let found = self.table.find(hash(&self.hasher, spelling), |known| known.of(&self.bytes) == spelling)?;
        self.recalled += one_in;
        Some(found.series)
    }

    /// Where [`Self::truncate`] goes back to.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn learn(&mut self, spelling: Spelling<'_>, series: u32) {
        let begin = self.bytes.len();
        let Some(spelled) = spelled(begin, spelling, series).filter(|known| known.end() <= self.limit) else { return };
        self.bytes.extend_from_slice(spelling.name);
        self.bytes.extend_from_slice(spelling.tags);
        let (bytes, hasher) = (&self.bytes, &self.hasher);
        self.table.insert_unique(hash(hasher, spelling), spelled, |known| hash(hasher, known.of(bytes)));
    }

    /// Forgets what was learned since [`Self::len`] was this.
    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.bytes.len() {
            self.table.retain(|known| (known.begin as usize) < len);
            self.bytes.truncate(len);
        }
    }

    /// Forgets everything; the memory is kept, unless it is far more than was needed.
    pub(super) fn clear(&mut self) {
        let (spelled, used) = (self.table.len(), self.bytes.len());
        // To remember one costs about a third of what it saves each time that it comes again. A few say nothing: a batch that
        // was closed early must not make the next one slow.
        if spelled >= ENOUGH {
            self.limit = if self.recalled >= spelled { MAX_SPELLINGS } else { FEW_SPELLINGS };
        }
        (self.asked, self.recalled) = (0, 0);
        self.table.clear();
        self.bytes.clear();
        if is_outsized(self.table.capacity(), spelled) {
            self.table.shrink_to(spelled, |_| 0);
        }
        if is_outsized(self.bytes.capacity(), used) {
            self.bytes.shrink_to(used);
        }
    }
}

/// `None` where there is nothing to remember, or more than is ever remembered.
fn spelled(begin: usize, spelling: Spelling<'_>, series: u32) -> Option<Spelled> {
    if spelling.name.is_empty() {
        return None;
    }
    let [begin, name, tags] = [begin, spelling.name.len(), spelling.tags.len()].map(u32::try_from);
    Some(Spelled { begin: begin.ok()?, name: name.ok()?, tags: tags.ok()?, series })
}

fn hash(hasher: &DefaultHashBuilder, spelling: Spelling<'_>) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(spelling.name);
    hasher.write(spelling.tags);
    hasher.finish()
}

fn is_outsized(capacity: usize, used: usize) -> bool {
    capacity > SMALL && capacity / 4 > used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelling<'a>(name: &'a str, tags: &'a str) -> Spelling<'a> {
        Spelling { name: name.as_bytes(), tags: tags.as_bytes() }
    }

    #[test]
    fn a_series_has_one_number() {
        let (mut index, mut series) = (SeriesIndex::default(), SeriesTable::new());
        assert_eq!(index.number("a", &[("k", "1")], &mut series), 0);
        assert_eq!(index.number("a", &[("k", "2")], &mut series), 1);
        assert_eq!(index.number("a", &[("k", "1")], &mut series), 0);
        assert_eq!(series.len(), 2);
        index.clear();
        let mut series = SeriesTable::new();
        assert_eq!(index.number("a", &[("k", "2")], &mut series), 0);
    }

    #[test]
    fn texts_that_run_into_each_other_are_different_series() {
        let (mut index, mut series) = (SeriesIndex::default(), SeriesTable::new());
        let numbers = [
            index.number("ab", &[("c", "d")], &mut series),
            index.number("a", &[("bc", "d")], &mut series),
            index.number("a", &[("b", "cd")], &mut series),
            index.number("abcd", &[], &mut series),
        ];
        assert_eq!(numbers, [0, 1, 2, 3]);
        assert_ne!(index.hashes[0], index.hashes[1]);
    }

    #[test]
    fn what_is_taken_back_can_come_again() {
        let (mut index, mut series) = (SeriesIndex::default(), SeriesTable::new());
        for name in ["kept", "gone"] {
            index.number(name, &[], &mut series);
        }
        series.truncate(1);
        index.truncate(1);
        assert_eq!(index.number("other", &[], &mut series), 1);
        assert_eq!(index.number("gone", &[], &mut series), 2);
        assert_eq!(index.number("kept", &[], &mut series), 0);

        let mut spellings = Spellings::default();
        spellings.learn(spelling("n", "{}"), 7);
        let before = spellings.len();
        spellings.learn(spelling("n", ""), 8);
        assert_eq!(spellings.recall(spelling("n", "")), Some(8));
        spellings.learn(spelling("", ""), 9);
        spellings.truncate(before);
        assert_eq!(spellings.recall(spelling("", "")), None);
        assert_eq!(spellings.recall(spelling("n", "")), None);
        assert_eq!(spellings.recall(spelling("n", "{}")), Some(7));
        spellings.clear();
        assert_eq!(spellings.recall(spelling("n", "{}")), None);
    }

    #[test]
    fn only_the_very_same_bytes_are_recalled() {
        let mut spellings = Spellings::default();
        for number in 0..10_000 {
            spellings.learn(spelling(&format!("n{number}"), "tags"), number);
        }
        for number in 0..10_000 {
            let name = format!("n{number}");
            assert_eq!(spellings.recall(spelling(&name, "tags")), Some(number));
            assert_eq!(spellings.recall(spelling(&name, "tag")), None);
            assert_eq!(spellings.recall(spelling(&format!("{name}t"), "ags")), None);
        }
        assert_eq!(spellings.recall(spelling("", "")), None);
    }

    #[test]
    fn what_never_comes_again_is_hardly_learned() {
        let mut spellings = Spellings::default();
        let mut learned = |distinct: u32, events: u32| {
            let mut spelled = 0;
            for event in 0..events {
                let name = format!("http.requests.{:05}", event % distinct);
                if spellings.recall(spelling(&name, "{}")).is_none() {
                    spellings.learn(spelling(&name, "{}"), event);
                    spelled = spellings.table.len();
                }
            }
            spellings.clear();
            spelled
        };
        let few = FEW_SPELLINGS / "http.requests.00000{}".len();
        assert_eq!(learned(5_000, 5_000), 5_000, "nothing is known yet");
        assert_eq!(learned(5_000, 5_000), few);
        assert_eq!(learned(3, 3), 3, "which says nothing");
        assert_eq!(learned(5_000, 10_000), few, "which notices that all came again");
        assert_eq!(learned(5_000, 10_000), 5_000);
    }

    #[test]
    fn memory_has_a_bound_and_goes_back_after_an_outlier() {
        let mut spellings = Spellings::default();
        let long = "x".repeat(1_000);
        for number in 0..3_000_u32 {
            spellings.learn(spelling(&format!("n{number}"), &long), number);
        }
        assert!(spellings.len() <= MAX_SPELLINGS);
        assert_eq!(spellings.recall(spelling("n0", &long)), Some(0));
        assert_eq!(spellings.recall(spelling("n2999", &long)), None);
        spellings.learn(spelling("small", ""), 5);
        assert_eq!(spellings.recall(spelling("small", "")), Some(5), "what still fits is learned");
        spellings.clear();
        let kept = spellings.bytes.capacity();
        assert!(kept >= MAX_SPELLINGS / 2, "the next batch may need it again");
        spellings.learn(spelling("n", ""), 1);
        spellings.clear();
        assert!(spellings.bytes.capacity() <= SMALL);

        let (mut index, mut series) = (SeriesIndex::default(), SeriesTable::new());
        for number in 0..50_000 {
            index.number(&number.to_string(), &[], &mut series);
        }
        index.clear();
        assert!(index.table.capacity() >= 50_000);
        index.clear();
        assert!(index.table.capacity() <= SMALL && index.hashes.capacity() <= SMALL);
    }
}
