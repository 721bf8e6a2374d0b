//! How a sink is doing, and why, in one line.

use std::time::Duration;

use super::look::SinkLook;
use super::report::WorkerReport;
use super::{CatchUp, SinkState};

/// A sink that is behind and settles nothing for so long is stalled. Batches are at most seconds old with the default settings.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// A lag of what arrives within so many seconds is that of any sink which writes in batches.
const USUAL_LAG_SECONDS: f64 = 5.0;

/// What is known of a sink.
pub(super) struct Facts<'f> {
    pub(super) look: &'f SinkLook,
    /// What its workers said; `None` without heartbeats.
    pub(super) reports: Option<&'f [&'f WorkerReport]>,
    pub(super) lag: Option<u64>,
    pub(super) arriving: Option<f64>,
    pub(super) settled: Option<f64>,
    pub(super) catch_up: CatchUp,
    /// For how long it has been behind without settling anything.
    pub(super) waiting: Duration,
    pub(super) sealed_batches: u64,
}

/// The state of a sink, and why. Workers that operators want paused or drained are named.
pub(super) fn judge(facts: &Facts<'_>) -> (SinkState, String) {
    let fresh: Vec<&WorkerReport> =
        facts.reports.iter().flat_map(|reports| reports.iter().copied()).filter(|report| report.is_fresh()).collect();
    let resting: Vec<(&WorkerReport, bool, &str)> = fresh
        .iter()
        .filter_map(|report| report.rest.as_ref().map(|(is_drained, text)| (*report, *is_drained, text.as_str())))
        .collect();
    let Some((first, _, text)) = resting.first() else { return judge_running(facts, &fresh) };
    let others = if resting.len() > 1 { format!(" (and {} more)", resting.len() - 1) } else { String::new() };
    let is_halted = fresh.iter().any(|report| !report.halts.is_empty());
    if resting.len() == fresh.len() && !is_halted {
        let is_drained = resting.iter().all(|(_, is_drained, _)| *is_drained);
        return (if is_drained { SinkState::Drained } else { SinkState::Paused }, format!("{text}{others}"));
    }
    let (state, why) = judge_running(facts, &fresh);
    (state, format!("{why}; {} {text}{others}", first.worker))
}

fn judge_running(facts: &Facts<'_>, fresh: &[&WorkerReport]) -> (SinkState, String) {
    let halts: Vec<&String> = fresh.iter().flat_map(|report| &report.halts).collect();
    if let Some(first) = halts.first() {
        return (SinkState::Halted, with_others(first, halts.len()));
    }
    if let Some(reason) = &facts.look.foreign {
        return (SinkState::Unreadable, reason.clone());
    }
    let errors: Vec<&String> = fresh.iter().filter_map(|report| report.last_error.as_ref()).collect();
    if let Some(first) = errors.first() {
        return (SinkState::Retrying, with_others(first, errors.len()));
    }
    // Nothing else leaves the lag unknown.
    let Some(lag) = facts.lag else {
        let missing = facts.look.missing.join(", ");
        return (SinkState::NoTopic, format!("topic {missing} does not exist yet"));
    };
    if lag == 0 {
        return (SinkState::CaughtUp, "everything is settled".to_owned());
    }
    if facts.look.partitions.iter().all(|partition| partition.settled.is_none()) {
        let why = "its group has never committed: no worker has run, or none has settled its first batch".to_owned();
        return (SinkState::NotStarted, why);
    }
    if facts.waiting >= STALLED_AFTER {
        return (SinkState::Stalled, stalled(facts, fresh));
    }
    let (Some(arriving), Some(settled)) = (facts.arriving, facts.settled) else {
        return (SinkState::Measuring, "rates follow with the next look at the bus".to_owned());
    };
    if (lag as f64) <= arriving * USUAL_LAG_SECONDS && settled > 0.0 {
        return (SinkState::KeepingUp, "settles what arrives, in batches".to_owned());
    }
    if settled == 0.0 {
        return (SinkState::Measuring, format!("nothing settled for {} s", facts.waiting.as_secs()));
    }
    match facts.catch_up {
        CatchUp::WithinSeconds(_) => (SinkState::CatchingUp, "settles more than arrives".to_owned()),
        _ => (SinkState::FallingBehind, "more arrives than it settles".to_owned()),
    }
}

fn stalled(facts: &Facts<'_>, fresh: &[&WorkerReport]) -> String {
    let waited = facts.waiting.as_secs();
    let reports = facts.reports.unwrap_or_default();
    let silent = reports.iter().filter(|report| !report.is_fresh()).min_by_key(|report| report.age);
    match (silent, fresh.is_empty()) {
        (Some(silent), true) => {
            format!("nothing settled for {waited} s; worker {} silent for {} s", silent.worker, silent.age.as_secs())
        }
        (None, true) if facts.reports.is_some() => {
            format!("nothing settled for {waited} s; no worker says that it runs")
        }
        _ if facts.sealed_batches > 0 => format!("nothing settled for {waited} s: waiting for the backend"),
        _ => format!("nothing settled for {waited} s, and nothing is sealed"),
    }
}

fn with_others(first: &str, count: usize) -> String {
    if count > 1 { format!("{first} (and {} more)", count - 1) } else { first.to_owned() }
}
