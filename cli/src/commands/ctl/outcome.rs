//! What came of a request, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};
use tallybus_control::{Answer, Outcome};
use tallybus_verify::heartbeats::Presence;

use super::addressees::{Addressee, Life};
use crate::failure::Verdict;

/// What came of one addressee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// Nothing yet.
    Nothing,
    /// It is under way.
    Accepted,
    /// It has answered for good.
    Answered(Outcome),
    /// It has not answered, or no longer publishes heartbeats.
    Silent { presence: Presence },
    /// It takes no commands.
    Deaf,
    /// The deadline passed before it was done.
    Expired,
}

impl Came {
    /// Whether it has answered for good.
    pub(super) fn is_answer(self) -> bool {
        matches!(self, Self::Answered(_))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nothing | Self::Silent { .. } => "silent",
            Self::Accepted | Self::Answered(Outcome::Accepted) => "accepted",
            Self::Answered(Outcome::Done) => "done",
            Self::Answered(Outcome::Failed) => "failed",
            Self::Answered(Outcome::Refused) => "refused",
            Self::Deaf => "takes_no_commands",
            Self::Expired => "expired",
        }
    }
}

/// One addressee, and what it has said.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) name: String,
    pub(super) process: String,
    pub(super) came: Came,
    pub(super) text: String,
    data: Value,
    last_seen: Option<Duration>,
    /// Of its process.
    pub(super) presence: Presence,
    /// `None` of one that no heartbeat has told of.
    pub(super) life: Option<Life>,
}

impl Said {
    pub(super) fn nothing(of: &Addressee) -> Self {
        let came = if of.listens { Came::Nothing } else { Came::Deaf };
        let (name, process, last_seen) = (of.name.clone(), of.process.clone(), Some(of.last_seen));
        Self {
            name,
            process,
            came,
            text: String::new(),
            data: Value::Null,
            last_seen,
            presence: of.presence,
            life: Some(of.life),
        }
    }

    pub(super) fn of_another(answer: &Answer) -> Self {
        let (name, process) = (answer.addressee.clone(), answer.process.clone());
        let (came, presence) = (Came::Nothing, Presence::Live);
        Self { name, process, came, text: String::new(), data: Value::Null, last_seen: None, presence, life: None }
    }

    pub(super) fn is_of(&self, addressee: &Addressee) -> bool {
        self.name == addressee.name && self.process == addressee.process
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.came, Came::Nothing | Came::Accepted)
    }

    /// It has answered. Its last answer counts.
    pub(super) fn answered(&mut self, answer: Answer) {
        if self.came.is_answer() {
            return;
        }
        self.came = if answer.outcome.is_final() { Came::Answered(answer.outcome) } else { Came::Accepted };
        (self.text, self.data) = (answer.text, answer.data);
    }

    /// What its heartbeats tell. `is_patient`: whether its first answer is still waited for.
    pub(super) fn see(&mut self, seen: &Addressee, is_patient: bool) {
        (self.last_seen, self.presence, self.life) = (Some(seen.last_seen), seen.presence, Some(seen.life));
        let is_gone = seen.presence != Presence::Live;
        // One that was silent when it was asked may yet answer.
        let is_silent = match self.came {
            Came::Nothing => !is_patient || seen.presence == Presence::Left,
            Came::Accepted => is_gone,
            _ => false,
        };
        if is_silent {
            self.came = Came::Silent { presence: seen.presence };
        }
    }

    /// The deadline has passed.
    pub(super) fn expire(&mut self, is_over: bool) {
        if is_over && self.is_open() {
            self.came = match self.came {
                Came::Accepted => Came::Expired,
                _ => Came::Silent { presence: Presence::Live },
            };
        }
    }

    fn line(&self) -> String {
        let named = |name: &str| if self.text.is_empty() { name.to_owned() } else { self.text.clone() };
        let what = match self.came {
            Came::Answered(Outcome::Done) if self.text.is_empty() && !self.data.is_null() => {
                serde_json::to_string_pretty(&self.data).unwrap_or_else(|error| error.to_string())
            }
            Came::Answered(Outcome::Done) => format!("{}{}", named("done"), self.offsets()),
            Came::Answered(outcome) => format!("{}: {}", Came::Answered(outcome).name(), self.text),
            Came::Expired => format!("not done in time; {}", named("under way")),
            Came::Deaf => "takes no commands: its settings have neither `keys` nor `unsigned = true` in [control], or it is of an \
                           earlier version"
                .to_owned(),
            Came::Silent { presence: Presence::Left } => "has left".to_owned(),
            Came::Silent { .. } | Came::Nothing | Came::Accepted => {
                let before = if self.text.is_empty() { String::new() } else { format!("; its last answer: {}", self.text) };
                format!("silent{}{before}", self.seen())
            }
        };
        format!("{} ({}): {what}", self.name, self.process)
    }

    fn seen(&self) -> String {
        self.last_seen.map_or(String::new(), |age| format!(", last seen {} s ago", age.as_secs()))
    }

    /// `; counters/0 at 120`: the offsets of a worker that rests.
    fn offsets(&self) -> String {
        let partitions = self.data["partitions"].as_array().into_iter().flatten();
        let at = |one: &Value| {
            let offset = one["offset"].as_u64().map_or("nothing committed".to_owned(), |offset| format!("at {offset}"));
            format!("{} {offset}", one["partition"].as_str().unwrap_or_default())
        };
        let all: Vec<String> = partitions.map(at).collect();
        if all.is_empty() { String::new() } else { format!("; {}", all.join(", ")) }
    }
}

