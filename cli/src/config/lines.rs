//! The lines of a settings file in which its keys are.

use std::collections::BTreeMap;

use tallybus_sdk::config::key_path;
use toml::de::{DeTable, DeValue};

/// The line of each key, by its path.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Finds the keys of a file; none in a text that is not TOML.
    pub(super) fn of(text: &str) -> Self {
        let mut lines = Self::default();
        if let Ok(table) = DeTable::parse(text) {
            lines.add(text, table.get_ref(), &mut Vec::new());
        }
        lines
    }

    fn add<'t>(&mut self, text: &str, table: &'t DeTable<'_>, above: &mut Vec<&'t str>) {
        for (key, value) in table {
            above.push(key.get_ref().as_ref());
            let before = text.get(..key.span().start).unwrap_or_default();
            self.0.insert(key_path(above.iter().copied()), before.matches('\n').count() + 1);
            if let DeValue::Table(table) = value.get_ref() {
                self.add(text, table, above);
            }
            above.pop();
        }
    }

    /// The line of a key, or of the innermost table around it that the file has.
    pub(super) fn find(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_its_line_and_a_missing_one_in_its_tables() {
        let text = "[bus]\nkind = \"kafka\"\nkafka = { \"a.b\" = \"c\" }\n\n[sinks.a]\npath = \"x\"\ntopics = [1]\n\
                    [sinks.\"b c\"]\nx.y = 1\n";
        let lines = Lines::of(text);
        for (path, line) in [
            ("bus", Some(1)),
            ("bus.kind", Some(2)),
            ("bus.kafka.\"a.b\"", Some(3)),
            ("bus.brokers", Some(1)),
            ("sinks.a.topics[0]", Some(7)),
            ("sinks.a.url", Some(5)),
            ("sinks.\"b c\".x.y", Some(9)),
            ("nothing.here", None),
        ] {
            assert_eq!(lines.find(path), line, "{path}");
        }
        assert_eq!(Lines::of("= =").find("bus"), None);
    }
}
