use std::sync::Arc;

use tallybus_sdk::BatchId;

use super::*;

fn batch(first: u64, part: &str, recovered: bool) -> Batch {
    Batch {
        id: BatchId { topic: "t".into(), partition: 0, first, end: first + 5 },
        topic_index: 0,
        series: Arc::default(),
        points: Vec::new(),
        window: 1,
        part: part.to_owned(),
        stream: None,
        recovered,
    }
}

/// An attempt of this number at a batch that was not begun before.
fn step(number: u32) -> Step {
    Step { number, ..Step::default() }
}

fn doubtful(number: u32) -> Step {
    Step { in_doubt: true, ..step(number) }
}

fn refusing(number: u32) -> Step {
    Step { refused: Some("why".to_owned()), ..doubtful(number) }
}

fn running(step: Step) -> Attempt {
    Attempt::Running { step, id: "id".to_owned() }
}

fn failure(meaning: Meaning, can_split: bool) -> Failure {
    Failure { meaning, error: "why".to_owned(), can_split }
}

fn failed(step: Step, meaning: Meaning) -> Attempt {
    Attempt::Failed { step, failure: failure(meaning, false) }
}

fn ended(meaning: Meaning, created: f64) -> Event {
    Event::Failed { failure: failure(meaning, false), created }
}

/// Where the ledger can be, seen from the batch of offsets 10 to 20.
#[derive(Clone, Copy)]
enum At {
    Before,
    Within,
    Behind,
    Astray,
}

fn ledger(at: At) -> Event {
    answered(at, true)
}

fn answered(at: At, can_split: bool) -> Event {
    let end = match at {
        At::Before => Position::from(10),
        At::Within => Position { offset: 10, part: 1 << 61 },
        At::Behind => Position::from(20),
        At::Astray => Position::from(15),
    };
    let span = Span { from: Position::from(10), to: Position::from(20) };
    Event::Ledger { end, span, at: 100.0, can_split, least: 0 }
}

fn answer(outcome: Outcome) -> Action {
    Action::WriteOutcome(outcome)
}

fn why() -> String {
    "Redshift: why".to_owned()
}

fn check(table: impl IntoIterator<Item = (Attempt, Event, Attempt, Action)>) {
    for (state, event, expected, action) in table {
        let mut attempt = state.clone();
        let found = attempt.next(event.clone());
        assert_eq!((attempt, found), (expected, action), "{state:?} on {event:?}");
    }
}

#[test]
fn a_write_begins_where_the_attempt_is() {
    use Attempt::{Ready, Requested, Unchecked};
    check([
        (Unchecked(step(0)), Event::Begin, Unchecked(step(0)), Action::AskLedger),
        (Ready(step(2)), Event::Begin, Ready(step(2)), Action::Prepare(step(2))),
        (Ready(step(2)), Event::Prepared, Requested(step(2)), Action::Request(step(2))),
        // Cut off after the request had left: the same token, and from now on it may be in.
        (Requested(step(2)), Event::Begin, Ready(doubtful(2)), Action::Prepare(doubtful(2))),
        (running(step(1)), Event::Begin, running(step(1)), Action::Wait("id".to_owned())),
        (failed(step(1), Meaning::Fenced), Event::Begin, failed(step(1), Meaning::Fenced), Action::AskLedger),
    ]);
}

#[test]
fn a_request_is_in_doubt_unless_the_service_turned_it_away() {
    use Attempt::{Ready, Requested, Unchecked};
    let busy = || Fault::retry("busy");
    let accepted = Event::Accepted { id: "id".to_owned() };
    check([
        (Requested(step(0)), Event::TurnedAway(busy()), Ready(step(0)), failed_with(busy())),
        (Requested(doubtful(0)), Event::TurnedAway(busy()), Ready(doubtful(0)), failed_with(busy())),
        (Requested(step(0)), Event::Unanswered(busy()), Ready(doubtful(0)), failed_with(busy())),
        (Requested(step(0)), accepted, running(step(0)), Action::Wait("id".to_owned())),
        // No answer to anything else changes nothing.
        (Unchecked(step(0)), Event::Unanswered(busy()), Unchecked(step(0)), failed_with(busy())),
        (Ready(step(0)), Event::Unanswered(busy()), Ready(step(0)), failed_with(busy())),
        (running(step(0)), Event::Unanswered(busy()), running(step(0)), failed_with(busy())),
        (
            failed(step(1), Meaning::Fenced),
            Event::Unanswered(busy()),
            failed(step(1), Meaning::Fenced),
            failed_with(busy()),
        ),
    ]);
}

