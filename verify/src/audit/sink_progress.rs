use tallybus_bus::{Observer, OffsetRange};
use tallybus_sdk::progress::GroupProgress;

use super::AuditedSink;

/// The progress of a sink's group, by topic and partition.
#[derive(Debug, Clone)]
pub(super) struct SinkProgress {
    topics: Vec<(String, Vec<Mark>)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Everything below this offset is in the backend.
    pub(super) settled: u64,
    /// Nothing at or above this offset can be in the backend.
    pub(super) sealed: u64,
}

impl SinkProgress {
    /// # Errors
    /// Why it is unknown, for operators.
    pub(super) fn read(observer: &dyn Observer, sink: &AuditedSink) -> Result<Self, String> {
        let mut topics = Vec::new();
        let own = sink.topics.iter().map(|topic| (topic, &sink.group));
        let replays = observer.partitions_of(&sink.replay_topic).map_err(|error| error.to_string())?;
        let replays = replays.map(|_| (&sink.replay_topic, &sink.replay_group));
        for (topic, group) in own.chain(replays) {
            let progress = GroupProgress::read(observer, group, &[topic]).map_err(|error| error.to_string())?;
            let mut marks = Vec::with_capacity(progress.partitions.len());
            for (place, partition) in progress.partitions.iter().enumerate() {
                // A group that never committed has nothing in the backend.
                let settled = partition.settled.unwrap_or(0);
                let mark = Mark { settled, sealed: partition.sealed_end().unwrap_or(0) };
                check(mark, partition.range, group, topic, place)?;
                marks.push(mark);
            }
            topics.push((topic.clone(), marks));
        }
        Ok(Self { topics })
    }

    pub(super) fn mark(&self, topic: &str, partition: u32) -> Mark {
        let marks = self.topics.iter().find(|(name, _)| name == topic).map(|(_, marks)| marks);
        marks.and_then(|marks| marks.get(partition as usize)).copied().unwrap_or_default()
    }

    /// Messages on the bus that are not settled.
    pub(super) fn behind(&self, ranges: &[(String, Vec<OffsetRange>)]) -> u64 {
        let mut behind = 0;
        for (topic, marks) in &self.topics {
            let Some((_, ranges)) = ranges.iter().find(|(name, _)| name == topic) else { continue };
            for (partition, range) in ranges.iter().enumerate() {
                let settled = marks.get(partition).copied().unwrap_or_default().settled.max(range.first);
                behind += range.end.saturating_sub(settled);
            }
        }
        behind
    }
}

fn check(mark: Mark, range: OffsetRange, group: &str, topic: &str, partition: usize) -> Result<(), String> {
    if mark.sealed <= range.end {
        return Ok(());
    }
    Err(format!(
        "group {group} is at offset {} of {topic}/{partition}, but the partition ends at {}: was the topic recreated? \
         give the sink a new destination and run `tallybus group reset`",
        mark.sealed, range.end
    ))
}
