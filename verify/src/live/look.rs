use std::collections::BTreeMap;
use std::time::Duration;

use tallybus_bus::{BusError, Committed, Observer, OffsetRange, TopicPartition};
use tallybus_sdk::progress::PartitionProgress;
use tallybus_worker::settings::names;

use super::TopicRole;

/// What is looked at.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// The topic that services publish counters to.
    pub topic: String,
    /// The sinks.
    pub sinks: Vec<WatchedSink>,
}

/// A sink that is looked at.
#[derive(Debug, Clone)]
pub struct WatchedSink {
    /// Its name.
    pub name: String,
    /// Its kind; `None` where the settings do not say it.
    pub kind: Option<String>,
    /// Its consumer group.
    pub group: String,
    /// The topics that its events come from.
    pub topics: Vec<String>,
    /// The topic of its dead letters.
    pub dead_letter_topic: String,
    /// The topic that its dead letters are replayed from.
    pub replay_topic: String,
}

impl Watched {
    /// The sinks that have a consumer group on the bus, all of them with the same topic: for a watcher without their settings.
    ///
    /// # Errors
    /// The bus did not list its groups.
    pub fn discover(observer: &dyn Observer, topic: &str, namespace: &str) -> Result<Self, BusError> {
        let start = names::group(namespace, "");
        // Groups of replays and of comparisons have names with more parts.
        let is_sink = |name: &&str| !name.is_empty() && !name.contains('.');
        let groups = observer.groups()?;
        let mut found: Vec<&str> =
            groups.iter().filter_map(|group| group.strip_prefix(&start)).filter(is_sink).collect();
        found.sort_unstable();
        let sink = |name: &str| WatchedSink {
            name: name.to_owned(),
            kind: None,
            group: names::group(namespace, name),
            topics: vec![topic.to_owned()],
            dead_letter_topic: names::dead_letter_topic(namespace, name),
            replay_topic: names::replay_topic(namespace, name),
        };
        Ok(Self { topic: topic.to_owned(), sinks: found.into_iter().map(sink).collect() })
    }

    /// Every topic once, with what it is for.
    pub fn topics(&self) -> BTreeMap<&str, TopicRole> {
        let mut topics = BTreeMap::new();
        for sink in &self.sinks {
            topics.insert(sink.replay_topic.as_str(), TopicRole::Replay { sink: sink.name.clone() });
            topics.insert(sink.dead_letter_topic.as_str(), TopicRole::DeadLetters { sink: sink.name.clone() });
        }
        let counters = self.sinks.iter().flat_map(|sink| &sink.topics).chain([&self.topic]);
        topics.extend(counters.map(|topic| (topic.as_str(), TopicRole::Counters)));
        topics
    }
}

/// What the bus answered.
#[derive(Debug, Clone)]
pub struct Look {
    /// When it answered, since any fixed moment: rates are measured by it.
    pub at: Duration,
    /// The same by the wall clock: milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// What each topic's partitions hold; `None` for one that does not exist.
    pub topics: BTreeMap<String, Option<Vec<OffsetRange>>>,
    /// By sink: its partitions, in the order of its topics.
    pub sinks: BTreeMap<String, SinkLook>,
}

/// What the bus answered about a sink.
#[derive(Debug, Clone, Default)]
pub struct SinkLook {
    /// Partitions of its topics that exist.
    pub partitions: Vec<PartitionProgress>,
    /// Topics of it that do not exist.
    pub missing: Vec<String>,
    /// Why commits of its group are not understood; they are another program's.
    pub foreign: Option<String>,
    /// What its workers have noted of partitions in which its group holds no offset.
    pub noted: Noted,
}

/// What the workers of a sink have noted of partitions in which its group holds no offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Noted {
    /// Nothing, or it was not asked for.
    #[default]
    Nothing,
    /// An offset, in so many partitions: the bus has forgotten the group's.
    Offsets(u64),
    /// The notes cannot be read: why.
    Unknown(String),
}

impl Look {
    /// Asks the bus: which topics there are, what the groups have committed, what the partitions hold. `now` tells both times
    /// of the answer.
    ///
    /// # Errors
    /// The bus did not answer one of the questions: nothing of this look is known.
    pub fn read(
        observer: &dyn Observer,
        watched: &Watched,
        now: impl FnOnce() -> (Duration, i64),
    ) -> Result<Self, BusError> {
        let topics: Vec<&str> = watched.topics().into_keys().collect();
        let counts = observer.partitions(&topics)?;
        let existing: Vec<&str> =
            topics.iter().zip(&counts).filter(|(_, count)| count.is_some()).map(|(topic, _)| *topic).collect();
        let read: Vec<(&WatchedSink, &str)> =
            watched.sinks.iter().flat_map(|sink| sink.topics.iter().map(move |topic| (sink, topic.as_str()))).collect();
        let read: Vec<_> = read.into_iter().filter(|(_, topic)| existing.contains(topic)).collect();
        let of: Vec<(&str, &str)> = read.iter().map(|(sink, topic)| (sink.group.as_str(), *topic)).collect();
        // In this order: a group that advances in the meantime is never past an end that is read later.
        let committed = if of.is_empty() { Vec::new() } else { observer.committed(&of)? };
        let ranges = if existing.is_empty() { Vec::new() } else { observer.offsets(&existing)? };
        let (at, time_ms) = now();
        let mut held: BTreeMap<String, Option<Vec<OffsetRange>>> =
            topics.iter().map(|topic| ((*topic).to_owned(), None)).collect();
        held.extend(existing.iter().map(|topic| (*topic).to_owned()).zip(ranges.into_iter().map(Some)));
        let mut sinks: BTreeMap<String, SinkLook> = BTreeMap::new();
        for sink in &watched.sinks {
            let missing = sink.topics.iter().filter(|topic| !existing.contains(&topic.as_str())).cloned().collect();
            sinks.insert(sink.name.clone(), SinkLook { missing, ..SinkLook::default() });
        }
        for ((sink, topic), committed) in read.into_iter().zip(committed) {
            let ranges = held.get(topic).and_then(Option::as_deref).unwrap_or_default();
            if let Some(look) = sinks.get_mut(&sink.name) {
                look.add(&sink.group, topic, ranges, &committed);
            }
        }
        Ok(Self { at, time_ms, topics: held, sinks })
    }
}

impl SinkLook {
    fn add(&mut self, group: &str, topic: &str, ranges: &[OffsetRange], committed: &[Option<Committed>]) {
        for (partition, range) in (0..).zip(ranges) {
            let at = TopicPartition::new(topic, partition);
            let held = committed.get(partition as usize).and_then(Option::as_ref);
            match PartitionProgress::of(group, at, held, *range) {
                Ok(progress) => self.partitions.push(progress),
                Err(error) => self.foreign = Some(error.to_string()),
            }
        }
    }
}
