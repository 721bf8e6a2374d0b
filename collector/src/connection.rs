//! Which bus a collector publishes to: an address, and the Kafka properties that go with it.

use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "embedded")]
use std::path::{Path, PathBuf};

use tallybus_bus::{Bus, BusError};

use crate::InitError;

pub(crate) const EXPECTED: &str = "expected kafka://HOST:PORT (several HOST:PORT separated by commas) or embedded:PATH";

/// librdkafka defaults to Kerberos when no mechanism is named, and then advises recompiling it.
#[cfg(feature = "kafka")]
const NO_KERBEROS: &str = "set `sasl.mechanism` to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER \
                           (Kerberos is not built in)";

/// The bus that a collector publishes to. Made by [`connect`](crate::connect), used by
/// [`Builder::start`](crate::Builder::start).
///
/// Holds an address only: nothing is opened before the collector starts. Credentials do not belong in the address; they
/// are Kafka properties, see `Builder::kafka`.
pub struct Connection(Target);

enum Target {
    #[cfg(feature = "kafka")]
    Kafka {
        brokers: String,
    },
    #[cfg(feature = "embedded")]
    Embedded {
        path: PathBuf,
    },
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
        // The address is never repeated as a whole: it may hold a password that does not belong there.
        let wrong = |reason: String| InitError::Setting { name: "bus", reason };
        if let Some(brokers) = address.strip_prefix("kafka://") {
            return Self::kafka(brokers.trim_end_matches('/')).map_err(wrong);
        }
        if let Some(path) = address.strip_prefix("embedded:") {
            return Self::embedded(path).map_err(wrong);
        }
        let scheme = address.split_once(':').map(|(scheme, _)| scheme);
        Err(wrong(match scheme {
            Some(scheme) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                format!("unknown kind of bus `{scheme}`: {EXPECTED}")
            }
            _ => format!("not the address of a bus: {EXPECTED}"),
        }))
    }

    #[cfg(feature = "kafka")]
    fn kafka(brokers: &str) -> Result<Self, String> {
        brokers.split(',').try_for_each(|broker| check_broker(broker.trim()))?;
        Ok(Self(Target::Kafka { brokers: brokers.to_owned() }))
    }

    #[cfg(not(feature = "kafka"))]
    fn kafka(_: &str) -> Result<Self, String> {
        Err("this program was built without Kafka: enable the feature `kafka` of the crate `tallybus`".to_owned())
    }

    #[cfg(feature = "embedded")]
    fn embedded(path: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Err(format!("the path is empty: {EXPECTED}"));
        }
        Ok(Self(Target::Embedded { path: Path::new(path).to_owned() }))
    }

    #[cfg(not(feature = "embedded"))]
    fn embedded(_: &str) -> Result<Self, String> {
        Err("this program was built without the embedded bus: enable the feature `embedded` of the crate `tallybus`"
            .to_owned())
    }

    /// Opens the bus. A Kafka cluster is not contacted yet.
    pub(crate) fn open(self, properties: &KafkaProperties) -> Result<Box<dyn Bus>, InitError> {
        match self.0 {
            #[cfg(feature = "kafka")]
            Target::Kafka { brokers } => match tallybus_bus::kafka::KafkaBus::new(&brokers, &properties.0) {
                Ok(bus) => Ok(Box::new(bus)),
                Err(BusError::Settings(reason)) if reason.contains("GSSAPI") => {
                    Err(InitError::Setting { name: "kafka", reason: NO_KERBEROS.to_owned() })
                }
                Err(error) => Err(ConnectionError(error).into()),
            },
            #[cfg(feature = "embedded")]
            Target::Embedded { path } => {
                properties.refuse_any()?;
                let bus = tallybus_bus::embedded::EmbeddedBus::open(&path).map_err(ConnectionError)?;
                Ok(Box::new(bus))
            }
            Target::Bus(bus) => {
                properties.refuse_any()?;
                Ok(bus)
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            #[cfg(feature = "kafka")]
            Target::Kafka { brokers } => f.debug_tuple("Connection").field(&format_args!("kafka://{brokers}")).finish(),
            #[cfg(feature = "embedded")]
            Target::Embedded { path } => f.debug_tuple("Connection").field(path).finish(),
            Target::Bus(bus) => f.debug_tuple("Connection").field(&bus.describe()).finish(),
        }
    }
}

/// Checks one broker of an address, with the rules of `brokers` in the settings of the `tallybus` command.
#[cfg(feature = "kafka")]
fn check_broker(broker: &str) -> Result<(), String> {
    if broker.contains('@') {
        return Err("credentials do not belong in the address of a bus: set the Kafka properties `sasl.username` and \
                    `sasl.password` instead"
            .to_owned());
    }
    let Some((host, port)) = broker.rsplit_once(':') else {
        return Err(format!("broker {broker:?} has no port: {EXPECTED}"));
    };
    if host.is_empty() || host.contains('/') || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(format!("{broker:?} is not HOST:PORT: {EXPECTED}"));
    }
    Ok(())
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

    fn refused(address: &str) -> String {
        Connection::parse(address).unwrap_err().to_string()
    }

    #[test]
    fn an_address_of_either_kind_is_taken() {
        for address in
            ["kafka://a:9092", "kafka://a:9092,b:9093/", "kafka://[::1]:9092", "embedded:x.db", "embedded:/a/b"]
        {
            Connection::parse(address).unwrap();
        }
    }

    #[test]
    fn a_wrong_address_says_what_is_expected() {
        for (address, part) in [
            ("kafak://a:9092", "unknown kind of bus `kafak`"),
            ("a", "not the address of a bus"),
            ("embedded:", "the path is empty"),
            ("kafka://a", "\"a\" has no port"),
            ("kafka://a:9092,", "\"\" has no port"),
            ("kafka://a:0", "is not HOST:PORT"),
            ("kafka://:9092", "is not HOST:PORT"),
            ("kafka://a:9092/topic", "is not HOST:PORT"),
        ] {
            let error = refused(address);
            assert!(error.contains(part) && error.contains(EXPECTED), "{address}: {error}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        for address in ["kafka://me:hunter2@a:9092", "me:hunter2@a:9092", "hunter2@a:9092", "hunter2"] {
            assert!(!refused(address).contains("hunter2"), "{address}");
        }
        assert!(refused("kafka://me:hunter2@a:9092").contains("`sasl.password`"));
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
