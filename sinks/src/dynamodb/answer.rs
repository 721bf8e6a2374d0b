//! Classifies DynamoDB's answers.

use std::time::Duration;

use tallybus_sdk::ledger::{self, LedgerState, Span};
use tallybus_sdk::{Batch, Fault, Rejection, WriteOutcome};

use crate::shared::aws::Failure;

/// The wait after an attempt that wrote a part of the batch: the adaptive concurrency already limits the request rate.
const NEXT: Duration = Duration::from_millis(100);

/// The outcome of one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was applied.
    Applied,
    /// The condition failed. The item's mark; `None` when the table does not report it.
    Held(Option<u64>),
    /// The table throttled the request.
    Throttled(String),
    /// Refused: the table will never accept this item.
    Failed(Fault),
}

impl Outcome {
    /// Whether the table will never accept the item.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Self::Failed(fault) if fault.is_refused())
    }
}

/// Classifies an error of one write. The caller handles a failed condition, because it has the item.
pub(super) fn outcome(failure: &Failure) -> Outcome {
    let reason = format!("DynamoDB: {failure}");
    let operator = |next: &str| Outcome::Failed(Fault::operator(format!("{reason}; {next}")));
    match failure.code.as_deref().unwrap_or_default() {
        "ConditionalCheckFailedException" => Outcome::Held(None),
        "TransactionConflictException" | "TransactionInProgressException" | "ReplicatedWriteConflictException" => {
            Outcome::Failed(Fault::retry(reason))
        }
        "ItemCollectionSizeLimitExceededException" => operator("use a table without local secondary indexes"),
        "ResourceNotFoundException" => {
            operator("create the table (`tallybus sink ddl`), or restart the worker with `create = true`")
        }
        "ValidationException" if is_about_the_table(&reason) => {
            operator("use a table created with `tallybus sink ddl` or `create = true`")
        }
        "ValidationException" => Outcome::Failed(Fault::refused(reason)),
        _ if failure.is_foreign => Outcome::Failed(Fault::operator(reason)),
        _ => match failure.fault {
            Fault::Retry { .. } if failure.is_throttled => Outcome::Throttled(reason),
            Fault::Retry { .. } => Outcome::Failed(Fault::retry(reason)),
            Fault::Operator { .. } => operator("check the credentials and their permissions"),
            Fault::Refused { .. } => Outcome::Failed(Fault::operator(reason)),
        },
    }
}

/// Whether a refusal concerns the table's keys, and so every item.
fn is_about_the_table(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["key element", "missing the key", "type mismatch for key", "index key", "number of conditions on the keys"]
        .iter()
        .any(|words| text.contains(words))
}

/// Interprets a failed condition for a write of this batch: either it was applied before, or operator action is needed.
/// `what` is the target of the write: an item, or the table's ledger. `end` is the partition's mark there, if the table
/// reports it; `least` as for [`ledger::decide`].
pub(super) fn held(what: &str, end: Option<u64>, batch: &Batch, is_first_try: bool, least: u64) -> Result<(), String> {
    let id = &batch.id;
    let in_doubt = batch.recovered || !is_first_try;
    // The condition failed, so the ledger is past the batch's first offset, and most likely at its end.
    match ledger::decide(end.unwrap_or(id.end), &Span::whole(id), in_doubt, least) {
        LedgerState::Diverged(how) => Err(how.describe(what, "table", id, end)),
        LedgerState::Applied if !batch.recovered && end.is_some_and(|end| end > id.end) => Err(format!(
            "{what} is past batch {id}, which this worker has begun to write: either another worker now owns the \
             partition, and this \
             one will stop; or another bus or sink writes to this table: then set a new table to count from here"
        )),
        LedgerState::Applied => Ok(()),
        LedgerState::NotApplied | LedgerState::Partial => Err(format!(
            "{what} refused batch {id} although it is not past its first offset: check what else writes to this table"
        )),
    }
}

/// The outcomes of a batch's writes so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    applied: usize,
    put_off: usize,
    reason: Option<String>,
    refused: Vec<Rejection>,
    halt: Option<String>,
}

impl Tally {
    /// When this many more writes are put off than applied, the remaining writes are not attempted.
    const PATIENCE: usize = 32;

    pub(super) fn applied(&mut self) {
        self.applied += 1;
    }

    pub(super) fn put_off(&mut self, reason: String) {
        self.put_off += 1;
        self.reason.get_or_insert(reason);
    }

    pub(super) fn refused(&mut self, points: &[usize], reason: &str) {
        self.refused.extend(points.iter().map(|point| Rejection { point: *point, reason: reason.to_owned() }));
    }

    pub(super) fn halt(&mut self, reason: String) {
        self.halt.get_or_insert(reason);
    }

    /// Whether to stop attempting the batch's remaining writes for now.
    pub(super) fn is_hopeless(&self) -> bool {
        self.halt.is_some() || self.put_off > self.applied + Self::PATIENCE
    }

    /// A retry takes precedence over rejections: rejected points are reported once all other writes are applied. `left`
    /// is the number of writes not applied.
    pub(super) fn answer(mut self, left: usize) -> WriteOutcome {
        if let Some(reason) = self.halt {
            return WriteOutcome::Halt { reason };
        }
        if let Some(reason) = self.reason {
            let after = (self.applied > 0).then_some(NEXT);
            return WriteOutcome::Retry { after, reason: format!("{left} writes remain: {reason}") };
        }
        if self.refused.is_empty() {
            return WriteOutcome::Done;
        }
        self.refused.sort_by_key(|rejection| rejection.point);
        WriteOutcome::Rejected(self.refused)
    }
}

#[cfg(test)]
mod tests {
    use tallybus_sdk::BatchId;

