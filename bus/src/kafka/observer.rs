use std::time::Duration;

use super::access;
use super::admin;
use super::config::Settings;
use super::lookup::Lookup;
use super::retention;
use crate::{Access, BusError, Committed, Observer, OffsetRange, Resource, Retention, StreamId};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct KafkaObserver {
    settings: Settings,
    lookup: Lookup,
}

impl KafkaObserver {
    pub(super) fn new(settings: &Settings) -> Result<Self, BusError> {
        Ok(Self { settings: settings.clone(), lookup: Lookup::new(&settings.lookup(), "observer")? })
    }
}

impl Observer for KafkaObserver {
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError> {
        self.lookup.partitions_of(topics, PATIENCE)
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
        self.lookup.committed(of, PATIENCE)
    }

    fn groups(&self) -> Result<Vec<String>, BusError> {
        self.lookup.groups(PATIENCE)
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

    fn access(&self, of: &[Resource]) -> Result<Vec<Access>, BusError> {
        access::of(&self.lookup, of, PATIENCE)
    }

    fn may_create_topic(&self, topic: &str) -> Result<bool, BusError> {
        admin::may_create(&self.settings, topic)
    }

    fn principal(&self) -> Option<String> {
        self.settings.principal()
    }
}
