//! The bus that a collector publishes to: an address and its Kafka properties.

use std::collections::BTreeMap;
use std::fmt;

use tallybus_bus::{Bus, BusAddress, BusError};

use crate::InitError;

/// librdkafka defaults to Kerberos when no mechanism is named, and then advises recompiling it.
const NO_KERBEROS: &str = "set `sasl.mechanism` to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER \
                           (Kerberos is not built in)";

/// The bus that a collector publishes to. Made by [`connect`](crate::connect), used by
/// [`Builder::start`](crate::Builder::start).
///
/// Holds an address only: nothing is opened before the collector starts. Credentials do not belong in the address; set
/// them as Kafka properties, see `Builder::kafka`.
pub struct Connection(Target);

enum Target {
    Address(BusAddress),
    Bus(Box<dyn Bus>),
}

impl Connection {
    /// Publishes to a bus that this program has opened itself. Needs the crate `tallybus-bus` in the same version; not
    /// part of the stable interface.
    #[doc(hidden)]
    pub fn from_bus(bus: Box<dyn Bus>) -> Self {
        Self(Target::Bus(bus))
    }

    pub(crate) fn parse(address: &str) -> Result<Self, InitError> {
        match BusAddress::parse(address) {
            Ok(address) => Ok(Self(Target::Address(address))),
            Err(error) => Err(InitError::Setting { name: "bus", reason: error.to_string() }),
        }
    }

    /// Whether the bus is a file of this machine.
    pub(crate) fn is_file(&self) -> bool {
        matches!(&self.0, Target::Address(address) if address.file().is_some())
    }

    /// Opens the bus. A Kafka cluster is not contacted yet.
    pub(crate) fn open(self, properties: &KafkaProperties) -> Result<Box<dyn Bus>, InitError> {
        let address = match self.0 {
            Target::Address(address) if address.kind().name == "kafka" => address.with_properties(properties.0.clone()),
            Target::Address(address) => {
                properties.refuse_any()?;
                address
            }
            Target::Bus(bus) => {
                properties.refuse_any()?;
                return Ok(bus);
            }
        };
        match address.open() {
            Ok(bus) => Ok(bus),
            Err(BusError::Settings(reason)) if reason.contains("GSSAPI") => {
                Err(InitError::Setting { name: "kafka", reason: NO_KERBEROS.to_owned() })
            }
            Err(error) => Err(ConnectionError(error).into()),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Target::Address(address) => f.debug_tuple("Connection").field(address).finish(),
            Target::Bus(bus) => f.debug_tuple("Connection").field(&bus.describe()).finish(),
        }
    }
}

/// librdkafka properties by name. Values may be secrets and are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct KafkaProperties(BTreeMap<String, String>);

impl KafkaProperties {
    pub(crate) fn set(&mut self, property: String, value: String) {
        self.0.insert(property, value);
    }

    fn refuse_any(&self) -> Result<(), InitError> {
        let Some(property) = self.0.keys().next() else { return Ok(()) };
        let reason = format!("`{property}` is a property of Kafka, but this collector does not publish to Kafka");
        Err(InitError::Setting { name: "kafka", reason })
    }
}

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "***"))).finish()
    }
}

/// Why a bus cannot be used with the settings it was given.
///
/// A bus that does not answer is not an error: the collector waits for it.
#[derive(Clone, thiserror::Error)]
#[error(transparent)]
pub struct ConnectionError(pub(crate) BusError);

impl fmt::Debug for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        for address in
            ["kafka://me:hunter2@a:9092", "me:hunter2@a:9092", "hunter2@a:9092", "hunter2", "kafka://a:hunter2"]
        {
            let error = Connection::parse(address).unwrap_err();
            assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn kafka_properties_without_kafka_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("embedded:{}", folder.path().join("bus.db").display());
        let mut properties = KafkaProperties::default();
        properties.set("sasl.password".to_owned(), "hunter2".to_owned());
        let error = Connection::parse(&address).unwrap().open(&properties).err().unwrap().to_string();
        assert!(error.contains("`sasl.password`") && !error.contains("hunter2"), "{error}");
        assert!(!format!("{properties:?}").contains("hunter2"));
    }

    #[test]
    fn properties_that_tallybus_must_own_are_refused_with_a_reason() {
        let mut properties = KafkaProperties::default();
        for property in ["acks", "enable.idempotence", "bootstrap.servers", "message.timeout.ms", "no.such.property"] {
            properties.set(property.to_owned(), "hunter2".to_owned());
        }
        let error = Connection::parse("kafka://a:9092").unwrap().open(&properties).err().unwrap();
        let (shown, debug) = (error.to_string(), format!("{error:?}"));
        for part in [
            "`acks` cannot be set: a record counts as published once all replicas have it",
            "`enable.idempotence` cannot be set: a record must not be stored twice",
            "`bootstrap.servers` cannot be set",
            "`message.timeout.ms` cannot be set",
            "`no.such.property`",
        ] {
            assert!(shown.contains(part), "{part} is missing in {shown}");
        }
        assert!(!shown.contains("hunter2") && !debug.contains("hunter2"), "{shown} {debug}");
    }

    #[test]
    fn sasl_without_a_mechanism_names_the_mechanisms() {
        let mut properties = KafkaProperties::default();
        properties.set("security.protocol".to_owned(), "SASL_PLAINTEXT".to_owned());
        let error = Connection::parse("kafka://a:9092").unwrap().open(&properties).err().unwrap().to_string();
        assert!(error.contains("SCRAM-SHA-512"), "{error}");
    }
}
