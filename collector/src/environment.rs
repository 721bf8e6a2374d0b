//! The environment variables that configure a collector. Their prefix is not a prefix of the variables of the
//! `tallybus` command (`TALLYBUS__BUS__BROKERS`), nor the other way round.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use crate::{Builder, Connection, InitError, builder};

const PREFIX: &str = "TALLYBUS_COLLECTOR_";
const BUS: &str = "TALLYBUS_COLLECTOR_BUS";
const TOPIC: &str = "TALLYBUS_COLLECTOR_TOPIC";
const SERVICE: &str = "TALLYBUS_COLLECTOR_SERVICE";
const INSTANCE: &str = "TALLYBUS_COLLECTOR_INSTANCE";
const CREATE_TOPIC: &str = "TALLYBUS_COLLECTOR_CREATE_TOPIC";
const CHECKPOINT_INTERVAL: &str = "TALLYBUS_COLLECTOR_CHECKPOINT_INTERVAL";
const NAMESPACE: &str = "TALLYBUS_COLLECTOR_NAMESPACE";
const KAFKA: &str = "TALLYBUS_COLLECTOR_KAFKA_";

/// The configuration found in the environment.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) builder: Builder,
    pub(crate) connection: Connection,
    /// Unused variables whose names suggest the collector, each with the reason.
    pub(crate) unused: Vec<String>,
}

/// Reads the variables; empty values count as not set.
pub(crate) fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Environment, InitError> {
    let (mut builder, mut address, mut unused) = (builder(), None, Vec::new());
    for (name, value) in variables {
        let Ok(name) = name.into_string() else { continue };
        if let Some(reason) = unused_because(&name) {
            unused.push(format!("{name} {reason}"));
            continue;
        }
        if !name.starts_with(PREFIX) || value.is_empty() {
            continue;
        }
        let Ok(value) = value.into_string() else {
            return Err(InitError::Variable { name, reason: "the value is not UTF-8".to_owned() });
        };
        builder = match name.as_str() {
            BUS => {
                address = Some(value);
                builder
            }
            TOPIC => builder.topic(value),
            SERVICE => builder.service(value),
            INSTANCE => builder.instance(value),
            CREATE_TOPIC => topic_creation(builder, &value)?,
            CHECKPOINT_INTERVAL => builder.checkpoint_interval(seconds(&value)?),
            NAMESPACE => builder.namespace(value),
            _ => {
                let Some(property) = name.strip_prefix(KAFKA) else { continue };
                let property = property.to_ascii_lowercase().replace('_', ".");
                builder.kafka_property(property, resolve(&name, value)?)
            }
        };
    }
    unused.sort();
    let Some(address) = address else {
        let mut reason = "not set: expected kafka://HOST:PORT or embedded:PATH".to_owned();
        for unused in &unused {
            reason.push_str("; ");
            reason.push_str(unused);
        }
        return Err(InitError::Variable { name: BUS.to_owned(), reason });
    };
    let connection = Connection::parse(&address).map_err(|error| match error {
        InitError::Setting { reason, .. } => InitError::Variable { name: BUS.to_owned(), reason },
        other => other,
    })?;
    Ok(Environment { builder, connection, unused })
}

/// Why a variable whose name suggests the collector is not read by it; `None` for all others.
fn unused_because(name: &str) -> Option<&'static str> {
    if name.starts_with("TALLYBUS__") {
        return Some("is set, but it configures the `tallybus` command, not a service");
    }
    match name {
        "TALLYBUS_BUS" => return Some("is set, but not read: use TALLYBUS_COLLECTOR_BUS"),
        "TALLYBUS_TOPIC" => return Some("is set, but not read: use TALLYBUS_COLLECTOR_TOPIC"),
        "TALLYBUS_SERVICE" => return Some("is set, but not read: use TALLYBUS_COLLECTOR_SERVICE"),
        BUS | TOPIC | SERVICE | INSTANCE | CREATE_TOPIC | CHECKPOINT_INTERVAL | NAMESPACE => return None,
        _ => {}
    }
    let rest = name.strip_prefix(PREFIX)?;
    // Kubernetes sets these for a Service named `tallybus-collector`.
    let is_service_link = rest == "PORT"
        || rest.starts_with("PORT_")
        || rest == "SERVICE_HOST"
        || rest == "SERVICE_PORT"
        || rest.starts_with("SERVICE_PORT_");
    if is_service_link || (name.starts_with(KAFKA) && name.len() > KAFKA.len()) {
        return None;
    }
    Some(
        "is not a variable of the collector: it reads TALLYBUS_COLLECTOR_BUS, _TOPIC, _CREATE_TOPIC, _SERVICE, \
         _INSTANCE, _CHECKPOINT_INTERVAL, _NAMESPACE and _KAFKA_<PROPERTY>",
    )
}

fn topic_creation(builder: Builder, value: &str) -> Result<Builder, InitError> {
    if value == "false" {
        return Ok(builder.use_existing_topic());
    }
    match value.parse() {
        Ok(partitions) if partitions > 0 => Ok(builder.create_topic(partitions)),
        _ => Err(InitError::Variable {
            name: CREATE_TOPIC.to_owned(),
            reason: "expected the number of partitions, or `false`".to_owned(),
        }),
    }
}

