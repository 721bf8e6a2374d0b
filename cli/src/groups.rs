//! Sums by tags.

use std::collections::HashMap;

use tallybus_schemas::Series;

/// The values of the tags to group by; `None` where a series does not have the tag.
pub(crate) type Key = Vec<Option<String>>;

/// A sum of events.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) total: u128,
    pub(crate) events: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, value: u64) {
        self.total += u128::from(value);
        self.events += 1;
    }
}

/// Which group each series belongs to. A series is looked up by its number, so that its tags are compared once.
#[derive(Debug)]
pub(crate) struct Groups {
    by: Vec<String>,
    keys: Vec<Key>,
    numbers: HashMap<Key, u32>,
    /// By series number.
    of_series: Vec<Option<u32>>,
}

impl Groups {
    /// Groups by these tags, or by the counter's name with `name`.
    pub(crate) fn new(by: &[String]) -> Self {
        Self { by: by.to_vec(), keys: Vec::new(), numbers: HashMap::new(), of_series: Vec::new() }
    }

    /// The number of the group of a series, and whether the series is seen for the first time. `number` is that of the series.
    pub(crate) fn of(&mut self, number: u32, series: &Series) -> (u32, bool) {
        let place = number as usize;
        if let Some(Some(group)) = self.of_series.get(place) {
            return (*group, false);
        }
        let value = |by: &String| match by.as_str() {
            "name" => Some(series.name().to_owned()),
            tag => series.tag(tag).map(str::to_owned),
        };
        let key: Key = self.by.iter().map(value).collect();
        let group = match self.numbers.get(&key) {
            Some(group) => *group,
            None => {
                let group = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
                self.keys.push(key.clone());
                self.numbers.insert(key, group);
                group
            }
        };
        if self.of_series.len() <= place {
            self.of_series.resize(place + 1, None);
        }
        self.of_series[place] = Some(group);
        (group, true)
    }

    /// The tags to group by.
    pub(crate) fn by(&self) -> &[String] {
        &self.by
    }

    /// The number of groups.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key of a group, by its number.
    pub(crate) fn key(&self, group: u32) -> &Key {
        &self.keys[group as usize]
    }

    /// The numbers of series begin again at 0.
    pub(crate) fn forget_series(&mut self) {
        self.of_series.clear();
    }

    /// Removes all groups; their numbers begin again at 0.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(&self.by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_with_the_same_values_are_one_group() {
        let mut groups = Groups::new(&["name".to_owned(), "route".to_owned()]);
        let (one, other) =
            (Series::from_sorted("a", &[("route", "/v1"), ("x", "1")]), Series::from_sorted("a", &[("route", "/v1")]));
        assert_eq!((groups.of(0, &one), groups.of(1, &other), groups.of(0, &one)), ((0, true), (0, true), (0, false)));
        assert_eq!(groups.of(5, &Series::from_sorted("a", &[])), (1, true));
        assert_eq!(
            (groups.key(0), groups.key(1)),
            (&vec![Some("a".to_owned()), Some("/v1".to_owned())], &vec![Some("a".to_owned()), None])
        );
        assert_eq!(groups.len(), 2);
        groups.forget_series();
        assert_eq!(groups.of(0, &Series::from_sorted("b", &[])), (2, true));
        groups.clear();
        assert_eq!((groups.of(0, &one), groups.len()), ((0, true), 1));
    }
}
