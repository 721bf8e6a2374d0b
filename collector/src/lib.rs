//! Counters that are exact: what a service links to count things and have every count arrive, once.
//!
//! ```
//! use std::time::Duration;
//! use tallybus::count;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("bus.db");
//! # let path = path.to_str().unwrap_or_default();
//! // Once, in `main`. With Kafka: `tallybus::init("kafka://127.0.0.1:9092", "api")?`.
//! let guard = tallybus::builder().service("api").create_topic(4).start(tallybus::connect(&format!("embedded:{path}"))?)?;
//!
//! // Anywhere, from any thread, in libraries too, before and after.
//! let route = String::from("/v1/sites");
//! count!("jobs.done");
//! count!("http.requests", 1, route = route, status = 200);
//!
//! // At the end. Dropping the guard does the same and logs the report.
//! let report = guard.shutdown(Duration::from_secs(5));
//! assert_eq!((report.emitted, report.delivered), (2, 2));
//! # Ok(())
//! # }
//! ```
//!
//! # What to rely on
//! - **Counting never waits and never fails.** A thread counts in cells of its own, a nanosecond or ten at a time; it
//!   takes a lock only for a series it has not met. A `count!` must not stand in a signal handler or in the global
//!   allocator.
//! - **Nothing is lost while the bus is away** or its topic missing: counters keep what is not delivered, so memory is
//!   bounded by the number of series. One message for each partition is under way at most; one that the bus refuses
//!   gives its counts back.
//! - **Nothing is counted twice.** A message whose answer is lost for good (librdkafka's producer failing, say) is not
//!   sent again; [`Report::unknown`] tells how much that was.
//! - **A series always goes to the same partition**, by a hash of its name and tags that is the same in every process.
//!   Partitions added to a topic change the place of series from then on.
//! - **The number of series is capped** ([`Builder::max_series`]): beyond the cap, each name has one more series with
//!   the tag `tallybus.overflow` that takes what is new, so that totals stay right, and the log names the tag with too
//!   many values.
//! - **Threads may end at any time**, and so may the process, short of being killed: when `main` returns or `exit` is
//!   called, the last counts are delivered, for up to five seconds.
//!
//! Totals are taken modulo 2^64.
//!
//! # On the bus
//! Once per interval, each partition gets what its series have risen by, as native messages (`tallybus-encoding:
//! native`) with a producer id made at each start, a sequence number per partition without gaps, and running totals by
//! which an auditor sees a gap or a repeat.

mod arena;
mod builder;
mod cells;
mod connect;
mod constant;
mod counter;
mod error;
mod growth;
mod guard;
mod hash;
mod lane;
mod ledger;
mod lookup;
mod macros;
mod notices;
mod own;
mod partition;
mod publisher;
mod registry;
mod report;
mod session;
mod site;
mod sys;
mod table;
mod text;
mod value;

#[cfg(feature = "metrics")]
pub mod recorder;

pub use builder::{Builder, DEFAULT_TOPIC};
pub use connect::{connect, init, init_from_env};
pub use counter::Counter;
pub use error::InitError;
pub use guard::Guard;
pub use report::{Report, Stats};
pub use value::{CountValue, Optional, Short, TagValue};

/// Sets up a collector: defaults first, to be changed one by one.
pub fn builder() -> Builder {
    Builder::new()
}

/// What the macros expand to, and what the benchmarks need; no part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::hash::fix_seed;
    pub use crate::site::*;
}
