use tallybus_bus::{Observer, OffsetRange};
use tallybus_sdk::progress::GroupProgress;

use super::report::OffsetSpan;
use super::{AuditError, AuditedSink};

/// A group's progress before and after its backend was read.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) before: SinkProgress,
    pub(super) after: SinkProgress,
}

/// The progress of a sink's group, by topic and partition.
#[derive(Debug, Clone)]
pub(super) struct SinkProgress {
    topics: Vec<(String, Vec<Mark>)>,
    /// Whether the group of its own topics has committed anywhere.
    has_run: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Everything below this offset is in the backend.
    pub(super) settled: u64,
    /// Nothing at or above this offset can be in the backend.
    pub(super) sealed: u64,
    /// Whether the group has committed here.
    pub(super) is_known: bool,
}

impl SinkProgress {
    /// # Errors
    /// Why it is unknown, for operators.
    pub(super) fn read(observer: &dyn Observer, sink: &AuditedSink) -> Result<Self, String> {
        let (mut topics, mut has_run) = (Vec::new(), false);
        let own = sink.topics.iter().map(|topic| (topic, &sink.group));
        let replays = observer.partitions_of(&sink.replay_topic).map_err(|error| error.to_string())?;
        let replays = replays.map(|_| (&sink.replay_topic, &sink.replay_group));
        for (topic, group) in own.chain(replays) {
            let progress = GroupProgress::read(observer, group, &[topic]).map_err(|error| error.to_string())?;
            let mut marks = Vec::with_capacity(progress.partitions.len());
            for (place, partition) in progress.partitions.iter().enumerate() {
                // A group that never committed has nothing in the backend.
                let settled = partition.settled.unwrap_or(0);
                let is_known = partition.settled.is_some();
                let mark = Mark { settled, sealed: partition.sealed_end().unwrap_or(0), is_known };
                check(mark, partition.range, group, topic, place)?;
                marks.push(mark);
            }
            has_run |= *group == sink.group && marks.iter().any(|mark: &Mark| mark.is_known);
            topics.push((topic.clone(), marks));
        }
        Ok(Self { topics, has_run })
    }

    pub(super) fn mark(&self, topic: &str, partition: u32) -> Mark {
        let marks = self.topics.iter().find(|(name, _)| name == topic).map(|(_, marks)| marks);
        marks.and_then(|marks| marks.get(partition as usize)).copied().unwrap_or_default()
    }

    /// Whether the group has committed nothing, although these topics have had messages.
    pub(super) fn never_ran(&self, ranges: &[(String, Vec<OffsetRange>)]) -> bool {
        let own = ranges.iter().filter(|(topic, _)| self.topics.iter().any(|(name, _)| name == topic));
        !self.has_run && own.flat_map(|(_, ranges)| ranges).any(|range| range.end > 0)
    }