#[test]
fn the_ledger_decides_before_the_first_request() {
    use At::{Astray, Before, Behind, Within};
    use Attempt::{Ready, Unchecked};
    let checked = |step| Step { checked: Some(100.0), ..step };
    let long_ago = |step| Step { checked: Some(1.0), ..step };
    let diverged = |how| answer(Outcome::Diverged(how));
    let single = answered(Within, false);
    check([
        (Unchecked(step(0)), ledger(Before), Ready(checked(step(0))), Action::Prepare(checked(step(0)))),
        // The first question tells the failures of earlier owners from those of this one.
        (Unchecked(long_ago(step(3))), ledger(Before), Ready(long_ago(step(3))), Action::Prepare(long_ago(step(3)))),
        (Unchecked(doubtful(0)), ledger(Behind), Unchecked(doubtful(0)), answer(Outcome::AlreadyApplied)),
        (Unchecked(doubtful(0)), ledger(Within), Unchecked(doubtful(0)), answer(Outcome::PartsApplied)),
        (Unchecked(doubtful(0)), single, Unchecked(doubtful(0)), diverged(Divergence::Inside)),
        (Unchecked(doubtful(0)), ledger(Astray), Unchecked(doubtful(0)), diverged(Divergence::Inside)),
        (Unchecked(step(0)), ledger(Behind), Unchecked(step(0)), diverged(Divergence::Ahead)),
        (Unchecked(step(0)), ledger(Within), Unchecked(step(0)), diverged(Divergence::Inside)),
        (Unchecked(step(0)), ledger(Astray), Unchecked(step(0)), diverged(Divergence::Inside)),
    ]);
}

#[test]
fn every_end_of_a_statement_has_its_next_step() {
    use Attempt::{Ready, Unchecked};
    let text = || "text".to_owned();
    let retry = || failed_with(Fault::retry(text()));
    let since = |step| Step { checked: Some(50.0), ..step };
    let applied = |refused| answer(Outcome::Applied { refused });
    check([
        (running(step(1)), Event::Finished { created: 1.0 }, Ready(doubtful(1)), applied(None)),
        (running(refusing(1)), Event::Finished { created: 1.0 }, Ready(refusing(1)), applied(Some("why".to_owned()))),
        // The service returned what was done under the token before this process read the ledger: it may be lost since.
        (running(since(step(1))), Event::Finished { created: 49.0 }, Unchecked(since(doubtful(2))), Action::AskLedger),
        (running(since(step(1))), Event::Finished { created: 50.0 }, Ready(since(doubtful(1))), applied(None)),
        (running(step(1)), Event::StillRunning { reason: text() }, running(step(1)), retry()),
        (running(step(1)), Event::Forgotten { reason: text() }, Unchecked(doubtful(1)), retry()),
        // The connection may have failed after the commit.
        (running(step(1)), ended(Meaning::Retry, 0.0), Ready(doubtful(2)), failed_with(Fault::retry(why()))),
        (running(step(1)), ended(Meaning::Fenced, 0.0), failed(step(2), Meaning::Fenced), Action::AskLedger),
        (running(step(1)), ended(Meaning::Operator, 0.0), failed(step(2), Meaning::Operator), Action::AskLedger),
        // A failure that is older than the question to the ledger: the next attempt, at once.
        (
            running(since(step(1))),
            ended(Meaning::Operator, 49.0),
            Ready(since(doubtful(2))),
            Action::Prepare(since(doubtful(2))),
        ),
        (
            running(since(step(1))),
            ended(Meaning::Operator, 50.0),
            failed(since(step(2)), Meaning::Operator),
            Action::AskLedger,
        ),
    ]);
}

