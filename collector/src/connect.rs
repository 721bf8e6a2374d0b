use std::env;

use tallybus_bus::{Bus, BusAddress};

use crate::{Guard, InitError, builder};

/// Starts a collector with the defaults of [`builder`] for this bus and service.
///
/// `bus` is `kafka://127.0.0.1:9092` (several brokers with commas between) or `embedded:/path/to/file`. The builder
/// takes a bus with settings of its own, such as credentials.
///
/// # Errors
/// As [`Builder::start`](crate::Builder::start), and for a bus that is neither.
pub fn init(bus: &str, service: &str) -> Result<Guard, InitError> {
    builder().service(service).start(connect(bus)?)
}

/// Starts a collector as the environment says: `TALLYBUS_BUS` is the bus, as for [`init`]; `TALLYBUS_TOPIC` and
/// `TALLYBUS_SERVICE` may be left out.
///
/// # Errors
/// As [`init`]; `TALLYBUS_BUS` must be set.
pub fn init_from_env() -> Result<Guard, InitError> {
    let read = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let Some(bus) = read("TALLYBUS_BUS") else {
        return Err(InitError::Setting { name: "TALLYBUS_BUS", reason: format!("not set: {EXPECTED}") });
    };
    let mut builder = builder();
    if let Some(topic) = read("TALLYBUS_TOPIC") {
        builder = builder.topic(topic);
    }
    if let Some(service) = read("TALLYBUS_SERVICE") {
        builder = builder.service(service);
    }
    builder.start(connect(&bus)?)
}

const EXPECTED: &str = "expected kafka://HOST:PORT or embedded:PATH";

/// The bus of an address, as in [`init`].
///
/// # Errors
/// An address that is neither, or a bus that says its settings cannot work.
pub fn connect(address: &str) -> Result<Box<dyn Bus>, InitError> {
    let address =
        BusAddress::parse(address).map_err(|error| InitError::Setting { name: "bus", reason: error.to_string() })?;
    Ok(address.open()?)
}
