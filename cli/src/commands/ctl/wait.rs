//! Waits for the answers of all that were asked.

use std::time::{Duration, Instant};

use tallybus_bus::Record;
use tallybus_control::{Answer, MAX_ANSWER, VERSION, is_answer};
use tallybus_verify::heartbeats::Presence;
use tallybus_worker::control::Headers;

use super::ask::Asking;
use super::outcome::{Report, Said};
use crate::failure::Failure;
use crate::interrupt;
use crate::output::Output;
use crate::progress::Progress;

const LOOK: Duration = Duration::from_millis(100);

impl Asking {
    /// Waits until each has answered for good, or has been silent for `silence`, or the deadline has passed.
    ///
    /// # Errors
    /// Answers cannot be read: what came of it is not known.
    pub(super) fn wait(
        &mut self,
        id: &str,
        silence: Duration,
        deadline: Duration,
        output: &Output,
    ) -> Result<Report, Failure> {
        let interrupted = interrupt::listen()?;
        let begun = Instant::now();
        let mut said: Vec<Said> = self.addressees.all.iter().map(Said::nothing).collect();
        let mut progress = Progress::new(output, "answered");
        loop {
            let mut answers = Vec::new();
            let (guard, mut each) =
                (&self.guard, |record: &Record<'_>| answers.extend(read(record, id).map(|a| (a, of(record)))));
            self.answers.read(LOOK, &mut each)?;
            for (answer, signed) in answers {
                let (payload, headers) = signed;
                let signed = headers.as_ref().map(Headers::signed);
                if guard.is_signed(&answer.answers, answer.time_ms, &payload, signed).is_ok() {
                    take(&mut said, answer);
                }
            }
            self.addressees.look();
            let is_over = begun.elapsed() >= deadline || interrupted.is_set();
            let is_patient = begun.elapsed() < silence && !is_over;
            for one in &mut said {
                if let Some(seen) = self.addressees.all.iter().find(|seen| one.is_of(seen)) {
                    one.see(seen, is_patient);
                }
                one.expire(is_over);
            }
            replace_restarted(&mut said);
            let open = said.iter().filter(|one| one.is_open()).count();
            let waits = said.iter().find(|one| one.is_open() && !one.text.is_empty());
            let waits = waits.map(|one| format!("; {}: {}", one.name, one.text)).unwrap_or_default();
            progress.at_with((said.len() - open) as u64, said.len() as u64, &waits);
            if open == 0 {
                return Ok(Report { said, took: begun.elapsed() });
            }
        }
    }
}

/// The answer to this request in a record.
fn read(record: &Record<'_>, id: &str) -> Option<Answer> {
    if record.is_tombstone || record.payload.len() > MAX_ANSWER || !record.key.is_some_and(is_answer) {
        return None;
    }
    let answer: Answer = serde_json::from_slice(record.payload).ok()?;
    (answer.version == VERSION && answer.answers == id).then_some(answer)
}

fn of(record: &Record<'_>) -> (Vec<u8>, Option<Headers>) {
    (record.payload.to_vec(), Headers::of(record))
}

fn take(said: &mut Vec<Said>, answer: Answer) {
    match said.iter_mut().find(|one| one.name == answer.addressee && one.process == answer.process) {
        Some(one) => one.answered(answer),
        // One that was started meanwhile, or that no heartbeat has told of yet.
        None => {
            let mut one = Said::of_another(&answer);
            one.answered(answer);
            said.push(one);
        }
    }
}

/// A worker that was killed and started again under its name has answered for the one that was asked. Not so a second one of
/// that name which lived at the same time.
fn replace_restarted(said: &mut Vec<Said>) {
    let follows = |other: &Said, one: &Said| match (other.life, one.life) {
        (Some(other), Some(one)) => other.follows(one),
        // It was started after the question.
        (None, _) => true,
        (Some(_), None) => false,
    };
    let has_answered = |said: &[Said], one: &Said| {
        said.iter().any(|other| {
            other.name == one.name && other.process != one.process && other.came.is_answer() && follows(other, one)
        })
    };
    let is_gone = |one: &Said| !one.came.is_answer() && one.presence != Presence::Live;
    while let Some(at) = (0..said.len()).find(|at| is_gone(&said[*at]) && has_answered(said, &said[*at])) {
        said.swap_remove(at);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tallybus_control::Outcome;

    use super::super::addressees::{Addressee, Life};
    use super::super::outcome::Came;
    use super::*;

    fn said(process: &str, presence: Presence, came: Came, life: (i64, i64)) -> Said {
        let addressee = Addressee {
            name: "sink/a@w".to_owned(),
            process: process.to_owned(),
            last_seen: Duration::ZERO,
            presence,
            listens: true,
            demands_signature: false,
            life: Life { started_ms: life.0, last_ms: life.1 },
        };
        let mut said = Said::nothing(&addressee);
        said.came = came;
        said
    }

    #[test]
    fn a_restarted_worker_answers_for_its_former_life_and_not_for_a_second_one_of_its_name() {
        let silent = said("old", Presence::Silent, Came::Silent { presence: Presence::Silent }, (100, 200));
        let of = |started| said("new", Presence::Live, Came::Answered(Outcome::Done), (started, 900));
        let left = |started| {
            let mut all = vec![silent.clone(), of(started)];
            replace_restarted(&mut all);
            all.len()
        };
        assert_eq!((left(200), left(199), left(50)), (1, 2, 2));
    }
}
