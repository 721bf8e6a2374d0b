//! What operators want of the workers of a process, read from the bus: desired states, which the workers follow, and commands, each
//! of which is done once. One thread of its own does that; no worker waits for it, but for the desired states before its first
//! seal.

mod answers;
mod commands;
mod desired;
mod thread;
mod topic_reader;

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use tallybus_bus::Bus;
use tallybus_control::Refusal;
use tallybus_sdk::clock::Clock;

pub use self::answers::{create_commands_topic, signature};
pub use self::desired::DesiredReader;
use self::thread::Listening;
pub use self::topic_reader::{Found, From, Headers, TopicReader};
use crate::live::Process;
use crate::settings::{ControlMode, names};

/// The listening of a process, until dropped.
#[derive(Debug)]
pub struct Control {
    _end: Sender<()>,
}

impl Control {
    /// Listens from now on to what operators want of the workers that the process shows; nothing where the mode is off. `sinks`:
    /// the names of its sinks, for the log.
    ///
    /// # Errors
    /// The system has no thread for it. The workers would wait for ever.
    pub fn start(
        bus: Arc<dyn Bus>,
        namespace: &str,
        mode: &ControlMode,
        process: Process,
        sinks: &str,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Option<Self>> {
        if matches!(mode, ControlMode::Off) {
            return Ok(None);
        }
        let (end, stop) = std::sync::mpsc::channel();
        let topics = (names::control_topic(namespace), names::commands_topic(namespace));
        let listening = Listening::new(bus, topics, mode.keys().to_vec(), process, sinks, clock);
        std::thread::Builder::new().name("control".to_owned()).spawn(move || listening.run(&stop))?;
        Ok(Some(Self { _end: end }))
    }
}

/// What was taken and refused of commands and desired states, for metrics.
#[derive(Debug, Default)]
pub(crate) struct ControlCounts {
    taken: std::sync::atomic::AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// The reason of a command that no worker knows.
pub(crate) const UNKNOWN: &str = "unknown";

impl ControlCounts {
    pub(crate) fn take(&self) {
        self.taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self, reason: &'static str, count: u64) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += count;
    }

    /// Commands that were taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Commands and desired states that were refused, by every reason there is.
    pub(crate) fn refused(&self) -> Vec<(&'static str, u64)> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let names = Refusal::ALL.iter().map(|refusal| refusal.name()).chain([UNKNOWN]);
        names.map(|name| (name, refused.get(name).copied().unwrap_or_default())).collect()
    }
}
