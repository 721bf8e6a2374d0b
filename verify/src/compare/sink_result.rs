//! What was measured of one sink.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tallybus_sdk::text::count_of;

use super::latency::Latency;
use super::rank::Aspect;
use super::stats::Summary;
use super::{Known, Total};
use crate::audit::{SinkFindings, Verdict};

/// What was measured of one sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkResult {
    /// Its name in the settings; of the control, `NAME (control)`.
    pub name: String,
    /// The sink that it repeats, if it is the control.
    pub control_of: Option<String>,
    /// Its kind of backend.
    pub kind: String,
    /// Where it wrote, without secrets.
    pub destination: Known<String>,
    /// The backend's version.
    pub version: Known<String>,
    /// Its delivery guarantee under these settings.
    pub delivery_guarantee: Known<String>,
    /// The length of its window in nanoseconds; 0: each event is its own point.
    pub window_nanos: Known<i64>,
    /// A hash of its settings, without secrets and without the destination's name.
    pub fingerprint: String,
    /// What it holds against what it must hold: of all audits the worst.
    pub completeness: Known<Completeness>,
    /// The rounds that count, in order; the warm-up is not among them.
    pub rounds: Vec<Round>,
    /// What the figures of the rounds come to.
    pub summaries: BTreeMap<Aspect, Known<Summary>>,
    /// Times from emit to queryable.
    pub latency: Known<Latency>,
    /// The steps that its sustainable rate was found by, in order.
    pub rate_steps: Known<Vec<RateStep>>,
    /// Messages that its group settled per second while it was watched.
    pub settled_rate: Known<f64>,
    /// The standard questions.
    pub questions: Vec<QuestionResult>,
    /// The storage that the destination took after the last round.
    pub storage: Known<StorageTaken>,
    /// Further notes, for people.
    pub notes: Vec<String>,
}

impl SinkResult {
    /// Whether it holds exactly what it must, in every audit. Only then it is ranked.
    pub fn is_complete(&self) -> bool {
        self.completeness.get().is_some_and(|completeness| completeness.is_complete)
    }

    /// A summary, if it is known.
    pub fn summary(&self, aspect: Aspect) -> Option<&Summary> {
        self.summaries.get(&aspect).and_then(Known::get)
    }
}

/// The result of an audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completeness {
    /// Whether the sink holds exactly what the stream has: equal, nothing behind, no value in dead letters.
    pub is_complete: bool,
    /// The audit's verdicts, most serious first.
    pub verdicts: Vec<String>,
    /// The sum that it must hold.
    pub expected: Total,
    /// The sum that it holds.
    pub held: Total,
    /// The sum over the windows that hold less than they must.
    pub missing: Total,
    /// The sum over the windows that hold more than they may.
    pub extra: Total,
    /// Messages that it has not settled.
    pub behind: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// The value in them, which it does not hold.
    pub dead_total: Total,
    /// Points that no sink wrote.
    pub foreign_points: u64,
    /// Series that differ.
    pub differing_series: u64,
    /// Windows that differ.
    pub differing_windows: u64,
    /// The round that it comes from, counted from 1; `None` for another audit than a round's.
    pub round: Option<u64>,
}

/// Whether events are published while a sink is audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// None are: a sink that is behind has not written everything.
    AtRest,
    /// The stream goes on: some messages are always on their way.
    Flowing,
}

impl Completeness {
    /// What an audit found.
    pub fn of(findings: &SinkFindings, verdicts: &[Verdict], round: Option<u64>, stream: StreamState) -> Self {
        let is_complete = findings.equal()
            && (findings.behind == 0 || stream == StreamState::Flowing)
            && findings.dead_total == 0
            && findings.wrong_dead_letter_count == 0
            && findings.foreign.off_window() == 0;
        Self {
            is_complete,
            verdicts: verdicts.iter().map(|verdict| verdict.word().to_owned()).collect(),
            expected: Total(findings.expected),
            held: Total(findings.total),
            missing: Total(findings.missing),
            extra: Total(findings.extra),
            behind: findings.behind,
            dead_letters: findings.dead_letters,
            dead_total: Total(findings.dead_total),
            foreign_points: findings.foreign.left_out() + findings.foreign.off_window(),
            differing_series: findings.differing_series as u64,
            differing_windows: findings.differing_windows,
            round,
        }
    }

