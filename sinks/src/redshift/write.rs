//! Writes one batch, or one part of it, to the table.

use std::sync::atomic::Ordering;

use tallybus_sdk::ledger::{Position, Span};
use tallybus_sdk::text::clip;
use tallybus_sdk::{Batch, Encoded, Fault, Point, Rejection, WriteOutcome};

use super::RedshiftSink;
use super::answer::{Meaning, of_statement};
use super::attempts::{Action, Event, Failure, Outcome, Step};
use super::client::{Cell, End, RequestFailure};
use super::encode::MAX_STATEMENTS;
use super::statements::{self, Frame};
use crate::shared::fingerprint::fingerprint;

/// The most attempts that one write makes: a new owner skips the failed attempts of earlier ones.
const MAX_ATTEMPTS: u32 = 10_000;

/// The ledger's answer.
#[derive(Default)]
struct Found {
    position: Position,
    refused: Vec<(u64, u64, String)>,
    /// When it was read, by the service's clock.
    at: f64,
}

pub(super) async fn write(sink: &RedshiftSink, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
    if encoded.rejected.len() == batch.points.len() {
        return WriteOutcome::Done;
    }
    if encoded.is_nothing() {
        let reason = format!("its rows do not fit into {MAX_STATEMENTS} statements of 100 kB");
        return WriteOutcome::Split { reason };
    }
    let Some(span) = Span::of(batch) else {
        return WriteOutcome::Halt {
            reason: format!("{} was halved more often than the ledger can record", batch.key()),
        };
    };
    let _turn = sink.turn.lock().await;
    let mut writing = Writing { sink, batch, encoded, span, found: Found::default(), statements: Vec::new() };
    writing.settle().await
}

struct Writing<'w> {
    sink: &'w RedshiftSink,
    batch: &'w Batch,
    encoded: &'w Encoded,
    span: Span,
    /// The ledger's last answer.
    found: Found,
    /// The statements of the attempt that is being made.
    statements: Vec<String>,
}

