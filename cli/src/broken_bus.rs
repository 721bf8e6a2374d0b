//! A bus that answers a few requests and then none, for the tests of read-only commands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tallybus_bus::{
    Bus, BusError, Committed, GroupOptions, Observer, OffsetRange, Publisher, Reader, StreamId, Subscriber,
    TopicOptions, TopicPartition,
};
use tallybus_sdk::Kind;
use tallybus_sdk::testkit::UNOPENED;
use tallybus_worker::settings::Settings;

/// Answers this many partition queries, and fails everything else.
#[derive(Clone)]
pub(crate) struct BrokenBus(Arc<AtomicU32>);

impl BrokenBus {
    pub(crate) fn after(answers: u32) -> Self {
        Self(Arc::new(AtomicU32::new(answers)))
    }
}

static KINDS: &[Kind] = &[UNOPENED];

/// An embedded bus and one sink, `a`.
pub(crate) fn settings() -> Settings {
    let value = serde_json::json!({
        "bus": { "kind": "embedded", "path": "unused.db" },
        "sinks": { "a": { "kind": "unopened" } },
    });
    Settings::from_value(&value, KINDS).unwrap()
}

fn broken<T>() -> Result<T, BusError> {
    Err(BusError::Unavailable("the broker does not answer".to_owned()))
}

impl Bus for BrokenBus {
    fn describe(&self) -> String {
        "broken bus".to_owned()
    }
    fn create_topic(&self, _topic: &str, _options: &TopicOptions) -> Result<bool, BusError> {
        broken()
    }
    fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
        Ok(Box::new(self.clone()))
    }
    fn publisher(&self) -> Result<Box<dyn Publisher>, BusError> {
        broken()
    }
    fn subscriber(&self, _: &str, _: &[String], _: &GroupOptions) -> Result<Box<dyn Subscriber>, BusError> {
        broken()
    }
    fn reset_group(&self, _group: &str, _to: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
        broken()
    }
    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        broken()
    }
}

impl Observer for BrokenBus {
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError> {
        match self.0.load(Ordering::Relaxed) {
            0 => broken(),
            left => {
                self.0.store(left - 1, Ordering::Relaxed);
                Ok(vec![Some(4); topics.len()])
            }
        }
    }
    fn offsets(&self, _topics: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError> {
        broken()
    }
    fn offsets_at(&self, _topics: &[&str], _time_ms: i64) -> Result<Vec<Vec<u64>>, BusError> {
        broken()
    }
    fn committed(&self, _of: &[(&str, &str)]) -> Result<Vec<Vec<Option<Committed>>>, BusError> {
        broken()
    }
    fn stream_ids(&self, _topics: &[&str]) -> Result<Vec<StreamId>, BusError> {
        broken()
    }
}
