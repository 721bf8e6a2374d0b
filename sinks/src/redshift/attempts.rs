//! The attempt at the batch of each partition, as a state machine. A restart needs none of it: the ledger and the Data
//! API's tokens hold the necessary state.

use std::collections::HashMap;

use tallybus_bus::TopicPartition;
use tallybus_sdk::ledger::{self, Divergence, LedgerState, Position, Span};
use tallybus_sdk::{Batch, Fault, LedgerFloor};

use super::answer::Meaning;

/// One attempt for each partition.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    known: HashMap<TopicPartition, Known>,
    /// Where the ledger was last seen.
    pub(super) floor: LedgerFloor,
}

/// The batch, or the part of it, that a partition is writing.
#[derive(Debug)]
struct Known {
    first: u64,
    end: u64,
    part: String,
    /// Whether the ledger is read before the first request for a part.
    asks_first: bool,
    attempt: Attempt,
}

/// The state of the attempt at one batch, or at one part of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Attempt {
    /// The ledger must be read before the next request.
    Unchecked(Step),
    /// The transaction can be requested.
    Ready(Step),
    /// A request was sent and not answered: the transaction may run.
    Requested(Step),
    /// The statement with this id runs the transaction, and may still be running.
    Running {
        /// The statement's step.
        step: Step,
        /// The statement's id.
        id: String,
    },
    /// The statement failed for this reason; the effect on the batch depends on the ledger.
    Failed {
        /// The step that comes next.
        step: Step,
        /// The failure.
        failure: Failure,
    },
}

/// The values shared by all states.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Step {
    /// Part of the token: how many attempts are known to have failed.
    pub(super) number: u32,
    /// Whether an earlier request, of this process or of another, may have been applied.
    pub(super) in_doubt: bool,
    /// When the partition's ledger was first read by this process, by the service's clock in seconds since the Unix epoch. The
    /// end of an older statement says nothing about what was read then: it belongs to an earlier owner.
    pub(super) checked: Option<f64>,
    /// The table refuses the part for this reason, which must still be recorded.
    pub(super) refused: Option<String>,
}

/// A statement that failed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    pub(super) meaning: Meaning,
    /// The database's message, without secrets.
    pub(super) error: String,
    /// Whether the batch can be halved.
    pub(super) can_split: bool,
}

/// An event in an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// The batch is to be written.
    Begin,
    /// The ledger answered at this time, by the service's clock: the partition's offset, and the state of the batch.
    /// `can_split` says whether the batch has several points; `least` as for [`ledger::decide`].
    Ledger { end: Position, span: Span, at: f64, can_split: bool, least: u64 },
    /// The statements are ready: the request is about to be sent.
    Prepared,
    /// The service refused the request, so that nothing runs because of it.
    TurnedAway(Fault),
    /// The service did not answer, or gave an unexpected answer.
    Unanswered(Fault),
    /// The service accepted the request under this id.
    Accepted { id: String },
    /// The statement succeeded. `created` is when it was submitted, by the service's clock.
    Finished { created: f64 },
    /// The statement has not ended yet; `reason` says so.
    StillRunning { reason: String },
    /// The service no longer knows the statement; `reason` says so.
    Forgotten { reason: String },
    /// The statement failed, and its transaction was rolled back. `created` is when it was submitted, by the service's clock.
    Failed { failure: Failure, created: f64 },
}

/// The next action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Read the ledger, and report [`Event::Ledger`].
    AskLedger,
    /// Prepare the statements of this step, and report [`Event::Prepared`].
    Prepare(Step),
    /// Request the transaction of this step, and report the answer.
    Request(Step),
    /// Wait for the end of this statement, and report it.
    Wait(String),
    /// Return the outcome to the worker.
    WriteOutcome(Outcome),
}

/// The outcome of the write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// This attempt applied the batch, or recorded that it is refused for this reason.
    Applied { refused: Option<String> },
    /// According to the ledger, the batch was applied before.
    AlreadyApplied,
    /// According to the ledger, parts of the batch were applied before.
    PartsApplied,
    /// The ledger is in a state that no writer of this sink can have caused.
    Diverged(Divergence),
    /// It was not applied, or may not have been.
    Failed(Fault),
}

