//! What a worker shall be doing, as operators want it, and how far it is with that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tallybus_control::{Desired, DesiredState};

/// What is wanted of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// It is not known yet, and why. The worker waits: it neither joins its group nor seals.
    Unknown(String),
    /// What the newest desired state that matches the worker says; `None` where none does: it runs.
    Known(Option<Desired>),
}

/// What a worker is doing about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// It does not know what is wanted yet, and why. It has not joined its group.
    Waiting(String),
    /// It runs, as the desired state says, where one does.
    Running(Option<Desired>),
    /// It seals nothing.
    Resting(Rest),
}

/// A worker that seals nothing, because an operator wants it paused or drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// Who wants it, since when, and why.
    pub desired: Desired,
    /// How far it is.
    pub progress: RestProgress,
}

/// How far a worker is with settling what is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestProgress {
    /// Something is not settled yet: what, and what it waits for.
    Unsettled(String),
    /// Everything that it had sealed is settled, and the bus has confirmed so. The partitions that it then owned.
    Settled(Vec<SettledPartition>),
}

/// A partition of a worker that is paused or drained.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SettledPartition {
    /// The partition, as `topic/partition`.
    pub partition: String,
    /// Its group's offset on the bus: everything below is settled, and nothing is sealed. `None` where the group never committed.
    pub offset: Option<u64>,
}

impl Default for Duty {
    fn default() -> Self {
        Self::Running(None)
    }
}

impl Duty {
    /// The state in a word.
    pub fn name(&self) -> &'static str {
        let Self::Resting(rest) = self else {
            return if matches!(self, Self::Waiting(_)) { "waiting" } else { "running" };
        };
        match (rest.is_settled(), rest.desired.state) {
            (true, DesiredState::Drained) => "drained",
            (false, DesiredState::Drained) => "draining",
            (true, _) => "paused",
            (false, _) => "pausing",
        }
    }

    /// The desired state that it follows.
    pub fn desired(&self) -> Option<&Desired> {
        match self {
            Self::Waiting(_) => None,
            Self::Running(desired) => desired.as_ref(),
            Self::Resting(rest) => Some(&rest.desired),
        }
    }

    /// Whether it seals nothing because an operator wants it so.
    pub fn is_resting(&self) -> bool {
        matches!(self, Self::Resting(_))
    }

    /// Whether it has given its partitions to others, with everything settled that it had sealed.
    pub fn is_drained(&self) -> bool {
        matches!(self, Self::Resting(rest) if rest.is_settled() && rest.desired.state == DesiredState::Drained)
    }

    /// Why the worker does not run, for people; `None` while it does.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Waiting(reason) => Some(format!("waits until it knows whether it may run: {reason}")),
            Self::Running(_) => None,
            Self::Resting(rest) => {
                let why = rest.desired.why();
                Some(match &rest.progress {
                    RestProgress::Settled(_) => format!("{} {why}", self.name()),
                    RestProgress::Unsettled(left) => format!("{} ({left}), as wanted {why}", self.name()),
                })
            }
        }
    }
}

impl Rest {
    /// Whether everything that the worker had sealed is settled.
    pub fn is_settled(&self) -> bool {
        matches!(self.progress, RestProgress::Settled(_))
    }
}

/// What is wanted, as the thread that reads it tells the worker.
#[derive(Debug)]
pub(crate) struct WantedCell {
    /// Changes with every order, so that the worker's loop need not lock to see that there is none.
    version: AtomicU64,
    wanted: Mutex<Wanted>,
}

impl Default for WantedCell {
    fn default() -> Self {
        Self { version: AtomicU64::new(0), wanted: Mutex::new(Wanted::Known(None)) }
    }
}

impl WantedCell {
    /// Replaces what is wanted.
    pub(crate) fn set(&self, wanted: Wanted) {
        let mut held = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if *held != wanted {
            *held = wanted;
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// What is wanted, when that has changed since `seen`, which is updated.
    pub(crate) fn news(&self, seen: &mut u64) -> Option<Wanted> {
        if self.version.load(Ordering::Acquire) == *seen {
            return None;
        }
        let held = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = self.version.load(Ordering::Acquire);
        Some(held.clone())
    }
}
