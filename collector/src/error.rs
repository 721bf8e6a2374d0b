use std::io;

use tallybus_bus::BusError;
use thiserror::Error;

/// Why a collector was not started. Counting goes on all the same; what is counted waits for the next one.
#[derive(Debug, Error)]
pub enum InitError {
    /// One is running, or has not quite stopped; a process has one at a time.
    #[error("a collector is running already: keep its guard, or shut it down before starting another")]
    Running,
    /// A setting cannot work; the program or its environment must change it.
    #[error("collector setting {name}: {reason}")]
    Setting {
        /// Which one: `flush_interval`, `TALLYBUS_BUS`.
        name: &'static str,
        /// What is wrong, and what would do.
        reason: String,
    },
    /// The bus refuses its settings. A bus that is merely away is no error: the collector waits for it.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The system gave no thread to publish from; trying again may help.
    #[error("no thread for the collector: {0}")]
    Thread(io::Error),
}
