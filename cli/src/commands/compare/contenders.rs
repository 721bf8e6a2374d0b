//! Sinks of the settings with destinations of the comparison's own.

use std::path::Path;

use serde_json::{Map, Value, json};
use tallybus_sdk::{Kind, ShadowName, ShadowSettings, find_kind};
use tallybus_verify::compare::{Contender, hash_text};
use tallybus_worker::settings::{BusSettings, Settings, SinkSettings};

use crate::config;
use crate::failure::Failure;

/// Settings of the bus that say how records are read: the copy has them too.
const KEPT_OF_THE_BUS: &[&str] = &["topic", "encodings", "time_units"];

/// The tables of the settings file, changed so that nothing of theirs is written to.
pub(super) struct Shadows {
    /// The table `[bus]` of the copy.
    bus: Value,
    sinks: Map<String, Value>,
    kinds: &'static [Kind],
}

impl Shadows {
    /// `value` has the tables of the settings; the copy is in the file `path`.
    pub(super) fn new(value: &Value, path: &Path, kinds: &'static [Kind]) -> Result<Self, Failure> {
        let path = path.to_str().ok_or_else(|| Failure::could_not_look("the directory of the copy is not UTF-8"))?;
        let mut bus = json!({ "kind": "embedded", "path": path });
        for key in KEPT_OF_THE_BUS {
            if let Some(kept) = value.get("bus").and_then(|bus| bus.get(key)) {
                bus[*key] = kept.clone();
            }
        }
        let sinks = value.get("sinks").and_then(Value::as_object).cloned().unwrap_or_default();
        Ok(Self { bus, sinks, kinds })
    }

    /// The settings of the copy's bus.
    pub(super) fn bus(&self) -> Result<BusSettings, Failure> {
        let settings = Settings::from_value(&json!({ "bus": self.bus }), self.kinds);
        settings.map(|settings| settings.bus).map_err(|problems| Failure::could_not_look(joined(&problems)))
    }

    /// A sink that takes part; an error where nothing of its own can be created for it.
    pub(super) fn contender(&self, settings: &SinkSettings) -> Result<Contender, String> {
        let name = settings.name.clone();
        let shadow = settings.kind.shadow.ok_or_else(|| {
            format!("sinks of kind {} cannot be given a destination of the comparison's own", settings.kind.name)
        })?;
        let table = self.sinks.get(&name).and_then(Value::as_object).ok_or("its table is not in the settings")?.clone();
        let fingerprint = fingerprint(&table, shadow)?;
        let (bus, kinds) = (self.bus.clone(), self.kinds);
        Ok(Contender {
            kind: settings.kind.name,
            topics: settings.topics.clone(),
            fingerprint,
            shadow: Box::new(move |destination| make(&table, shadow, destination, &bus, &name, kinds)),
            name: settings.name.clone(),
        })
    }

    /// The settings of a sink whose destination has this name.
    pub(super) fn sink(&self, name: &str, destination: &ShadowName) -> Result<SinkSettings, String> {
        let table = self.sinks.get(name).and_then(Value::as_object);
        let table = table.ok_or_else(|| format!("the settings have no sink {name:?}"))?;
        let kind = table.get("kind").and_then(Value::as_str).and_then(|kind| find_kind(self.kinds, kind));
        let shadow = kind.and_then(|kind| kind.shadow).ok_or("its kind has no such destinations")?;
        make(table, shadow, destination, &self.bus, name, self.kinds)
    }
}

fn make(
    table: &Map<String, Value>,
    shadow: ShadowSettings,
    destination: &ShadowName,
    bus: &Value,
    name: &str,
    kinds: &'static [Kind],
) -> Result<SinkSettings, String> {
    let mut table = table.clone();
    // Offsets of the copy are others, and all of it is to be written.
    table.remove("accept_gaps");
    table.remove("start_at");
    shadow(&mut table, destination)?;
    let value = json!({ "bus": bus, "sinks": { name: table } });
    let settings = Settings::from_value(&value, kinds).map_err(|problems| joined(&problems))?;
    settings.sinks.into_iter().next().ok_or_else(|| "its table is not in the settings".to_owned())
}

fn joined(problems: &[tallybus_sdk::config::Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A hash of the settings that are the same in every destination; secrets are not part of it.
fn fingerprint(table: &Map<String, Value>, shadow: ShadowSettings) -> Result<String, String> {
    let any = ShadowName::new("00000000").ok_or("not the name of a destination")?;
    let mut shadowed = table.clone();
    shadow(&mut shadowed, &any)?;
    let mut lines = Vec::new();
    for (key, value) in table.iter().filter(|(key, value)| shadowed.get(*key) == Some(value)) {
        flatten(&mut vec![key], value, &mut lines);
    }
    lines.sort();
    Ok(hash_text(&lines.join("\n")))
}

/// A hash of all settings of a sink; secrets are not part of it.
pub(super) fn fingerprint_of(value: &Value, sink: &str) -> String {
    let mut lines = Vec::new();
    if let Some(table) = value.get("sinks").and_then(|sinks| sinks.get(sink)) {
        flatten(&mut Vec::new(), table, &mut lines);
    }
    lines.sort();
    hash_text(&lines.join("\n"))
}

fn flatten<'v>(path: &mut Vec<&'v str>, value: &'v Value, lines: &mut Vec<String>) {
    let Value::Object(table) = value else {
        lines.push(format!("{} = {}", path.join("."), config::without_secrets(path, value)));
        return;
    };
    for (key, value) in table {
        path.push(key);
        flatten(path, value, lines);
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shadow(table: &mut Map<String, Value>, name: &ShadowName) -> Result<(), String> {
        name.replace(table, "table");
        Ok(())
    }

    fn hash(value: &Value) -> String {
        fingerprint(value.as_object().unwrap(), shadow).unwrap()
    }

    #[test]
    fn a_fingerprint_depends_on_settings_and_not_on_secrets_order_or_the_destination() {
        let value =
            json!({ "kind": "x", "password": "a", "batch": { "max_events": 5, "max_delay": "1s" }, "table": "t" });
        let same =
            json!({ "table": "u", "batch": { "max_delay": "1s", "max_events": 5 }, "kind": "x", "password": "b" });
        assert_eq!(hash(&value), hash(&same));
        let other =
            json!({ "kind": "x", "password": "a", "batch": { "max_events": 6, "max_delay": "1s" }, "table": "t" });
        assert_ne!(hash(&value), hash(&other));
    }

    #[test]
    fn the_copy_is_read_as_the_bus_is_and_is_in_another_place() {
        let value = json!({ "bus": { "kind": "kafka", "brokers": "h:1", "topic": "t", "namespace": "n", "partitions": 9,
            "kafka": { "sasl.password": "secret" }, "encodings": { "t": "json" } } });
        let shadows = Shadows::new(&value, Path::new("/x/bus.db"), &[]).unwrap_or_else(|_| panic!("valid"));
        let expected = json!({ "kind": "embedded", "path": "/x/bus.db", "topic": "t", "encodings": { "t": "json" } });
        assert_eq!(shadows.bus, expected);
    }
}
