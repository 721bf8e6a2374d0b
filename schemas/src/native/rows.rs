use std::mem;

use super::decode::{Columns, USED, refuse};
use super::wire::Column;
use crate::canonical::{MAX_NAME, MAX_TAGS, MAX_VALUE, TOO_MANY_TAGS, arrange_printable};
use crate::error::excerpt;
use crate::scratch::recycle;
use crate::{Receiver, SchemaError, SeriesError};

type Tags<'a> = Vec<(&'a str, &'a str)>;

/// Working memory for one message, kept for the next.
#[derive(Debug, Default)]
pub(super) struct RowScratch {
    own: Tags<'static>,
    common: Tags<'static>,
    tags: Tags<'static>,
    keys: Vec<u32>,
    places: Vec<usize>,
}

/// Checks every row, and announces those in use: their marks become the receiver's handles.
pub(super) fn announce(
    scratch: &mut RowScratch,
    strings: &[&str],
    columns: &Columns,
    handles: &mut [u32],
    receiver: &mut dyn Receiver,
) -> Result<(), SchemaError> {
    let mut rows = Rows {
        strings,
        columns,
        own: recycle(mem::take(&mut scratch.own)),
        common: recycle(mem::take(&mut scratch.common)),
        tags: recycle(mem::take(&mut scratch.tags)),
        keys: mem::take(&mut scratch.keys),
        places: mem::take(&mut scratch.places),
    };
    let outcome = rows.announce(handles, receiver);
    *scratch = RowScratch {
        own: recycle(rows.own),
        common: recycle(rows.common),
        tags: recycle(rows.tags),
        keys: rows.keys,
        places: rows.places,
    };
    outcome
}

/// Assembles the series.
struct Rows<'a, 's> {
    strings: &'s [&'a str],
    columns: &'s Columns,
    own: Tags<'a>,
    common: Tags<'a>,
    /// All tags of the last assembled row, in their order.
    tags: Tags<'a>,
    /// The keys of that row's own tags, as numbers of strings, in the order of the message; empty if it is not a
    /// pattern.
    keys: Vec<u32>,
    /// Where in `tags` each of them is.
    places: Vec<usize>,
}