    /// Offsets that the bus no longer has and the group had not settled.
    pub(super) fn gone_unwritten(&self, ranges: &[(String, Vec<OffsetRange>)]) -> Vec<OffsetSpan> {
        let mut gone = Vec::new();
        for (topic, ranges) in ranges {
            for (partition, range) in (0..).zip(ranges) {
                let mark = self.mark(topic, partition);
                if mark.is_known && mark.settled < range.first {
                    let (first, end) = (mark.settled, range.first);
                    gone.push(OffsetSpan { topic: topic.clone(), partition, first, end });
                }
            }
        }
        gone
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

/// Offsets that the bus no longer has and a sink had not settled, by sink. The groups are read again: a worker may have
/// settled them since, before retention deleted them.
///
/// # Errors
/// A group's progress could not be read.
pub(super) fn gone_unwritten(
    observer: &dyn Observer,
    sink: &AuditedSink,
    look: &Look,
    ranges: &[(String, Vec<OffsetRange>)],
) -> Result<Vec<OffsetSpan>, AuditError> {
    if look.after.gone_unwritten(ranges).is_empty() {
        return Ok(Vec::new());
    }
    let now = SinkProgress::read(observer, sink);
    let now = now.map_err(|reason| AuditError::Sink { sink: sink.name.clone(), reason })?;
    Ok(now.gone_unwritten(ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_settled_before_it_was_deleted_is_gone_unwritten() {
        for (is_known, settled, first, expected) in [
            (true, 10, 60, Some((10, 60))),
            (true, 59, 60, Some((59, 60))),
            (true, 60, 60, None),
            (true, 61, 60, None),
            // It begins with what is there.
            (false, 0, 60, None),
        ] {
            let marks = vec![Mark { settled, sealed: settled, is_known }];
            let progress = SinkProgress { topics: vec![("t".to_owned(), marks)], has_run: is_known };
            let ranges = [("t".to_owned(), vec![OffsetRange { first, end: 60.max(settled) }])];
            let gone = progress.gone_unwritten(&ranges);
            assert_eq!(gone.first().map(|span| (span.first, span.end)), expected, "{settled} {first}");
            assert_eq!(progress.never_ran(&ranges), !is_known);
            assert!(!progress.never_ran(&[("t".to_owned(), vec![OffsetRange { first: 0, end: 0 }])]));
        }
    }

    fn topics(settled: [[Option<u64>; 2]; 2]) -> SinkProgress {
        let mark = |settled: Option<u64>| Mark {
            settled: settled.unwrap_or(0),
            sealed: settled.map_or(0, |settled| settled + 1),
            is_known: settled.is_some(),
        };
        let topics =
            ["t", "u"].iter().zip(settled).map(|(topic, marks)| ((*topic).to_owned(), marks.map(mark).to_vec()));
        SinkProgress { topics: topics.collect(), has_run: true }
    }

    fn range(first: u64, end: u64) -> OffsetRange {
        OffsetRange { first, end }
    }

    #[test]
    fn behind_is_what_is_on_the_bus_and_not_settled_over_all_partitions_of_the_sinks_topics() {
        let progress = topics([[Some(3), Some(10)], [None, Some(2)]]);
        let all = [
            ("other".to_owned(), vec![range(0, 1_000)]),
            ("t".to_owned(), vec![range(0, 10), range(0, 10)]),
            ("u".to_owned(), vec![range(5, 9), range(4, 20)]),
        ];
        assert_eq!(progress.behind(&all), 7 + 4 + 16);
        assert_eq!(progress.behind(&all[..2]), 7);
        assert_eq!(progress.behind(&[]), 0);
    }

    #[test]
    fn a_mark_is_that_of_its_topic_and_partition_and_nothing_elsewhere() {
        let progress = topics([[Some(3), Some(10)], [None, Some(2)]]);
        for (topic, partition, settled, sealed) in [("t", 0, 3, 4), ("t", 1, 10, 11), ("u", 0, 0, 0), ("u", 1, 2, 3)] {
            let mark = progress.mark(topic, partition);
            assert_eq!((mark.settled, mark.sealed), (settled, sealed), "{topic}/{partition}");
        }
        assert_eq!((progress.mark("t", 2), progress.mark("v", 0)), (Mark::default(), Mark::default()));
    }

    #[test]
    fn a_group_past_the_end_of_a_partition_is_an_error_that_names_both() {
        let mark = |sealed| Mark { settled: 0, sealed, is_known: true };
        for sealed in [0, 9, 10] {
            assert_eq!(check(mark(sealed), range(0, 10), "g", "t", 3), Ok(()), "{sealed}");
        }
        let reason = check(mark(11), range(0, 10), "g", "t", 3).unwrap_err();
        assert!(reason.starts_with("group g is at offset 11 of t/3, but the partition ends at 10"), "{reason}");
    }

    #[test]
    fn only_topics_of_the_sink_say_that_its_group_never_ran() {
        let progress = SinkProgress { has_run: false, ..topics([[None; 2], [None; 2]]) };
        let of = |topic: &str| [(topic.to_owned(), vec![range(0, 0), range(0, 1)])];
        assert!(progress.never_ran(&of("u")));
        assert!(!progress.never_ran(&of("other")));
        assert!(!SinkProgress { has_run: true, ..progress }.never_ran(&of("u")));
    }
}
