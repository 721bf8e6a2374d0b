//! Whom a command is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest part of an address, in bytes.
const MAX_PART: usize = 200;

/// Whom a command or a desired state is for. As text: `all`, `kind/influxdb`, `sink/influx`, `sink/influx@web-3`, `worker/web-3`,
/// `service/orders`, `service/orders@7f3c`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// The workers of every sink. No service.
    All,
    /// The workers of every sink of a kind.
    Kind(String),
    /// The workers of a sink; with a process, the one in it.
    Sink {
        /// The sink's name.
        sink: String,
        /// The worker process, by its name or its id.
        worker: Option<String>,
    },
    /// The workers of one process, by its name or its id.
    Worker(String),
    /// The instances of a service; with an instance, this one.
    Service {
        /// The service's name.
        service: String,
        /// The instance's id.
        instance: Option<String>,
    },
}

/// Who reads a command, and asks whether it is for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The worker of one sink in a process.
    Worker {
        /// The sink's name.
        sink: String,
        /// The sink's kind.
        kind: String,
        /// The id of this life of the process: random.
        id: String,
        /// The name of the process, which its restart keeps.
        name: String,
    },
    /// An instance of a service.
    Service {
        /// The service's name.
        service: String,
        /// The instance's id.
        instance: String,
    },
}

/// A text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address: write all, kind/KIND, sink/NAME, sink/NAME@WORKER, worker/WORKER, service/NAME or service/NAME@INSTANCE"
)]
pub struct AddressError(String);

impl Address {
    /// Whether this reader is meant.
    pub fn matches(&self, reader: &Identity) -> bool {
        match (self, reader) {
            (Self::All, Identity::Worker { .. }) => true,
            (Self::Kind(wanted), Identity::Worker { kind, .. }) => wanted == kind,
            (Self::Sink { sink: wanted, worker }, Identity::Worker { sink, id, name, .. }) => {
                wanted == sink && worker.as_ref().is_none_or(|worker| worker == id || worker == name)
            }
            (Self::Worker(wanted), Identity::Worker { id, name, .. }) => wanted == id || wanted == name,
            (Self::Service { service: wanted, instance: one }, Identity::Service { service, instance }) => {
                wanted == service && one.as_ref().is_none_or(|one| one == instance)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |f: &mut fmt::Formatter<'_>, one: &Option<String>| match one {
            Some(one) => write!(f, "@{one}"),
            None => Ok(()),
        };
        match self {
            Self::All => f.write_str("all"),
            Self::Kind(kind) => write!(f, "kind/{kind}"),
            Self::Sink { sink, worker } => write!(f, "sink/{sink}").and_then(|()| at(f, worker)),
            Self::Worker(worker) => write!(f, "worker/{worker}"),
            Self::Service { service, instance } => write!(f, "service/{service}").and_then(|()| at(f, instance)),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.chars().take(100).flat_map(char::escape_debug).collect());
        if text == "all" {
            return Ok(Self::All);
        }
        let (what, name) = text.split_once('/').ok_or_else(wrong)?;
        let part = |part: &str| {
            let is_plain =
                !part.is_empty() && part.len() <= MAX_PART && !part.chars().any(|c| c.is_control() || c == '@');
            if is_plain { Ok(part.to_owned()) } else { Err(wrong()) }
        };
        let (before, at) = match name.rsplit_once('@') {
            Some((before, at)) => (part(before)?, Some(part(at)?)),
            None => (part(name)?, None),
        };
        match (what, at) {
            ("kind", None) => Ok(Self::Kind(before)),
            ("sink", worker) => Ok(Self::Sink { sink: before, worker }),
            ("worker", None) => Ok(Self::Worker(before)),
            ("service", instance) => Ok(Self::Service { service: before, instance }),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker { sink, name, .. } => write!(f, "sink/{sink}@{name}"),
            Self::Service { service, instance } => write!(f, "service/{service}@{instance}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(sink: &str, name: &str) -> Identity {
        Identity::Worker {
            sink: sink.to_owned(),
            kind: "sqlite".to_owned(),
            id: "7f3c".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in [
            "all",
            "kind/sqlite",
            "sink/a",
            "sink/a@web-3",
            "worker/web-3.example:8080",
            "service/orders",
            "service/orders@7f3c",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "a", "sink/", "sink/a@", "sink/@b", "kind/a@b", "worker/a@b", "sink/a\n", "sinks/a", "ALL"] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_matches_those_that_it_names_and_nobody_else() {
        let matched = |address: &str, reader: &Identity| address.parse::<Address>().unwrap().matches(reader);
        let reader = worker("a", "web-3");
        for address in ["all", "kind/sqlite", "sink/a", "sink/a@web-3", "sink/a@7f3c", "worker/web-3", "worker/7f3c"] {
            assert!(matched(address, &reader), "{address}");
        }
        for address in ["kind/http", "sink/b", "sink/a@web-4", "worker/web-4", "service/a"] {
            assert!(!matched(address, &reader), "{address}");
        }
        let instance = Identity::Service { service: "orders".to_owned(), instance: "1".to_owned() };
        assert!(matched("service/orders", &instance) && matched("service/orders@1", &instance));
        assert!(
            !matched("service/orders@2", &instance) && !matched("all", &instance) && !matched("service/a", &instance)
        );
    }
}
