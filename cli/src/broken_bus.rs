//! A bus that answers a few questions and then none, for the tests of commands that look.

use std::sync::atomic::{AtomicU32, Ordering};

use tallybus_bus::{Bus, BusError, Committed, GroupOptions, OffsetRange, Publisher, Reader, Subscriber};
use tallybus_sinks::settings::Settings;

/// Answers so many questions for a topic's partitions, and fails everything else.
pub(crate) struct BrokenBus(AtomicU32);

impl BrokenBus {
    pub(crate) fn after(answers: u32) -> Self {
        Self(AtomicU32::new(answers))
    }
}

/// An embedded bus and one sink, `a`.
pub(crate) fn settings() -> Settings {
    let value = serde_json::json!({
        "bus": { "kind": "embedded", "path": "unused.db" },
        "sinks": { "a": { "kind": "sqlite", "path": "a.db" } },
    });
    Settings::from_value(&value).unwrap()
}

fn broken<T>() -> Result<T, BusError> {
    Err(BusError::Unavailable("the broker does not answer".to_owned()))
}

impl Bus for BrokenBus {
    fn describe(&self) -> String {
        "broken bus".to_owned()
    }
    fn create_topic(&self, _topic: &str, _partitions: u32) -> Result<bool, BusError> {
        broken()
    }
    fn partitions(&self, _topic: &str) -> Result<Option<u32>, BusError> {
        match self.0.load(Ordering::Relaxed) {
            0 => broken(),
            left => {
                self.0.store(left - 1, Ordering::Relaxed);
                Ok(Some(4))
            }
        }
    }
    fn offsets(&self, _topic: &str) -> Result<Vec<OffsetRange>, BusError> {
        broken()
    }
    fn offsets_at(&self, _topic: &str, _time_ms: i64) -> Result<Vec<u64>, BusError> {
        broken()
    }
    fn committed(&self, _group: &str, _topic: &str) -> Result<Vec<Option<Committed>>, BusError> {
        broken()
    }
    fn publisher(&self) -> Result<Box<dyn Publisher>, BusError> {
        broken()
    }
    fn subscriber(&self, _: &str, _: &[String], _: &GroupOptions) -> Result<Box<dyn Subscriber>, BusError> {
        broken()
    }
    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        broken()
    }
}