impl Attempts {
    /// The attempt at this batch or part; a new batch replaces the partition's last one.
    pub(super) fn of(&mut self, batch: &Batch) -> &mut Attempt {
        let id = &batch.id;
        let at = id.at();
        let is_first = !self.known.contains_key(&at);
        let fresh = || Known {
            first: id.first,
            end: id.end,
            part: batch.part.clone(),
            // A token returns what was done under it, even if the topic was recreated since: so the ledger is read
            // first.
            asks_first: is_first || batch.recovered,
            attempt: Attempt::new(is_first || batch.recovered, batch.recovered),
        };
        let known = self.known.entry(at).or_insert_with(fresh);
        if (known.first, known.end) != (id.first, id.end) {
            let checked = known.attempt.step().checked;
            *known = fresh();
            known.attempt.step().checked = checked;
        } else if known.part != batch.part {
            known.part.clone_from(&batch.part);
            let checked = known.attempt.step().checked;
            known.attempt = Attempt::new(known.asks_first, known.attempt.is_in_doubt());
            known.attempt.step().checked = checked;
        }
        if batch.recovered {
            known.asks_first = true;
            known.attempt.recovered();
        }
        &mut known.attempt
    }
}

impl Attempt {
    fn new(asks_first: bool, in_doubt: bool) -> Self {
        let step = Step { in_doubt, ..Step::default() };
        if asks_first { Self::Unchecked(step) } else { Self::Ready(step) }
    }

    /// Whether the batch, or a part of it, may have been applied.
    fn is_in_doubt(&self) -> bool {
        match self {
            Self::Unchecked(step) | Self::Ready(step) => step.in_doubt,
            Self::Requested(_) | Self::Running { .. } | Self::Failed { .. } => true,
        }
    }

    /// The values that every state has.
    fn step(&mut self) -> &mut Step {
        let (Self::Unchecked(step)
        | Self::Ready(step)
        | Self::Requested(step)
        | Self::Running { step, .. }
        | Self::Failed { step, .. }) = self;
        step
    }

    /// Another owner of the partition may have written the batch.
    fn recovered(&mut self) {
        self.step().in_doubt = true;
        if let Self::Ready(step) | Self::Requested(step) = self
            && step.checked.is_none()
        {
            *self = Self::Unchecked(std::mem::take(step));
        }
    }

    /// Handles an event and returns the next action. Pure. An event that has no meaning in a state is treated as
    /// [`Event::Begin`].
    pub(super) fn next(&mut self, event: Event) -> Action {
        let (state, action) = match (std::mem::take(self), event) {
            (Self::Requested(step), Event::TurnedAway(fault)) => (Self::Ready(step), failed_with(fault)),
            // The request may have been accepted; the same token asks for the same transaction.
            (Self::Requested(step), Event::Unanswered(fault)) => {
                (Self::Ready(Step { in_doubt: true, ..step }), failed_with(fault))
            }
            (state, Event::Unanswered(fault)) => (state, failed_with(fault)),
            (Self::Requested(step), Event::Accepted { id }) => Self::Running { step, id }.begin(),
            (Self::Ready(step), Event::Prepared) => (Self::Requested(step.clone()), Action::Request(step)),
            (Self::Unchecked(step), Event::Ledger { end, span, at, can_split, least }) => {
                match judge(end, &span, (step.in_doubt, least), can_split) {
                    Some(outcome) => (Self::Unchecked(step), Action::WriteOutcome(outcome)),
                    None => Self::Ready(Step { checked: step.checked.or(Some(at)), ..step }).begin(),
                }
            }
            (Self::Running { step, id }, event) => running(step, id, event),
            (Self::Failed { step, failure }, Event::Ledger { end, span, can_split, least, .. }) => {
                match judge(end, &span, (step.in_doubt, least), can_split) {
                    Some(outcome) => (Self::Unchecked(step), Action::WriteOutcome(outcome)),
                    None => failed(Step { in_doubt: true, ..step }, failure),
                }
            }
            (state, _) => state.begin(),
        };
        *self = state;
        action
    }