#[test]
fn the_ledger_decides_what_a_failure_means() {
    use At::{Before, Behind, Within};
    use Attempt::{Ready, Unchecked};
    let splittable = Attempt::Failed { step: step(1), failure: failure(Meaning::BadRow, true) };
    let already_refusing = failed(refusing(2), Meaning::BadRow);
    check([
        (failed(doubtful(1), Meaning::Fenced), ledger(Behind), Unchecked(doubtful(1)), answer(Outcome::AlreadyApplied)),
        (failed(doubtful(1), Meaning::Operator), ledger(Within), Unchecked(doubtful(1)), answer(Outcome::PartsApplied)),
        // It cannot have been written before: the next answer is no milder.
        (
            failed(step(1), Meaning::Fenced),
            ledger(Behind),
            Unchecked(step(1)),
            answer(Outcome::Diverged(Divergence::Ahead)),
        ),
        (failed(step(1), Meaning::Fenced), ledger(Before), Ready(doubtful(1)), failed_with(Fault::retry(why()))),
        (failed(step(1), Meaning::TooLarge), ledger(Before), Ready(doubtful(1)), failed_with(Fault::refused(why()))),
        (
            failed(step(1), Meaning::Operator),
            ledger(Before),
            Unchecked(doubtful(1)),
            failed_with(Fault::operator(why())),
        ),
        (splittable, ledger(Before), Ready(doubtful(1)), failed_with(Fault::refused(why()))),
        // A single row that the table refuses: the refusal is recorded, at once.
        (failed(step(1), Meaning::BadRow), ledger(Before), Ready(refusing(1)), Action::Prepare(refusing(1))),
        (already_refusing, ledger(Before), Unchecked(refusing(2)), failed_with(Fault::operator(why()))),
    ]);
}

#[test]
fn the_first_batch_of_a_partition_and_a_recovered_one_ask_the_ledger_first() {
    let mut attempts = Attempts::default();
    assert_eq!(*attempts.of(&batch(0, "", false)), Attempt::Unchecked(step(0)));
    assert_eq!(*attempts.of(&batch(5, "", false)), Attempt::Ready(step(0)));
    assert_eq!(*attempts.of(&batch(10, "", true)), Attempt::Unchecked(doubtful(0)));
    assert_eq!(*attempts.of(&batch(15, "", false)), Attempt::Ready(step(0)));
    // The partition's first look at the ledger also tells the statements of later batches from those of earlier owners.
    attempts.of(&batch(15, "", false)).step().checked = Some(7.0);
    let since = |step| Step { checked: Some(7.0), ..step };
    assert_eq!(*attempts.of(&batch(20, "", false)), Attempt::Ready(since(step(0))));
    assert_eq!(*attempts.of(&batch(20, "0", false)), Attempt::Ready(since(step(0))));
    attempts.of(&batch(15, "", false)).step().checked = None;
    // Found again by the same process: another owner had the partition meanwhile.
    assert_eq!(*attempts.of(&batch(15, "", true)), Attempt::Unchecked(doubtful(0)));
}

#[test]
fn a_part_begins_at_attempt_0_in_doubt_and_another_batch_starts_over() {
    let mut attempts = Attempts::default();
    attempts.of(&batch(0, "", false));
    *attempts.of(&batch(5, "", false)) = running(step(3));
    assert_eq!(*attempts.of(&batch(5, "", false)), running(step(3)), "the same batch goes on");
    assert_eq!(*attempts.of(&batch(5, "0", false)), Attempt::Ready(doubtful(0)));
    assert_eq!(*attempts.of(&batch(10, "", false)), Attempt::Ready(step(0)));
    assert_eq!(*attempts.of(&batch(5, "", false)), Attempt::Ready(step(0)), "only the last batch is known");
}

#[test]
fn parts_of_a_partitions_first_batch_ask_the_ledger_too() {
    let mut attempts = Attempts::default();
    *attempts.of(&batch(0, "", false)) = Attempt::Ready(doubtful(1));
    assert_eq!(*attempts.of(&batch(0, "0", false)), Attempt::Unchecked(doubtful(0)));
}