impl<'a> Rows<'a, '_> {
    fn announce(&mut self, handles: &mut [u32], receiver: &mut dyn Receiver) -> Result<(), SchemaError> {
        let Columns { series_name, series_tag_counts, series_tags, .. } = self.columns;
        self.read_common()?;
        if series_tag_counts.values.len() != series_name.values.len() {
            let reason = format!("{} entries for {} series", series_tag_counts.values.len(), series_name.values.len());
            return Err(refuse("series_tag_counts", series_tag_counts.position(), reason));
        }

        self.keys.clear();
        self.places.clear();
        let mut rest = series_tags.values.as_slice();
        for (row, (handle, &count)) in handles.iter_mut().zip(&series_tag_counts.values).enumerate() {
            let name = self.string(series_name, row, "series_name")?;
            let count = count as usize;
            if count > MAX_TAGS {
                let field = format!("series_tag_counts[{row}]");
                return Err(refuse(field, series_tag_counts.position(), TOO_MANY_TAGS));
            }
            let Some((own, others)) = rest.split_at_checked(count * 2) else {
                return Err(refuse("series_tags", series_tags.position(), "fewer entries than series_tag_counts says"));
            };
            if !self.follows_pattern(name, own) {
                self.put_together(row, name, series_tags.values.len() - rest.len(), own)?;
            }
            rest = others;
            if *handle == USED {
                *handle = receiver.series(name, &self.tags);
            }
        }
        if !rest.is_empty() {
            return Err(refuse("series_tags", series_tags.position(), "more entries than series_tag_counts says"));
        }
        Ok(())
    }

    /// Nearly every row has the keys of the one before: then only the values change, and their order is known.
    /// Whether that is so, and nothing is wrong with the row; its tags are then in `tags`.
    fn follows_pattern(&mut self, name: &str, own: &[u32]) -> bool {
        if name.is_empty() || name.len() > MAX_NAME || own.is_empty() || own.len() != 2 * self.keys.len() {
            return false;
        }
        for ((pair, &key), &place) in own.as_chunks::<2>().0.iter().zip(&self.keys).zip(&self.places) {
            let Some(&value) = self.strings.get(pair[1] as usize) else { return false };
            if pair[0] != key || value.is_empty() || value.len() > MAX_VALUE {
                return false;
            }
            // A row that does not match the pattern is assembled from scratch.
            self.tags[place].1 = value;
        }
        true
    }

    /// Checks a row, and leaves its tags in `tags` and its keys as the pattern of the next. Its own tags are the
    /// numbers `own`, which begin at `from` in their column.
    fn put_together(&mut self, row: usize, name: &str, from: usize, own: &[u32]) -> Result<(), SchemaError> {
        let Columns { series_name, series_tags, .. } = self.columns;
        self.keys.clear();
        self.places.clear();
        self.own.clear();
        for at in (from..from + own.len()).step_by(2) {
            let key = self.string(series_tags, at, "series_tags")?;
            self.own.push((key, self.string(series_tags, at + 1, "series_tags")?));
        }

        let refuse_row = |error: SeriesError| {
            let field = format!("series[{row}].{}", error.field);
            refuse(field, series_name.position(), format!("{} (in series {:?})", error.reason, excerpt(name)))
        };
        arrange_printable(name, &mut self.own).map_err(refuse_row)?;
        merge(&self.own, &self.common, &mut self.tags);
        if self.tags.len() > MAX_TAGS {
            return Err(refuse_row(SeriesError::tags(TOO_MANY_TAGS)));
        }

        for pair in own.as_chunks::<2>().0 {
            let key = self.strings.get(pair[0] as usize).copied().unwrap_or_default();
            let Ok(place) = self.tags.binary_search_by(|tag| tag.0.cmp(key)) else {
                // One had an empty value and was dropped.
                self.keys.clear();
                self.places.clear();
                return Ok(());
            };
            self.keys.push(pair[0]);
            self.places.push(place);
        }
        Ok(())
    }

    fn read_common(&mut self) -> Result<(), SchemaError> {
        const FIELD: &str = "common_tags";
        let column = &self.columns.common_tags;
        let entries = column.values.len();
        if entries > 2 * MAX_TAGS {
            return Err(refuse(FIELD, column.position(), TOO_MANY_TAGS));
        }
        if !entries.is_multiple_of(2) {
            return Err(refuse(FIELD, column.position(), "a key without a value"));
        }
        for at in (0..entries).step_by(2) {
            let key = self.string(column, at, FIELD)?;
            self.common.push((key, self.string(column, at + 1, FIELD)?));
        }
        arrange_printable("common", &mut self.common)
            .map_err(|error| refuse(format!("common_{}", error.field), column.position(), error.reason))
    }

    fn string(&self, column: &Column<u32>, at: usize, field: &str) -> Result<&'a str, SchemaError> {
        let index = column.values[at];
        self.strings.get(index as usize).copied().ok_or_else(|| {
            let reason = format!("there is no string {index}, only {}", self.strings.len());
            refuse(format!("{field}[{at}]"), column.position(), reason)
        })
    }
}

/// Merges two sorted lists; where both have a key, `own` wins.
fn merge<'a>(own: &[(&'a str, &'a str)], common: &[(&'a str, &'a str)], merged: &mut Tags<'a>) {
    merged.clear();
    let mut rest = common;
    for &tag in own {
        while let Some((&first, others)) = rest.split_first() {
            if first.0 > tag.0 {
                break;
            }
            if first.0 < tag.0 {
                merged.push(first);
            }
            rest = others;
        }
        merged.push(tag);
    }
    merged.extend_from_slice(rest);
}
