//! The progress of a consumer group: one computation for every command that shows it or waits for it.

use tallybus_bus::{BusError, Committed, Observer, OffsetRange, TopicPartition};
use thiserror::Error;

use crate::{SealMetadata, SealMetadataError};

/// A group's progress in each partition of its topics, at one moment.
#[derive(Debug, Clone)]
pub struct GroupProgress {
    /// The group.
    pub group: String,
    /// In the order of the topics asked for, then by number.
    pub partitions: Vec<PartitionProgress>,
}

/// A group's progress in one partition.
#[derive(Debug, Clone)]
pub struct PartitionProgress {
    /// Which partition.
    pub at: TopicPartition,
    /// Everything below this offset was written, and its dead letters published; `None` when the group never committed
    /// here.
    pub settled: Option<u64>,
    /// The batches that are sealed beyond the settled offset; `None` when the group never committed here.
    pub seal: Option<SealMetadata>,
    /// The offsets that the partition holds.
    pub range: OffsetRange,
}

/// Why a group's progress is unknown.
#[derive(Debug, Error)]
pub enum ProgressError {
    /// The bus did not respond.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The group's commit metadata cannot be parsed.
    #[error("group {group}, {at}: {source}")]
    Seal {
        /// The group.
        group: String,
        /// Which partition.
        at: TopicPartition,
        /// What is wrong with the metadata.
        source: SealMetadataError,
    },
}

impl GroupProgress {
    /// Reads the progress from the bus.
    ///
    /// # Errors
    /// The bus did not respond, or the group's commit metadata cannot be parsed: then nothing is known.
    pub fn read(observer: &dyn Observer, group: &str, topics: &[&str]) -> Result<Self, ProgressError> {
        // In this order: a group that advances in the meantime is never past an end that is read later.
        let of: Vec<(&str, &str)> = topics.iter().map(|topic| (group, *topic)).collect();
        let committed = observer.committed(&of)?;
        let ranges = observer.offsets(topics)?;
        let mut partitions = Vec::new();
        for ((topic, ranges), committed) in topics.iter().zip(ranges).zip(committed) {
            for (partition, range) in (0..).zip(ranges) {
                let at = TopicPartition::new(topic, partition);
                let held = committed.get(partition as usize).and_then(Option::as_ref);
                partitions.push(PartitionProgress::of(group, at, held, range)?);
            }
        }
        Ok(Self { group: group.to_owned(), partitions })
    }

    /// Messages on the bus that the group has not settled.
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(PartitionProgress::lag).sum()
    }

    /// Batches that are sealed and not settled.
    pub fn sealed_batches(&self) -> usize {
        self.partitions.iter().filter_map(|partition| partition.seal.as_ref()).map(|seal| seal.ends.len()).sum()
    }

    /// Whether everything on the bus is settled, and nothing is sealed.
    pub fn is_settled(&self) -> bool {
        self.partitions.iter().all(PartitionProgress::is_settled)
    }
}

impl PartitionProgress {
    /// The progress by what the group has committed and what the partition held afterwards.
    ///
    /// # Errors
    /// The commit's metadata cannot be parsed: then nothing is known.
    pub fn of(
        group: &str,
        at: TopicPartition,
        committed: Option<&Committed>,
        range: OffsetRange,
    ) -> Result<Self, ProgressError> {
        let Some(committed) = committed else { return Ok(Self { at, settled: None, seal: None, range }) };
        match SealMetadata::parse(committed.offset, &committed.metadata) {
            Ok(seal) => Ok(Self { at, settled: Some(committed.offset), seal: Some(seal), range }),
            Err(source) => Err(ProgressError::Seal { group: group.to_owned(), at, source }),
        }
    }

    /// One past the last offset that may be in the backend; `None` when the group never committed here.
    pub fn sealed_end(&self) -> Option<u64> {
        let sealed = self.seal.as_ref().and_then(SealMetadata::sealed_end);
        sealed.or(self.settled)
    }

    /// Messages that are on the bus and not settled. Those that retention deleted are not counted.
    pub fn lag(&self) -> u64 {
        let settled = self.settled.unwrap_or(self.range.first).max(self.range.first);
        self.range.end.saturating_sub(settled)
    }

    /// Whether everything on the bus is settled, and nothing is sealed.
    pub fn is_settled(&self) -> bool {
        let is_open = self.seal.as_ref().is_some_and(|seal| seal.sealed_end().is_some());
        let settled = self.settled.unwrap_or(self.range.first);
        !is_open && settled >= self.range.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    fn progress(committed: Option<(u64, Vec<u64>)>, first: u64, end: u64) -> PartitionProgress {
        let committed = committed.map(|(offset, ends)| {
            let stream = "kafka:cluster:topic".parse().unwrap();
            let metadata = SealMetadata::new(stream, ends, &Shape::everything()).to_metadata().unwrap();
            Committed { offset, metadata }
        });
        let at = TopicPartition::new("t", 0);
        PartitionProgress::of("g", at, committed.as_ref(), OffsetRange { first, end }).unwrap()
    }

    #[test]
    fn lag_counts_what_is_on_the_bus_and_not_settled() {
        for (committed, first, end, lag, is_settled, sealed_end) in [
            (None, 0, 0, 0, true, None),
            (None, 5, 5, 0, true, None),
            (None, 5, 9, 4, false, None),
            (Some((3, vec![])), 0, 10, 7, false, Some(3)),
            (Some((3, vec![6, 8])), 0, 10, 7, false, Some(8)),
            (Some((3, vec![])), 5, 10, 5, false, Some(3)),
            (Some((10, vec![])), 0, 10, 0, true, Some(10)),
            (Some((12, vec![])), 0, 10, 0, true, Some(12)),
            (Some((10, vec![11])), 0, 10, 0, false, Some(11)),
        ] {
            let found = progress(committed.clone(), first, end);
            let found = (found.lag(), found.is_settled(), found.sealed_end());
            assert_eq!(found, (lag, is_settled, sealed_end), "{committed:?} {first}-{end}");
        }
    }

    #[test]
    fn a_group_is_settled_when_all_of_its_partitions_are_and_its_lag_is_theirs_together() {
        let group = |partitions: Vec<PartitionProgress>| GroupProgress { group: "g".to_owned(), partitions };
        let (behind, sealed, done) =
            (progress(None, 5, 9), progress(Some((3, vec![6, 8])), 0, 10), progress(Some((10, vec![])), 0, 10));
        for (partitions, lag, batches, is_settled) in [
            (vec![], 0, 0, true),
            (vec![done.clone(), done.clone()], 0, 0, true),
            (vec![done.clone(), behind.clone()], 4, 0, false),
            (vec![sealed.clone(), behind, sealed, done], 18, 4, false),
        ] {
            let group = group(partitions);
            assert_eq!(
                (group.lag(), group.sealed_batches(), group.is_settled()),
                (lag, batches, is_settled),
                "{group:?}"
            );
        }
    }

    #[test]
    fn metadata_that_cannot_be_understood_is_an_error_and_no_progress() {
        let committed = Committed { offset: 3, metadata: "someone else's".to_owned() };
        let range = OffsetRange { first: 0, end: 3 };
        let found = PartitionProgress::of("g", TopicPartition::new("t", 1), Some(&committed), range);
        let error = found.unwrap_err().to_string();
        assert!(error.starts_with("group g, t/1: ") && error.contains("not from tallybus"), "{error}");
    }
}