    /// What is wrong with it, for people; `None` when it is complete.
    pub fn fault(&self) -> Option<String> {
        if self.is_complete {
            return None;
        }
        let figures = [(self.missing.0, "missing"), (self.extra.0, "extra"), (self.dead_total.0, "in dead letters")];
        let mut parts: Vec<String> =
            figures.iter().filter(|(figure, _)| *figure > 0).map(|(figure, what)| format!("{figure} {what}")).collect();
        if self.behind > 0 {
            parts.push(format!("{} behind", count_of(self.behind, "message")));
        }
        if self.foreign_points > 0 {
            parts.push(count_of(self.foreign_points, "foreign point"));
        }
        if parts.is_empty() {
            parts.push(self.verdicts.join(", "));
        }
        let place = self.round.map_or_else(|| " at the end".to_owned(), |round| format!(" in round {round}"));
        Some(format!("{}{place}", parts.join(", ")))
    }

    /// The worse one of two: the one that is not complete, and then the one with the larger difference.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let badness =
            |one: &Self| (!one.is_complete, one.missing.0.saturating_add(one.extra.0), one.dead_total, one.behind);
        if badness(&other) > badness(&self) { other } else { self }
    }
}

/// One run of one sink over the whole range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Counted from 1.
    pub number: u64,
    /// From the first batch that was handed to the sink until everything was settled.
    pub seconds: Known<f64>,
    /// Events that were written.
    pub events: u64,
    /// Events written per second, from the first batch on. The last batch of a partition is not full and waits for its greatest
    /// age: it is left out where the partition has others.
    pub events_per_second: Known<f64>,
    /// Batches settled.
    pub batches: u64,
    /// Calls of the sink's write, retries and parts of split batches included.
    pub writes: u64,
    /// Points in the writes that the backend took.
    pub points: u64,
    /// How long the writes that the backend took lasted.
    pub write_seconds: Known<Spread>,
    /// How many points each of them had.
    pub write_points: Known<Spread>,
    /// Writes that the backend deferred.
    pub retries: u64,
    /// Writes that had to be halved.
    pub splits: u64,
    /// Points that the backend refused for good.
    pub rejections: u64,
    /// Writes after which the sink needed operator action.
    pub halts: u64,
    /// Requests to the backend as the sink counts them.
    pub requests: Known<f64>,
    /// Bytes that were sent to the backend as the sink counts them.
    pub bytes: Known<f64>,
    /// What it consumed in the backend's own units.
    pub usage: Vec<UsageFigure>,
    /// Bytes of storage that the destination took after it.
    pub storage: Known<u64>,
}

/// What the lag did at one rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateStep {
    /// Events per second that were meant to be emitted.
    pub intended: f64,
    /// Events per second that were.
    pub reached: f64,
    /// By how many messages the lag grew per second, by the least squares of its samples.
    pub lag_growth: f64,
    /// Whether the lag grew by more than its samples scatter.
    pub grows: bool,
}

/// How figures are spread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of them are no larger.
    pub p50: f64,
    /// 99 % of them are no larger.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// What was consumed, in the backend's own units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsageFigure {
    /// The unit.
    pub what: String,
    /// How much.
    pub amount: f64,
}

/// One standard question to one backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuestionResult {
    /// Its short name, as `total_by_tag`.
    pub name: String,
    /// What was asked, for people.
    pub asked: String,
    /// What the answer is worth.
    pub answer: AnswerCheck,
    /// How long the first run took. It is not called cold: what backend and system keep in memory is not known.
    pub first: Known<f64>,
    /// How long each later run took.
    pub later_runs: Vec<f64>,
    /// What the later runs come to.
    pub later: Known<Summary>,
}

/// An answer against the bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum AnswerCheck {
    /// Every run answered what the bus says.
    Right,
    /// A run answered something else.
    Wrong {
        /// What, for people.
        why: String,
    },
    /// The sink does not offer the question.
    NotOffered {
        /// Why not.
        why: String,
    },
    /// The backend could not be asked.
    Failed {
        /// Why.
        why: String,
    },
}

/// The storage that a destination takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageTaken {
    /// Bytes.
    pub bytes: u64,
    /// What they are, in the backend's terms.
    pub what: String,
}
