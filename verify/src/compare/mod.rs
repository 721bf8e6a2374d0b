//! Compares backends: on the same offsets, right before fast.
//!
//! Each sink is audited over exactly the compared offsets; only a sink that holds what it must is ranked. Figures that differ by
//! no more than chance explains are not told apart: their intervals overlap, or a sink that was run twice differs from
//! itself as much.
//!
//! [`CompareResult`] is the product; tables and pages are drawn from it alone.

mod asking;
mod copy;
mod destinations;
mod diff;
mod entry;
mod environment;
mod error;
mod known;
mod latency;
mod live;
mod measured;
mod playing;
mod prices;
mod probe_phase;
mod probes;
mod questions;
mod rank;
mod result;
mod rounds;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod schema_tests;
mod shadow;
mod sink_result;
mod stats;
mod sustainable;

use std::time::{Duration, UNIX_EPOCH};

pub use copy::Chosen;
pub use destinations::{JOURNAL, LeftBehind, unremoved};
pub use diff::{Change, Diff, DiffError, Outcome, VerdictChange};
pub use entry::{Contender, MakeShadow};
pub use error::CompareError;
pub use known::{Known, Total};
pub use latency::{Latencies, Latency, Share};
pub use live::{LiveComparison, LiveSink, run_live};
pub use prices::{Cost, Money, OLD_DAYS, Price, PriceError, PriceList, STORAGE_UNIT, UnitCost};
pub use probes::PROBE_NAME;
pub use rank::{Aspect, Noise, Ranking, Unit, Unranked, noise_floor, rankings};
pub use result::{
    CompareResult, Environment, Method, Mode, ProbeMethod, RESULT_KIND, ResultError, SCHEMA_VERSION, Sample, Span,
    Workload,
};
use sha2::{Digest, Sha256};
pub use shadow::{Finished, Plan, ShadowComparison, run};
pub use sink_result::{
    AnswerCheck, Completeness, QuestionResult, RateStep, Round, SinkResult, Spread, StorageTaken, StreamState,
    UsageFigure,
};
pub use stats::{FEWEST_FIGURES, Summary, median, summarize};
use tallybus_sdk::clock::Clock;

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

/// The wall clock: nanoseconds since the Unix epoch.
///
/// # Errors
/// The clock is wrong.
fn wall_nanos(clock: &dyn Clock) -> Result<i64, CompareError> {
    let since = clock.wall_time().duration_since(UNIX_EPOCH).ok();
    since.and_then(|since| i64::try_from(since.as_nanos()).ok()).ok_or(CompareError::Clock)
}

/// A number that counts something, without its fraction; 0 for one below 0.
fn whole(number: f64) -> u64 {
    // A duration has a conversion that neither wraps nor truncates silently.
    Duration::try_from_secs_f64(number).map_or(0, |seconds| seconds.as_secs())
}

/// A hash that tells texts apart: 16 hexadecimal digits.
pub fn hash_text(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
