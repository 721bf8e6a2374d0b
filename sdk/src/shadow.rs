use std::fmt;

use serde_json::{Map, Value};

/// Begins the name of every shadow destination.
const PREFIX: &str = "tallybus_compare_";
/// The length of what follows it.
const ID_LEN: usize = 8;

/// The name of a shadow destination: one that `tallybus compare` creates beside a sink's own, fills and removes again.
/// `tallybus_compare_` and eight of a-z and 0-9, which is a valid name of a table, database, bucket and file everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShadowName(String);

impl ShadowName {
    /// The name with this id; `None` unless the id is eight of a-z and 0-9.
    pub fn new(id: &str) -> Option<Self> {
        let name = format!("{PREFIX}{id}");
        Self::is(&name).then_some(Self(name))
    }

    /// Whether a text is such a name.
    pub fn is(text: &str) -> bool {
        text.strip_prefix(PREFIX).is_some_and(|id| {
            id.len() == ID_LEN && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Makes it the value of a setting, and lets the sink create what is missing: for kinds with one setting that names the
    /// destination.
    pub fn replace(&self, settings: &mut Map<String, Value>, key: &str) {
        settings.insert(key.to_owned(), Value::from(self.as_str()));
        settings.insert("create".to_owned(), Value::from(true));
    }
}

impl fmt::Display for ShadowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Changes a sink's settings, as they are in the settings file, into those of a sink of the same kind, server and credentials
/// with another destination of this name. [`Admin::prepare`](crate::Admin::prepare) creates it,
/// [`Admin::remove_shadow`](crate::Admin::remove_shadow) removes it.
///
/// # Errors
/// Why the settings have no such destination, for operators.
pub type ShadowSettings = fn(&mut Map<String, Value>, &ShadowName) -> Result<(), String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_prefix_and_eight_of_its_characters() {
        assert_eq!(ShadowName::new("a0b1c2d3").unwrap().as_str(), "tallybus_compare_a0b1c2d3");
        for wrong in ["", "a0b1c2d", "a0b1c2d34", "A0b1c2d3", "a0b1c2d/", "a0b1c2é"] {
            assert_eq!(ShadowName::new(wrong), None, "{wrong}");
        }
        for wrong in ["counters", "tallybus_compare_", "x_tallybus_compare_a0b1c2d3", "tallybus_compare_a0b1c2d3.db"] {
            assert!(!ShadowName::is(wrong), "{wrong}");
        }
    }
}
