//! The sources of the settings: a TOML file, overridden by the environment, and `--bus`, which overrides both.

mod effective;
mod overrides;
mod paths;
mod places;
mod redacted;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Config, File, FileFormat};
use serde_json::{Map, Value};
use tallybus_bus::{BUSES, Bus, BusAddress, BusKind};
use tallybus_sdk::Kind;
use tallybus_sdk::config::{Problem, Secret};
use tallybus_worker::settings::{self, Settings};

pub(crate) use self::effective::{Effective, Origin, Part, effective};
use self::overrides::{Override, PREFIX};
use self::places::Places;
use crate::Global;
use crate::failure::Failure;

/// The file that is read when `--config` is not given.
pub(crate) const DEFAULT_FILE: &str = "tallybus.toml";
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
    read_part(global, |value| only(value, sinks))
}

/// The settings before they are checked, and where they come from.
struct Gathered {
    value: Value,
    /// `None` without a file.
    source: Option<Source>,
    overrides: Vec<Override>,
}

/// Reads the settings; only the part that `choose` returns need be valid, or all of them where it returns none.
fn read_part(global: &Global, choose: impl FnOnce(&Value) -> Option<Value>) -> Result<Settings, Failure> {
    let gathered = gather(global)?;
    if let Some(Ok(settings)) = choose(&gathered.value).map(|value| Settings::from_value(&value, global.kinds)) {
        return Ok(settings);
    }
    Settings::from_value(&gathered.value, global.kinds).map_err(|problems| gathered.failure(problems))
}

impl Gathered {
    /// The problems, each with where it comes from.
    fn failure(&self, problems: Vec<Problem>) -> Failure {
        let none = Source::default();
        let (source, problems) = overrides::attribute(problems, &self.overrides, self.source.as_ref().unwrap_or(&none));
        Failure::Settings { source, problems }
    }
}

/// Reads the file, the environment and `--bus`.
fn gather(global: &Global) -> Result<Gathered, Failure> {
    let (mut value, source) = read_file(global)?;
    let mut variables = Vec::new();
    for (name, text) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match text.into_string() {
            Ok(text) => variables.push((name, text)),
            Err(_) if name.starts_with(PREFIX) => {
                return Err(Failure::could_not_look(format!("the environment variable {name} is not UTF-8")));
            }
            Err(_) => {}
        }
    }
    for name in variables.iter().map(|(name, _)| name) {
        if let Some(reason) = overrides::why_ignored(name, global.kinds) {
            tracing::warn!("the environment variable {name} is ignored: {reason}");
        }
    }
    let configures_services = variables.iter().any(|(name, _)| name.starts_with(PREFIX_OF_SERVICES));
    let mut overrides = overrides::apply(&mut value, variables);
    if let Some(url) = &global.bus {
        overrides.extend(override_bus(&mut value, url)?);
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
    Ok(Gathered { value, source, overrides })
}

/// The settings file.
#[derive(Debug)]
struct Source {
    name: String,
    places: Places,
}

impl Default for Source {
    fn default() -> Self {
        Self { name: "the settings".to_owned(), places: Places::default() }
    }
}

/// The tables of the settings as they are written, with everything that overrides them, before they are checked.
///
/// # Errors
/// There are no settings, or they cannot be read.
pub(crate) fn raw(global: &Global) -> Result<Value, Failure> {
    Ok(gather(global)?.value)
}

/// A setting as text, with secrets hidden.
pub(crate) fn without_secrets(path: &[&str], value: &Value) -> String {
    redacted::shown(path, value, true)
}

/// Reads the settings of the bus alone, for a command that uses no sink: their tables may be invalid, and their secrets need
/// not exist.
///
/// # Errors
/// As [`load`]; if the bus has a problem, all problems of the file are reported.
pub(crate) fn load_bus(global: &Global) -> Result<Settings, Failure> {
    read_part(global, |value| {
        let mut value = value.clone();
        value.as_object_mut()?.remove("sinks");
        Some(value)
    })
}

/// Reads the settings for a command that looks at the bus only, but needs to know the sinks: their secrets need not exist.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_without_secrets(global: &Global) -> Result<Settings, Failure> {
    read_part(global, |value| {
        let mut value = value.clone();
        replace_in(value.get_mut("sinks")?);
        Some(value)
    })
}

/// Stands for a secret that does not exist here and is not used.
const NOT_USED: &str = "not-used-here";

