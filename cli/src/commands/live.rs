//! What `run` shows of itself, and what it is told: endpoints and heartbeats, as the table `[status]` says, and commands, as
//! `[control]` does.

use std::sync::Arc;

use tallybus_bus::Bus;
use tallybus_sdk::clock::Clock;
use tallybus_worker::control::Control;
use tallybus_worker::live::{Endpoints, Heartbeat, Process};
use tallybus_worker::settings::{ControlMode, Settings, SinkSettings, names};
use tallybus_worker::supervisor::{Running, Stop};

use crate::failure::Failure;
use crate::{Global, control};

/// See the module.
pub(crate) struct Live {
    process: Process,
    /// They answer until dropped.
    _endpoints: Option<Endpoints>,
    heartbeat: Option<Heartbeat>,
    mode: ControlMode,
    /// It listens until dropped.
    control: Option<Control>,
}

impl Live {
    /// Answers requests from now on, if the settings name an address: before the bus is asked for anything.
    ///
    /// # Errors
    /// The address cannot be listened on, or its token does not exist.
    pub(crate) fn start(global: &Global, settings: &Settings, bus: &str, stop: Stop) -> Result<Self, Failure> {
        let mode = control::mode(settings)?;
        let process = Process::controlled(global.build, bus, stop, settings.control.name.as_deref(), &mode);
        let endpoints = match settings.status.listen {
            Some(address) => {
                let token = settings.status.token();
                let token = token.map_err(|reason| Failure::could_not_look(format!("status.token: {reason}")))?;
                Some(Endpoints::start(address, token, process.clone()).map_err(Failure::could_not_look)?)
            }
            None => None,
        };
        Ok(Self { process, _endpoints: endpoints, heartbeat: None, mode, control: None })
    }

    /// Whether the workers follow what operators want.
    pub(crate) fn takes_commands(&self) -> bool {
        !matches!(self.mode, ControlMode::Off)
    }

    /// Shows these workers, publishes heartbeats and takes commands from now on, unless the settings forbid it. A system that has no
    /// thread for heartbeats does not keep the workers from counting.
    ///
    /// # Errors
    /// The system has no thread that takes commands: whether the workers may run would never be known.
    pub(crate) fn watch(
        &mut self,
        running: &[Running],
        settings: &Settings,
        sinks: &[&SinkSettings],
        bus: &Arc<dyn Bus>,
        clock: &Arc<dyn Clock>,
    ) -> Result<(), Failure> {
        self.process.watch(running);
        if !settings.status.heartbeats {
            return Ok(());
        }
        let topic = names::control_topic(&settings.bus.namespace);
        let sinks: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
        let (process, names) = (self.process.clone(), sinks.join(","));
        let namespace = &settings.bus.namespace;
        let listening = Control::start(Arc::clone(bus), namespace, &self.mode, process, &names, Arc::clone(clock));
        let failed = |error| Failure::failed(format!("the system has no thread that takes commands: {error}"));
        self.control = listening.map_err(failed)?;
        let (bus, clock) = (Arc::clone(bus), Arc::clone(clock));
        match Heartbeat::start(bus, &topic, self.process.clone(), &names, clock) {
            Ok(heartbeat) => self.heartbeat = Some(heartbeat),
            Err(error) => tracing::warn!(topic, %error, "no heartbeats: the system has no thread for them"),
        }
        Ok(())
    }

    /// The workers have ended: says so on the bus, which is waited for a second at most.
    pub(crate) fn leave(mut self) {
        drop(self.control.take());
        if let Some(heartbeat) = self.heartbeat {
            heartbeat.leave();
        }
    }
}
