use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::config::Settings;
use super::lookup::Lookup;
use super::retention;
use super::state::lock;
use crate::{BusError, Committed, Observer, OffsetRange, Retention, StreamId};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct KafkaObserver {
    settings: Settings,
    lookup: Lookup,
    /// A client for each group that was asked about: librdkafka asks for the commits of a client's own group only.
    groups: Mutex<HashMap<String, Arc<Lookup>>>,
}

impl KafkaObserver {
    pub(super) fn new(settings: &Settings) -> Result<Self, BusError> {
        let lookup = Lookup::new(&settings.lookup(), "observer")?;
        Ok(Self { settings: settings.clone(), lookup, groups: Mutex::default() })
    }

    fn group(&self, group: &str) -> Result<Arc<Lookup>, BusError> {
        let mut groups = lock(&self.groups);
        if let Some(known) = groups.get(group) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(Lookup::new(&self.settings.observer(group), "observer")?);
        groups.insert(group.to_owned(), Arc::clone(&made));
        Ok(made)
    }
}

impl Observer for KafkaObserver {
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError> {
        topics.iter().map(|topic| self.lookup.partitions(topic, PATIENCE)).collect()
    }

    fn offsets(&self, topics: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError> {
        self.lookup.ranges(topics, PATIENCE)
    }

    fn readable_ends(&self, topics: &[&str]) -> Result<Vec<Vec<u64>>, BusError> {
        // A client that reads committed records only; as a reader, it uses no group.
        let readable = Lookup::new(&self.settings.committed_lookup(), "observer")?.ranges(topics, PATIENCE)?;
        Ok(readable.iter().map(|ranges| ranges.iter().map(|range| range.end).collect()).collect())
    }

    fn offsets_at(&self, topics: &[&str], time_ms: i64) -> Result<Vec<Vec<u64>>, BusError> {
        self.lookup.offsets_at(topics, time_ms, PATIENCE)
    }

    fn committed(&self, of: &[(&str, &str)]) -> Result<Vec<Vec<Option<Committed>>>, BusError> {
        of.iter().map(|(group, topic)| self.group(group)?.committed(topic, PATIENCE)).collect()
    }

    fn stream_ids(&self, topics: &[&str]) -> Result<Vec<StreamId>, BusError> {
        self.lookup.stream_ids(topics, PATIENCE)
    }

    fn retention(&self, topics: &[&str]) -> Result<Vec<Retention>, BusError> {
        retention::of_topics(&self.settings, topics)
    }

    fn forgets_groups_after(&self) -> Result<Option<Duration>, BusError> {
        retention::of_groups(&self.settings, &self.lookup).map(Some)
    }
}
