//! What `run` shows of itself: endpoints and heartbeats, as the table `[status]` says.

use std::sync::Arc;

use tallybus_bus::Bus;
use tallybus_sdk::clock::Clock;
use tallybus_worker::live::{Endpoints, Heartbeat, Process};
use tallybus_worker::settings::{Settings, SinkSettings, names};
use tallybus_worker::supervisor::{Running, Stop};

use crate::Global;
use crate::failure::Failure;

/// See the module.
pub(crate) struct Live {
    process: Process,
    /// They answer until dropped.
    _endpoints: Option<Endpoints>,
    heartbeat: Option<Heartbeat>,
}

impl Live {
    /// Answers requests from now on, if the settings name an address: before the bus is asked for anything.
    ///
    /// # Errors
    /// The address cannot be listened on, or its token does not exist.
    pub(crate) fn start(global: &Global, settings: &Settings, bus: &str, stop: Stop) -> Result<Self, Failure> {
        let process = Process::new(global.build, bus, stop);
        let endpoints = match settings.status.listen {
            Some(address) => {
                let token = settings.status.token();
                let token = token.map_err(|reason| Failure::could_not_look(format!("status.token: {reason}")))?;
                Some(Endpoints::start(address, token, process.clone()).map_err(Failure::could_not_look)?)
            }
            None => None,
        };
        Ok(Self { process, _endpoints: endpoints, heartbeat: None })
    }

    /// Shows these workers, and publishes heartbeats from now on, unless the settings forbid it. A system that has no thread for
    /// them does not keep the workers from counting.
    pub(crate) fn watch(
        &mut self,
        running: &[Running],
        settings: &Settings,
        sinks: &[&SinkSettings],
        bus: &Arc<dyn Bus>,
        clock: &Arc<dyn Clock>,
    ) {
        self.process.watch(running);
        if !settings.status.heartbeats {
            return;
        }
        let topic = names::control_topic(&settings.bus.namespace);
        let sinks: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
        let (bus, clock) = (Arc::clone(bus), Arc::clone(clock));
        match Heartbeat::start(bus, &topic, self.process.clone(), &sinks.join(","), clock) {
            Ok(heartbeat) => self.heartbeat = Some(heartbeat),
            Err(error) => tracing::warn!(topic, %error, "no heartbeats: the system has no thread for them"),
        }
    }

    /// The workers have ended: says so on the bus, which is waited for a second at most.
    pub(crate) fn leave(self) {
        if let Some(heartbeat) = self.heartbeat {
            heartbeat.leave();
        }
    }
}
