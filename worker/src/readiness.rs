//! A backend that was away at the start is prepared before a halt is believed: what is missing in it may be what the settings
//! allow to be created.

use tallybus_sdk::SinkError;
use tokio::sync::watch;

use crate::failure_log::NOT_READY;
use crate::writer::EventKind;

/// What the check beside a worker has found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Readiness {
    /// It has not answered yet.
    Unknown,
    /// The backend does not answer: why.
    Unavailable(String),
    /// The backend has answered. When it needs operator action, the writer halts and says so itself.
    Answered,
}

/// The check's side.
#[derive(Debug)]
pub(crate) struct ReadinessSender(watch::Sender<Readiness>);

impl ReadinessSender {
    pub(crate) fn checked(&self, outcome: Result<(), &SinkError>) {
        let found = match outcome {
            Err(SinkError::Unavailable(reason)) => Readiness::Unavailable(reason.clone()),
            Ok(()) | Err(_) => Readiness::Answered,
        };
        self.0.send_if_modified(|readiness| {
            // Once it was ready, the writer finds out by itself.
            let is_news = *readiness != Readiness::Answered && *readiness != found;
            if is_news {
                *readiness = found;
            }
            is_news
        });
    }
}

/// The writers' side.
#[derive(Debug, Clone)]
pub(crate) struct Gate(watch::Receiver<Readiness>);

/// A gate that the check opens.
pub(crate) fn gate() -> (ReadinessSender, Gate) {
    let (sender, receiver) = watch::channel(Readiness::Unknown);
    (ReadinessSender(sender), Gate(receiver))
}

impl Gate {
    /// The event as the worker shall see it. Until the backend has answered the check, what needs operator action is retried,
    /// and what the check has logged is not logged again. A check that has ended stands in no way.
    pub(crate) fn reword(&self, kind: EventKind) -> EventKind {
        let is_over = self.0.has_changed().is_err();
        let readiness = self.0.borrow();
        match (kind, &*readiness) {
            (kind, _) if is_over => kind,
            (kind, Readiness::Answered) => kind,
            (EventKind::Halted { reason, wait }, _)
            | (EventKind::Retrying { reason, wait, .. }, Readiness::Unavailable(_)) => {
                EventKind::Retrying { reason: format!("{NOT_READY}{reason}"), wait, throttled: false }
            }
            (kind, Readiness::Unknown | Readiness::Unavailable(_)) => kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What the worker sees of a halt and of a retry.
    fn seen(gate: &Gate) -> [String; 2] {
        let (reason, wait) = ("no table".to_owned(), Duration::from_secs(1));
        let retrying = EventKind::Retrying { reason: reason.clone(), wait, throttled: false };
        let kinds = [EventKind::Halted { reason, wait }, retrying];
        kinds.map(|kind| match gate.reword(kind) {
            EventKind::Halted { reason, .. } => format!("halted: {reason}"),
            EventKind::Retrying { reason, .. } => format!("retrying: {reason}"),
            other => format!("{other:?}"),
        })
    }

    const AS_IT_IS: [&str; 2] = ["halted: no table", "retrying: no table"];

    #[test]
    fn a_halt_is_retried_until_a_backend_that_was_away_has_been_prepared() {
        let (sender, gate) = gate();
        assert_eq!(seen(&gate), ["retrying: not ready yet: no table", "retrying: no table"]);
        sender.checked(Err(&SinkError::Unavailable("refused".to_owned())));
        assert_eq!(seen(&gate), ["retrying: not ready yet: no table", "retrying: not ready yet: no table"]);
        sender.checked(Ok(()));
        assert_eq!(seen(&gate), AS_IT_IS);
        // What fails after it was ready is the writer's to find.
        sender.checked(Err(&SinkError::Unavailable("refused".to_owned())));
        assert_eq!(seen(&gate), AS_IT_IS);
    }

    #[test]
    fn a_backend_that_needs_operator_action_and_a_check_that_has_ended_change_nothing() {
        let (sender, gate_of_halted) = gate();
        sender.checked(Err(&SinkError::Halt("no such table".to_owned())));
        assert_eq!(seen(&gate_of_halted), AS_IT_IS);
        let (sender, gate) = gate();
        drop(sender);
        assert_eq!(seen(&gate), AS_IT_IS);
    }
}
