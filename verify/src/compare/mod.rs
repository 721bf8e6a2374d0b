//! Compares backends: on the same offsets, right before fast.
//!
//! Each sink is audited over exactly the compared offsets; only a sink that holds what it must is ranked. Figures that differ by
//! no more than chance explains are not told apart: their intervals overlap, or a sink that was run twice differs from
//! itself as much.
//!
//! [`CompareResult`] is the product; tables and pages are drawn from it alone.

mod known;
mod latency;
mod rank;
mod result;
mod sink_result;
mod stats;

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
