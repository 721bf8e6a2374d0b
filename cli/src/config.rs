//! The sources of the settings: a TOML file, overridden by the environment, and `--bus`, which overrides both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Config, File, FileFormat};
use serde_json::{Map, Value};
use tallybus_bus::{BUSES, Bus, BusAddress, BusKind};
use tallybus_worker::settings::{self, Settings};

use crate::Global;
use crate::failure::Failure;

/// The file that is read when `--config` is not given.
const DEFAULT_FILE: &str = "tallybus.toml";
/// The prefix of overriding variables: `TALLYBUS__BUS__BROKERS`.
const PREFIX: &str = "TALLYBUS__";
/// The prefix of the variables of services, which this command does not read.
const PREFIX_OF_SERVICES: &str = "TALLYBUS_COLLECTOR_";

/// Reads the settings.
///
/// # Errors
/// There are no settings, they cannot be read, or they are invalid: then all problems are reported at once.
pub(crate) fn load(global: &Global) -> Result<Settings, Failure> {
    load_for(global, &[])
}

/// Reads the settings of the bus and of these sinks, or of all when none is named. The tables of other sinks may be
/// invalid, and their secrets need not exist: each of several processes has only its own.
///
/// # Errors
/// As [`load`]; if these sinks have a problem, all problems of the file are reported.
pub(crate) fn load_for(global: &Global, sinks: &[String]) -> Result<Settings, Failure> {
    let (mut value, source) = read_file(global)?;
    let overrides =
        std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
    let overrides: Vec<_> = overrides.collect();
    for name in overrides.iter().map(|(name, _)| name).filter(|name| is_near_miss(name)) {
        tracing::warn!(
            "environment variable {name} is set, but ignored: names of overriding variables begin with {PREFIX}"
        );
    }
    let configures_services = overrides.iter().any(|(name, _)| name.starts_with(PREFIX_OF_SERVICES));
    override_all(&mut value, overrides.into_iter());
    if let Some(url) = &global.bus {
        override_bus(&mut value, url)?;
    }
    if value.get("bus").is_none() && source.is_none() {
        let hint = if configures_services {
            format!("; variables that begin with {PREFIX_OF_SERVICES} configure services, not this command")
        } else {
            String::new()
        };
        return Err(Failure::could_not_look(format!(
            "no settings: no {DEFAULT_FILE} in this directory; use --config FILE, or --bus kafka://HOST:PORT or --bus \
             embedded:PATH{hint}"
        )));
    }
    if let Some(Ok(settings)) = only(&value, sinks).map(|value| Settings::from_value(&value, global.kinds)) {
        return Ok(settings);
    }
    let source = source.map_or_else(|| "the settings".to_owned(), |path| path.display().to_string());
    Settings::from_value(&value, global.kinds).map_err(|problems| Failure::Settings { source, problems })
}

/// Opens the bus of the settings.
///
/// # Errors
/// The settings are invalid.
pub(crate) fn open_bus(settings: &Settings) -> Result<Arc<dyn Bus>, Failure> {
    Ok(settings::open_bus(&settings.bus)?)
}

/// The settings without the other sinks; `None` when none is named. A name that no table has is left to the caller to
/// report, who can name all tables.
fn only(value: &Value, sinks: &[String]) -> Option<Value> {
    let tables = value.get("sinks")?.as_object()?;
    if sinks.is_empty() || !sinks.iter().all(|name| tables.contains_key(name)) {
        return None;
    }
    let mut value = value.clone();
    value["sinks"].as_object_mut()?.retain(|name, _| sinks.contains(name));
    Some(value)
}

fn read_file(global: &Global) -> Result<(Value, Option<PathBuf>), Failure> {
    let path = match &global.config {
        Some(path) => path.clone(),
        None if Path::new(DEFAULT_FILE).exists() => PathBuf::from(DEFAULT_FILE),
        None => return Ok((Value::Object(Map::new()), None)),
    };
    // Read here, so that a missing file and a directory have messages of their own.
    Ok((parse_file(&path)?, Some(path)))
}

/// Reads the settings of a file alone: nothing overrides them.
pub(crate) fn load_file(global: &Global, path: &Path) -> Result<Settings, Failure> {
    let source = path.display().to_string();
    Settings::from_value(&parse_file(path)?, global.kinds).map_err(|problems| Failure::Settings { source, problems })
}

fn parse_file(path: &Path) -> Result<Value, Failure> {
    // Read here, so that a missing file and a directory have messages of their own.
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::could_not_look(format!("cannot read the settings file {}: {error}", path.display()))
    })?;
    Config::builder()
        .add_source(File::from_str(&text, FileFormat::Toml))
        .build()
        .and_then(Config::try_deserialize::<Value>)
        .map_err(|error| Failure::could_not_look(format!("{}: {error}", path.display())))
}

