use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use tallybus_schemas::Series;

/// Past so many series the cache starts afresh, so that a flood of new series cannot fill the memory.
const MAX_SERIES: usize = 200_000;

/// Remembers the series of a lane across batches, and gives each a dense index inside the open batch.
#[derive(Debug, Default)]
pub(crate) struct SeriesCache {
    table: HashTable<u32>,
    known: Vec<Known>,
    batch: u64,
}

#[derive(Debug)]
struct Known {
    series: Arc<Series>,
    hash: u64,
    /// Which batch `index` belongs to.
    batch: u64,
    index: u32,
}

impl SeriesCache {
    /// Begins a batch: indices start at 0 again.
    pub(crate) fn begin_batch(&mut self) {
        self.batch += 1;
        if self.known.len() > MAX_SERIES {
            self.table.clear();
            self.known.clear();
        }
    }

    /// The series' index in the open batch; new ones are appended to `batch_series`.
    pub(crate) fn index(&mut self, name: &str, tags: &[(&str, &str)], batch_series: &mut Vec<Arc<Series>>) -> u32 {
        let hash = hash(name, tags);
        let known = &self.known;
        let found = self.table.find(hash, |&place| same(&known[place as usize].series, name, tags)).copied();
        let place = match found {
            Some(place) => place,
            None => self.remember(hash, name, tags),
        };
        let entry = &mut self.known[place as usize];
        if entry.batch != self.batch {
            entry.batch = self.batch;
            entry.index = u32::try_from(batch_series.len()).unwrap_or(u32::MAX);
            batch_series.push(entry.series.clone());
        }
        entry.index
    }

    /// Forgets the indices at or past `len`, after a message whose events do not count.
    pub(crate) fn truncate(&mut self, len: usize) {
        let batch = self.batch;
        for entry in &mut self.known {
            if entry.batch == batch && entry.index as usize >= len {
                entry.batch = 0;
            }
        }
    }

    fn remember(&mut self, hash: u64, name: &str, tags: &[(&str, &str)]) -> u32 {
        let place = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        self.known.push(Known { series: Arc::new(Series::from_sorted(name, tags)), hash, batch: 0, index: 0 });
        let known = &self.known;
        self.table.insert_unique(hash, place, |&place| known[place as usize].hash);
        place
    }
}

fn hash(name: &str, tags: &[(&str, &str)]) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    name.hash(&mut hasher);
    tags.hash(&mut hasher);
    hasher.finish()
}

fn same(series: &Series, name: &str, tags: &[(&str, &str)]) -> bool {
    series.name() == name
        && series.tags().len() == tags.len()
        && series
            .tags()
            .iter()
            .zip(tags)
            .all(|((key, value), (other, other_value))| **key == **other && **value == **other_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_dense_in_each_batch() {
        let mut cache = SeriesCache::default();
        let mut series = Vec::new();
        cache.begin_batch();
        assert_eq!(cache.index("a", &[("k", "1")], &mut series), 0);
        assert_eq!(cache.index("a", &[("k", "2")], &mut series), 1);
        assert_eq!(cache.index("a", &[("k", "1")], &mut series), 0);
        let mut next = Vec::new();
        cache.begin_batch();
        assert_eq!(cache.index("a", &[("k", "2")], &mut next), 0);
        assert!(Arc::ptr_eq(&series[1], &next[0]), "a known series is not built again");
    }

    #[test]
    fn name_and_tags_do_not_run_into_each_other() {
        let mut cache = SeriesCache::default();
        let mut series = Vec::new();
        cache.begin_batch();
        let a = cache.index("ab", &[("c", "d")], &mut series);
        let b = cache.index("a", &[("bc", "d")], &mut series);
        let c = cache.index("ab", &[], &mut series);
        assert_eq!((a, b, c), (0, 1, 2));
    }

    #[test]
    fn rolled_back_series_can_come_again() {
        let mut cache = SeriesCache::default();
        let mut series = Vec::new();
        cache.begin_batch();
        cache.index("kept", &[], &mut series);
        cache.index("gone", &[], &mut series);
        series.truncate(1);
        cache.truncate(1);
        assert_eq!(cache.index("other", &[], &mut series), 1);
        assert_eq!(cache.index("gone", &[], &mut series), 2);
        assert_eq!(series.len(), 3);
    }
}
