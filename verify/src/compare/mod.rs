//! Compares backends: on the same offsets, right before fast.
//!
//! Each sink is audited over exactly the compared offsets; only a sink that holds what it must is ranked. Figures that differ by
//! no more than chance explains are not told apart: their intervals overlap, or a sink that was run twice differs from
//! itself as much.
//!
//! [`CompareResult`] is the product; tables and pages are drawn from it alone.

mod copy;
mod error;
mod known;
mod latency;
mod measured;
mod rank;
mod result;
mod sink_result;
mod stats;

pub use copy::Chosen;
pub use error::CompareError;
pub use known::{Known, Total};
pub use latency::{Latencies, Latency, Share};
pub use rank::{Aspect, Noise, Ranking, Unit, Unranked, noise_floor, rankings};
pub use result::{
    CompareResult, Environment, Method, Mode, ProbeMethod, RESULT_KIND, ResultError, SCHEMA_VERSION, Sample, Span,
    Workload,
};
pub use sink_result::{
    AnswerCheck, Completeness, QuestionResult, RateStep, Round, SinkResult, Spread, StorageTaken, UsageFigure,
};
pub use stats::{FEWEST_FIGURES, Summary, median, summarize};

/// Shows how far a comparison has come, and may end it.
pub trait Watch {
    /// So much is done of the whole of what is done now; `doing` says what that is.
    fn step(&mut self, done: u64, whole: u64, doing: &str);

    /// Whether the comparison shall end.
    fn is_stopped(&self) -> bool;
}

/// Shows nothing.
#[derive(Debug)]
pub struct Quiet;

impl Watch for Quiet {
    fn step(&mut self, _done: u64, _whole: u64, _doing: &str) {}

    fn is_stopped(&self) -> bool {
        false
    }
}

/// Nanoseconds since the Unix epoch as text.
fn time_text(time: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time)).map_or_else(|_| time.to_string(), |time| time.to_string())
}
