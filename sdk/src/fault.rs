use std::time::Duration;

use thiserror::Error;

use crate::{SinkError, WriteOutcome};

/// Why a backend did not do what was requested, classified by how to proceed. Its text contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The backend is busy or unavailable, or its answer was lost: send the same request again later.
    #[error("{reason}")]
    Retry {
        /// The delay that the backend asked for.
        after: Option<Duration>,
        /// What happened.
        reason: String,
    },
    /// The backend will never accept the request as it is: it is too large, contains a point that does not fit, or
    /// contains points that are already stored. Nothing of it was stored by this request.
    #[error("{reason}")]
    Refused {
        /// What happened.
        reason: String,
    },
    /// Needs operator action: credentials, a missing table, a wrong setting.
    #[error("{reason}")]
    Operator {
        /// What happened, and what the operator must do.
        reason: String,
    },
}

impl Fault {
    /// A fault after which the same request may succeed later.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { after: None, reason: reason.into() }
    }

    /// A fault after which the request will never succeed.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }

    /// A fault that needs operator action.
    pub fn operator(reason: impl Into<String>) -> Self {
        Self::Operator { reason: reason.into() }
    }

    /// What happened.
    pub fn reason(&self) -> &str {
        match self {
            Self::Retry { reason, .. } | Self::Refused { reason } | Self::Operator { reason } => reason,
        }
    }

    /// The same fault with another text: with what to do next, or without secrets.
    #[must_use]
    pub fn reworded(mut self, reword: impl FnOnce(&str) -> String) -> Self {
        let (Self::Retry { reason, .. } | Self::Refused { reason } | Self::Operator { reason }) = &mut self;
        *reason = reword(reason);
        self
    }

    /// Whether the same request may succeed later.
    pub fn is_retry(&self) -> bool {
        matches!(self, Self::Retry { .. })
    }

    /// Whether the backend refuses the data.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// A refused batch is halved until the points that do not fit are isolated.
impl From<Fault> for WriteOutcome {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Retry { after, reason } => Self::Retry { after, reason },
            Fault::Refused { reason } => Self::Split { reason },
            Fault::Operator { reason } => Self::Halt { reason },
        }
    }
}

/// The result of a request.
impl From<Result<(), Fault>> for WriteOutcome {
    fn from(outcome: Result<(), Fault>) -> Self {
        match outcome {
            Ok(()) => Self::Done,
            Err(fault) => fault.into(),
        }
    }
}

/// A query that the backend refuses will be refused again.
impl From<Fault> for SinkError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Retry { reason, .. } => Self::Unavailable(reason),
            Fault::Refused { reason } | Fault::Operator { reason } => Self::Halt(reason),
        }
    }
}

impl From<SinkError> for Fault {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Unavailable(reason) => Self::retry(reason),
            SinkError::Halt(reason) => Self::operator(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_answer_and_its_error() {
        let after = Some(Duration::from_secs(3));
        let reason = || "why".to_owned();
        for (fault, answer, is_halt) in [
            (Fault::Retry { after, reason: reason() }, WriteOutcome::Retry { after, reason: reason() }, false),
            (Fault::refused("why"), WriteOutcome::Split { reason: reason() }, true),
            (Fault::operator("why"), WriteOutcome::Halt { reason: reason() }, true),
        ] {
            assert_eq!(WriteOutcome::from(fault.clone()), answer);
            let error = SinkError::from(fault.clone());
            assert_eq!((matches!(error, SinkError::Halt(_)), error.to_string()), (is_halt, reason()));
            assert_eq!(fault.reworded(|reason| format!("{reason} not")).reason(), "why not");
        }
    }
}
