use std::borrow::Borrow;
use std::fmt;

use tallybus_schemas::Series;

/// The series of a batch, numbered from 0 in the order of their first events. All their text is in one buffer, so that
/// a series needs no allocation of its own.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SeriesTable {
    /// One series after another, each as `name,key=value,key=value`: the form of line protocol where nothing needs
    /// escaping, so that this hot path copies it in one piece.
    text: String,
    /// The end of each text, relative to the beginning of its series: the name, then key and value of each tag.
    ends: Vec<u32>,
    begins: Vec<Begin>,
}

/// Where a series begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Begin {
    text: usize,
    ends: usize,
}

/// The size of a [`SeriesTable`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Capacity {
    text: usize,
    ends: usize,
    series: usize,
}

impl SeriesTable {
    /// Creates an empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty table with capacity for this size.
    pub fn with_capacity(capacity: Capacity) -> Self {
        Self {
            text: String::with_capacity(capacity.text),
            ends: Vec::with_capacity(capacity.ends),
            begins: Vec::with_capacity(capacity.series),
        }
    }

    /// Its size.
    pub fn capacity(&self) -> Capacity {
        Capacity { text: self.text.len(), ends: self.ends.len(), series: self.begins.len() }
    }

    /// Frees unused capacity.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.begins.shrink_to_fit();
    }

    /// The number of series.
    pub fn len(&self) -> usize {
        self.begins.len()
    }

    /// Whether it has no series.
    pub fn is_empty(&self) -> bool {
        self.begins.is_empty()
    }

    /// Memory use in bytes.
    pub fn memory(&self) -> usize {
        self.text.len() + self.ends.len() * size_of::<u32>() + self.begins.len() * size_of::<Begin>()
    }

    /// Mean length of a series' text in bytes; 0 when the table is empty.
    pub fn mean_len(&self) -> usize {
        self.text.len().checked_div(self.len()).unwrap_or_default()
    }

    /// Appends a series and returns its number. `tags` must be valid for a series: sorted, without duplicates. Does not
    /// check whether the table has the series already.
    pub fn push(&mut self, name: &str, tags: &[(&str, &str)]) -> u32 {
        let begin = self.end();
        self.begins.push(begin);
        self.ends.reserve(1 + 2 * tags.len());
        self.push_text(begin, name);
        for &(key, value) in tags {
            self.text.push(',');
            self.push_text(begin, key);
            self.text.push('=');
            self.push_text(begin, value);
        }
        // A batch has fewer series than its records have bytes.
        u32::try_from(self.begins.len() - 1).unwrap_or(u32::MAX)
    }

    /// Returns a series by its number.
    ///
    /// # Panics
    /// The table has no series of this number.
    pub fn get(&self, number: u32) -> SeriesView<'_> {
        self.at(number as usize)
    }

    /// All series, in the order of their numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SeriesView<'_>> {
        (0..self.len()).map(|place| self.at(place))
    }

    /// The bytes of a series, and where its texts end: together they identify a series.
    pub fn raw(&self, number: u32) -> (&[u8], &[u32]) {
        let (begin, end) = self.bounds(number as usize);
        (&self.text.as_bytes()[begin.text..end.text], &self.ends[begin.ends..end.ends])
    }

    fn at(&self, place: usize) -> SeriesView<'_> {
        let (begin, end) = self.bounds(place);
        SeriesView { text: &self.text[begin.text..end.text], ends: &self.ends[begin.ends..end.ends] }
    }

    fn bounds(&self, place: usize) -> (Begin, Begin) {
        (self.begins[place], self.begins.get(place + 1).copied().unwrap_or_else(|| self.end()))
    }

    /// Removes the series from `len` on.
    pub fn truncate(&mut self, len: usize) {
        let Some(&end) = self.begins.get(len) else { return };
        self.text.truncate(end.text);
        self.ends.truncate(end.ends);
        self.begins.truncate(len);
    }

    fn end(&self) -> Begin {
        Begin { text: self.text.len(), ends: self.ends.len() }
    }

    fn push_text(&mut self, begin: Begin, text: &str) {
        self.text.push_str(text);
        // A series is far smaller than 4 GiB: its texts are limited in length, and the tags that a selection adds fit a
        // commit's metadata.
        self.ends.push(u32::try_from(self.text.len() - begin.text).unwrap_or(u32::MAX));
    }
}