/// A whole number of seconds, with or without the unit.
fn seconds(value: &str) -> Result<Duration, InitError> {
    match value.strip_suffix('s').unwrap_or(value).parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => Err(InitError::Variable {
            name: CHECKPOINT_INTERVAL.to_owned(),
            reason: "expected a number of seconds such as `10`, or 0 for no checkpoints".to_owned(),
        }),
    }
}

/// `file:PATH` is replaced by the content of the file, without the trailing line break.
fn resolve(name: &str, value: String) -> Result<String, InitError> {
    let Some(path) = value.strip_prefix("file:") else { return Ok(value) };
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => {
            Err(InitError::Variable { name: name.to_owned(), reason: format!("cannot read {path:?}: {error}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Result<Environment, InitError> {
        read(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    #[test]
    fn every_variable_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "hunter2\n").unwrap();
        let found = environment(&[
            (BUS, "kafka://a:9092"),
            (TOPIC, "counts"),
            (SERVICE, "api"),
            (INSTANCE, "api-1"),
            (CREATE_TOPIC, "false"),
            (CHECKPOINT_INTERVAL, "30s"),
            (NAMESPACE, "stage"),
            ("TALLYBUS_COLLECTOR_KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("TALLYBUS_COLLECTOR_KAFKA_SASL_PASSWORD", &format!("file:{}", file.display())),
            ("TALLYBUS_COLLECTOR_KAFKA_SASL_USERNAME", ""),
            ("PATH", "/bin"),
        ])
        .unwrap();
        let expected = builder().topic("counts").service("api").instance("api-1").use_existing_topic();
        let expected = expected.checkpoint_interval(Duration::from_secs(30)).namespace("stage");
        let expected = expected.kafka_property("security.protocol".to_owned(), "SASL_SSL".to_owned());
        let expected = expected.kafka_property("sasl.password".to_owned(), "hunter2".to_owned());
        assert!(found.builder.has_same_settings(&expected), "{:?}", found.builder);
        assert!(found.unused.is_empty(), "{:?}", found.unused);
        assert!(!format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn the_creation_of_the_topic_is_a_number_of_partitions_or_false() {
        let found = environment(&[(BUS, "kafka://a:9092"), (CREATE_TOPIC, "12")]).unwrap();
        assert!(found.builder.has_same_settings(&builder().create_topic(12)), "{:?}", found.builder);
        for wrong in ["0", "true", "-1", "many"] {
            let error = environment(&[(BUS, "kafka://a:9092"), (CREATE_TOPIC, wrong)]).unwrap_err().to_string();
            assert!(error.contains(CREATE_TOPIC) && error.contains("or `false`"), "{error}");
        }
    }

    #[test]
    fn the_interval_of_checkpoints_is_a_number_of_seconds() {
        let found = environment(&[(BUS, "kafka://a:9092"), (CHECKPOINT_INTERVAL, "0")]).unwrap();
        assert!(found.builder.has_same_settings(&builder().checkpoint_interval(Duration::ZERO)), "{:?}", found.builder);
        for wrong in ["-1", "often", "10m", "1.5"] {
            let error = environment(&[(BUS, "kafka://a:9092"), (CHECKPOINT_INTERVAL, wrong)]).unwrap_err().to_string();
            assert!(error.contains(CHECKPOINT_INTERVAL) && error.contains("number of seconds"), "{error}");
        }
    }

    #[test]
    fn variables_of_the_command_are_named_where_the_bus_is_missing() {
        let error = environment(&[("TALLYBUS__BUS__BROKERS", "a:9092"), ("TALLYBUS_BUS", "kafka://a:9092")]);
        let error = error.unwrap_err().to_string();
        for part in ["TALLYBUS_COLLECTOR_BUS: not set", "TALLYBUS__BUS__BROKERS is set", "`tallybus` command"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("a:9092"), "{error}");
    }

    #[test]
    fn variables_that_are_not_read_are_reported_and_those_of_kubernetes_are_not() {
        let found = environment(&[
            (BUS, "embedded:x.db"),
            ("TALLYBUS__BUS__TOPIC", "t"),
            ("TALLYBUS_TOPIC", "t"),
            ("TALLYBUS_COLLECTOR_TOPC", "t"),
            ("TALLYBUS_COLLECTOR_SERVICE_HOST", "10.0.0.1"),
            ("TALLYBUS_COLLECTOR_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
        ])
        .unwrap();
        let names: Vec<&str> = found.unused.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, ["TALLYBUS_COLLECTOR_TOPC", "TALLYBUS_TOPIC", "TALLYBUS__BUS__TOPIC"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_its_variable() {
        let name = "TALLYBUS_COLLECTOR_KAFKA_SASL_PASSWORD";
        let error = environment(&[(BUS, "kafka://a:9092"), (name, "file:/no/such/file")]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("/no/such/file"), "{error}");
    }
}
