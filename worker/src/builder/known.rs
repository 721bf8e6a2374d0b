//! The series of the open batch, and the cache of raw series keys (the bytes that named them). Both are cleared with
//! the batch, so that neither grows with the number of series ever seen.
//!
//! Producers choose the keys of these tables, so the hashes have a random seed: otherwise keys chosen to collide could
//! slow a worker down. The content of a batch does not depend on the seed.

use std::hash::{BuildHasher as _, Hasher as _};

use hashbrown::{DefaultHashBuilder, HashTable};
use tallybus_schemas::RawSeriesKey;
use tallybus_sdk::SeriesTable;

/// The most bytes of raw keys that are cached for a batch; other keys are parsed each time they occur.
const MAX_KEY_BYTES: usize = 1 << 20;

/// The same after a batch with a low hit rate: enough to notice when the hit rate changes.
const FEW_KEY_BYTES: usize = 1 << 15;

/// The fewest cached keys from which a hit rate is derived.
const ENOUGH: usize = 64;

/// When the hit rate is low, one key in `SELDOM` is looked up, and a hit counts `SELDOM` times.
const SELDOM: usize = 8;

/// Tables and buffers up to this size are not worth shrinking.
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
    /// Returns the number of a series; a new series is appended to `series`.
    pub(super) fn number(&mut self, name: &str, tags: &[(&str, &str)], series: &mut SeriesTable) -> u32 {
        // Appended first, so that hashing and comparing work on one contiguous text.
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

    /// Removes the series from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.hashes.len() {
            self.table.retain(|number| (*number as usize) < len);
            self.hashes.truncate(len);
        }
    }

    /// Removes all entries; the memory is kept, unless it is far more than was needed.
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
        // Otherwise one text, cut in many ways, would be many series with the same hash. A polynomial evaluated at a
        // random point: a producer that does not know the point cannot choose cuts that collide.
        let cuts = ends.iter().fold(0_u64, |sum, &end| (sum ^ u64::from(end)).wrapping_mul(self.place));
        hasher.write_u64(cuts);
        hasher.finish()
    }
}

/// The raw series key cache: which bytes named which series.
///
/// Where every event has its own series, the cache costs time and memory and has no hits. So after a batch with a low
/// hit rate, the cache of the next batch is small.
#[derive(Debug)]
pub(super) struct RawSeriesKeyCache {
    table: HashTable<CachedKey>,
    bytes: Vec<u8>,
    hasher: DefaultHashBuilder,
    /// Lookups since [`Self::clear`], and how many of them were hits.
    lookups: usize,
    hits: usize,
    /// The maximum length of `bytes`.
    limit: usize,
}

#[derive(Debug, Clone, Copy)]
struct CachedKey {
    /// Position in `bytes`.
    begin: u32,
    name: u32,
    tags: u32,
    series: u32,
}

impl CachedKey {
    fn end(&self) -> usize {
        self.begin as usize + self.name as usize + self.tags as usize
    }

    fn of<'b>(&self, bytes: &'b [u8]) -> RawSeriesKey<'b> {
        let (begin, name) = (self.begin as usize, self.name as usize);
        RawSeriesKey { name: &bytes[begin..begin + name], tags: &bytes[begin + name..self.end()] }
    }
}

impl Default for RawSeriesKeyCache {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            bytes: Vec::new(),
            hasher: DefaultHashBuilder::default(),
            lookups: 0,
            hits: 0,
            limit: MAX_KEY_BYTES,
        }
    }
}

impl RawSeriesKeyCache {
    pub(super) fn lookup(&mut self, key: RawSeriesKey<'_>) -> Option<u32> {
        let is_hit_rate_low = self.limit == FEW_KEY_BYTES && self.hits < self.lookups / 32;
        let one_in = if is_hit_rate_low { SELDOM } else { 1 };
        self.lookups += 1;
        if !self.lookups.is_multiple_of(one_in) {
            return None;
        }
        let found = self.table.find(hash(&self.hasher, key), |known| known.of(&self.bytes) == key)?;
        self.hits += one_in;
        Some(found.series)
    }

    /// The position that [`Self::truncate`] rolls back to.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn remember(&mut self, key: RawSeriesKey<'_>, series: u32) {
        let begin = self.bytes.len();
        let Some(cached) = cached_key(begin, key, series).filter(|known| known.end() <= self.limit) else { return };
        self.bytes.extend_from_slice(key.name);
        self.bytes.extend_from_slice(key.tags);
        let (bytes, hasher) = (&self.bytes, &self.hasher);
        self.table.insert_unique(hash(hasher, key), cached, |known| hash(hasher, known.of(bytes)));
    }

    /// Removes the entries added since [`Self::len`] returned this value.
    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.bytes.len() {
            self.table.retain(|known| (known.begin as usize) < len);
            self.bytes.truncate(len);
        }
    }

    /// Removes all entries; the memory is kept, unless it is far more than was needed.
    pub(super) fn clear(&mut self) {
        let (cached, used) = (self.table.len(), self.bytes.len());
        // Caching a key costs about a third of what each hit saves. A small sample proves nothing: a batch that was
        // closed early must not slow the next one down.
        if cached >= ENOUGH {
            self.limit = if self.hits >= cached { MAX_KEY_BYTES } else { FEW_KEY_BYTES };
        }
        (self.lookups, self.hits) = (0, 0);
        self.table.clear();
        self.bytes.clear();
        if is_outsized(self.table.capacity(), cached) {
            self.table.shrink_to(cached, |_| 0);
        }
        if is_outsized(self.bytes.capacity(), used) {
            self.bytes.shrink_to(used);
        }
    }
}

