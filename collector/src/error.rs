use std::io;

use thiserror::Error;

use crate::ConnectionError;

/// Why a collector was not started. Counting works all the same; the counts wait for the next collector.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InitError {
    /// A collector is running, or is still stopping; a process has one at a time.
    #[error("a collector is already running: keep its guard, or shut it down before starting another")]
    Running,
    /// This process was forked from one that had an embedded bus open, and SQLite files must not be opened on both sides
    /// of a fork.
    #[error(
        "this process was forked from one that runs a collector on an embedded bus, which cannot be opened in both: fork \
         before starting a collector, or use Kafka; its counts stay in memory"
    )]
    Forked,
    /// A setting cannot work; change it in the program.
    #[error("collector setting {name}: {reason}")]
    Setting {
        /// Its name, for example `flush_interval`.
        name: &'static str,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// An environment variable is missing or cannot work.
    #[error("environment variable {name}: {reason}")]
    Variable {
        /// Its name, for example `TALLYBUS_COLLECTOR_BUS`.
        name: String,
        /// What is wrong, and what is expected. Does not repeat the value.
        reason: String,
    },
    /// The bus cannot work with its settings. A bus that does not answer is not an error: the collector waits for it.
    #[error("cannot connect the collector: {0}")]
    Connection(#[from] ConnectionError),
    /// The operating system refused what is needed to wait for signals; trying again may help.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// The operating system refused a thread for the collector; trying again may help.
    #[error("cannot start the collector's thread: {0}")]
    Thread(#[source] io::Error),
}
