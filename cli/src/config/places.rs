//! The places in a settings file at which its keys are.

use std::collections::BTreeMap;
use std::fmt;

use tallybus_sdk::config::key_path;
use toml::de::{DeTable, DeValue};

/// A line and a column of a file, both from 1; a column is a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    column: usize,
}

impl Place {
    /// The place of a byte.
    fn of(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let begin = before.rfind('\n').map_or(0, |end| end + 1);
        Self { line: before.matches('\n').count() + 1, column: before[begin..].chars().count() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The place of each key, by its path.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<String, Place>);

impl Places {
    /// Finds the keys of a file.
    ///
    /// # Errors
    /// The text is not TOML: where, and why. The line itself is not repeated: it may contain a secret.
    pub(super) fn of(text: &str) -> Result<Self, (Option<Place>, String)> {
        let table = DeTable::parse(text).map_err(|error| {
            let place = error.span().map(|span| Place::of(text, span.start));
            (place, error.message().to_owned())
        })?;
        let mut places = Self::default();
        places.add(text, table.get_ref(), &mut Vec::new());
        Ok(places)
    }

    fn add<'t>(&mut self, text: &str, table: &'t DeTable<'_>, above: &mut Vec<&'t str>) {
        for (key, value) in table {
            above.push(key.get_ref().as_ref());
            self.0.insert(key_path(above.iter().copied()), Place::of(text, key.span().start));
            if let DeValue::Table(table) = value.get_ref() {
                self.add(text, table, above);
            }
            above.pop();
        }
    }

    /// The place of a key, or of the innermost table around it that the file has.
    pub(super) fn find(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return Some(*place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_its_place_and_a_missing_one_in_its_tables() {
        let text = "[bus]\nkind = \"kafka\"\nkafka = { \"ä\" = 1, \"a.b\" = \"c\" }\n\n[sinks.a]\npath = \"x\"\n  topics = [1]\n\
                    [sinks.\"b c\"]\nx.y = 1\n";
        let places = Places::of(text).unwrap();
        for (path, place) in [
            ("bus", "1:2"),
            ("bus.kind", "2:1"),
            ("bus.kafka.\"a.b\"", "3:20"),
            ("bus.brokers", "1:2"),
            ("sinks.a.topics[0]", "7:3"),
            ("sinks.a.url", "5:8"),
            ("sinks.\"b c\".x.y", "9:3"),
        ] {
            assert_eq!(places.find(path).map(|place| place.to_string()).as_deref(), Some(place), "{path}");
        }
        assert_eq!(places.find("nothing.here"), None);
    }

    #[test]
    fn what_is_no_toml_has_a_place_and_shows_no_value() {
        let (place, reason) = Places::of("[a]\nx = 1\ntoken = \"hunter2\n").unwrap_err();
        assert_eq!(place.map(|place| place.line), Some(3));
        assert!(!reason.is_empty() && !reason.contains("hunter2"), "{reason}");
    }
}
