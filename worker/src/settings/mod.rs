//! The settings: the bus, one table per sink, how a worker process shows its status, and from whom it takes commands. All problems are reported at once.

mod bus;
mod bus_file;
mod control;
mod destinations;
pub mod names;
mod rights;
mod sink;
mod status;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

pub use bus::{BUS_SETTINGS, BusSettings, DEFAULT_PARTITIONS, DEFAULT_TOPIC, check_topic};
pub use control::{CONTROL_SETTINGS, ControlMode, ControlSettings, read_key};
pub use destinations::shared_destinations;
pub use rights::{Right, Role, rights};
use serde_json::Value;
pub use sink::{COMMON_SETTINGS, SinkSettings};
pub use status::{STATUS_SETTINGS, StatusSettings};
use tallybus_bus::{Bus, BusError};
use tallybus_sdk::Kind;
use tallybus_sdk::config::{ConfigTable, Problem};

/// The content of a settings file.
#[derive(Debug)]
pub struct Settings {
    /// The table `[bus]`.
    pub bus: BusSettings,
    /// The tables `[sinks.<name>]`, by name.
    pub sinks: Vec<SinkSettings>,
    /// The table `[status]`.
    pub status: StatusSettings,
    /// The table `[control]`.
    pub control: ControlSettings,
}

impl Settings {
    /// Reads the settings from a configuration file and the environment, with the kinds of sinks that the program has.
    ///
    /// # Errors
    /// All problems, sorted by key path.
    pub fn from_value(value: &Value, kinds: &'static [Kind]) -> Result<Self, Vec<Problem>> {
        let Value::Object(table) = value else {
            return Err(vec![Problem { path: "settings".to_owned(), message: "expected tables".to_owned() }]);
        };
        let problems = Rc::new(RefCell::new(Vec::new()));
        let mut root = ConfigTable::root(table, Rc::clone(&problems));
        if !root.has("bus") {
            root.problem("bus", "missing required table: add [bus] with kind = \"kafka\" or \"embedded\"");
        }
        let bus = root.table("bus").and_then(BusSettings::read);
        let tables = root.tables("sinks");
        let mut sinks: Vec<SinkSettings> = tables
            .into_iter()
            .filter_map(|(name, section)| SinkSettings::read(&name, section, kinds, bus.as_ref()))
            .collect();
        sinks.sort_by(|a, b| a.name.cmp(&b.name));
        let status = root.table("status").map(StatusSettings::read).unwrap_or_default();
        let control = root.table("control").map(ControlSettings::read).unwrap_or_default();
        root.finish();

        let mut problems = problems.take();
        problems.sort();
        problems.dedup();
        match bus {
            Some(bus) if problems.is_empty() => Ok(Self { bus, sinks, status, control }),
            _ => Err(problems),
        }
    }

    /// The sink of that name.
    pub fn sink(&self, name: &str) -> Option<&SinkSettings> {
        self.sinks.iter().find(|sink| sink.name == name)
    }
}

/// Connects to the bus of the settings; the connection may be shared.
///
/// # Errors
/// As [`open_own_bus`].
pub fn open_bus(settings: &BusSettings) -> Result<Arc<dyn Bus>, BusError> {
    Ok(Arc::from(open_own_bus(settings)?))
}

/// Connects to the bus of the settings for a caller that only looks at it; the connection may be shared.
///
/// # Errors
/// As [`open_own_bus`]; an embedded bus whose file does not exist is not created, but is [`BusError::NoBus`].
pub fn open_existing_bus(settings: &BusSettings) -> Result<Arc<dyn Bus>, BusError> {
    Ok(Arc::from(settings.address.open_existing()?))
}

/// Connects to the bus of the settings; the connection is not shared.
///
/// # Errors
/// The settings are invalid, or the file of an embedded bus cannot be opened. An unavailable Kafka cluster is not an
/// error here: the first operation reports it.
pub fn open_own_bus(settings: &BusSettings) -> Result<Box<dyn Bus>, BusError> {
    settings.address.open()
}
