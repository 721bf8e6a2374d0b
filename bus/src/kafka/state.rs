use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, error, info, warn};

use super::cause::with_cause;
use crate::BusError;

/// The shortest interval between log lines of one kind.
const QUIET: Duration = Duration::from_secs(60);

/// For this long a refusal is not replaced by a failure to connect.
const TELLING: Duration = Duration::from_secs(5);

/// The name of clients that read without a group.
pub(super) const READER: &str = "reader";

/// What one client knows about its connection. Logs changes of state, not every event.
pub(super) struct Connection {
    name: &'static str,
    down: AtomicBool,
    /// How many log lines and errors have come.
    taken: AtomicU64,
    log: Mutex<HashMap<String, (Instant, u64)>>,
    last_failure: Mutex<Option<Failure>>,
}

/// The last failure between client and brokers.
#[derive(Clone)]
struct Failure {
    code: RDKafkaErrorCode,
    reason: String,
    at: Instant,
}

impl Connection {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            down: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            log: Mutex::default(),
            last_failure: Mutex::default(),
        }
    }

    /// How many log lines and errors have come so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// A broker has answered.
    pub(super) fn alive(&self) {
        if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::Relaxed) {
            info!(target: "kafka", client = self.name, "the brokers answer again");
        }
    }

    /// A client's error event.
    pub(super) fn error(&self, failure: &KafkaError, reason: &str) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        let Some(code) = failure.rdkafka_error_code() else { return };
        if code == RDKafkaErrorCode::PartitionEOF {
            return;
        }
        // "All brokers down" is less specific than the error of one of them.
        let reason = &*with_cause(reason);
        if code != RDKafkaErrorCode::AllBrokersDown {
            self.keep(Failure { code, reason: reason.to_owned(), at: Instant::now() });
        }
        if code == RDKafkaErrorCode::AllBrokersDown {
            if !self.down.swap(true, Ordering::Relaxed) {
                // The caller warns of what fails because of it.
                info!(target: "kafka", client = self.name, reason, "no broker can be reached; trying again until one can");
            }
            return;
        }
        // A reader uses no group, and the name that librdkafka asks for is granted to nobody.
        if code == RDKafkaErrorCode::GroupAuthorizationFailed && self.name == READER {
            debug!(target: "kafka", client = self.name, reason, "{code}");
            return;
        }
        // Joining again with a longer session is the answer to a session that is too short; it says so itself.
        if is_transport(code) || code == RDKafkaErrorCode::InvalidSessionTimeout {
            debug!(target: "kafka", client = self.name, reason, "{code}");
            return;
        }
        // The caller reports why its call failed.
        if is_login(code) {
            if let Some(more) = self.due(&code.to_string()) {
                warn!(target: "kafka", client = self.name, reason, more, "{code}");
            }
            return;
        }
        if let Some(more) = self.due(&code.to_string()) {
            error!(target: "kafka", client = self.name, reason, more, "{code}");
        }
    }

    /// Keeps the failure, unless a more telling one is as new: a broker's name often has another address, which refuses connections.
    fn keep(&self, failure: Failure) {
        let mut last = lock(&self.last_failure);
        let is_more_telling = |last: &Failure| is_refusal(last.code) && last.at.elapsed() < TELLING;
        if !is_transport(failure.code) || !last.as_ref().is_some_and(is_more_telling) {
            *last = Some(failure);
        }
    }

    /// A line of librdkafka's own log.
    pub(super) fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        self.taken.fetch_add(1, Ordering::Relaxed);
        // A connection that ends before the first answer is only logged.
        let reason = message.split_once("]: ").map_or(message, |(_, reason)| reason);
        let cause = with_cause(reason);
        if facility == "FAIL" && cause != reason {
            let code = RDKafkaErrorCode::BrokerTransportFailure;
            self.keep(Failure { code, reason: cause, at: Instant::now() });
        }
        // All kinds of clients share the settings, and each uses only its own.
        let harmless = facility == "CONFWARN" && message.contains("will be ignored");
        // The owner learns of the loss of its partitions at its next poll, and warns of it.
        let is_loss = matches!(facility, "SESSTMOUT" | "MAXPOLL");
        // A broker that has just started is asked again; a publisher that gets no answer in time reports that itself.
        let is_retried = facility == "GETPID" && message.contains("retrying");
        let is_quiet = harmless || is_loss || is_retried || matches!(facility, "FAIL" | "ERROR" | "SSL");
        match level {
            _ if is_quiet => debug!(target: "kafka", client = self.name, facility, "{message}"),
            Emerg | Alert | Critical | Error => {
                if let Some(more) = self.due(facility) {
                    error!(target: "kafka", client = self.name, facility, more, "{message}");
                }
            }
            Warning => {
                if let Some(more) = self.due(facility) {
                    warn!(target: "kafka", client = self.name, facility, more, "{message}");
                }
            }
            Notice | Info | Debug => debug!(target: "kafka", client = self.name, facility, "{message}"),
        }
    }

    /// Whether a line of this kind is due, with the number of those left out since the last.
    pub(super) fn due(&self, kind: &str) -> Option<u64> {
        let mut log = lock(&self.log);
        let now = Instant::now();
        if let Some((last, left_out)) = log.get_mut(kind) {
            if now.duration_since(*last) < QUIET {
                *left_out += 1;
                return None;
            }
            let more = *left_out;
            (*last, *left_out) = (now, 0);
            return Some(more);
        }
        log.insert(kind.to_owned(), (now, 0));
        Some(0)
    }

    /// The text of the last error event with this code.
    pub(super) fn reason(&self, code: RDKafkaErrorCode) -> String {
        match &*lock(&self.last_failure) {
            Some(last_failure) if last_failure.code == code && !last_failure.reason.is_empty() => {
                last_failure.reason.clone()
            }
            _ => code.to_string(),
        }
    }

    /// The error of a call without an answer, with the connection's last failure, if there is one.
    pub(super) fn explained(&self, text: String) -> BusError {
        match lock(&self.last_failure).clone() {
            Some(last_failure)
                if last_failure.at.elapsed() < QUIET && !text.contains(unrepeated(&last_failure.reason)) =>
            {
                // What the failure says, it says better.
                let generic = RDKafkaErrorCode::BrokerTransportFailure.to_string();
                match text.strip_suffix(&generic) {
                    Some(doing) => refusal(last_failure.code, format!("{doing}{}", last_failure.reason)),
                    None => refusal(last_failure.code, format!("{text} ({})", last_failure.reason)),
                }
            }
            _ => BusError::Unavailable(text),
        }
    }

    /// Classifies a failed call; where the call only reports that no answer came, the error includes the connection's
    /// last failure.
    pub(super) fn failed(&self, doing: &str, failure: &KafkaError) -> BusError {
        let code = failure.rdkafka_error_code();
        if code.is_none_or(is_transport)
            && let Some(last_failure) = lock(&self.last_failure).clone()
            && last_failure.at.elapsed() < QUIET
        {
            return refusal(last_failure.code, format!("{doing}: {}", last_failure.reason));
        }
        match code {
            Some(code) if is_refusal(code) => refusal(code, format!("{doing}: {code}")),
            Some(RDKafkaErrorCode::Fatal) => BusError::Fatal(format!("{doing}: {failure}")),
            Some(code) => BusError::Unavailable(format!("{doing}: {code}")),
            None => BusError::Unavailable(format!("{doing}: {failure}")),
        }
    }
}

