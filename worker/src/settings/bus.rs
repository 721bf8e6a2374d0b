use std::collections::BTreeMap;

use tallybus_bus::{BUSES, BusAddress, BusError, BusKind};
use tallybus_schemas::{Encoding, TimeUnit};
use tallybus_sdk::Setting;
use tallybus_sdk::config::{ConfigTable, Secret};
use tallybus_sdk::reading::Reading;

/// The topic when the settings do not name one.
pub const DEFAULT_TOPIC: &str = "tallybus.counters";
/// The partitions of a topic that is created, when the settings do not say.
pub const DEFAULT_PARTITIONS: u32 = 4;

/// With it, the longest name of a topic still fits in what Kafka allows.
const LONGEST_NAMESPACE: usize = 100;

/// The settings of the table `[bus]`, for documentation.
pub const BUS_SETTINGS: &[Setting] = &[
    Setting {
        key: "kind",
        default: None,
        help: "which bus: \"kafka\" or \"embedded\" (one file, one machine); required",
    },
    Setting {
        key: "brokers",
        default: None,
        help: "required with kind = \"kafka\": the brokers to connect to first, as \"host:port\", several separated \
             by commas",
    },
    Setting {
        key: "kafka",
        default: None,
        help: "only with kind = \"kafka\": a table of librdkafka properties, such as \"security.protocol\" and \
             \"sasl.password\"; \
               values may be env:NAME or file:PATH",
    },
    Setting {
        key: "path",
        default: None,
        help: "required with kind = \"embedded\": the file, created when it does not exist",
    },
    Setting { key: "topic", default: Some(DEFAULT_TOPIC), help: "the topic that services publish counters to" },
    Setting {
        key: "namespace",
        default: None,
        help: "comes before the names of groups and of the topics that Tallybus makes for itself, so that several \
             deployments can share a Kafka cluster; changing it begins new groups",
    },
    Setting {
        key: "partitions",
        default: Some("4"),
        help: "how many partitions a topic gets when Tallybus creates it; when given, a topic with another number is \
             an error",
    },
    Setting {
        key: "encodings",
        default: None,
        help: "a table from topic to encoding (native, json, influx) for records that have no encoding header and \
             should not be \
               guessed",
    },
    Setting {
        key: "time_units",
        default: None,
        help: "a table from topic to the unit (ns, us, ms, s) of the times that its JSON and line protocol write as \
             numbers; without it a number that is no time after 1973 in nanoseconds is a dead letter",
    },
];

/// The table `[bus]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusSettings {
    /// Which bus, and where.
    pub address: BusAddress,
    /// The topic that counters are published to.
    pub topic: String,
    /// Comes before the names of groups, dead-letter topics and replay topics; empty for none.
    pub namespace: String,
    /// Used when a topic is created.
    pub partitions: u32,
    /// Whether the settings name the number of partitions, so that a topic with another number is an error.
    pub partitions_given: bool,
    /// How messages are read, by topic, where the settings say so: texts of [`Reading`]s.
    pub encodings: BTreeMap<String, String>,
}

impl BusSettings {
    /// A bus with defaults for all other settings.
    pub fn new(address: BusAddress) -> Self {
        Self {
            address,
            topic: DEFAULT_TOPIC.to_owned(),
            namespace: String::new(),
            partitions: DEFAULT_PARTITIONS,
            partitions_given: false,
            encodings: BTreeMap::new(),
        }
    }

    /// Reads the table; `None` when a problem was recorded.
    pub(super) fn read(mut section: ConfigTable<'_>) -> Option<Self> {
        let settings = Self::read_keys(&mut section);
        let sound = !section.has_problems();
        section.finish();
        settings.filter(|_| sound)
    }

    fn read_keys(section: &mut ConfigTable<'_>) -> Option<Self> {
        let address = read_address(section);
        let topic = read_topic(section, "topic").unwrap_or_else(|| DEFAULT_TOPIC.to_owned());
        let namespace = read_namespace(section);
        let partitions = section.integer_within("partitions", 1, 100_000).and_then(|count| u32::try_from(count).ok());
        let encodings = read_encodings(section);
        Some(Self {
            address: address?,
            topic,
            namespace: namespace?,
            partitions: partitions.unwrap_or(DEFAULT_PARTITIONS),
            partitions_given: partitions.is_some(),
            encodings,
        })
    }
}

/// A prefix of topics and groups; `None` when a problem was recorded.
fn read_namespace(section: &mut ConfigTable<'_>) -> Option<String> {
    if !section.has("namespace") {
        return Some(String::new());
    }
    let namespace = section.string("namespace")?;
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if namespace.len() > LONGEST_NAMESPACE || !namespace.chars().all(legal) {
        section.problem("namespace", format!("expected at most {LONGEST_NAMESPACE} of the characters a-z 0-9 _ -"));
        return None;
    }
    Some(namespace)
}

