//! Sends a command or a task to a service, and reports what each addressee has answered.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tallybus::ask::{Address, Addressee, Answers, AskError, AskOutcome, Asker, Outcome, Question, State, To};
use tallybus_sdk::config::parse_duration;

use super::Place;
use crate::Global;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{count_of, duration};

/// Send a command to a service, or a task to its pool, and wait for the answers.
///
/// Without --pool and --one each instance that runs is asked. `drain` to one instance takes it out of its service's pool while it
/// keeps running; `resume` brings it back. Exit status 0: every addressee answered that it was done; 1: one failed or refused; 2: bus
/// unavailable or wrong usage; 3: one was silent, or there is none; 4: the command expired before all were done. See docs/commands.md.
#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The service: service/NAME, or one instance of it: service/NAME@INSTANCE.
    #[arg(value_name = "TARGET")]
    target: Address,
    /// What the service has registered, or `drain` or `resume`.
    #[arg(value_name = "NAME")]
    name: String,
    /// The arguments, as JSON [default: null].
    #[arg(value_name = "JSON", value_parser = parse_json)]
    arguments: Option<Value>,
    /// Give it as a task to the service's pool: one instance does it, at least once.
    #[arg(long, conflicts_with = "one")]
    pool: bool,
    /// Ask one of the instances.
    #[arg(long)]
    one: bool,
    /// How long answers are waited for; then the command expires.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    wait: Duration,
    /// Have the answer posted to this URL, if the service allows it; the bus then shows only that the command was accepted.
    #[arg(long, value_name = "URL")]
    callback: Option<String>,
    /// The key to sign with: env:NAME or file:PATH; the first of `keys` in [control] otherwise.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl Send {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let to = self.to()?;
        let place = Place::open(global, self.key.as_deref())?;
        let mut asker = Asker::of_bus(place.bus.clone()).namespace(&place.settings.bus.namespace);
        if let Some(key) = place.keys.first() {
            asker = asker.sign_with(key.clone());
        }
        let arguments = self.arguments.clone().unwrap_or_default();
        let mut question = Question::new(to, &self.name, arguments, self.wait);
        if let Some(url) = &self.callback {
            question = question.with_callback(url);
        }
        let answers = asker.put(&question).map_err(failure)?;
        if output.json {
            output.report(&self.as_json(&answers).to_string())?;
        } else {
            for line in self.lines(&answers) {
                output.report(&line)?;
            }
        }
        Ok(match answers.outcome() {
            AskOutcome::Good => Verdict::Good,
            AskOutcome::Failed => Verdict::Bad,
            AskOutcome::Silent => Verdict::Silent,
            AskOutcome::Expired => Verdict::Expired,
        })
    }

    fn to(&self) -> Result<To, Failure> {
        match &self.target {
            Address::Service { service, instance: None } if self.pool => Ok(To::Pool(service.clone())),
            Address::Service { service, instance: None } if self.one => Ok(To::One(service.clone())),
            Address::Service { service, instance: None } => Ok(To::Each(service.clone())),
            Address::Service { service, instance: Some(instance) } if !self.pool && !self.one => {
                Ok(To::Instance(service.clone(), instance.clone()))
            }
            Address::Service { .. } => Err(Failure::could_not_look(
                "--pool and --one are for a service, service/NAME: an instance is named already",
            )),
            other => Err(Failure::could_not_look(format!(
                "{other} is no service: write service/NAME or service/NAME@INSTANCE; workers are asked by the other commands of \
                 `tallybus ctl`"
            ))),
        }
    }

    fn lines(&self, answers: &Answers) -> Vec<String> {
        let mut lines: Vec<String> = answers.addressees.iter().map(line).collect();
        let all = answers.addressees.len();
        if all == 0 {
            lines
                .push(format!("no instance of {} runs and reads commands, as far as its heartbeats tell", self.target));
            return lines;
        }
        let good = answers.addressees.iter().filter(|one| answers.outcome_of(one) == AskOutcome::Good).count();
        let what = if self.callback.is_some() { "accepted it" } else { "did it" };
        lines.push(format!("{} to {}: {good} of {} {what}", self.name, self.target, count_of(all as u64, "addressee")));
        lines
    }

    fn as_json(&self, answers: &Answers) -> Value {
        let one = |one: &Addressee| {
            let answer = match &one.state {
                State::Silent => None,
                State::UnderWay(answer) | State::Answered(answer) => Some(answer),
            };
            json!({
                "addressee": answer.map_or(&one.address, |answer| &answer.answer.addressee),
                "outcome": answer.map_or("silent", |answer| name(answer.answer.outcome)),
                "text": answer.map(|answer| &answer.answer.text),
                "data": answer.map(|answer| &answer.answer.data),
                "again": answer.is_some_and(|answer| answer.again),
                "last_seen_seconds": one.last_seen.map(|age| age.as_secs()),
            })
        };
        json!({
            "id": answers.id, "name": self.name, "target": self.target, "is_good": answers.is_good(),
            "addressees": answers.addressees.iter().map(one).collect::<Vec<_>>(),
        })
    }
}

/// One addressee, for people.
fn line(one: &Addressee) -> String {
    let seen = match one.last_seen {
        Some(age) => format!("last seen {} ago", duration(age)),
        None => "never seen".to_owned(),
    };
    let (answer, is_ended) = match &one.state {
        State::Silent => return format!("{}: silent, {seen}", one.address),
        State::UnderWay(answer) => (answer, false),
        State::Answered(answer) => (answer, true),
    };
    let of = &answer.answer;
    let mut text = format!("{}: {}", of.addressee, name(of.outcome));
    if !is_ended {
        text.push_str(", its end is not on the bus");
    }
    if answer.again {
        text.push_str(", perhaps for the second time");
    }
    if !of.text.is_empty() {
        text.push_str(&format!(": {}", of.text));
    }
    if !of.data.is_null() {
        text.push_str(&format!(" {}", of.data));
    }
    text
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Done => "done",
        Outcome::Failed => "failed",
        Outcome::Refused => "refused",
    }
}

fn failure(error: AskError) -> Failure {
    match error {
        AskError::Bus(error) => error.into(),
        other => Failure::could_not_look(other),
    }
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("expected JSON, such as 3, '\"text\"' or '{{\"width\": 80}}': {error}"))
}