/// Applies the environment's overrides. Keys are matched regardless of case, and with `_` for characters that a
/// variable's name cannot have: `TALLYBUS__SINKS__MY_SINK__URL` is the key `url` of the sink `my-sink`, if that sink
/// exists.
fn override_all(value: &mut Value, variables: impl Iterator<Item = (String, String)>) {
    let mut variables: Vec<_> = variables.filter(|(name, text)| name.starts_with(PREFIX) && !text.is_empty()).collect();
    variables.sort();
    for (name, text) in variables {
        let path: Vec<&str> = name[PREFIX.len()..].split("__").collect();
        if path.iter().all(|part| !part.is_empty()) {
            set(value, &path, text, &mut Vec::new());
        }
    }
}

/// Whether a variable resembles an override, except for a single underscore after `TALLYBUS`.
fn is_near_miss(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("TALLYBUS_") else { return false };
    ["BUS", "SINKS"]
        .iter()
        .any(|table| rest.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
}

fn set(value: &mut Value, path: &[&str], text: String, above: &mut Vec<String>) {
    let Some((part, rest)) = path.split_first() else {
        *value = Value::String(text);
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(table) = value else { return };
    let wanted = normal(part);
    let key = table.keys().find(|key| normal(key) == wanted).cloned().unwrap_or_else(|| new_key(part, above));
    above.push(key.clone());
    set(table.entry(key).or_insert(Value::Null), rest, text, above);
}

fn new_key(part: &str, above: &[String]) -> String {
    let key = part.to_lowercase();
    // librdkafka's properties have dots, which the name of a variable cannot have.
    if above == ["bus", "kafka"] { key.replace('_', ".") } else { key }
}

fn normal(key: &str) -> String {
    key.to_lowercase().replace(['-', '.'], "_")
}

fn override_bus(value: &mut Value, url: &str) -> Result<(), Failure> {
    let address = BusAddress::parse(url).map_err(|error| Failure::could_not_look(format!("--bus: {error}")))?;
    let kind = address.kind();
    if !value.get("bus").is_some_and(Value::is_object) {
        value["bus"] = Value::Object(Map::new());
    }
    let bus = &mut value["bus"];
    bus["kind"] = kind.name.into();
    bus[kind.place] = address.place().into();
    if let Value::Object(bus) = bus {
        let of_others =
            BUSES.iter().flat_map(BusKind::settings).filter(|setting| !kind.settings().any(|own| own == *setting));
        of_others.for_each(|setting| drop(bus.remove(setting)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn overridden(mut value: Value, variables: &[(&str, &str)]) -> Value {
        override_all(&mut value, variables.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())));
        value
    }

    #[test]
    fn variables_find_keys_whatever_their_case() {
        let value = json!({ "bus": { "kind": "kafka" }, "sinks": { "my-sink": { "url": "a" } } });
        let got = overridden(
            value,
            &[
                ("TALLYBUS__BUS__BROKERS", "b:1"),
                ("TALLYBUS__SINKS__MY_SINK__URL", "c"),
                ("TALLYBUS__SINKS__my-sink__batch__Max_Events", "7"),
                ("TALLYBUS__BUS__KAFKA__SECURITY_PROTOCOL", "SSL"),
                ("TALLYBUS__BUS__TOPIC", ""),
                ("TALLYBUS_BUS", "ignored"),
                ("TALLYBUS__", "ignored"),
                ("TALLYBUS__BUS____X", "ignored"),
            ],
        );
        let expected = json!({
            "bus": { "kind": "kafka", "brokers": "b:1", "kafka": { "security.protocol": "SSL" } },
            "sinks": { "my-sink": { "url": "c", "batch": { "max_events": "7" } } },
        });
        assert_eq!(got, expected);
    }

    #[test]
    fn a_variable_with_one_underscore_too_few_is_a_near_miss() {
        for name in ["TALLYBUS_BUS__PATH", "TALLYBUS_BUS", "TALLYBUS_SINKS_A_URL"] {
            assert!(is_near_miss(name), "{name}");
        }
        for name in ["TALLYBUS__BUS__PATH", "TALLYBUS_COLLECTOR_BUS", "TALLYBUS_BUSINESS", "PATH"] {
            assert!(!is_near_miss(name), "{name}");
        }
    }

    #[test]
    fn a_bus_url_replaces_the_kind_and_keeps_the_rest() {
        let mut value = json!({ "bus": { "kind": "kafka", "brokers": "a:1", "kafka": { "x": "y" }, "topic": "t" } });
        override_bus(&mut value, "embedded:dir/bus.db").unwrap_or_else(|_| panic!("refused"));
        assert_eq!(value, json!({ "bus": { "kind": "embedded", "topic": "t", "path": "dir/bus.db" } }));
        override_bus(&mut value, "kafka://h:1,i:2/").unwrap_or_else(|_| panic!("refused"));
        assert_eq!(value, json!({ "bus": { "kind": "kafka", "topic": "t", "brokers": "h:1,i:2" } }));
        assert!(override_bus(&mut value, "redis://h").is_err());
    }
}
