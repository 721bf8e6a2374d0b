use std::collections::HashMap;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};

/// The windows are in so many tables, which grow one after another: while one does, its old memory is held too.
const TABLES: usize = 64;

/// By how much each window's value on the bus exceeds that in the backend: 17 bytes for a window, because there may be
/// many millions of them. Exact in 128 bits.
#[derive(Debug)]
pub(super) struct Windows {
    /// Windows' starts, numbered in the order in which they came.
    starts: Vec<i64>,
    numbers: FxHashMap<i64, u32>,
    /// By the series' number.
    tables: Vec<HashTable<Entry>>,
    /// What does not fit the entries, in addition to what they hold.
    wide: HashMap<Key, i128>,
    /// The last start and its number: events come about in the order of time.
    last: Option<(i64, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Key,
    balance: i64,
}

/// The series' number, and the start's.
type Key = (u32, u32);

impl Default for Windows {
    fn default() -> Self {
        Self {
            starts: Vec::new(),
            numbers: FxHashMap::default(),
            tables: (0..TABLES).map(|_| HashTable::new()).collect(),
            wide: HashMap::new(),
            last: None,
        }
    }
}

impl Windows {
    /// Adds to the balance of a window.
    pub(super) fn add(&mut self, series: u32, start: i64, amount: i128) {
        let key = (series, self.number(start));
        let hash = |key: Key| FxBuildHasher.hash_one(key);
        let table = &mut self.tables[series as usize % TABLES];
        let entry = table.entry(hash(key), |entry| entry.key == key, |entry| hash(entry.key));
        let entry = entry.or_insert(Entry { key, balance: 0 }).into_mut();
        match i64::try_from(amount).ok().and_then(|amount| entry.balance.checked_add(amount)) {
            Some(balance) => entry.balance = balance,
            None => *self.wide.entry(key).or_default() += amount,
        }
    }

    /// The windows whose balance is not zero, in no order: series, start and balance.
    pub(super) fn unbalanced(&self) -> impl Iterator<Item = (u32, i64, i128)> {
        self.tables.iter().flatten().filter_map(|entry| {
            let wide = if self.wide.is_empty() { 0 } else { self.wide.get(&entry.key).copied().unwrap_or_default() };
            let balance = i128::from(entry.balance) + wide;
            let (series, start) = (entry.key.0, self.starts[entry.key.1 as usize]);
            (balance != 0).then_some((series, start, balance))
        })
    }

    /// How many windows it has.
    pub(super) fn len(&self) -> usize {
        self.tables.iter().map(HashTable::len).sum()
    }

    fn number(&mut self, start: i64) -> u32 {
        match self.last {
            Some((last, number)) if last == start => number,
            _ => {
                let next = u32::try_from(self.starts.len()).unwrap_or(u32::MAX);
                let number = *self.numbers.entry(start).or_insert(next);
                if number == next {
                    self.starts.push(start);
                }
                self.last = Some((start, number));
                number
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn amounts() -> impl Strategy<Value = i128> {
        let most = i128::from(u64::MAX);
        prop_oneof![-3..=3_i128, Just(most), Just(-most), Just(i128::from(i64::MAX)), Just(i128::from(i64::MIN))]
    }

    proptest! {
        /// The same as an ordinary map of 128-bit sums.
        #[test]
        fn it_is_a_map_of_sums(added in prop::collection::vec((prop_oneof![0..3_u32, 63..66_u32, Just(u32::MAX)], -2..3_i64, amounts()), 0..200)) {
            let (mut windows, mut sums) = (Windows::default(), BTreeMap::new());
            for (series, start, amount) in added {
                windows.add(series, start * 1_000, amount);
                *sums.entry((series, start * 1_000)).or_default() += amount;
            }
            prop_assert_eq!(windows.len(), sums.len());
            sums.retain(|_, sum| *sum != 0);
            let found: BTreeMap<_, _> =
                windows.unbalanced().map(|(series, start, balance)| ((series, start), balance)).collect();
            prop_assert_eq!(found, sums);
        }
    }

    #[test]
    fn a_window_takes_17_bytes() {
        assert_eq!(size_of::<Entry>(), 16);
    }
}