    /// The first action of a write.
    fn begin(self) -> (Self, Action) {
        match self {
            Self::Unchecked(_) | Self::Failed { .. } => (self, Action::AskLedger),
            Self::Ready(step) => (Self::Ready(step.clone()), Action::Prepare(step)),
            // The write that made the request was cancelled.
            Self::Requested(step) => Self::Ready(Step { in_doubt: true, ..step }).begin(),
            Self::Running { step, id } => (Self::Running { step, id: id.clone() }, Action::Wait(id)),
        }
    }
}

impl Default for Attempt {
    fn default() -> Self {
        Self::Ready(Step::default())
    }
}

fn failed_with(fault: Fault) -> Action {
    Action::WriteOutcome(Outcome::Failed(fault))
}

/// Handles the end of a statement.
fn running(step: Step, id: String, event: Event) -> (Attempt, Action) {
    match event {
        // A transaction of an earlier owner: a token returns what was done under it, also where the destination has lost it since.
        Event::Finished { created } if step.checked.is_some_and(|checked| created < checked) => {
            let step = Step { number: step.number + 1, in_doubt: true, ..step };
            (Attempt::Unchecked(step), Action::AskLedger)
        }
        Event::Finished { .. } => {
            let refused = step.refused.clone();
            (Attempt::Ready(Step { in_doubt: true, ..step }), Action::WriteOutcome(Outcome::Applied { refused }))
        }
        Event::StillRunning { reason } => (Attempt::Running { step, id }, failed_with(Fault::retry(reason))),
        // Older than the day for which statements are kept: the ledger decides.
        Event::Forgotten { reason } => {
            (Attempt::Unchecked(Step { in_doubt: true, ..step }), failed_with(Fault::retry(reason)))
        }
        Event::Failed { failure, created } => {
            let step = Step { number: step.number + 1, ..step };
            if step.checked.is_some_and(|checked| created < checked) {
                // The failure of an earlier owner.
                return Attempt::Ready(Step { in_doubt: true, ..step }).begin();
            }
            match failure.meaning {
                // The connection to the database may have failed after the commit.
                Meaning::Retry => {
                    let step = Step { in_doubt: true, ..step };
                    (Attempt::Ready(step), failed_with(Fault::retry(format!("Redshift: {}", failure.error))))
                }
                // Whatever the error was: an applied batch needs nothing more.
                _ => (Attempt::Failed { step, failure }, Action::AskLedger),
            }
        }
        _ => Attempt::Running { step, id }.begin(),
    }
}

/// Handles a failure of a batch that was not applied.
fn failed(step: Step, failure: Failure) -> (Attempt, Action) {
    let Failure { meaning, error, can_split } = failure;
    let reason = format!("Redshift: {error}");
    match meaning {
        Meaning::TooLarge => (Attempt::Ready(step), failed_with(Fault::refused(reason))),
        Meaning::BadRow if can_split => (Attempt::Ready(step), failed_with(Fault::refused(reason))),
        Meaning::BadRow if step.refused.is_none() => Attempt::Ready(Step { refused: Some(error), ..step }).begin(),
        Meaning::Retry | Meaning::Fenced => (Attempt::Ready(step), failed_with(Fault::retry(reason))),
        Meaning::BadRow | Meaning::Operator => (Attempt::Unchecked(step), failed_with(Fault::operator(reason))),
    }
}

/// The ledger's decision; `None` when the batch still has to be applied.
fn judge(end: Position, span: &Span, (in_doubt, least): (bool, u64), can_split: bool) -> Option<Outcome> {
    match ledger::decide(end, span, in_doubt, least) {
        LedgerState::NotApplied => None,
        LedgerState::Applied => Some(Outcome::AlreadyApplied),
        LedgerState::Partial if can_split => Some(Outcome::PartsApplied),
        LedgerState::Partial => Some(Outcome::Diverged(Divergence::Inside)),
        LedgerState::Diverged(how) => Some(Outcome::Diverged(how)),
    }
}

#[cfg(test)]
#[path = "attempts_tests.rs"]
mod tests;
