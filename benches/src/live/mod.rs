//! A whole pipeline that runs: counters in this process, a real Kafka, workers that are processes, and a backend in this
//! process that notes when what comes in.

pub mod backend;
pub mod clock;
pub mod load;
pub mod observer;
pub mod worker;

/// The counter that the load counts; each of its series has a tag [`SERIES_TAG`] with the series' number.
pub const COUNTER: &str = "bench.live";

/// See [`COUNTER`].
pub const SERIES_TAG: &str = "probe";
