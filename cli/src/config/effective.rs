//! The settings as they are in effect: each value, and where it comes from.

use serde_json::{Map, Value};
use tallybus_sdk::config::key_path;
use tallybus_sdk::{Kind, Setting, find_kind};
use tallybus_worker::settings::{BUS_SETTINGS, COMMON_SETTINGS, STATUS_SETTINGS, Settings};

use super::overrides::{By, overriding};
use super::{Gathered, gather, redacted, replace_missing_secrets};
use crate::Global;
use crate::failure::Failure;

/// The settings of one table.
pub(crate) struct Part {
    /// The table's name: `bus`, `sinks.local`, `status`; empty for keys outside of these.
    pub(crate) table: String,
    pub(crate) settings: Vec<Effective>,
}

/// A setting in effect.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Effective {
    /// Its key in the table: `kind`, `batch.max_events`.
    pub(crate) key: String,
    /// Its value, without secrets.
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// Where a value comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file, and the line in it.
    File(String, Option<usize>),
    /// The environment variable of this name.
    Variable(String),
    /// The option `--bus`.
    BusOption,
    /// The settings do not say.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(name, Some(line)) => write!(f, "{name}:{line}"),
            Self::File(name, None) | Self::Variable(name) => f.write_str(name),
            Self::BusOption => f.write_str("--bus"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The settings in effect, and what is wrong with them. Secrets need not exist.
///
/// # Errors
/// There are no settings, or they cannot be read.
pub(crate) fn effective(global: &Global) -> Result<(Vec<Part>, Option<Failure>), Failure> {
    let gathered = gather(global)?;
    let mut value = gathered.value.clone();
    replace_missing_secrets(&mut value);
    let failure = Settings::from_value(&value, global.kinds).err().map(|problems| gathered.failure(problems));
    Ok((gathered.parts(global.kinds), failure))
}

impl Gathered {
    fn parts(&self, kinds: &'static [Kind]) -> Vec<Part> {
        let mut parts = Vec::new();
        let empty = Map::new();
        let Value::Object(root) = &self.value else { return parts };
        if let Some(bus) = root.get("bus") {
            parts.push(self.part(&["bus"], bus.as_object().unwrap_or(&empty), BUS_SETTINGS.iter().collect()));
        }
        for (name, table) in sorted(root.get("sinks").and_then(Value::as_object).unwrap_or(&empty)) {
            let table = table.as_object().unwrap_or(&empty);
            let kind = table.get("kind").and_then(Value::as_str).and_then(|name| find_kind(kinds, name));
            let own = kind.map_or(&[][..], |kind| kind.settings);
            // The kind, what is its own, and what every sink has.
            let (kinds, common): (Vec<_>, Vec<_>) = COMMON_SETTINGS.iter().partition(|setting| setting.key == "kind");
            let known = kinds.into_iter().chain(own).chain(common).collect();
            parts.push(self.part(&["sinks", name], table, known));
        }
        if let Some(status) = root.get("status") {
            let known = STATUS_SETTINGS.iter().collect();
            parts.push(self.part(&["status"], status.as_object().unwrap_or(&empty), known));
        }
        let mut settings = Vec::new();
        for (name, value) in sorted(root).into_iter().filter(|(name, _)| !matches!(*name, "bus" | "sinks" | "status")) {
            self.add(&[], &mut vec![name], value, false, &mut settings);
        }
        if !settings.is_empty() {
            parts.push(Part { table: String::new(), settings });
        }
        parts
    }

    /// The settings of one table: those that are known, in their order, and then the others.
    fn part(&self, above: &[&str], table: &Map<String, Value>, known: Vec<&Setting>) -> Part {
        let mut settings = Vec::new();
        let mut rest = table.clone();
        for setting in known {
            let keys: Vec<&str> = setting.key.split('.').collect();
            match take(&mut rest, &keys) {
                Some(value) if !value.is_null() => {
                    self.add(above, &mut keys.clone(), &value, true, &mut settings);
                }
                _ => settings.extend(setting.default.map(|default| Effective {
                    key: key_path(keys),
                    value: default.to_owned(),
                    origin: Origin::Default,
                })),
            }
        }
        for (key, value) in sorted(&rest) {
            self.add(above, &mut vec![key], value, false, &mut settings);
        }
        Part { table: key_path(above.iter().copied()), settings }
    }

    /// Adds a value, or the values of a table.
    fn add<'v>(
        &self,
        above: &[&'v str],
        keys: &mut Vec<&'v str>,
        value: &'v Value,
        is_known: bool,
        settings: &mut Vec<Effective>,
    ) {
        if let Value::Object(table) = value {
            for (key, value) in sorted(table) {
                keys.push(key);
                self.add(above, keys, value, is_known, settings);
                keys.pop();
            }
            return;
        }
        let path: Vec<&str> = above.iter().chain(keys.iter()).copied().collect();
        settings.push(Effective {
            key: key_path(keys.iter().copied()),
            value: redacted::shown(&path, value, is_known),
            origin: self.origin(&key_path(path.iter().copied())),
        });
    }

    fn origin(&self, path: &str) -> Origin {
        match (overriding(&self.overrides, path), &self.source) {
            (Some(By::Variable(name)), _) => Origin::Variable(name.clone()),
            (Some(By::BusOption), _) => Origin::BusOption,
            (None, Some(source)) => Origin::File(source.name.clone(), source.places.find(path).map(|place| place.line)),
            (None, None) => Origin::Default,
        }
    }
}

/// The values of a table by key: the file's own order is not known.
fn sorted(table: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let mut values: Vec<_> = table.iter().map(|(key, value)| (key.as_str(), value)).collect();
    values.sort_by_key(|(key, _)| *key);
    values
}

/// Takes a value out of a table of tables; a table that is then empty goes with it.
fn take(table: &mut Map<String, Value>, keys: &[&str]) -> Option<Value> {
    let (first, rest) = keys.split_first()?;
    if rest.is_empty() {
        return table.shift_remove(*first);
    }
    let inner = table.get_mut(*first)?.as_object_mut()?;
    let taken = take(inner, rest);
    if inner.is_empty() {
        table.shift_remove(*first);
    }
    taken
}