fn read_address(section: &mut ConfigTable<'_>) -> Option<BusAddress> {
    let settings: Vec<&'static str> = BUSES.iter().flat_map(BusKind::settings).collect();
    section.allow(&settings);
    if !section.has("kind") {
        let names: Vec<String> = BUSES.iter().map(|kind| format!("{:?}", kind.name)).collect();
        section.problem("kind", format!("missing required setting: expected {}", names.join(" or ")));
        return None;
    }
    let kind = match BusKind::named(&section.string("kind")?) {
        Ok(kind) => kind,
        Err(error) => {
            section.problem("kind", error.to_string());
            return None;
        }
    };
    for other in BUSES.iter().filter(|other| *other != kind) {
        let of_other = other.settings().filter(|setting| !kind.settings().any(|own| own == *setting));
        of_other.for_each(|setting| refuse(section, setting, other.name));
    }
    let place = section.required_string(kind.place);
    let place = place.and_then(|place| match BusAddress::new(kind, &place) {
        Ok(address) => Some(address),
        Err(error) => {
            section.problem(kind.place, error.to_string());
            None
        }
    });
    let properties = kind.properties.map_or_else(Properties::default, |table| read_properties(section, table));
    // Properties are checked together only when all are known: without one of them, others would seem wrong.
    let address =
        place.filter(|_| properties.are_complete).map(|address| address.with_properties(properties.known.clone()));
    let checked = match &address {
        Some(address) => address.check(),
        None => kind.check_properties(&properties.known),
    };
    if let Err(error) = checked {
        let reason = if let BusError::Settings(reason) = error { reason } else { error.to_string() };
        section.problem(kind.properties.unwrap_or(kind.place), reason);
        return None;
    }
    address
}

fn refuse(section: &mut ConfigTable<'_>, key: &str, kind: &str) {
    if section.has(key) {
        section.problem(key, format!("is only valid with kind = \"{kind}\""));
    }
}

/// The properties of the bus's client library.
struct Properties {
    known: BTreeMap<String, String>,
    /// Whether none of them is missing because of a problem.
    are_complete: bool,
}

impl Default for Properties {
    fn default() -> Self {
        Self { known: BTreeMap::new(), are_complete: true }
    }
}

fn read_properties(section: &mut ConfigTable<'_>, table: &str) -> Properties {
    let mut properties = Properties::default();
    if !section.has(table) {
        return properties;
    }
    let Some(texts) = section.string_map(table) else {
        properties.are_complete = false;
        return properties;
    };
    for (name, value) in texts {
        let is_reference = value.starts_with("env:") || value.starts_with("file:");
        match if is_reference { Secret::resolve(&value) } else { Ok(Secret::new(value)) } {
            Ok(value) => drop(properties.known.insert(name, value.expose().to_owned())),
            Err(reason) => {
                section.problem(table, format!("`{name}`: {reason}"));
                properties.are_complete = false;
            }
        }
    }
    properties
}

fn read_encodings(section: &mut ConfigTable<'_>) -> BTreeMap<String, String> {
    let mut readings: BTreeMap<String, Reading> = BTreeMap::new();
    for (topic, encoding) in section.string_map("encodings").unwrap_or_default() {
        match encoding.parse::<Encoding>() {
            Ok(encoding) => readings.entry(topic).or_default().encoding = Some(encoding),
            Err(error) => section.problem("encodings", format!("topic {topic:?}: {error}")),
        }
    }
    for (topic, unit) in section.string_map("time_units").unwrap_or_default() {
        match unit.parse::<TimeUnit>() {
            Ok(unit) => readings.entry(topic).or_default().time_unit = Some(unit),
            Err(error) => section.problem("time_units", format!("topic {topic:?}: {error}")),
        }
    }
    readings.into_iter().map(|(topic, reading)| (topic, reading.to_string())).collect()
}

fn read_topic(section: &mut ConfigTable<'_>, key: &str) -> Option<String> {
    let topic = section.string(key)?;
    match check_topic(&topic) {
        Ok(()) => Some(topic),
        Err(reason) => {
            section.problem(key, reason);
            None
        }
    }
}

/// Checks whether Kafka accepts the name.
///
/// # Errors
/// The reason.
pub fn check_topic(topic: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.chars().all(legal) {
        return Err(format!(
            "{topic:?} is not a valid topic name: expected 1 to 249 of the characters a-z A-Z 0-9 . _ -"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use serde_json::json;

    use super::*;

    fn default_of(key: &str) -> &'static str {
        BUS_SETTINGS.iter().find(|setting| setting.key == key).and_then(|setting| setting.default).unwrap()
    }

    #[test]
    fn the_table_of_bus_settings_is_what_is_read_and_has_the_defaults() {
        let mut read = BTreeSet::new();
        for table in [json!({ "kind": "kafka", "brokers": "h:1" }), json!({ "kind": "embedded", "path": "x" })] {
            let mut section = ConfigTable::root(table.as_object().unwrap(), Rc::new(RefCell::new(Vec::new())));
            let settings = BusSettings::read_keys(&mut section).unwrap();
            read.extend(section.known().iter().cloned());
            assert_eq!(settings.topic, default_of("topic"));
            assert_eq!(settings.partitions.to_string(), default_of("partitions"));
        }
        let documented: BTreeSet<String> = BUS_SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        assert_eq!(read, documented);
    }
}
