//! Answers, on the bus or to a callback.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use serde_json::Value;
#[cfg(feature = "callbacks")]
use tallybus_control::callback::{Callback, Callbacks, Undelivered};
use tallybus_control::{Answer, Command, Key, MAX_RECORD, Outcome, Reply, VERSION, answer_key};

use super::clock::millis_now;
use super::counts::{Counted, Counters};
use super::outbox::{Done, Parcel};
use super::topics::headers_of;
use crate::ask::ServiceAnswer;

/// How long an answer is of use after its command has expired.
const LINGER: Duration = Duration::from_secs(60);
/// The most bytes of a text that goes with an answer.
const MAX_TEXT: usize = 2_000;

/// Where answers on the bus go, and how.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) topic: Arc<str>,
    /// What signs them, where there is a key.
    pub(super) key: Option<Key>,
    pub(super) parcels: SyncSender<Parcel>,
    pub(super) counters: Arc<Counters>,
}

/// See the module.
pub(super) struct Answerer {
    pub(super) outgoing: Outgoing,
    /// As it shows in answers: `service/NAME@INSTANCE`.
    pub(super) addressee: String,
    /// The id of this life of the instance.
    pub(super) process: String,
    #[cfg(feature = "callbacks")]
    pub(super) callbacks: Option<Callbacks>,
}

/// What a command came to.
pub(super) struct Answered {
    pub(super) outcome: Outcome,
    pub(super) text: String,
    pub(super) data: Value,
    pub(super) again: bool,
}

impl Answered {
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::Refused, text: text.into(), data: Value::Null, again: false }
    }

    pub(super) fn accepted() -> Self {
        Self { outcome: Outcome::Accepted, text: String::new(), data: Value::Null, again: false }
    }

    pub(super) fn done(data: Value) -> Self {
        Self { outcome: Outcome::Done, text: String::new(), data, again: false }
    }

    /// What a handler has returned.
    pub(super) fn of(result: Result<Value, String>, again: bool) -> Self {
        match result {
            Ok(data) => Self { again, ..Self::done(data) },
            Err(text) => Self { outcome: Outcome::Failed, text, data: Value::Null, again },
        }
    }
}

impl Answerer {
    /// Whether the reply that a command wants can be made; otherwise why not.
    pub(super) fn check_reply(&self, reply: &Reply) -> Result<(), String> {
        match reply {
            Reply::Bus => Ok(()),
            Reply::Callback(url) => {
                self.check_url(url).inspect_err(|_| self.outgoing.counters.count(Counted::CallbackRefused))
            }
        }
    }

    #[cfg(feature = "callbacks")]
    fn check_url(&self, url: &str) -> Result<(), String> {
        let Some(callbacks) = &self.callbacks else { return Err(NO_CALLBACKS.to_owned()) };
        callbacks.check(url).map_err(|refusal| refusal.to_string())
    }

    #[cfg(not(feature = "callbacks"))]
    fn check_url(&self, _url: &str) -> Result<(), String> {
        Err(NO_CALLBACKS.to_owned())
    }

    /// Answers a command: the end of one that wants a callback goes there, everything else goes to the bus. `done` is called once
    /// the bus has taken it, or will not; at once where it is not waited for.
    pub(super) fn answer(&self, command: &Command, answered: Answered, done: Option<Done>) {
        let answer = fitted(self.build(command, answered));
        match answer.answer.outcome {
            Outcome::Done => self.outgoing.counters.count(Counted::Done),
            Outcome::Failed => self.outgoing.counters.count(Counted::Failed),
            Outcome::Accepted | Outcome::Refused => {}
        }
        let is_end = matches!(answer.answer.outcome, Outcome::Done | Outcome::Failed);
        match &command.reply {
            Reply::Callback(url) if is_end => self.post(command, url, answer, done),
            _ => self.publish(command, &answer, done),
        }
    }

    fn build(&self, command: &Command, answered: Answered) -> ServiceAnswer {
        let answer = Answer {
            version: VERSION,
            answers: command.id.clone(),
            addressee: self.addressee.clone(),
            process: self.process.clone(),
            time_ms: millis_now(),
            outcome: answered.outcome,
            text: clipped(&answered.text),
            data: answered.data,
        };
        ServiceAnswer { answer, again: answered.again }
    }

