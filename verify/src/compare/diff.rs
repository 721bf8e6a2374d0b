//! Two results against each other: what got better, what got worse, and what chance explains.

use serde::Serialize;

use super::Known;
use super::rank::Aspect;
use super::result::CompareResult;
use super::sink_result::{AnswerCheck, SinkResult};
use super::stats::Summary;

/// What changed from one result to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    /// Figures of sinks that both results have, in the order of the newer one.
    pub changes: Vec<Change>,
    /// What was right in the older result and is not in the newer one, or the other way round.
    pub verdicts: Vec<VerdictChange>,
    /// What else differs between the results, which may be why figures do: versions, machine, settings, sinks.
    pub notes: Vec<String>,
}

/// One figure of one sink.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Which sink.
    pub sink: String,
    /// Which figure.
    pub aspect: Aspect,
    /// The older figure; `None` where it is not known.
    pub old: Option<Summary>,
    /// The newer figure.
    pub new: Option<Summary>,
    /// The noise floor: differences up to this share are not told apart.
    pub noise: f64,
    /// What the two come to.
    pub outcome: Outcome,
}

/// What two figures come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The newer one is better: the intervals are apart, and by more than the noise floor.
    Better,
    /// The newer one is worse, likewise.
    Worse,
    /// The intervals overlap, or differ by no more than the noise floor.
    NoDifferenceSeen,
    /// Only the newer result knows it.
    New,
    /// Only the older result knows it.
    NoLongerKnown,
}

/// A sink's completeness or answer that became right or wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerdictChange {
    /// Which sink.
    pub sink: String,
    /// What about it.
    pub what: String,
    /// Better, or worse.
    pub outcome: Outcome,
    /// What it is now, for people.
    pub now: String,
}

/// Why two results cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    /// They are of other events.
    #[error("the two results are of different workloads ({0}), so that their figures say nothing about each other")]
    OtherWorkload(String),
    /// One is of running workers, the other of shadow destinations.
    #[error("one result is of running workers and the other of shadow destinations")]
    OtherMode,
}

impl Diff {
    /// Compares two results of the same workload; with `any_workload` of any, which the notes then say.
    ///
    /// # Errors
    /// Their figures cannot be compared.
    pub fn of(old: &CompareResult, new: &CompareResult, any_workload: bool) -> Result<Self, DiffError> {
        if old.method.mode != new.method.mode {
            return Err(DiffError::OtherMode);
        }
        let mut notes = Vec::new();
        if let Some(difference) = workload_difference(old, new) {
            if !any_workload {
                return Err(DiffError::OtherWorkload(difference));
            }
            notes.push(format!("different workloads: {difference}"));
        }
        notes.extend(other_circumstances(old, new));
        let (mut changes, mut verdicts) = (Vec::new(), Vec::new());
        for sink in new.sinks.iter().filter(|sink| sink.control_of.is_none()) {
            let Some(before) = old.sink(&sink.name) else {
                notes.push(format!("sink {} is only in the newer result", sink.name));
                continue;
            };
            if before.fingerprint != sink.fingerprint {
                notes.push(format!("sink {} has other settings", sink.name));
            }
            if before.version != sink.version && before.version.get().is_some() && sink.version.get().is_some() {
                notes.push(format!("sink {} has another version of its backend", sink.name));
            }
            verdicts.extend(verdict_changes(before, sink));
            let figures = Aspect::ALL.into_iter().filter_map(|aspect| {
                let noise = noise_of(old, aspect).max(noise_of(new, aspect));
                change(&sink.name, aspect, before.summary(aspect), sink.summary(aspect), noise)
            });
            changes.extend(figures);
        }
        let is_gone = |sink: &&SinkResult| sink.control_of.is_none() && new.sink(&sink.name).is_none();
        let gone = old.sinks.iter().filter(is_gone);
        notes.extend(gone.map(|sink| format!("sink {} is only in the older result", sink.name)));
        Ok(Self { changes, verdicts, notes })
    }

    /// Whether something got worse beyond the intervals and the noise floor, or is wrong that was right.
    pub fn has_worse(&self) -> bool {
        let outcomes = self.changes.iter().map(|change| change.outcome);
        outcomes.chain(self.verdicts.iter().map(|verdict| verdict.outcome)).any(|outcome| outcome == Outcome::Worse)
    }
}

