use tallybus_bus::{Observer, OffsetRange};
use tallybus_sdk::SealNote;

use super::AuditedSink;

/// How far a sink's group has come, by topic and partition.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    topics: Vec<(String, Vec<Mark>)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Everything below is in the backend.
    pub(super) settled: u64,
    /// Nothing from here on can be in the backend.
    pub(super) sealed: u64,
}

impl Standing {
    /// # Errors
    /// Why it cannot be known, for people.
    pub(super) fn read(observer: &dyn Observer, sink: &AuditedSink) -> Result<Self, String> {
        let mut topics = Vec::new();
        let own = sink.topics.iter().map(|topic| (topic, &sink.group));
        let replays = observer.partitions_of(&sink.replay_topic).map_err(|error| error.to_string())?;
        let replays = replays.map(|_| (&sink.replay_topic, &sink.replay_group));
        for (topic, group) in own.chain(replays) {
            // In this order: a group beside which this looks never stands past an end that is read later.
            let committed = observer.committed_by(group, topic).map_err(|error| error.to_string())?;
            let ranges = observer.offsets_of(topic).map_err(|error| error.to_string())?;
            let mut marks = Vec::with_capacity(ranges.len());
            for (partition, range) in ranges.iter().enumerate() {
                let mark = match committed.get(partition).and_then(Option::as_ref) {
                    None => Mark::default(),
                    Some(committed) => {
                        let note = SealNote::parse(committed.offset, &committed.metadata);
                        let note = note.map_err(|error| format!("group {group}, {topic}/{partition}: {error}"))?;
                        Mark { settled: committed.offset, sealed: note.sealed_end().unwrap_or(committed.offset) }
                    }
                };
                check(mark, *range, group, topic, partition)?;
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
        "group {group} stands at offset {} of {topic}/{partition}, but the partition ends at {}: was the topic made anew? reset the \
         group's offsets, and empty the backend",
        mark.sealed, range.end
    ))
}
