//! A worker of the process as operators address it.

use tallybus_control::Identity;

use super::{Process, Watched};
use crate::duty::{Duty, Wanted};
use crate::status::WorkerStatus;
use crate::worker::WorkerHandle;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Addressee {
    sink: String,
    identity: Identity,
    /// `None` when it could not start.
    handle: Option<WorkerHandle>,
}

impl Addressee {
    pub(super) fn of(process: &Process, watched: &Watched) -> Self {
        let identity = Identity::Worker {
            sink: watched.name.clone(),
            kind: watched.kind.to_owned(),
            id: process.id().to_owned(),
            name: process.name().to_owned(),
        };
        Self { sink: watched.name.clone(), identity, handle: watched.handle.clone() }
    }

    pub(crate) fn sink(&self) -> &str {
        &self.sink
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its status; `None` when it could not start.
    pub(crate) fn status(&self) -> Option<WorkerStatus> {
        self.handle.as_ref().map(WorkerHandle::status)
    }

    /// What it is doing about what is wanted of it.
    pub(crate) fn duty(&self) -> Option<Duty> {
        self.status().map(|status| status.duty)
    }

    /// Says what is wanted of it.
    pub(crate) fn want(&self, wanted: Wanted) {
        if let Some(handle) = &self.handle {
            handle.want(wanted);
        }
    }

    /// Ends its waits before its backend is asked again.
    pub(crate) fn retry_now(&self) {
        if let Some(handle) = &self.handle {
            handle.retries().now();
        }
    }
}
