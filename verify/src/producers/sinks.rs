use std::collections::{BTreeMap, HashMap};

use tallybus_bus::{BusError, Observer, OffsetRange};
use tallybus_sdk::SealMetadata;

use crate::live::WatchedSink;

/// How far a sink's group has settled each partition of its topics.
#[derive(Debug, Clone, Default)]
pub struct SinkSettled {
    /// The sink.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// The topics that it reads.
    pub topics: Vec<String>,
    /// By topic and partition; a partition that the group never committed is left out.
    pub settled: HashMap<(String, u32), SettledAt>,
    /// Why commits of its group are not understood, if any are: they are another program's.
    pub foreign: Option<String>,
    /// Records on its dead-letter topic: settled, and not in the backend. Some may have been replayed since.
    pub dead_letters: u64,
    /// By topic: the ends of its partitions. A topic that does not exist is left out.
    pub ends: BTreeMap<String, Vec<u64>>,
}

/// What a group has settled of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledAt {
    /// Everything below is written, or a dead letter, or was passed over by an operator's decision.
    pub offset: u64,
    /// The incarnation of the topic that the offset belongs to; `None` in commits of versions that did not note it.
    pub stream: Option<String>,
}

/// Asks the bus what the groups of these sinks have settled: four questions, however many sinks there are.
///
/// # Errors
/// The bus did not answer one of them: nothing is known.
pub fn read_sinks(observer: &dyn Observer, sinks: &[WatchedSink]) -> Result<Vec<SinkSettled>, BusError> {
    let mut topics: Vec<&str> = sinks.iter().flat_map(|sink| &sink.topics).map(String::as_str).collect();
    topics.extend(sinks.iter().map(|sink| sink.dead_letter_topic.as_str()));
    topics.sort_unstable();
    topics.dedup();
    let counts = observer.partitions(&topics)?;
    let existing: Vec<&str> =
        topics.iter().zip(counts).filter(|(_, count)| count.is_some()).map(|(topic, _)| *topic).collect();
    let pairs =
        sinks.iter().flat_map(|sink| sink.topics.iter().map(move |topic| (sink.group.as_str(), topic.as_str())));
    let pairs: Vec<(&str, &str)> = pairs.filter(|(_, topic)| existing.contains(topic)).collect();
    let committed = if pairs.is_empty() { Vec::new() } else { observer.committed(&pairs)? };
    let ranges = if existing.is_empty() { Vec::new() } else { observer.offsets(&existing)? };
    let ranges: BTreeMap<&str, Vec<OffsetRange>> = existing.iter().copied().zip(ranges).collect();
    let mut answers = pairs.iter().zip(committed);
    let mut all = Vec::new();
    for sink in sinks {
        let mut found = SinkSettled {
            name: sink.name.clone(),
            group: sink.group.clone(),
            topics: sink.topics.clone(),
            ..SinkSettled::default()
        };
        for topic in sink.topics.iter().filter(|topic| existing.contains(&topic.as_str())) {
            let Some((_, partitions)) = answers.next() else {
                return Err(BusError::Fatal("the bus client left out a group's commits".to_owned()));
            };
            for (partition, committed) in (0..).zip(partitions) {
                let Some(committed) = committed else { continue };
                match SealMetadata::parse(committed.offset, &committed.metadata) {
                    Ok(seal) => {
                        let stream = seal.stream.map(|stream| stream.to_string());
                        found
                            .settled
                            .insert((topic.clone(), partition), SettledAt { offset: committed.offset, stream });
                    }
                    Err(error) => found.foreign = Some(format!("{topic}/{partition}: {error}")),
                }
            }
            if let Some(ranges) = ranges.get(topic.as_str()) {
                found.ends.insert(topic.clone(), ranges.iter().map(|range| range.end).collect());
            }
        }
        let letters = ranges.get(sink.dead_letter_topic.as_str()).into_iter().flatten();
        found.dead_letters = letters.map(|range| range.end - range.first).sum();
        all.push(found);
    }
    Ok(all)
}
