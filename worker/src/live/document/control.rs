//! What a document says of what operators want.

use serde::{Deserialize, Serialize};
use tallybus_control::DesiredState;
use tallybus_sdk::text::clip;

use super::{MAX_REASON, SinkState, clipped};
use crate::duty::Duty;

/// What operators want of a worker, and how far it is with that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlDocument {
    /// What is wanted: `running`, `paused` or `drained`; absent while that is not known.
    pub wanted: Option<String>,
    /// The id of the desired state.
    pub id: Option<String>,
    /// Who wants it.
    pub by: Option<String>,
    /// Since when: milliseconds since the Unix epoch, by the clock of who wants it.
    pub since_ms: Option<i64>,
    /// Why, as it was given.
    pub reason: Option<String>,
    /// Why the worker does not run, or how far it is; `running` where it does.
    pub text: String,
}

impl ControlDocument {
    pub(super) fn of(duty: &Duty) -> Option<Self> {
        let desired = duty.desired();
        let text = match duty.reason() {
            Some(reason) => reason,
            None => desired.map(|desired| format!("running {}", desired.why()))?,
        };
        Some(Self {
            wanted: desired.map(|desired| desired.state.name().to_owned()),
            id: desired.map(|desired| desired.id.clone()),
            by: desired.map(|desired| clip(&desired.issuer, MAX_REASON).to_owned()),
            since_ms: desired.map(|desired| desired.issued_ms),
            reason: desired.map(|desired| clip(&desired.reason, MAX_REASON).to_owned()),
            text: clipped(&text),
        })
    }
}

/// The state of a worker that does not run because operators want it so, or may.
pub(super) fn of_duty(duty: &Duty) -> Option<SinkState> {
    let rest = match duty {
        Duty::Waiting(_) => return Some(SinkState::Waiting),
        Duty::Running(_) => return None,
        Duty::Resting(rest) => rest,
    };
    Some(match (rest.desired.state, rest.is_settled()) {
        (DesiredState::Drained, true) => SinkState::Drained,
        (DesiredState::Drained, false) => SinkState::Draining,
        (_, true) => SinkState::Paused,
        (_, false) => SinkState::Pausing,
    })
}