    use super::*;

    fn kind(outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Applied => "applied",
            Outcome::Held(_) => "held",
            Outcome::Throttled(_) => "throttled",
            Outcome::Failed(Fault::Retry { .. }) => "retry",
            Outcome::Failed(Fault::Refused { .. }) => "refused",
            Outcome::Failed(Fault::Operator { .. }) => "operator",
        }
    }

    #[test]
    fn every_error_has_its_meaning() {
        let schema = "The provided key element does not match the schema";
        let missing = "One or more parameter values were invalid: Missing the key sk in the item";
        let key_type = "One or more parameter values were invalid: Type mismatch for key pk expected: N actual: S";
        let index_type =
            "One or more parameter values were invalid: Type mismatch for Index Key name Expected: N Actual: S";
        let number = "Number overflow. Attempting to store a number with magnitude larger than supported range";
        for (code, message, status, expected) in [
            ("ConditionalCheckFailedException", "The conditional request failed", 400, "held"),
            ("ProvisionedThroughputExceededException", "", 400, "throttled"),
            ("ThrottlingException", "Rate exceeded", 400, "throttled"),
            ("RequestLimitExceeded", "", 400, "throttled"),
            ("TransactionConflictException", "", 400, "retry"),
            ("TransactionInProgressException", "", 400, "retry"),
            ("ReplicatedWriteConflictException", "", 400, "retry"),
            ("InternalServerError", "", 500, "retry"),
            ("ServiceUnavailable", "", 500, "retry"),
            ("ItemCollectionSizeLimitExceededException", "", 400, "operator"),
            ("ResourceNotFoundException", "", 400, "operator"),
            ("AccessDeniedException", "", 400, "operator"),
            ("UnrecognizedClientException", "", 400, "operator"),
            ("ExpiredTokenException", "", 400, "operator"),
            ("KMSAccessDeniedException", "", 400, "operator"),
            ("SerializationException", "", 400, "operator"),
            ("ValidationException", schema, 400, "operator"),
            ("ValidationException", missing, 400, "operator"),
            ("ValidationException", key_type, 400, "operator"),
            ("ValidationException", index_type, 400, "operator"),
            ("ValidationException", "Item size has exceeded the maximum allowed size", 400, "refused"),
            ("ValidationException", "Item size to update has exceeded the maximum", 400, "refused"),
            ("ValidationException", number, 400, "refused"),
            ("ValidationException", "An operand in the update expression has …", 400, "refused"),
        ] {
            assert_eq!(kind(&outcome(&Failure::answered(Some(code), status, message))), expected, "{code} {message}");
        }
        let lost = Failure::unanswered(Fault::retry("no answer in time"));
        assert_eq!(outcome(&lost), Outcome::Failed(Fault::retry("DynamoDB: no answer in time")));
    }

    #[test]
    fn a_failed_condition_means_written_where_another_worker_can_have_written_it() {
        let batch = |recovered| Batch {
            id: BatchId { topic: "t".into(), partition: 3, first: 10, end: 20 },
            topic_index: 0,
            series: std::sync::Arc::default(),
            points: Vec::new(),
            window: 0,
            part: String::new(),
            stream: None,
            recovered,
        };
        for (end, recovered, is_first_try, is_in) in [
            (Some(20), true, true, true),
            (Some(20), true, false, true),
            (Some(20), false, false, true),
            (Some(20), false, true, false),
            (Some(50), true, true, true),
            (Some(50), true, false, true),
            (Some(50), false, false, false),
            (Some(50), false, true, false),
            (Some(15), true, true, false),
            (Some(15), false, false, false),
            (None, true, true, true),
            (None, false, false, true),
            (None, false, true, false),
        ] {
            let found = held("an item", end, &batch(recovered), is_first_try, 0);
            assert_eq!(found.is_ok(), is_in, "{end:?} {recovered} {is_first_try}: {found:?}");
        }
        assert!(
            held("an item", Some(15), &batch(true), true, 0)
                .unwrap_err()
                .starts_with("an item is at offset 15 of t/3, inside batch t/3/10-20")
        );
    }

    #[test]
    fn a_batch_answers_the_gravest_of_its_writes() {
        assert_eq!(Tally::default().answer(0), WriteOutcome::Done);
        let mut tally = Tally::default();
        tally.applied();
        tally.refused(&[7, 3], "too large");
        let rejection = |point| Rejection { point, reason: "too large".to_owned() };
        assert_eq!(
            Tally { refused: tally.refused.clone(), ..Tally::default() }.answer(2),
            WriteOutcome::Rejected(vec![rejection(3), rejection(7)])
        );
        tally.put_off("slow down".to_owned());
        tally.put_off("no answer".to_owned());
        let WriteOutcome::Retry { after, reason } =
            (Tally { applied: 0, refused: vec![], halt: None, ..tally }).answer(2)
        else {
            panic!("no retry")
        };
        assert_eq!((after, reason.as_str()), (None, "2 writes remain: slow down"));
        let mut tally = Tally { applied: 1, ..Tally::default() };
        tally.put_off("slow down".to_owned());
        tally.halt("no table".to_owned());
        assert!(tally.is_hopeless());
        assert_eq!(tally.answer(1), WriteOutcome::Halt { reason: "no table".to_owned() });
    }

    #[test]
    fn the_rest_is_left_when_hardly_anything_goes_in() {
        let mut tally = Tally::default();
        for _ in 0..=Tally::PATIENCE {
            assert!(!tally.is_hopeless());
            tally.put_off("slow down".to_owned());
        }
        assert!(tally.is_hopeless());
        tally.applied();
        assert!(!tally.is_hopeless());
    }
}
