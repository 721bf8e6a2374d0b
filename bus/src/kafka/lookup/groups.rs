//! Queries about groups.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{ASKING_COMMITS, At, Lookup, answers, list_of, raw};
use crate::{BusError, Committed};

/// The pause before a group is asked about again whose broker is not ready for it.
const LOAD_WAIT: Duration = Duration::from_millis(100);

impl Lookup {
    /// What groups have committed, for each pair of a group and a topic: one request for the topics, and one for each group,
    /// all under way together.
    pub(in super::super) fn committed(
        &self,
        of: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Vec<Vec<Option<Committed>>>, BusError> {
        let topics: BTreeSet<&str> = of.iter().map(|(_, topic)| *topic).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let counts: BTreeMap<&str, usize> = {
            let (_, counts) = self.every_partition(&topics, timeout)?;
            topics.iter().copied().zip(counts).collect()
        };
        let partitions_of =
            |topic: &str| 0..counts.get(topic).map_or(0, |count| u32::try_from(*count).unwrap_or(u32::MAX));
        let mut wanted: BTreeMap<&str, Vec<At<'_>>> = BTreeMap::new();
        for (group, topic) in of {
            wanted.entry(*group).or_default().extend(partitions_of(topic).map(|partition| (*topic, partition)));
        }
        wanted.retain(|_, partitions| !partitions.is_empty());
        let mut questions = Vec::new();
        for (group, partitions) in &wanted {
            let list = partitions.iter().map(|(topic, partition)| (*topic, *partition, Offset::Invalid));
            questions.push((*group, list_of(list)?));
        }
        let until = Instant::now() + timeout;
        let answered = loop {
            let left = until.saturating_duration_since(Instant::now()).max(LOAD_WAIT);
            let answered = raw::group_offsets(self.client(), &questions, left);
            // For a moment after the start of a broker, and after a group has moved to another one.
            let is_loading = match &answered {
                Ok(groups) => groups.iter().any(|group| matches!(group.partitions, Err(code) if moves(code))),
                Err(code) => moves(*code),
            };
            if !is_loading || Instant::now() >= until {
                break answered;
            }
            thread::sleep(LOAD_WAIT);
        };
        let answered = answered.map_err(|code| self.connection.failed(ASKING_COMMITS, &KafkaError::Global(code)));
        let answered = self.explain(answered)?;
        self.connection.alive();
        let each = of.iter().map(|(group, topic)| {
            let wanted: Vec<At<'_>> = partitions_of(topic).map(|partition| (*topic, partition)).collect();
            self.commits_in(&answered, group, &wanted)
        });
        each.collect()
    }

    /// What the answers say about a group's commits for these partitions, in their order.
    fn commits_in(
        &self,
        answered: &[raw::GroupOffsets],
        group: &str,
        wanted: &[At<'_>],
    ) -> Result<Vec<Option<Committed>>, BusError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let Some(found) = answered.iter().find(|found| found.group == group) else {
            return Err(BusError::Unavailable(format!("{ASKING_COMMITS}: the answers leave out group {group}")));
        };
        match &found.partitions {
            Ok(found) => answers(&self.connection, ASKING_COMMITS, wanted, found, commit_in),
            Err(code) => Err(self.connection.failed(ASKING_COMMITS, &KafkaError::OffsetFetch(*code))),
        }
    }

    /// The names of the groups that this client may see.
    pub(in super::super) fn groups(&self, timeout: Duration) -> Result<Vec<String>, BusError> {
        let names = raw::group_names(self.client(), timeout);
        let names = names.map_err(|code| self.connection.failed("listing groups", &KafkaError::Global(code)));
        self.explain(names)
    }
}

/// Whether the broker that keeps a group is about to be ready for it, or to be another one.
fn moves(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::CoordinatorLoadInProgress | Code::CoordinatorNotAvailable | Code::NotCoordinator)
}

/// A commit in an answer; `None` where nothing was committed.
pub(super) fn commit_in(element: &raw::Element) -> Option<Committed> {
    let offset = u64::try_from(element.offset).ok()?;
    Some(Committed { offset, metadata: element.metadata.clone() })
}