impl fmt::Debug for SeriesTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<S: Borrow<Series>> FromIterator<S> for SeriesTable {
    fn from_iter<I: IntoIterator<Item = S>>(all: I) -> Self {
        let mut table = Self::new();
        for series in all {
            let series = series.borrow();
            let tags: Vec<(&str, &str)> = series.tags().iter().map(|(key, value)| (&**key, &**value)).collect();
            table.push(series.name(), &tags);
        }
        table
    }
}

/// A series of a [`SeriesTable`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SeriesView<'t> {
    text: &'t str,
    ends: &'t [u32],
}

impl<'t> SeriesView<'t> {
    /// The counter's name.
    pub fn name(self) -> &'t str {
        &self.text[..self.end(0)]
    }

    /// Keys and values, sorted by key.
    pub fn tags(self) -> impl ExactSizeIterator<Item = (&'t str, &'t str)> + Clone {
        let mut begin = self.end(0) + 1;
        self.ends[1..].chunks_exact(2).map(move |ends| {
            let (middle, end) = (ends[0] as usize, ends[1] as usize);
            let tag = (&self.text[begin..middle], &self.text[middle + 1..end]);
            begin = end + 1;
            tag
        })
    }

    /// The value of a tag; `None` if the series does not have it.
    pub fn tag(self, key: &str) -> Option<&'t str> {
        self.tags().find(|(candidate, _)| *candidate == key).map(|(_, value)| value)
    }

    /// Copies it into a series that owns its text.
    pub fn to_series(self) -> Series {
        Series::from_sorted(self.name(), &self.tags().collect::<Vec<_>>())
    }

    /// `name,key=value,key=value`, without escaping.
    pub fn text(self) -> &'t str {
        self.text
    }

    fn end(self, at: usize) -> usize {
        self.ends[at] as usize
    }
}

/// The same format as [`Series`].
impl fmt::Display for SeriesView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_series().fmt(f)
    }
}

impl fmt::Debug for SeriesView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_series() -> impl Strategy<Value = Series> {
        let tags = prop::collection::btree_map("[a-cé]{1,3}", "[a-c=,\"é]{1,3}", 0..4);
        ("[a-cé]{0,3}", tags).prop_map(|(name, tags)| {
            let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            Series::from_sorted(&name, &tags)
        })
    }

    proptest! {
        /// Every series that is appended is read back unchanged, whatever its texts are, and after any truncation.
        #[test]
        fn it_holds_what_was_pushed(
            all in prop::collection::vec(any_series(), 0..20),
            cut in 0_usize..20,
            more in prop::collection::vec(any_series(), 0..5),
        ) {
            let mut table: SeriesTable = all.iter().collect();
            table.truncate(cut);
            let mut kept = all;
            kept.truncate(cut);
            for series in &more {
                let tags: Vec<(&str, &str)> = series.tags().iter().map(|(key, value)| (&**key, &**value)).collect();
                prop_assert_eq!(table.push(series.name(), &tags) as usize, kept.len());
                kept.push(series.clone());
            }
            prop_assert_eq!(table.len(), kept.len());
            let viewed: Vec<Series> = table.iter().map(SeriesView::to_series).collect();
            prop_assert_eq!(&viewed, &kept);
            for (number, series) in (0..).zip(&kept) {
                let view = table.get(number);
                prop_assert_eq!(view.name(), series.name());
                prop_assert_eq!(view.tags().len(), series.tags().len());
                prop_assert_eq!(view.to_string(), series.to_string());
                for (key, value) in series.tags() {
                    prop_assert_eq!(view.tag(key), Some(&**value));
                }
                prop_assert_eq!(view.tag("absent"), None);
            }
            prop_assert_eq!(&table, &kept.iter().collect());
        }
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        let mut table = SeriesTable::new();
        table.push("ab", &[("c", "d")]);
        table.push("a", &[("bc", "d")]);
        assert_ne!(table.get(0), table.get(1));
        assert_eq!(format!("{table:?}"), r#"[ab{c="d"}, a{bc="d"}]"#);
    }
}