/// What came of a request.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) said: Vec<Said>,
    pub(super) took: Duration,
}

impl Report {
    /// Silence before a passed deadline, that before a refusal.
    pub(super) fn verdict(&self) -> Verdict {
        let has = |is: fn(Came) -> bool| self.said.iter().any(|one| is(one.came));
        if has(|came| matches!(came, Came::Silent { .. } | Came::Deaf | Came::Nothing)) {
            return Verdict::Silent;
        }
        if has(|came| matches!(came, Came::Expired | Came::Accepted)) {
            return Verdict::Expired;
        }
        let is_good = self.said.iter().all(|one| one.came == Came::Answered(Outcome::Done));
        if is_good && !self.said.is_empty() { Verdict::Good } else { Verdict::Bad }
    }

    pub(super) fn lines(&self, what: &str) -> Vec<String> {
        let mut lines: Vec<String> = self.said.iter().map(Said::line).collect();
        let answered = self.said.iter().filter(|one| one.came.is_answer()).count();
        let mut summary =
            format!("{what}: {answered} of {} answered in {:.1} s", self.said.len(), self.took.as_secs_f64());
        for one in self.said.iter().filter(|one| !one.came.is_answer()) {
            let why = match one.came {
                Came::Expired => "not done in time".to_owned(),
                Came::Deaf => "takes no commands".to_owned(),
                _ => format!("silent{}", one.seen()),
            };
            summary.push_str(&format!("; {} {why}", one.name));
        }
        lines.push(summary);
        lines
    }

    pub(super) fn as_json(&self, id: &str, what: &str) -> Value {
        let one = |one: &Said| {
            json!({
                "addressee": one.name, "process": one.process, "outcome": one.came.name(), "text": one.text, "data": one.data,
                "last_seen_seconds": one.last_seen.map(|age| age.as_secs()),
            })
        };
        let answered = self.said.iter().filter(|one| one.came.is_answer()).count();
        json!({
            "id": id, "request": what, "asked": self.said.len(), "answered": answered,
            "addressees": self.said.iter().map(one).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, came: Came, text: &str) -> Said {
        let last_seen = Some(Duration::from_secs(12));
        let (name, text) = (name.to_owned(), text.to_owned());
        Said {
            name,
            process: "7f".to_owned(),
            came,
            text,
            data: Value::Null,
            last_seen,
            presence: Presence::Live,
            life: None,
        }
    }

    fn verdict(came: &[Came]) -> Verdict {
        let said = came.iter().map(|came| said("sink/a@w", *came, "")).collect();
        Report { said, took: Duration::ZERO }.verdict()
    }

    #[test]
    fn only_when_all_answered_well_is_all_well_and_silence_is_worse_than_a_deadline() {
        let (done, refused) = (Came::Answered(Outcome::Done), Came::Answered(Outcome::Refused));
        let silent = Came::Silent { presence: Presence::Live };
        assert_eq!(verdict(&[done, done]), Verdict::Good);
        assert_eq!(verdict(&[]), Verdict::Bad);
        assert_eq!(verdict(&[done, refused]), Verdict::Bad);
        assert_eq!(verdict(&[refused, Came::Expired]), Verdict::Expired);
        assert_eq!(verdict(&[Came::Expired, silent, done]), Verdict::Silent);
        assert_eq!(verdict(&[done, Came::Deaf]), Verdict::Silent);
    }

    #[test]
    fn the_summary_names_those_that_were_silent_and_how_long_ago_they_were_seen() {
        let silent = said("sink/a@w-7", Came::Silent { presence: Presence::Silent }, "");
        let report = Report {
            said: vec![said("sink/a@w-1", Came::Answered(Outcome::Done), "drained"), silent],
            took: Duration::from_millis(1_500),
        };
        let lines = report.lines("drain of sink/a");
        assert_eq!(lines[0], "sink/a@w-1 (7f): drained");
        assert_eq!(lines[2], "drain of sink/a: 1 of 2 answered in 1.5 s; sink/a@w-7 silent, last seen 12 s ago");
    }

    #[test]
    fn one_that_has_accepted_is_silent_once_its_heartbeats_end_and_expires_with_the_deadline() {
        let seen = |presence| Addressee {
            name: "sink/a@w".to_owned(),
            process: "7f".to_owned(),
            last_seen: Duration::from_secs(11),
            presence,
            listens: true,
            demands_signature: false,
            life: Life { started_ms: 0, last_ms: 1 },
        };
        let mut one = said("sink/a@w", Came::Accepted, "draining: 2 batches in flight");
        one.see(&seen(Presence::Live), false);
        assert!(one.is_open());
        let mut late = one.clone();
        late.expire(true);
        assert_eq!(late.came, Came::Expired);
        one.see(&seen(Presence::Silent), false);
        assert_eq!(one.came, Came::Silent { presence: Presence::Silent });
        assert!(one.line().ends_with("silent, last seen 11 s ago; its last answer: draining: 2 batches in flight"));
    }
}
