//! Tags as a JSON object of texts, the form in which several backends store them.

use std::sync::Arc;

use serde_json::{Map, Value};
use tallybus_schemas::Series;

/// An object with a key for each tag, in the order given; tags are a set, so no key occurs twice.
pub(crate) fn tags_to_json<'t>(tags: impl Iterator<Item = (&'t str, &'t str)>) -> String {
    let mut text = String::from("{");
    for (index, (key, value)) in tags.enumerate() {
        if index > 0 {
            text.push(',');
        }
        // The display of a JSON string is the string quoted.
        text.push_str(&Value::from(key).to_string());
        text.push(':');
        text.push_str(&Value::from(value).to_string());
    }
    text.push('}');
    text
}

/// The series of a name and such an object as text; `None` for a row that no sink wrote.
pub(crate) fn series_of(name: &str, tags: &str) -> Option<Series> {
    series_of_object(name, &serde_json::from_str(tags).ok()?)
}

/// The same for an object; `None` when one of its values is not a string.
pub(crate) fn series_of_object(name: &str, tags: &Map<String, Value>) -> Option<Series> {
    let tags: Option<Vec<(&str, &str)>> =
        tags.iter().map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
    Some(series_of_tags(name, tags?))
}

/// The series of a name and tags in any order.
pub(crate) fn series_of_tags(name: &str, mut tags: Vec<(&str, &str)>) -> Series {
    tags.sort_unstable();
    Series::from_sorted(name, &tags)
}

/// The series of rows: keeps the last one, because the rows of one series mostly come one after another.
#[derive(Debug, Default)]
pub(crate) struct LastSeries {
    name: String,
    tags: String,
    series: Option<Arc<Series>>,
}

impl LastSeries {
    /// As [`series_of`].
    pub(crate) fn of(&mut self, name: &str, tags: &str) -> Option<Arc<Series>> {
        if self.series.is_none() || self.name != name || self.tags != tags {
            self.series = series_of(name, tags).map(Arc::new);
            name.clone_into(&mut self.name);
            tags.clone_into(&mut self.tags);
        }
        self.series.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_a_row_is_that_of_its_own_texts() {
        let mut last = LastSeries::default();
        let one = last.of("a", r#"{"k":"v"}"#).unwrap();
        assert!(Arc::ptr_eq(&one, &last.of("a", r#"{"k":"v"}"#).unwrap()));
        assert_eq!(*one, Series::from_sorted("a", &[("k", "v")]));
        assert_eq!(*last.of("b", r#"{"k":"v"}"#).unwrap(), Series::from_sorted("b", &[("k", "v")]));
        for foreign in ["x", r#"{"k":4}"#, "[]", ""] {
            assert_eq!(last.of("b", foreign), None, "{foreign}");
            assert_eq!(last.of("b", foreign), None, "again: {foreign}");
        }
        assert_eq!(*last.of("b", "{}").unwrap(), Series::from_sorted("b", &[]));
    }
}
