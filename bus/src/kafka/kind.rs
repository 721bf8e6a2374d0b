use super::KafkaBus;
use super::config::check_all;
use crate::{BusAddress, BusError, BusKind};

const FORM: &str = "expected \"host:port\", several separated by commas";
/// The port of an address that names none.
const PORT: u16 = 9092;
/// Without a mechanism librdkafka defaults to Kerberos, and its error then advises recompiling it.
const NO_KERBEROS: &str = "set `sasl.mechanism`: \"PLAIN\", \"SCRAM-SHA-256\", \"SCRAM-SHA-512\" or \"OAUTHBEARER\" \
                           (Kerberos is not built in)";

pub(crate) const KIND: BusKind = BusKind {
    name: "kafka",
    scheme: "kafka://",
    form: "kafka://HOST:PORT[,HOST:PORT]",
    place: "brokers",
    properties: Some("kafka"),
    complete,
    check: |address| connect(address).map(drop),
    check_each: check_all,
    open: |address, _| Ok(Box::new(connect(address)?)),
    is_file: false,
};

fn connect(address: &BusAddress) -> Result<KafkaBus, BusError> {
    KafkaBus::new(address.place(), address.properties()).map_err(|error| match error {
        BusError::Settings(reason) if reason.contains("GSSAPI") => BusError::Settings(NO_KERBEROS.to_owned()),
        error => error,
    })
}

/// The brokers, each with its port.
fn complete(brokers: &str) -> Result<String, String> {
    let brokers = brokers.trim_end_matches('/').split(',');
    Ok(brokers.map(|broker| complete_broker(broker.trim())).collect::<Result<Vec<_>, _>>()?.join(","))
}

/// The text is not repeated: it may hold credentials.
fn complete_broker(broker: &str) -> Result<String, String> {
    if broker.contains("://") || broker.contains('/') || broker.contains('@') {
        return Err(format!("{FORM}, without a scheme, a path or credentials"));
    }
    // An IPv6 address has colons of its own, within brackets.
    let (host, port) = match broker.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok().filter(|port: &u16| *port > 0)),
        _ => (broker, Some(PORT)),
    };
    match port {
        Some(port) if !host.is_empty() => Ok(format!("{host}:{port}")),
        Some(_) => Err(format!("{FORM}; a host is missing")),
        None => Err(format!("{FORM}; a port is a number from 1 to 65535")),
    }
}