    fn publish(&self, command: &Command, answer: &ServiceAnswer, done: Option<Done>) {
        self.outgoing.publish(command.expires_ms, answer, done);
    }

    #[cfg(feature = "callbacks")]
    fn post(&self, command: &Command, url: &str, answer: ServiceAnswer, done: Option<Done>) {
        let data = serde_json::to_value(&answer).unwrap_or_default();
        // Another instance that does the same task makes another callback.
        let id = format!("{}_{}", command.id, self.process);
        let callback = Callback { id, url: url.to_owned(), event: "tallybus.answer".to_owned(), data };
        let outgoing = self.outgoing.clone();
        let expires_ms = command.expires_ms;
        let mut without_data = answer;
        without_data.answer.data = Value::Null;
        let on_undelivered = move |undelivered: Undelivered| {
            outgoing.counters.count(Counted::CallbackUndelivered);
            let (reason, attempts) = (undelivered.reason, undelivered.attempts);
            tracing::warn!(
                id = undelivered.callback.id, %reason, attempts, "a callback was given up; the answer goes to the bus, without its data"
            );
            let said = &mut without_data.answer.text;
            *said = format!("callback given up after {attempts} attempts: {reason}; {said}");
            outgoing.publish(expires_ms, &without_data, None);
        };
        if let Some(callbacks) = &self.callbacks {
            // It was checked when the command was taken; what is refused now is counted there.
            let _refused = callbacks.send(callback, Box::new(on_undelivered));
        }
        if let Some(done) = done {
            done(true);
        }
    }

    #[cfg(not(feature = "callbacks"))]
    fn post(&self, command: &Command, _url: &str, answer: ServiceAnswer, done: Option<Done>) {
        // No command that wants a callback is taken.
        self.publish(command, &answer, done);
    }

    /// Ends the callbacks under way; those that do not end in time are answered on the bus.
    pub(super) fn finish(&self, within: Duration) {
        #[cfg(feature = "callbacks")]
        if let Some(callbacks) = &self.callbacks {
            callbacks.finish(within);
        }
        #[cfg(not(feature = "callbacks"))]
        let _ = within;
    }
}

const NO_CALLBACKS: &str = "this instance makes no callbacks: its service allows none";

impl Outgoing {
    /// Hands an answer to the thread that publishes.
    fn publish(&self, expires_ms: i64, answer: &ServiceAnswer, done: Option<Done>) {
        let of = &answer.answer;
        // It holds nothing that is not JSON already.
        let payload = serde_json::to_vec(answer).unwrap_or_default();
        let left = u64::try_from(expires_ms.saturating_sub(millis_now())).unwrap_or_default();
        let counters = Arc::clone(&self.counters);
        let parcel = Parcel {
            topic: Arc::clone(&self.topic),
            key: answer_key(&of.answers, &of.addressee),
            headers: headers_of(self.key.as_ref(), &of.answers, of.time_ms, &payload),
            payload,
            until: Instant::now() + Duration::from_millis(left) + LINGER,
            done: Some(Box::new(move |is_taken| {
                if !is_taken {
                    counters.count(Counted::AnswerLost);
                }
                if let Some(done) = done {
                    done(is_taken);
                }
            })),
        };
        if let Err(TrySendError::Full(parcel) | TrySendError::Disconnected(parcel)) = self.parcels.try_send(parcel) {
            parcel.end(false);
        }
    }
}

/// The answer; where its result makes it too large for a record, what is left without it, as a failure.
fn fitted(answer: ServiceAnswer) -> ServiceAnswer {
    let fits = serde_json::to_vec(&answer).is_ok_and(|encoded| encoded.len() <= MAX_RECORD);
    if fits {
        return answer;
    }
    let mut without_data = answer;
    without_data.answer.data = Value::Null;
    without_data.answer.text =
        format!("it was done, but its result is larger than the {MAX_RECORD} bytes of an answer");
    without_data.answer.outcome = Outcome::Failed;
    without_data
}

fn clipped(text: &str) -> String {
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_TEXT).last().unwrap_or_default();
    if text.len() <= MAX_TEXT { text.to_owned() } else { text[..end].to_owned() }
}
