//! The thread that listens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallybus_bus::{Bus, BusError, Record};
use tallybus_control::{Answer, Desired, Guard, Key, Outcome, VERSION, is_answer};
use tallybus_sdk::clock::Clock;

use super::answers::Answers;
use super::commands::Taken;
use super::desired::DesiredReader;
use super::topic_reader::{Found, From, TopicReader};
use crate::duty::{Duty, RestProgress, Wanted};
use crate::failure_log::FailureLog;
use crate::live::{Addressee, Process, millis};

/// How long one look at a topic waits. A command waits for two of them at most before it is seen.
const LOOK: Duration = Duration::from_millis(100);
/// How soon a bus that did not answer, or a topic that does not exist, is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long answers may take to be confirmed before the topics are looked at again.
const PUBLISH_WITHIN: Duration = Duration::from_secs(2);
/// How often a worker that is not there yet says what it waits for.
const SAY_AGAIN: Duration = Duration::from_secs(5);

pub(super) struct Listening {
    desired: DesiredReader,
    commands: TopicReader,
    guard: Guard,
    answers: Answers,
    pub(super) process: Process,
    topics: (String, String),
    clock: Arc<dyn Clock>,
    failures: [FailureLog; 3],
    /// What each worker has said of the desired state that it follows, by its address.
    said: BTreeMap<String, Said>,
    /// The reasons of refusals that were logged.
    logged: BTreeSet<&'static str>,
    /// When each topic is looked at again.
    look_at: [Option<Instant>; 2],
}

/// What a worker has said.
struct Said {
    /// Of which desired state.
    id: String,
    is_final: bool,
    text: String,
    at: Instant,
}

impl Listening {
    pub(super) fn new(
        bus: Arc<dyn Bus>,
        topics: (String, String),
        keys: Vec<Key>,
        process: Process,
        sinks: &str,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let log = |what| FailureLog::new(sinks, what, Arc::clone(&clock));
        let failures = [log("reading desired states"), log("reading commands"), log("publishing answers")];
        Self {
            desired: DesiredReader::new(Arc::clone(&bus), &topics.0, keys.clone()),
            commands: TopicReader::new(Arc::clone(&bus), &topics.1, From::End),
            answers: Answers::new(bus, &topics.1, keys.first().cloned(), process.id()),
            guard: Guard::new(keys),
            process,
            topics,
            clock,
            failures,
            said: BTreeMap::new(),
            logged: BTreeSet::new(),
            look_at: [None, None],
        }
    }

    pub(super) fn run(mut self, stop: &Receiver<()>) {
        while matches!(stop.try_recv(), Err(TryRecvError::Empty)) {
            let begun = Instant::now();
            self.read_desired();
            self.read_commands();
            self.say_progress();
            let published = self.answers.publish(PUBLISH_WITHIN);
            match published {
                Ok(()) => self.failures[2].over(),
                Err(reason) => {
                    let topic = &self.topics.1;
                    self.failures[2].note(&format!("topic {topic} ({reason}). Those who ask see silence"));
                }
            }
            for failures in &mut self.failures {
                failures.remind();
            }
            // A look that fails at once does not make this a busy loop.
            thread::sleep(LOOK.saturating_sub(begun.elapsed()));
        }
    }

    fn is_due(&self, topic: usize) -> bool {
        self.look_at[topic].is_none_or(|at| Instant::now() >= at)
    }

    fn read_desired(&mut self) {
        if !self.is_due(0) {
            return;
        }
        self.look_at[0] = None;
        match self.desired.read(LOOK) {
            Ok(true) => {
                self.failures[0].over();
                self.tell_workers();
            }
            Ok(false) => {}
            Err(error) => {
                self.look_at[0] = Some(Instant::now() + ASK_AGAIN);
                let reason = self.unread(&error);
                self.failures[0].note(&reason);
                for addressee in self.process.addressees() {
                    // One that knows what is wanted goes on with that.
                    if matches!(addressee.duty(), Some(Duty::Waiting(_))) {
                        addressee.want(Wanted::Unknown(reason.clone()));
                    }
                }
            }
        }
        for (refusal, count) in self.desired.take_refused() {
            self.refuse(refusal.name(), count, "a desired state", &refusal.to_string());
        }
    }

    fn unread(&self, error: &BusError) -> String {
        let topic = &self.topics.0;
        format!(
            "topic {topic} cannot be read ({error}): it may hold that a worker shall not run. A worker that has just been started \
             waits; those that run go on as they are. Allow this user to read {topic}, or set enabled = false in [control]"
        )
    }

    /// Says to each worker what is wanted of it.
    fn tell_workers(&mut self) {
        for addressee in self.process.addressees() {
            let wanted = self.desired.states().of(addressee.identity()).cloned();
            addressee.want(Wanted::Known(wanted));
        }
    }