/// Which events were written; `None` when they are the same. Offsets may differ: a stream can be published again.
fn workload_difference(old: &CompareResult, new: &CompareResult) -> Option<String> {
    let (old, new) = (&old.workload, &new.workload);
    let known = |figure: &Known<u64>| figure.get().copied().map(u128::from);
    let count = |figure: u64| Some(u128::from(figure));
    let figures = [
        ("events", count(old.events), count(new.events)),
        ("series", known(&old.series), known(&new.series)),
        ("messages", count(old.messages), count(new.messages)),
        ("bytes", known(&old.bytes), known(&new.bytes)),
        ("sum of values", Some(old.total.0), Some(new.total.0)),
        ("undecodable", count(old.undecodable), count(new.undecodable)),
    ];
    let differing = figures.into_iter().filter_map(|(what, old, new)| Some((what, old?, new?)));
    let differing = differing.filter(|(_, old, new)| old != new);
    let texts: Vec<String> = differing.map(|(what, old, new)| format!("{what}: {old} and {new}")).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn other_circumstances(old: &CompareResult, new: &CompareResult) -> Vec<String> {
    let (before, now) = (&old.environment, &new.environment);
    let mut notes = Vec::new();
    if before.tallybus != now.tallybus {
        notes.push(format!("tallybus {} and {}", before.tallybus, now.tallybus));
    }
    for (what, differs) in [
        ("host", before.host != now.host),
        ("system", before.system != now.system),
        ("CPU", before.cpu != now.cpu),
        ("number of CPUs", before.cpus != now.cpus),
        ("memory", before.memory != now.memory),
    ] {
        if differs {
            notes.push(format!("another {what}"));
        }
    }
    if old.method.fingerprint != new.method.fingerprint {
        notes.push("measured with other settings of the comparison".to_owned());
    }
    notes
}

fn noise_of(result: &CompareResult, aspect: Aspect) -> f64 {
    result.noise.iter().find(|noise| noise.aspect == aspect).map_or(0.0, |noise| noise.difference)
}

/// `None` where neither result knows the figure.
fn change(sink: &str, aspect: Aspect, old: Option<&Summary>, new: Option<&Summary>, noise: f64) -> Option<Change> {
    let outcome = match (old, new) {
        (None, None) => return None,
        (None, Some(_)) => Outcome::New,
        (Some(_), None) => Outcome::NoLongerKnown,
        (Some(old), Some(new)) if old.overlaps(new) || old.difference(new) <= noise => Outcome::NoDifferenceSeen,
        (Some(old), Some(new)) if (new.median > old.median) == aspect.more_is_better() => Outcome::Better,
        (Some(_), Some(_)) => Outcome::Worse,
    };
    Some(Change { sink: sink.to_owned(), aspect, old: old.cloned(), new: new.cloned(), noise, outcome })
}

fn verdict_changes(old: &SinkResult, new: &SinkResult) -> Vec<VerdictChange> {
    let mut changes = Vec::new();
    let mut add = |what: String, before: bool, now: bool, text: String| {
        let outcome = if now { Outcome::Better } else { Outcome::Worse };
        if before != now {
            changes.push(VerdictChange { sink: new.name.clone(), what, outcome, now: text });
        }
    };
    let now = match &new.completeness {
        Known::Is(completeness) => {
            completeness.fault().map_or_else(|| "equal".to_owned(), |fault| format!("not equal: {fault}"))
        }
        Known::Unknown(reason) => format!("not audited: {reason}"),
    };
    add("holds what it must".to_owned(), old.is_complete(), new.is_complete(), now);
    for question in &new.questions {
        let Some(before) = old.questions.iter().find(|before| before.name == question.name) else { continue };
        let is_right = |answer: &AnswerCheck| !matches!(answer, AnswerCheck::Wrong { .. } | AnswerCheck::Failed { .. });
        let now = match &question.answer {
            AnswerCheck::Right => "right".to_owned(),
            AnswerCheck::Wrong { why } => format!("wrong: {why}"),
            AnswerCheck::NotOffered { why } => format!("not offered: {why}"),
            AnswerCheck::Failed { why } => format!("failed: {why}"),
        };
        add(format!("answer to {}", question.name), is_right(&before.answer), is_right(&question.answer), now);
    }
    changes
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