impl Writing<'_> {
    /// Every step of an attempt is stored before anything is awaited: a cancelled write is resumed where it was.
    fn next(&self, event: Event) -> Action {
        self.sink.attempts().of(self.batch).next(event)
    }

    async fn settle(&mut self) -> WriteOutcome {
        let mut made = 0;
        let mut action = self.next(Event::Begin);
        loop {
            let done = match action {
                Action::AskLedger => self.ask().await,
                Action::Prepare(_) if made == MAX_ATTEMPTS => {
                    let reason = format!("{MAX_ATTEMPTS} attempts at {} have failed before", self.batch.key());
                    return WriteOutcome::Retry { after: None, reason };
                }
                Action::Prepare(step) => {
                    made += 1;
                    self.prepare(&step).await
                }
                Action::Request(step) => self.request(&step).await,
                Action::Wait(id) => self.wait(&id).await,
                Action::WriteOutcome(outcome) => return self.answer(outcome).await,
            };
            action = self.next(match done {
                Ok(event) => event,
                Err(failure) => Event::Unanswered(failure.fault),
            });
        }
    }

    /// Prepares the statements of a step.
    async fn prepare(&mut self, step: &Step) -> Result<Event, RequestFailure> {
        self.statements = match (&step.refused, &self.sink.stage) {
            (Some(reason), _) => {
                let refuse = statements::refuse(self.batch, &self.sent(), reason, &self.sink.tables);
                self.frame().around([refuse])
            }
            (None, Some(stage)) => {
                let object = self.encoded.as_bytes().map_err(Fault::from)?;
                stage.put(self.batch, object).await.map_err(Fault::from)?;
                let bytes = u64::try_from(object.len()).unwrap_or_default();
                self.sink.client.used.staged_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.frame().around([stage.statement(self.batch, &self.sink.tables)])
            }
            (None, None) => self.frame().around(self.rows()?),
        };
        Ok(Event::Prepared)
    }

    /// Requests the transaction.
    async fn request(&mut self, step: &Step) -> Result<Event, RequestFailure> {
        let statements = std::mem::take(&mut self.statements);
        let key = self.batch.key();
        let token = token(&self.sink.scope, &key, &statements, step.number);
        let name = format!("tallybus {} {key}", self.sink.name);
        match self.sink.client.submit(statements, Some(token), clip(&name, 400)).await {
            Ok(id) => Ok(Event::Accepted { id }),
            Err(failure) if failure.answered => Ok(Event::TurnedAway(failure.fault)),
            Err(failure) => Err(failure),
        }
    }

    /// Waits for the end of a statement, for as long as one write does.
    async fn wait(&self, id: &str) -> Result<Event, RequestFailure> {
        let key = self.batch.key();
        let failed = |error: &str, created, meaning: Option<Meaning>| {
            let error = self.sink.client.clean(error);
            let meaning = meaning.unwrap_or_else(|| of_statement(&error));
            let failure = Failure { meaning, error, can_split: self.batch.split().is_some() };
            Event::Failed { failure, created }
        };
        Ok(match self.sink.client.wait(id).await? {
            End::Finished { created } => Event::Finished { created },
            End::Running(state) => {
                let reason = format!(
                    "Redshift: statement {id} of {key} is still {state}. While it is STARTED it may wait for the LOCK on {}: for \
                     every open transaction that has read or written that table (svv_transactions lists them)",
                    self.sink.tables.ledger()
                );
                Event::StillRunning { reason }
            }
            End::Unknown => {
                Event::Forgotten { reason: format!("Redshift: the Data API no longer knows statement {id} of {key}") }
            }
            End::Failed { error, created } => failed(&error, created, None),
            End::Aborted { error, created } => failed(&error, created, Some(Meaning::Retry)),
        })
    }

    /// Where the partition's ledger was last seen.
    fn least(&self) -> u64 {
        self.sink.attempts().floor.of(&self.batch.id.at())
    }

    fn frame(&self) -> Frame {
        Frame::of(self.batch, &self.span, self.least(), &self.sink.tables)
    }

    fn rows(&self) -> Result<Vec<String>, Fault> {
        let texts = self.encoded.as_many()?.iter().map(|statement| std::str::from_utf8(statement));
        let texts: Result<Vec<&str>, _> = texts.collect();
        let texts = texts.map_err(|error| Fault::operator(format!("{}: {error}", self.batch.key())))?;
        Ok(texts.into_iter().map(str::to_owned).collect())
    }

    /// Reads the ledger.
    async fn ask(&mut self) -> Result<Event, RequestFailure> {
        let rows = self.sink.client.query(&statements::look(self.batch, &self.sink.tables)).await?;
        let mut found = Found { at: rows.created, ..Found::default() };
        for row in &rows.rows {
            let number = |at: usize| row.get(at).and_then(Cell::number::<u64>).unwrap_or_default();
            match number(0) {
                0 => {
                    let part = i64::try_from(number(2)).unwrap_or(i64::MAX);
                    found.position = found.position.max(Position { offset: number(1), part });
                }
                _ => found.refused.push((
                    number(1),
                    number(2),
                    row.get(3).map(Cell::text).unwrap_or_default().to_owned(),
                )),
            }
        }
        self.found = found;
        let (end, at) = (self.found.position, self.found.at);
        Ok(Event::Ledger { end, span: self.span, at, can_split: self.batch.points.len() > 1, least: self.least() })
    }

    /// The outcome for the worker. An applied batch no longer needs its staged object.
    async fn answer(&self, outcome: Outcome) -> WriteOutcome {
        if let Outcome::Applied { .. } | Outcome::AlreadyApplied = outcome {
            self.sink.attempts().floor.raise(self.batch.id.at(), self.span.to.offset);
        }
        let rejected = match outcome {
            Outcome::Applied { refused: None } => Vec::new(),
            Outcome::Applied { refused: Some(reason) } => self.refused(&reason),
            Outcome::AlreadyApplied => self.remembered(&self.found.refused),
            Outcome::PartsApplied => {
                return WriteOutcome::Split { reason: format!("parts of {} are already written", self.batch.key()) };
            }
            Outcome::Diverged(how) => {
                let (table, end) = (self.sink.tables.counters(), self.found.position.offset);
                return WriteOutcome::Halt { reason: how.describe(&table, "table", &self.batch.id, Some(end)) };
            }
            Outcome::Failed(fault) => return fault.into(),
        };
        if let Some(stage) = &self.sink.stage {
            stage.delete(self.batch).await;
        }
        if rejected.is_empty() { WriteOutcome::Done } else { WriteOutcome::Rejected(rejected) }
    }

    /// Points of this batch that were refused before.
    fn remembered(&self, refused: &[(u64, u64, String)]) -> Vec<Rejection> {
        let mut rejected = Vec::new();
        if refused.is_empty() {
            return rejected;
        }
        for (index, point) in self.batch.points.iter().enumerate() {
            let same = |(offset, place, _): &&(u64, u64, String)| {
                *offset == point.first.offset && *place == u64::from(point.first.index)
            };
            if let Some((_, _, reason)) = refused.iter().find(same) {
                rejected.push(Rejection { point: index, reason: format!("Redshift: {reason}") });
            }
        }
        rejected
    }

    /// All points that are not rejected already.
    fn refused(&self, reason: &str) -> Vec<Rejection> {
        let points = self.encoded.sent(self.batch.points.len());
        points.map(|point| Rejection { point, reason: format!("Redshift: {reason}") }).collect()
    }

    /// The points that are not rejected already.
    fn sent(&self) -> Vec<Point> {
        self.encoded.sent(self.batch.points.len()).map(|index| self.batch.points[index]).collect()
    }
}

/// The same for the same statements of the same batch at the same attempt, in every worker: 64 characters, as many as a
/// `ClientToken` may have.
fn token(scope: &str, key: &str, statements: &[String], attempt: u32) -> String {
    let attempt = attempt.to_string();
    fingerprint([scope, key, &attempt].into_iter().chain(statements.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_attempt_at_one_batch() {
        let statements = ["a".to_owned(), "b".to_owned()];
        let one = token("scope", "t/0/1-2", &statements, 0);
        assert_eq!((one.len(), &one), (64, &token("scope", "t/0/1-2", &statements, 0)));
        for other in [
            token("scopf", "t/0/1-2", &statements, 0),
            token("scope", "t/0/1-3", &statements, 0),
            token("scope", "t/0/1-2", &statements, 1),
            token("scope", "t/0/1-2", &["ab".to_owned()], 0),
        ] {
            assert_ne!(one, other);
        }
    }
}
