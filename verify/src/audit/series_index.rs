use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use tallybus_schemas::Series;
use tallybus_sdk::SeriesTable;

/// Numbers series: all their text is in one buffer.
#[derive(Debug, Default)]
pub(super) struct SeriesIndex {
    table: SeriesTable,
    numbers: HashTable<u32>,
    /// The last one that was looked up by `Arc`, with its number.
    last: Option<(Arc<Series>, u32)>,
}

impl SeriesIndex {
    /// The number of a series; a new one if it has none.
    pub(super) fn number(&mut self, name: &str, tags: &[(&str, &str)]) -> u32 {
        let hash = hash(name, tags.iter().copied());
        let table = &self.table;
        let is_same = |&number: &u32| {
            let view = table.get(number);
            view.name() == name && view.tags().len() == tags.len() && view.tags().eq(tags.iter().copied())
        };
        if let Some(&number) = self.numbers.find(hash, is_same) {
            return number;
        }
        let number = self.table.push(name, tags);
        let table = &self.table;
        self.numbers.insert_unique(hash, number, |&number| {
            let view = table.get(number);
            self::hash(view.name(), view.tags())
        });
        number
    }

    /// The same; quick for the series that was looked up last.
    pub(super) fn number_of(&mut self, series: &Arc<Series>) -> u32 {
        if let Some((last, number)) = &self.last
            && Arc::ptr_eq(last, series)
        {
            return *number;
        }
        let tags: Vec<(&str, &str)> = series.tags().iter().map(|(key, value)| (&**key, &**value)).collect();
        let number = self.number(series.name(), &tags);
        self.last = Some((Arc::clone(series), number));
        number
    }

    /// The series of a number.
    pub(super) fn series(&self, number: u32) -> Series {
        self.table.get(number).to_series()
    }

    /// How many series it has.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

fn hash<'t>(name: &str, tags: impl Iterator<Item = (&'t str, &'t str)>) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    name.hash(&mut hasher);
    tags.for_each(|tag| tag.hash(&mut hasher));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_one_number_however_it_is_looked_up() {
        let mut index = SeriesIndex::default();
        let all: Vec<Arc<Series>> = (0..500)
            .map(|n: u32| {
                let (name, value) = ((n % 7).to_string(), n.to_string());
                let tags = [("k", value.as_str())];
                Arc::new(Series::from_sorted(&name, &tags[..usize::from(n > 6)]))
            })
            .collect();
        for (number, series) in (0..).zip(&all) {
            assert_eq!(index.number_of(series), number);
            assert_eq!(index.number_of(series), number);
        }
        for (number, series) in (0..).zip(&all) {
            let tags: Vec<(&str, &str)> = series.tags().iter().map(|(key, value)| (&**key, &**value)).collect();
            assert_eq!(index.number(series.name(), &tags), number);
            assert_eq!(index.number_of(&Arc::new((**series).clone())), number);
            assert_eq!(index.series(number), **series);
        }
        assert_eq!(index.len(), 500);
    }

    #[test]
    fn series_that_differ_in_any_part_differ_in_their_hash() {
        let hash = |name, tags: &[(&'static str, &'static str)]| hash(name, tags.iter().copied());
        let all = [
            hash("a", &[]),
            hash("b", &[]),
            hash("a", &[("k", "v")]),
            hash("a", &[("k", "w")]),
            hash("a", &[("l", "v")]),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(!all[..place].contains(one), "{place}");
        }
    }
}
