//! Exact counters: the library that a service links so that each of its counts arrives, exactly once.
//!
//! ```
//! use std::time::Duration;
//! use tallybus::count;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("bus.db");
//! # let path = path.to_str().unwrap_or_default();
//! // Once, in `main`. With Kafka: `tallybus::init("kafka://127.0.0.1:9092", "api")?`.
//! let guard = tallybus::builder().service("api").flush_on_signals().start(tallybus::connect(&format!("embedded:{path}"))?)?;
//!
//! // Anywhere, from any thread, in libraries too, before and after.
//! let route = String::from("/v1/sites");
//! count!("jobs.done");
//! count!("http.requests", 1, route = route, status = 200);
//!
//! // At the end: delivers what is left. Dropping the guard does the same and logs the report.
//! let report = guard.shutdown(Duration::from_secs(5));
//! assert_eq!((report.emitted, report.delivered), (2, 2));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! | feature | default | what it adds |
//! |---|---|---|
//! | `kafka` | yes | publishes to Apache Kafka through librdkafka (compiled from source), with the system's OpenSSL and zlib |
//! | `embedded` | no | publishes to an embedded bus: one SQLite file on this machine, SQLite compiled in |
//! | `vendored` | no | with `kafka`: OpenSSL and zlib compiled from source and linked statically |
//! | `metrics` | no | `recorder`: the counters of the `metrics` facade (not its gauges and histograms) |
//! | `commands` | no | `commands`: the service does what it is asked over the bus; `ask`: a client that asks |
//! | `callbacks` | no | with `commands`: answers that are posted to URLs |
//! | `testing` | no | `testing`: a bus in memory, for tests of services |
//!
//! Without `embedded` no SQLite is linked, so any version of `rusqlite` or `sqlx` can be linked beside this crate. TLS,
//! credentials and environment variables: `docs/services.md` in the repository, [`Builder::kafka`] and
//! [`init_from_env`].
//!
//! # Guarantees
//! - **Counting never waits and never fails.** A thread counts in cells of its own, in one to ten nanoseconds; it takes a
//!   lock only for a series that it has not counted before. Do not use `count!` in a signal handler or in the global
//!   allocator.
//! - **Nothing is lost while the bus does not answer** or its topic does not exist: counters keep what is not delivered,
//!   so memory is bounded by the number of series. At most one message per partition is in flight; the counts of a
//!   message that the bus refuses return to the counters.
//! - **Nothing is counted twice.** A message that is never answered (because librdkafka's producer failed, for example)
//!   is in doubt and is not sent again; [`Report::unknown`] gives the sum of those counts.
//! - **A series always goes to the same partition**, by a hash of its name and tags that is the same in every process.
//!   When partitions are added to a topic, series move to other partitions from then on.
//! - **The number of series is capped** ([`Builder::max_series`]): beyond the cap, new series of a name are counted in
//!   one series with the tag `tallybus.overflow`, so that totals stay right, and the log names the tag with too many
//!   values.
//! - **Threads may end at any time**, and so may the process: when `main` returns or `exit` is called, the last counts
//!   are delivered, for up to five seconds; what could not be delivered is named on standard error. **A signal ends a
//!   process without that**: with [`Builder::flush_on_signals`], or a handler of your own that drops the guard, SIGTERM and
//!   Ctrl-C deliver too. Without either, and whenever the process is killed or aborts, what was counted since the last
//!   interval (one second) is lost.
//! - **A fork copies no count.** What was counted before belongs to the parent. The collector runs in the parent only; a
//!   child may start its own (not on an embedded bus that the parent has open), and one that counts without says so on
//!   standard error.
//! - **A system clock that jumps is noticed**: counts keep true times by the monotonic clock, until the system clock is
//!   back or has gone on steadily for a minute, and the log says so.
//!
//! Totals are taken modulo 2^64.
//!
//! # On the bus
//! Once per interval, each partition gets the increments of its series, as native messages (`tallybus-encoding: native`)
//! with a producer id that is new at each start, a sequence number per partition without gaps, and running totals by
//! which an audit sees a gap or a duplicate. Every ten seconds, and when it ends, a collector says on the topic
//! `tallybus.producers` up to which time everything that it counted is on the bus ([`Builder::checkpoint_interval`]).

mod arena;
mod builder;
mod cells;
mod clock;
mod completeness;
mod connect;
mod connection;
mod constant;
mod counter;
mod environment;
mod error;
mod fork;
mod guard;
mod hash;
mod ledger;
mod lookup;
mod macros;
mod outage;
mod partition_queue;
mod partitioner;
mod publisher;
mod registry;
mod report;
mod self_metrics;
mod session;
mod signals;
mod site;
mod sys;
mod table;
mod text;
mod time;
mod timeline;
mod value;
mod vec_growth;
mod warnings;

#[cfg(feature = "commands")]
pub mod ask;
#[cfg(feature = "commands")]
pub mod commands;
#[cfg(feature = "metrics")]
pub mod recorder;
#[cfg(feature = "testing")]
pub mod testing;

pub use builder::{Builder, DEFAULT_TOPIC};
pub use connect::{connect, init, init_from_env};
pub use connection::{Connection, ConnectionError};
pub use counter::Counter;
pub use error::InitError;
pub use guard::Guard;
pub use report::{Report, Stats};
pub use value::{CountValue, Optional, Short, TagValue};

/// The settings of a collector, each with its default.
pub fn builder() -> Builder {
    Builder::new()
}

/// What the macros expand to, and what the benchmarks need; not part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::hash::fix_seed;
    pub use crate::site::*;
}
