//! What a guard knows of commands: the bus of its collector, and the threads once commands are served.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tallybus_bus::Bus;

use super::clock::random_id;
use super::counts::CommandCounts;
use super::listener::Listener;
use super::settings::{Commands, CommandsError, is_plain};

/// The longest part of the collector's instance in the id of an instance.
const MAX_HOST: usize = 60;

/// See the module.
pub(crate) struct Attached {
    bus: Arc<dyn Bus>,
    service: String,
    /// The collector's tag: the host, unless it was set.
    host: String,
    state: Mutex<State>,
}

enum State {
    Idle,
    Serving(Listener),
    Stopped,
}

impl Attached {
    /// `tags`: those of every series of the collector.
    pub(crate) fn new(bus: Arc<dyn Bus>, tags: &BTreeMap<String, String>) -> Self {
        let tag = |name: &str| tags.get(name).cloned().unwrap_or_default();
        Self { bus, service: tag("service"), host: tag("instance"), state: Mutex::new(State::Idle) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn serve(&self, commands: Commands) -> Result<(), CommandsError> {
        commands.check(&self.service)?;
        let mut state = self.lock();
        match &*state {
            State::Idle => {}
            State::Serving(listener) if listener.is_of_parent() => return Err(CommandsError::Stopped),
            State::Serving(_) => return Err(CommandsError::Serving),
            State::Stopped => return Err(CommandsError::Stopped),
        }
        let instance = commands.instance.clone().unwrap_or_else(|| instance_of(&self.host));
        *state = State::Serving(Listener::start(&self.bus, &self.service, &instance, commands)?);
        Ok(())
    }

    pub(crate) fn address(&self) -> Option<String> {
        match &*self.lock() {
            State::Serving(listener) => Some(listener.address()),
            State::Idle | State::Stopped => None,
        }
    }

    pub(crate) fn counts(&self) -> CommandCounts {
        match &*self.lock() {
            State::Serving(listener) => listener.counts(),
            State::Idle | State::Stopped => CommandCounts::default(),
        }
    }

    /// Stops within half of this time, so that the other half is left for the last counts whatever a handler does; returns how much
    /// of the whole is left, and what came of commands.
    pub(crate) fn stop(&self, within: Duration) -> (Duration, CommandCounts) {
        let begun = Instant::now();
        let state = std::mem::replace(&mut *self.lock(), State::Stopped);
        let counts = match state {
            State::Serving(listener) => listener.stop(within / 2),
            State::Idle | State::Stopped => CommandCounts::default(),
        };
        (within.saturating_sub(begun.elapsed()), counts)
    }

    /// The same for an owner who gets no report.
    pub(crate) fn stop_and_log(&self, within: Duration) -> Duration {
        let (left, counts) = self.stop(within);
        if counts != CommandCounts::default() {
            tracing::info!(%counts, "commands are served no more");
        }
        left
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("service", &self.service).finish_non_exhaustive()
    }
}

/// An id for this life of the process: the host, where it fits into an address, and random digits.
fn instance_of(host: &str) -> String {
    let plain: String = host.chars().filter(|c| is_plain(c.encode_utf8(&mut [0; 4]))).take(MAX_HOST).collect();
    let random = random_id();
    let digits = random.get(..8).unwrap_or(&random);
    if plain.is_empty() { digits.to_owned() } else { format!("{plain}-{digits}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_after_its_host_and_differs_each_time() {
        let (one, other) = (instance_of("web-3.example"), instance_of("web-3.example"));
        assert!(one.starts_with("web-3.example-") && is_plain(&one), "{one}");
        assert_ne!(one, other);
        assert!(
            is_plain(&instance_of("")) && is_plain(&instance_of("a/b@c d")) && is_plain(&instance_of(&"x".repeat(300)))
        );
    }
}