/// `None` for an empty key, or one too long to be cached.
fn cached_key(begin: usize, key: RawSeriesKey<'_>, series: u32) -> Option<CachedKey> {
    if key.name.is_empty() {
        return None;
    }
    let [begin, name, tags] = [begin, key.name.len(), key.tags.len()].map(u32::try_from);
    Some(CachedKey { begin: begin.ok()?, name: name.ok()?, tags: tags.ok()?, series })
}

fn hash(hasher: &DefaultHashBuilder, key: RawSeriesKey<'_>) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(key.name);
    hasher.write(key.tags);
    hasher.finish()
}

fn is_outsized(capacity: usize, used: usize) -> bool {
    capacity > SMALL && capacity / 4 > used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw_key<'a>(name: &'a str, tags: &'a str) -> RawSeriesKey<'a> {
        RawSeriesKey { name: name.as_bytes(), tags: tags.as_bytes() }
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

        let mut raw_keys = RawSeriesKeyCache::default();
        raw_keys.remember(raw_key("n", "{}"), 7);
        let before = raw_keys.len();
        raw_keys.remember(raw_key("n", ""), 8);
        assert_eq!(raw_keys.lookup(raw_key("n", "")), Some(8));
        raw_keys.remember(raw_key("", ""), 9);
        raw_keys.truncate(before);
        assert_eq!(raw_keys.lookup(raw_key("", "")), None);
        assert_eq!(raw_keys.lookup(raw_key("n", "")), None);
        assert_eq!(raw_keys.lookup(raw_key("n", "{}")), Some(7));
        raw_keys.clear();
        assert_eq!(raw_keys.lookup(raw_key("n", "{}")), None);
    }

    #[test]
    fn only_the_very_same_bytes_are_found() {
        let mut raw_keys = RawSeriesKeyCache::default();
        for number in 0..10_000 {
            raw_keys.remember(raw_key(&format!("n{number}"), "tags"), number);
        }
        for number in 0..10_000 {
            let name = format!("n{number}");
            assert_eq!(raw_keys.lookup(raw_key(&name, "tags")), Some(number));
            assert_eq!(raw_keys.lookup(raw_key(&name, "tag")), None);
            assert_eq!(raw_keys.lookup(raw_key(&format!("{name}t"), "ags")), None);
        }
        assert_eq!(raw_keys.lookup(raw_key("", "")), None);
    }

    #[test]
    fn keys_that_never_come_again_make_the_cache_small() {
        let mut raw_keys = RawSeriesKeyCache::default();
        let mut remembered = |distinct: u32, events: u32| {
            let mut cached = 0;
            for event in 0..events {
                let name = format!("http.requests.{:05}", event % distinct);
                if raw_keys.lookup(raw_key(&name, "{}")).is_none() {
                    raw_keys.remember(raw_key(&name, "{}"), event);
                    cached = raw_keys.table.len();
                }
            }
            raw_keys.clear();
            cached
        };
        let few = FEW_KEY_BYTES / "http.requests.00000{}".len();
        assert_eq!(remembered(5_000, 5_000), 5_000, "nothing is known yet");
        assert_eq!(remembered(5_000, 5_000), few);
        assert_eq!(remembered(3, 3), 3, "which says nothing");
        assert_eq!(remembered(5_000, 10_000), few, "which notices that all came again");
        assert_eq!(remembered(5_000, 10_000), 5_000);
    }

    #[test]
    fn memory_has_a_bound_and_goes_back_after_an_outlier() {
        let mut raw_keys = RawSeriesKeyCache::default();
        let long = "x".repeat(1_000);
        for number in 0..3_000_u32 {
            raw_keys.remember(raw_key(&format!("n{number}"), &long), number);
        }
        assert!(raw_keys.len() <= MAX_KEY_BYTES);
        assert_eq!(raw_keys.lookup(raw_key("n0", &long)), Some(0));
        assert_eq!(raw_keys.lookup(raw_key("n2999", &long)), None);
        raw_keys.remember(raw_key("small", ""), 5);
        assert_eq!(raw_keys.lookup(raw_key("small", "")), Some(5), "what still fits is remembered");
        raw_keys.clear();
        let kept = raw_keys.bytes.capacity();
        assert!(kept >= MAX_KEY_BYTES / 2, "the next batch may need it again");
        raw_keys.remember(raw_key("n", ""), 1);
        raw_keys.clear();
        assert!(raw_keys.bytes.capacity() <= SMALL);

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