/// Replaces the secrets of the bus and of the sinks that do not exist here. That of `[status]` is read by `run` alone.
fn replace_missing_secrets(value: &mut Value) {
    let tables = value.as_object_mut().into_iter().flat_map(|root| root.iter_mut());
    tables.filter(|(name, _)| *name != "status").for_each(|(_, table)| replace_in(table));
}

fn replace_in(value: &mut Value) {
    match value {
        Value::String(text) => {
            let Some(at) = redacted::reference(text) else { return };
            if Secret::resolve(&text[at..]).is_err() {
                text.replace_range(at.., NOT_USED);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(replace_in),
        Value::Object(values) => values.values_mut().for_each(replace_in),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Opens the bus of the settings for a command that writes to it; an embedded bus that does not exist is created.
///
/// # Errors
/// The settings are invalid.
pub(crate) fn open_or_create_bus(settings: &Settings) -> Result<Arc<dyn Bus>, Failure> {
    Ok(settings::open_bus(&settings.bus)?)
}

/// Opens the bus of the settings for a command that only looks at it, and creates nothing.
///
/// # Errors
/// The settings are invalid, or an embedded bus does not exist.
pub(crate) fn open_bus(settings: &Settings) -> Result<Arc<dyn Bus>, Failure> {
    Ok(settings::open_existing_bus(&settings.bus)?)
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

fn read_file(global: &Global) -> Result<(Value, Option<Source>), Failure> {
    let path = match &global.config {
        Some(path) => path.clone(),
        None if matches!(Path::new(DEFAULT_FILE).try_exists(), Ok(false)) => {
            return Ok((Value::Object(Map::new()), None));
        }
        None => PathBuf::from(DEFAULT_FILE),
    };
    let (value, source) = parse_file(&path)?;
    Ok((value, Some(source)))
}

/// Reads the settings of a file alone: nothing overrides them.
pub(crate) fn load_file(global: &Global, path: &Path) -> Result<Settings, Failure> {
    let (value, source) = parse_file(path)?;
    Settings::from_value(&value, global.kinds).map_err(|problems| {
        let (source, problems) = overrides::attribute(problems, &[], &source);
        Failure::Settings { source, problems }
    })
}

/// Checks the text of a new settings file, whose secrets need not exist. Returns what is still to be completed.
///
/// # Errors
/// The settings are invalid.
pub(crate) fn check_text(text: &str, name: &str, kinds: &'static [Kind]) -> Result<Vec<String>, Failure> {
    let (mut value, source) = parse_text(text, name)?;
    replace_missing_secrets(&mut value);
    let Err(problems) = Settings::from_value(&value, kinds) else { return Ok(Vec::new()) };
    if problems.iter().all(|problem| problem.message.starts_with("missing required setting")) {
        return Ok(problems.iter().map(ToString::to_string).collect());
    }
    let (source, problems) = overrides::attribute(problems, &[], &source);
    Err(Failure::Settings { source, problems })
}

fn parse_file(path: &Path) -> Result<(Value, Source), Failure> {
    // Read here, so that a missing file and a directory have messages of their own.
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::could_not_look(format!("cannot read the settings file {}: {error}", path.display()))
    })?;
    let (mut value, source) = parse_text(&text, &path.display().to_string())?;
    let folder = path.parent().unwrap_or(Path::new("")).to_str().ok_or_else(|| {
        Failure::could_not_look(format!("the path of the settings file {} is not UTF-8", path.display()))
    })?;
    paths::resolve(&mut value, folder);
    Ok((value, source))
}

fn parse_text(text: &str, name: &str) -> Result<(Value, Source), Failure> {
    let places = Places::of(text).map_err(|(place, reason)| {
        let place = place.map(|place| format!(":{place}")).unwrap_or_default();
        Failure::could_not_look(format!("{name}{place}: {reason}"))
    })?;
    let value = Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build()
        .and_then(Config::try_deserialize::<Value>)
        .map_err(|error| Failure::could_not_look(format!("{name}: {error}")))?;
    Ok((value, Source { name: name.to_owned(), places }))
}

/// Replaces kind and place of the bus; returns which settings are now those of the command line.
fn override_bus(value: &mut Value, url: &str) -> Result<Vec<Override>, Failure> {
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
    Ok(["kind", kind.place].map(Override::of_bus_option).to_vec())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
