//! What an instance says of itself on the bus.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tallybus_control::{InstanceState, InstanceStatus, PoolState, VERSION, instance_key};

use super::clock::millis_now;
use crate::sys;

/// See the module. Shared by the threads of an instance.
#[derive(Debug)]
pub(super) struct Presence {
    service: String,
    instance: String,
    commands: Vec<String>,
    tasks: Vec<String>,
    started_ms: i64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Commands are read: from now on one that is sent is seen.
    is_ready: bool,
    pool: PoolState,
    /// It changed since it was last published.
    is_new: bool,
}

impl Presence {
    pub(super) fn new(service: &str, instance: &str, commands: Vec<String>, tasks: Vec<String>) -> Self {
        let pool = if tasks.is_empty() { PoolState::None } else { PoolState::In };
        Self {
            service: service.to_owned(),
            instance: instance.to_owned(),
            commands,
            tasks,
            started_ms: millis_now(),
            state: Mutex::new(State { is_ready: false, pool, is_new: false }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_ready(&self) {
        let mut state = self.lock();
        state.is_new |= !state.is_ready;
        state.is_ready = true;
    }

    pub(super) fn set_pool(&self, pool: PoolState) {
        let mut state = self.lock();
        state.is_new |= state.pool != pool;
        state.pool = pool;
    }

    pub(super) fn pool(&self) -> PoolState {
        self.lock().pool
    }

    /// Whether a heartbeat is due: at the latest at this time.
    pub(super) fn is_due(&self, at_latest: Instant) -> bool {
        let state = self.lock();
        state.is_ready && (state.is_new || Instant::now() >= at_latest)
    }

    pub(super) fn key(&self) -> String {
        instance_key(&self.service, &self.instance)
    }

    /// The status now; `None` for an instance that has never read commands.
    pub(super) fn status(&self, is: InstanceState) -> Option<InstanceStatus> {
        let mut state = self.lock();
        if !state.is_ready {
            return None;
        }
        state.is_new = false;
        Some(InstanceStatus {
            version: VERSION,
            service: self.service.clone(),
            instance: self.instance.clone(),
            host: sys::host_name().unwrap_or_default(),
            pid: std::process::id(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            state: is,
            pool: state.pool,
            commands: self.commands.clone(),
            tasks: self.tasks.clone(),
            started_ms: self.started_ms,
            time_ms: millis_now(),
        })
    }
}
