use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use tallybus_bus::BusError;
use tallybus_bus::kafka::KafkaBus;
use tallybus_schemas::Encoding;

use super::{Secret, Section};
use crate::Setting;

/// The topic when the settings name none.
pub const DEFAULT_TOPIC: &str = "tallybus.counters";
/// The partitions of a topic that is created, when the settings do not say.
pub const DEFAULT_PARTITIONS: u32 = 4;

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
        help: "required with kind = \"kafka\": the brokers to connect to first, as \"host:port\", several separated by commas",
    },
    Setting {
        key: "kafka",
        default: None,
        help: "only with kind = \"kafka\": a table of librdkafka properties, such as \"security.protocol\" and \"sasl.password\"; \
               values may be env:NAME or file:PATH",
    },
    Setting {
        key: "path",
        default: None,
        help: "required with kind = \"embedded\": the file, created when it does not exist",
    },
    Setting { key: "topic", default: Some(DEFAULT_TOPIC), help: "the topic that services publish counters to" },
    Setting {
        key: "partitions",
        default: Some("4"),
        help: "how many partitions a topic gets when Tallybus creates it; when given, a topic with another number is a mistake",
    },
    Setting {
        key: "encodings",
        default: None,
        help: "a table from topic to encoding (native, json, influx) for records that have no encoding header and should not be \
               guessed",
    },
];

/// librdkafka takes Kerberos where no mechanism is named, and tells people to compile it anew.
const NO_KERBEROS: &str = "give `sasl.mechanism`: \"PLAIN\", \"SCRAM-SHA-256\", \"SCRAM-SHA-512\" or \"OAUTHBEARER\" \
                           (Kerberos is not built in)";

/// The table `[bus]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusSettings {
    /// Which bus, and where.
    pub kind: BusKind,
    /// The topic that counters are published to.
    pub topic: String,
    /// Used when a topic is created.
    pub partitions: u32,
    /// Whether the settings name the number of partitions, so that a topic with another number is a mistake.
    pub partitions_given: bool,
    /// The encoding of a topic whose records do not name theirs and should not be guessed, by topic.
    pub encodings: BTreeMap<String, String>,
}

/// Which bus, and where.
#[derive(Clone, PartialEq, Eq)]
pub enum BusKind {
    /// A Kafka cluster.
    Kafka {
        /// `host:port`, several separated by commas.
        brokers: String,
        /// librdkafka properties; may hold secrets.
        properties: BTreeMap<String, String>,
    },
    /// One file on this machine.
    Embedded {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Debug for BusKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka { brokers, properties } => f
                .debug_struct("Kafka")
                .field("brokers", brokers)
                .field("properties", &properties.keys().collect::<Vec<_>>())
                .finish(),
            Self::Embedded { path } => f.debug_struct("Embedded").field("path", path).finish(),
        }
    }
}

impl BusSettings {
    /// A bus with everything else as by default.
    pub fn new(kind: BusKind) -> Self {
        Self {
            kind,
            topic: DEFAULT_TOPIC.to_owned(),
            partitions: DEFAULT_PARTITIONS,
            partitions_given: false,
            encodings: BTreeMap::new(),
        }
    }

    /// Reads the table; `None` when a problem was kept.
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let settings = Self::read_keys(&mut section);
        let sound = !section.has_problems();
        section.finish();
        settings.filter(|_| sound)
    }

    fn read_keys(section: &mut Section<'_>) -> Option<Self> {
        let kind = read_kind(section);
        let topic = read_topic(section, "topic").unwrap_or_else(|| DEFAULT_TOPIC.to_owned());
        let partitions = section.integer_within("partitions", 1, 100_000).and_then(|count| u32::try_from(count).ok());
        let encodings = read_encodings(section);
        Some(Self {
            kind: kind?,
            topic,
            partitions: partitions.unwrap_or(DEFAULT_PARTITIONS),
            partitions_given: partitions.is_some(),
            encodings,
        })
    }
}

