//! One batch, or one part of it, into the table.

use std::sync::{MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use tallybus_sdk::text::{clip, hex};
use tallybus_sdk::{Answer, Batch, Encoded, Point, Rejection, SinkError};

use super::RedshiftSink;
use super::answer::{Verdict, of_statement};
use super::client::{Cell, End, Trouble};
use super::encode::{MAX_STATEMENTS, SEPARATOR};
use super::lanes::{Attempt, Lanes};
use super::statements::{self, Frame, Position, Span, Standing};

/// Old failures that a new owner walks past in one go.
const MAX_STALE: u32 = 10_000;

/// What the ledger answered.
struct Found {
    position: Position,
    refused: Vec<(u64, u64, String)>,
    /// When it was asked, by the service's clock.
    at: f64,
}

pub(super) async fn write(sink: &RedshiftSink, batch: &Batch, encoded: &Encoded) -> Answer {
    if encoded.rejected.len() == batch.points.len() {
        return Answer::Done;
    }
    if encoded.body.is_empty() {
        let reason = format!("its rows do not fit into {MAX_STATEMENTS} statements of 100 kB");
        return Answer::Split { reason };
    }
    let Some(span) = Span::of(batch) else {
        return Answer::Halt { reason: format!("{} was halved more often than the ledger can tell", batch.key()) };
    };
    let _turn = sink.turn.lock().await;
    let writing = Writing { sink, batch, encoded, span };
    match writing.settle().await {
        Ok(answer) => answer,
        Err(Trouble { verdict, reason, .. }) => match verdict {
            Verdict::Retry => Answer::Retry { after: None, reason },
            Verdict::Split | Verdict::Data => Answer::Split { reason },
            Verdict::Fenced | Verdict::Halt => Answer::Halt { reason },
        },
    }
}

struct Writing<'w> {
    sink: &'w RedshiftSink,
    batch: &'w Batch,
    encoded: &'w Encoded,
    span: Span,
}