    fn read_commands(&mut self) {
        if !self.is_due(1) {
            return;
        }
        self.look_at[1] = None;
        let (guard, now_ms) = (&mut self.guard, millis(self.clock.wall_time()));
        let mut taken = Vec::new();
        let mut each = |record: &Record<'_>| {
            if record.is_tombstone || record.key.is_some_and(is_answer) {
                return;
            }
            taken.push(Taken::of(guard, record, now_ms));
        };
        match self.commands.read(LOOK, &mut each) {
            Ok(Found::NoTopic) => self.look_at[1] = Some(Instant::now() + ASK_AGAIN),
            Ok(Found::End | Found::More | Found::Restart) => self.failures[1].over(),
            Err(error) => {
                self.look_at[1] = Some(Instant::now() + ASK_AGAIN);
                let topic = &self.topics.1;
                self.failures[1].note(&format!(
                    "topic {topic} ({error}). Commands are not seen. Allow this user to read {topic}, or set enabled = false in \
                     [control]"
                ));
            }
        }
        for taken in taken {
            self.take(&taken);
        }
    }

    fn take(&mut self, taken: &Taken) {
        let addressees = self.process.addressees();
        let meant: Vec<&Addressee> = addressees.iter().filter(|one| taken.is_for(one.identity())).collect();
        match taken {
            Taken::Accepted(command) if !meant.is_empty() => {
                tracing::info!(
                    id = command.id,
                    command = command.name,
                    target = %command.target,
                    by = command.issuer,
                    "a command"
                );
                self.process.control_counts().take();
                for addressee in meant {
                    let (outcome, text, data) = super::commands::carry_out(command, addressee, &self.process);
                    if outcome == Outcome::Refused {
                        self.refuse(super::UNKNOWN, 1, "a command", &text);
                    }
                    self.answer(&command.id, addressee, outcome, text, data);
                }
            }
            Taken::Refused(refusal, command) => {
                if command.is_some() && meant.is_empty() {
                    return;
                }
                self.refuse(refusal.name(), 1, "a command", &refusal.to_string());
                // One that was taken before is answered already.
                if let Some(command) = command
                    && *refusal != tallybus_control::Refusal::Repeated
                {
                    for addressee in meant {
                        self.answer(&command.id, addressee, Outcome::Refused, refusal.to_string(), Value::Null);
                    }
                }
            }
            Taken::Accepted(_) => {}
        }
    }

    fn refuse(&mut self, reason: &'static str, count: u64, what: &str, why: &str) {
        self.process.control_counts().refuse(reason, count);
        if self.logged.insert(reason) {
            tracing::warn!(
                reason,
                "{what} was refused ({why}); others that are refused for this reason are counted only"
            );
        }
    }

    fn answer(&mut self, id: &str, addressee: &Addressee, outcome: Outcome, text: String, data: Value) {
        self.answers.send(Answer {
            version: VERSION,
            answers: id.to_owned(),
            addressee: addressee.identity().to_string(),
            process: String::new(),
            time_ms: millis(self.clock.wall_time()),
            outcome,
            text,
            data,
        });
    }

    /// Answers desired states: once they are reached, and while they are not, what is waited for.
    fn say_progress(&mut self) {
        for addressee in self.process.addressees() {
            let Some(status) = addressee.status() else { continue };
            let Some(desired) = status.duty.desired().cloned() else { continue };
            let Some((outcome, text, data)) = progress(&status.duty, status.is_member) else { continue };
            let name = addressee.identity().to_string();
            if self.is_news(&name, &desired, outcome, &text) {
                self.answer(&desired.id, &addressee, outcome, text.clone(), data);
                let said = Said { id: desired.id, is_final: outcome.is_final(), text, at: Instant::now() };
                self.said.insert(name, said);
            }
        }
    }

    fn is_news(&self, name: &str, desired: &Desired, outcome: Outcome, text: &str) -> bool {
        let Some(said) = self.said.get(name).filter(|said| said.id == desired.id) else { return true };
        if said.is_final {
            return false;
        }
        outcome.is_final() || said.text != text && said.at.elapsed() >= SAY_AGAIN
    }
}

/// What a worker answers to the desired state that it follows; `None` while it does not know it.
fn progress(duty: &Duty, is_member: bool) -> Option<(Outcome, String, Value)> {
    let (outcome, text, data) = match duty {
        Duty::Waiting(_) => return None,
        Duty::Running(_) if is_member => (Outcome::Done, "running".to_owned(), Value::Null),
        Duty::Running(_) => (Outcome::Accepted, "joins its group".to_owned(), Value::Null),
        Duty::Resting(rest) => match &rest.progress {
            RestProgress::Unsettled(left) => (Outcome::Accepted, format!("{}: {left}", duty.name()), Value::Null),
            RestProgress::Settled(partitions) => {
                (Outcome::Done, duty.name().to_owned(), json!({ "partitions": partitions }))
            }
        },
    };
    Some((outcome, text, data))
}
