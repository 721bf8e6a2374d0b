use std::env;

use crate::{Connection, Guard, InitError, builder, environment};

/// Starts a collector with the defaults of [`builder`] for this bus and service. Creates the topic where it does not exist,
/// with 4 partitions; [`Builder::use_existing_topic`](crate::Builder::use_existing_topic) does not.
///
/// `bus` is `kafka://127.0.0.1:9092` (several brokers separated by commas) or, with the feature `embedded`,
/// `embedded:/path/to/file`. For TLS and credentials, use [`builder`] and `Builder::kafka`.
///
/// # Errors
/// As [`Builder::start`](crate::Builder::start), and for an address that is neither.
pub fn init(bus: &str, service: &str) -> Result<Guard, InitError> {
    builder().service(service).start(connect(bus)?)
}

/// Starts a collector configured by environment variables.
///
/// | variable | meaning |
/// |---|---|
/// | `TALLYBUS_COLLECTOR_BUS` | the address of the bus, as for [`init`]; required |
/// | `TALLYBUS_COLLECTOR_TOPIC` | the topic; [`DEFAULT_TOPIC`](crate::DEFAULT_TOPIC) unless set |
/// | `TALLYBUS_COLLECTOR_CREATE_TOPIC` | `false`: the topic is not created where it does not exist; or with how many partitions it is; 4 unless set |
/// | `TALLYBUS_COLLECTOR_SERVICE` | the tag `service`; the program's file name unless set |
/// | `TALLYBUS_COLLECTOR_INSTANCE` | the tag `instance`; the host name unless set |
/// | `TALLYBUS_COLLECTOR_CHECKPOINT_INTERVAL` | how often it says how far it is, in seconds: [`Builder::checkpoint_interval`](crate::Builder::checkpoint_interval); 10 unless set, 0 for never |
/// | `TALLYBUS_COLLECTOR_NAMESPACE` | the `namespace` of `[bus]` in the settings of the command; none unless set |
/// | `TALLYBUS_COLLECTOR_KAFKA_<PROPERTY>` | a librdkafka property in upper case, with `_` for each dot: `TALLYBUS_COLLECTOR_KAFKA_SASL_PASSWORD` sets `sasl.password`; a value `file:PATH` is read from that file |
///
/// Variables with the prefix `TALLYBUS__` configure the `tallybus` command and are not read here; one that is set is
/// logged as a warning, and so is a variable whose name merely resembles one of the above.
///
/// # Errors
/// As [`init`]; [`InitError::Variable`] names a variable that is missing or wrong.
pub fn init_from_env() -> Result<Guard, InitError> {
    let environment = environment::read(env::vars_os())?;
    for unused in &environment.unused {
        tracing::warn!("environment variable {unused}");
    }
    environment.builder.start(environment.connection)
}

/// The connection to the bus with this address, as in [`init`]. Checks the address and opens nothing.
///
/// # Errors
/// [`InitError::Setting`] for an address that is wrong, or a bus that this program was built without.
pub fn connect(address: &str) -> Result<Connection, InitError> {
    Connection::parse(address)
}