impl Writing<'_> {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // Plain values, whole at any time.
        self.sink.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self) -> Attempt {
        self.lanes().of(self.batch).attempt.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Attempt)) {
        change(&mut self.lanes().of(self.batch).attempt);
    }

    fn may_be_in(&self) -> bool {
        self.batch.recovered || self.lanes().of(self.batch).may_be_in
    }

    fn set_may_be_in(&self, may_be_in: bool) {
        self.lanes().of(self.batch).may_be_in = may_be_in;
    }

    async fn settle(&self) -> Result<Answer, Trouble> {
        let attempt = self.attempt();
        // A token gives back what was done under it, even if the topic was made anew since: the ledger is asked first.
        let is_first = self.lanes().of(self.batch).is_first;
        let unasked = (self.batch.recovered || is_first) && attempt.asked.is_none();
        if attempt.running.is_none() && (unasked || attempt.ask_first) {
            let found = self.ask().await?;
            if let Some(answer) = self.already(&found, self.may_be_in()) {
                return self.tidy(answer).await;
            }
            self.change(|attempt| {
                attempt.ask_first = false;
                if unasked {
                    attempt.asked = Some(found.at);
                }
            });
        }
        for _ in 0..MAX_STALE {
            match self.attempt_once().await? {
                Some(answer) => return self.tidy(answer).await,
                None => continue,
            }
        }
        Ok(Answer::Retry {
            after: None,
            reason: format!("{MAX_STALE} attempts at {} have failed before", self.batch.key()),
        })
    }

    /// `None` when the attempt is one that failed before this worker looked.
    async fn attempt_once(&self) -> Result<Option<Answer>, Trouble> {
        let attempt = self.attempt();
        let before = attempt.running.is_some() || self.may_be_in();
        let id = match attempt.running {
            Some(id) => id,
            None => self.submit(&attempt).await?,
        };
        self.change(|attempt| attempt.running = Some(id.clone()));
        let (error, created, aborted) = match self.sink.client.wait(&id).await? {
            End::Finished => {
                self.change(|attempt| attempt.running = None);
                return Ok(Some(self.done(attempt.refused)));
            }
            End::Running(state) => {
                let reason = format!("Redshift: statement {id} of {} is still {state}", self.batch.key());
                return Ok(Some(Answer::Retry { after: None, reason }));
            }
            End::Unknown => {
                // Older than the day for which statements are kept: the ledger knows.
                self.change(|attempt| (attempt.running, attempt.ask_first) = (None, true));
                let reason = format!("Redshift: statement {id} of {} is gone", self.batch.key());
                return Ok(Some(Answer::Retry { after: None, reason }));
            }
            End::Failed { error, created } => (error, created, false),
            End::Aborted { error, created } => (error, created, true),
        };
        self.change(|attempt| {
            attempt.running = None;
            attempt.number += 1;
        });
        if attempt.asked.is_some_and(|asked| created < asked) {
            return Ok(None);
        }
        let error = self.sink.client.clean(&error);
        let reason = format!("Redshift: {error}");
        let verdict = if aborted { Verdict::Retry } else { of_statement(&error) };
        if verdict == Verdict::Retry {
            return Ok(Some(Answer::Retry { after: None, reason }));
        }
        // Whatever the words were: a batch that is in needs nothing more.
        let found = self.ask().await?;
        if let Some(answer) = self.already(&found, before) {
            if matches!(answer, Answer::Halt { .. }) {
                // The next answer is to be no milder.
                self.set_may_be_in(before);
            }
            return Ok(Some(answer));
        }
        Ok(Some(match verdict {
            Verdict::Split => Answer::Split { reason },
            Verdict::Data if self.batch.split().is_some() => Answer::Split { reason },
            Verdict::Data if attempt.refused.is_none() => {
                self.change(|attempt| {
                    attempt.refused = Some(error);
                });
                return Ok(None);
            }
            Verdict::Retry | Verdict::Fenced => Answer::Retry { after: None, reason },
            Verdict::Data | Verdict::Halt => {
                self.change(|attempt| attempt.ask_first = true);
                Answer::Halt { reason }
            }
        }))
    }

    /// Asks for the transaction; from here on it may be in, until it is known not to be.
    async fn submit(&self, attempt: &Attempt) -> Result<String, Trouble> {
        let statements = match (&attempt.refused, &self.sink.stage) {
            (Some(reason), _) => {
                let refuse = statements::refuse(self.batch, &self.sent(), reason, &self.sink.tables);
                self.frame().around([refuse])
            }
            (None, Some(stage)) => {
                stage.put(self.batch, &self.encoded.body).await.map_err(trouble)?;
                let bytes = u64::try_from(self.encoded.body.len()).unwrap_or_default();
                self.sink.client.used.staged_bytes.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
                self.frame().around([stage.statement(self.batch, &self.sink.tables)])
            }
            (None, None) => self.statements()?,
        };
        let key = self.batch.key();
        let token = token(&self.sink.scope, &key, &statements, attempt.number);
        let before = self.may_be_in();
        self.set_may_be_in(true);
        let name = format!("tallybus {} {key}", self.sink.name);
        let submitted = self.sink.client.submit(statements, Some(token), clip(&name, 400)).await;
        if submitted.as_ref().is_err_and(|trouble| trouble.answered) {
            // Turned away: nothing runs.
            self.set_may_be_in(before);
        }
        submitted
    }

    fn frame(&self) -> Frame {
        Frame::of(self.batch, &self.span, &self.sink.tables)
    }

    fn statements(&self) -> Result<Vec<String>, Trouble> {
        let body = std::str::from_utf8(&self.encoded.body);
        let body = body.map_err(|error| trouble(SinkError::Halt(format!("{}: {error}", self.batch.key()))))?;
        Ok(body.split(SEPARATOR).map(str::to_owned).collect())
    }

    /// Asks the ledger.
    async fn ask(&self) -> Result<Found, Trouble> {
        let rows = self.sink.client.query(&statements::look(self.batch, &self.sink.tables)).await?;
        let mut found = Found { position: Position::default(), refused: Vec::new(), at: rows.created };
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
        Ok(found)
    }

    /// What the ledger says already; `None` where the batch is yet to be written.
    fn already(&self, found: &Found, may_be_in: bool) -> Option<Answer> {
        let id = &self.batch.id;
        let table = self.sink.tables.counters();
        let foreign = |what: String| {
            Some(Answer::Halt { reason: format!("{table} {what}; name a new table to count from here") })
        };
        let next = found.position.offset;
        match self.span.standing(found.position) {
            Standing::Before => None,
            Standing::Behind if may_be_in => {
                let rejected = self.remembered(&found.refused);
                Some(if rejected.is_empty() { Answer::Done } else { Answer::Rejected(rejected) })
            }
            Standing::Within if may_be_in && self.batch.points.len() > 1 => {
                Some(Answer::Split { reason: format!("parts of {} are in already", self.batch.key()) })
            }
            Standing::Behind => foreign(format!(
                "has everything of {}/{} before offset {next}, but batch {id} is new: the topic was made anew, the group was \
                 set back, or another bus or sink writes to this table",
                id.topic, id.partition
            )),
            Standing::Within | Standing::Astray => foreign(format!(
                "stands at offset {next} of {}/{}, inside batch {id}: another bus or sink writes to this table",
                id.topic, id.partition
            )),
        }
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

    fn done(&self, refused: Option<String>) -> Answer {
        let Some(reason) = refused else { return Answer::Done };
        let sent = |index: &usize| self.encoded.rejected.iter().all(|rejection| rejection.point != *index);
        let points = (0..self.batch.points.len()).filter(sent);
        Answer::Rejected(points.map(|point| Rejection { point, reason: format!("Redshift: {reason}") }).collect())
    }

    /// The points that are not rejected already.
    fn sent(&self) -> Vec<Point> {
        let sent = |index: &usize| self.encoded.rejected.iter().all(|rejection| rejection.point != *index);
        (0..self.batch.points.len()).filter(sent).map(|index| self.batch.points[index]).collect()
    }

    /// What is in needs no object any more.
    async fn tidy(&self, answer: Answer) -> Result<Answer, Trouble> {
        if let (Some(stage), Answer::Done | Answer::Rejected(_)) = (&self.sink.stage, &answer) {
            stage.delete(self.batch).await;
        }
        Ok(answer)
    }
}

fn trouble(error: SinkError) -> Trouble {
    let verdict = match error {
        SinkError::Unavailable(_) => Verdict::Retry,
        SinkError::Halt(_) => Verdict::Halt,
    };
    Trouble::of(verdict, error.to_string())
}

/// The same for the same statements of the same batch at the same attempt, whoever asks: 64 characters, as many as a
/// `ClientToken` may have.
fn token(scope: &str, key: &str, statements: &[String], attempt: u32) -> String {
    let mut hash = Sha256::new();
    let attempt = attempt.to_string();
    for part in [scope, key, &attempt].into_iter().chain(statements.iter().map(String::as_str)) {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize())
}

/// A short name for a list of texts.
pub(super) fn fingerprint(texts: &[String]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.len().to_le_bytes());
        hash.update(text.as_bytes());
    }
    hex(&hash.finalize()[..8])
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
