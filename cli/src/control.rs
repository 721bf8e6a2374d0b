//! What operators want of a sink, for commands that write to it or look at it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::Bus;
use tallybus_control::{Desired, DesiredState, Identity};
use tallybus_worker::control::DesiredReader;
use tallybus_worker::live::host_name;
use tallybus_worker::settings::{ControlMode, Settings, SinkSettings, names};

use crate::failure::Failure;

/// How long the control topic is read for.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// From whom the workers of these settings take commands. Without heartbeats from no one: those who ask could not know them.
///
/// # Errors
/// A key of the settings does not exist, or is none.
pub(crate) fn mode(settings: &Settings) -> Result<ControlMode, Failure> {
    if !settings.status.heartbeats {
        return Ok(ControlMode::Off);
    }
    let is_file = settings.bus.address.file().is_some();
    settings.control.mode(is_file).map_err(|reason| Failure::could_not_look(format!("control.keys: {reason}")))
}

/// The desired state that a worker of this sink on this host would follow, where it is another one than running.
///
/// # Errors
/// It cannot be read: whether the sink may be written is not known.
pub(crate) fn rest_of(
    settings: &Settings,
    bus: &Arc<dyn Bus>,
    sink: &SinkSettings,
) -> Result<Option<Desired>, Failure> {
    let mode = mode(settings)?;
    if matches!(mode, ControlMode::Off) {
        return Ok(None);
    }
    let topic = names::control_topic(&settings.bus.namespace);
    let mut desired = DesiredReader::new(Arc::clone(bus), &topic, mode.keys().to_vec());
    let until = Instant::now() + READ_WITHIN;
    while !desired.read(Duration::from_millis(100))? {
        if Instant::now() >= until {
            let seconds = READ_WITHIN.as_secs();
            let text = format!("topic {topic} could not be read to its end within {seconds} s");
            return Err(Failure::could_not_look(text));
        }
    }
    let worker = Identity::Worker {
        sink: sink.name.clone(),
        kind: sink.kind.name.to_owned(),
        id: String::new(),
        name: settings.control.name.clone().unwrap_or_else(host_name),
    };
    Ok(desired.states().of(&worker).filter(|desired| desired.state != DesiredState::Running).cloned())
}
