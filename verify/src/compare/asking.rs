//! Asks the backends, and times and checks their answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use super::entry::Entry;
use super::questions::{Asked, Subject, standard};
use super::rounds::{self, Stage};
use super::stats::summarize;
use super::{AnswerCheck, CompareError, Known, Plan, QuestionResult, Watch};

/// Asks each backend the standard questions, all sinks in turn.
///
/// # Errors
/// The copy could not be read, or the comparison was stopped.
pub(super) fn ask(
    plan: &Plan,
    stage: &Stage<'_>,
    subject: &Subject,
    topics: &[String],
    entries: &mut [Entry<'_>],
    watch: &mut dyn Watch,
) -> Result<(), CompareError> {
    let observer = stage.bus.observer()?;
    let mut asked: Vec<(tallybus_sdk::Shape, Arc<Vec<Asked>>)> = Vec::new();
    let mut asking = Vec::new();
    for (place, entry) in (0..).zip(entries.iter()) {
        let Some(shadow) = entry.shadow.as_ref().filter(|_| entry.takes_part()) else { continue };
        let shape = &shadow.settings.shape;
        let known = asked.iter().find(|(other, _)| other == shape).map(|(_, questions)| Arc::clone(questions));
        let questions = match known {
            Some(questions) => questions,
            None => {
                let encodings = &stage.settings.encodings;
                let questions = standard(stage.bus.as_ref(), observer.as_ref(), topics, encodings, shape, subject)?;
                let questions = Arc::new(questions);
                asked.push((shape.clone(), Arc::clone(&questions)));
                questions
            }
        };
        match shadow.connect() {
            Ok(sink) => asking.push((place, sink, questions, BTreeMap::<usize, Answers>::new())),
            Err(reason) => tracing::warn!(sink = entry.label, reason, "the sink could not be asked"),
        }
    }
    let whole = plan.asks * asking.len() as u64;
    let mut done = 0;
    for _ in 0..plan.asks {
        // Backwards, then forwards: no sink is always asked right after the same other one.
        asking.reverse();
        for (place, sink, questions, answers) in &mut asking {
            let place: usize = *place;
            watch.step(done, whole, &format!("asking {}", entries[place].label));
            done += 1;
            if watch.is_stopped() {
                return Err(CompareError::Interrupted);
            }
            for (number, question) in questions.iter().enumerate() {
                let answers = answers.entry(number).or_default();
                if answers.check.as_ref().is_none_or(|check| *check == AnswerCheck::Right) {
                    answers.take(stage.runtime, sink.as_ref(), question);
                }
            }
        }
    }
    for (place, sink, questions, mut answers) in asking {
        stage.runtime.block_on(sink.close());
        let results = questions
            .iter()
            .enumerate()
            .map(|(number, question)| answers.remove(&number).unwrap_or_default().result(question, plan.seed));
        entries[place].questions = results.collect();
    }
    Ok(())
}

/// The answers to one question.
#[derive(Default)]
struct Answers {
    seconds: Vec<f64>,
    /// `None` before the first one.
    check: Option<AnswerCheck>,
}

impl Answers {
    fn take(&mut self, runtime: &Handle, sink: &dyn tallybus_sdk::Sink, asked: &Asked) {
        let began = Instant::now();
        let answer = rounds::asked(runtime, sink, |read_back| read_back.ask(&asked.question));
        let took = began.elapsed().as_secs_f64();
        let check = match answer {
            None => AnswerCheck::NotOffered { why: rounds::NOT_READ_BACK.to_owned() },
            Some(Ok(answer)) => asked.check(&answer),
            Some(Err(why)) => AnswerCheck::Failed { why },
        };
        if matches!(check, AnswerCheck::Right | AnswerCheck::Wrong { .. }) {
            self.seconds.push(took);
        }
        self.check = Some(check);
    }

    fn result(self, asked: &Asked, seed: u64) -> QuestionResult {
        let answer = self.check.unwrap_or(AnswerCheck::Failed { why: "not asked".to_owned() });
        let unknown = match &answer {
            AnswerCheck::Right => None,
            AnswerCheck::Wrong { why } => Some(format!("wrong answer: {why}")),
            AnswerCheck::NotOffered { why } => Some(format!("not offered: {why}")),
            AnswerCheck::Failed { why } => Some(why.clone()),
        };
        let (first, later_runs) = match self.seconds.split_first() {
            Some((first, later)) => (Known::Is(*first), later.to_vec()),
            None => (Known::unknown(unknown.as_deref().unwrap_or("not asked")), Vec::new()),
        };
        let later = unknown.map_or_else(|| summarize(&later_runs, seed), Known::Unknown);
        QuestionResult {
            name: asked.question.name().to_owned(),
            asked: asked.about.clone(),
            answer,
            first,
            later_runs,
            later,
        }
    }
}