/// A reason without how often and for how long it lasted, which differs each time: `(after 0ms in state CONNECT)`.
fn unrepeated(reason: &str) -> &str {
    reason.split(" (after ").next().unwrap_or(reason)
}

/// Errors that only mean that a broker is unavailable now.
pub(super) fn is_transport(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::Resolve
            | Code::NodeUpdate
            | Code::TimedOutQueue
            | Code::WaitingForCoordinator
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::BrokerNotAvailable
            | Code::NetworkException
    )
}

/// Errors that only an operator can fix.
pub(super) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    is_login(code) || is_access(code)
}

/// Errors before the client has logged in.
fn is_login(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Authentication | Code::SSL | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism)
}

/// Rights that the client lacks.
fn is_access(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed)
}

/// The error of this code, which may also be one that the client recovers from by itself.
pub(super) fn refusal(code: RDKafkaErrorCode, text: String) -> BusError {
    match code {
        code if is_login(code) => BusError::Login(text),
        code if is_access(code) => BusError::Access(text),
        _ => BusError::Unavailable(text),
    }
}

/// A panic elsewhere leaves these values consistent: each is replaced in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_a_text_has_already_is_not_repeated_with_another_count() {
        let connection = Connection::new("test");
        let refused = |more: &str| format!("a:1/bootstrap: Connection refused (after 0ms in state CONNECT{more})");
        let failure = KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure);
        connection.error(&failure, &refused(", 1 identical error(s) suppressed"));
        let text = format!("asking for topic \"t\": {}", refused(""));
        assert_eq!(connection.explained(text.clone()).to_string(), format!("the bus did not answer: {text}"));
        assert!(connection.explained("no answer".to_owned()).to_string().contains("Connection refused"));
    }
}