fn read_kind(section: &mut Section<'_>) -> Option<BusKind> {
    section.allow(&["brokers", "kafka", "path"]);
    if !section.has("kind") {
        section.problem("kind", "is missing; give \"kafka\" or \"embedded\"");
        return None;
    }
    match section.choice("kind", &["kafka", "embedded"])? {
        "kafka" => {
            refuse(section, "path", "embedded");
            let brokers = read_brokers(section);
            let properties = read_properties(section);
            let (brokers, properties) = (brokers?, properties?);
            if let Err(BusError::Settings(reason)) = KafkaBus::new(&brokers, &properties) {
                section.problem("kafka", if reason.contains("GSSAPI") { NO_KERBEROS.to_owned() } else { reason });
                return None;
            }
            Some(BusKind::Kafka { brokers, properties })
        }
        _ => {
            refuse(section, "brokers", "kafka");
            refuse(section, "kafka", "kafka");
            Some(BusKind::Embedded { path: section.required_string("path")?.into() })
        }
    }
}

fn refuse(section: &mut Section<'_>, key: &str, kind: &str) {
    if section.has(key) {
        section.problem(key, format!("only has a meaning with kind = \"{kind}\""));
    }
}

fn read_brokers(section: &mut Section<'_>) -> Option<String> {
    let brokers = section.required_string("brokers")?;
    let mut sound = true;
    for broker in brokers.split(',').map(str::trim) {
        if let Err(reason) = check_broker(broker) {
            section.problem("brokers", reason);
            sound = false;
        }
    }
    sound.then_some(brokers)
}

/// # Errors
/// Says why it is no `host:port`.
fn check_broker(broker: &str) -> Result<(), String> {
    let expected = "expected \"host:port\", several separated by commas";
    let Some((host, port)) = broker.rsplit_once(':') else {
        return Err(format!("{expected}; {broker:?} has no port"));
    };
    if host.contains("://") || host.contains('/') || host.contains('@') {
        return Err(format!("{expected}, without a scheme, a path or credentials"));
    }
    if host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(format!("{expected}; found {broker:?}"));
    }
    Ok(())
}

fn read_properties(section: &mut Section<'_>) -> Option<BTreeMap<String, String>> {
    if !section.has("kafka") {
        return Some(BTreeMap::new());
    }
    let written = section.string_map("kafka")?;
    let mut properties = BTreeMap::new();
    let mut sound = true;
    for (name, value) in written {
        if name == "bootstrap.servers" || name == "metadata.broker.list" {
            section.problem("kafka", format!("`{name}` is set by `brokers` of [bus]; remove it here"));
            sound = false;
            continue;
        }
        let is_reference = value.starts_with("env:") || value.starts_with("file:");
        match if is_reference { Secret::resolve(&value) } else { Ok(Secret::new(value)) } {
            Ok(value) => drop(properties.insert(name, value.expose().to_owned())),
            Err(reason) => {
                section.problem("kafka", format!("`{name}`: {reason}"));
                sound = false;
            }
        }
    }
    sound.then_some(properties)
}

fn read_encodings(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let encodings = section.string_map("encodings").unwrap_or_default();
    for (topic, encoding) in &encodings {
        if let Err(error) = encoding.parse::<Encoding>() {
            section.problem("encodings", format!("topic {topic:?}: {error}"));
        }
    }
    encodings
}

fn read_topic(section: &mut Section<'_>, key: &str) -> Option<String> {
    let topic = section.string(key)?;
    match check_topic(&topic) {
        Ok(()) => Some(topic),
        Err(reason) => {
            section.problem(key, reason);
            None
        }
    }
}

/// Whether Kafka would take the name.
///
/// # Errors
/// Says why not.
pub fn check_topic(topic: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.chars().all(legal) {
        return Err(format!("{topic:?} is no topic name: 1 to 249 of the characters a-z A-Z 0-9 . _ -"));
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
            let mut section = Section::root(table.as_object().unwrap(), Rc::new(RefCell::new(Vec::new())));
            let settings = BusSettings::read_keys(&mut section).unwrap();
            read.extend(section.known().iter().cloned());
            assert_eq!(settings.topic, default_of("topic"));
            assert_eq!(settings.partitions.to_string(), default_of("partitions"));
        }
        let documented: BTreeSet<String> = BUS_SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        assert_eq!(read, documented);
    }
}
