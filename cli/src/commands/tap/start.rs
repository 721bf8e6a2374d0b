use tallybus_bus::{Observer, OffsetRange};

use crate::failure::Failure;
use crate::times;

/// Where to start.
#[derive(Debug)]
pub(super) enum Start {
    Beginning,
    End,
    Offset(u64),
    Time(i64),
}

/// A record, or one event of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) index: Option<u32>,
}

/// What is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Partitions, and the offset at which each begins.
    pub(super) starts: Vec<(u32, u64)>,
    /// Partitions that have something to read, and one past the last offset of it as of now.
    pub(super) ends: Vec<(u32, u64)>,
    /// Whether to stop there; otherwise what comes later is followed.
    pub(super) stops: bool,
}

impl Start {
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        // Offsets do not reach the magnitude of nanoseconds since 1970.
        const HIGHEST_OFFSET: u64 = 1_000_000_000_000_000;
        match text {
            "beginning" => return Ok(Self::Beginning),
            "end" => return Ok(Self::End),
            _ => {}
        }
        match text.parse::<u64>() {
            Ok(offset) if offset < HIGHEST_OFFSET => Ok(Self::Offset(offset)),
            _ => match times::parse(text) {
                Ok(time) => Ok(Self::Time(time)),
                Err(reason) => {
                    Err(Failure::could_not_look(format!("--from: beginning, end, an offset, or a time; {reason}")))
                }
            },
        }
    }

    pub(super) fn plan(
        &self,
        observer: &dyn Observer,
        topic: &str,
        ranges: &[OffsetRange],
        stops: bool,
    ) -> Result<Plan, Failure> {
        let at_time = match self {
            // A record that is 1 ns too old must not be left out just because its own time has only millisecond
            // resolution.
            Self::Time(time) => observer.offsets_at_time(topic, time.div_euclid(1_000_000))?,
            _ => Vec::new(),
        };
        let offset = |partition: usize, range: &OffsetRange| match self {
            Self::Beginning => range.first,
            Self::End => range.end,
            Self::Offset(offset) => (*offset).clamp(range.first, range.end),
            Self::Time(_) => at_time.get(partition).copied().unwrap_or(range.end),
        };
        let starts = ranges.iter().enumerate().map(|(partition, range)| offset(partition, range));
        let starts: Vec<(u32, u64)> = (0..).zip(starts).collect();
        let ends = starts.iter().zip(ranges).filter(|((_, start), range)| *start < range.end);
        let ends = ends.map(|((partition, _), range)| (*partition, range.end)).collect();
        Ok(Plan { starts, ends, stops })
    }
}

impl Place {
    /// Reads `topic/partition/offset` and `topic/partition/offset/index`.
    ///
    /// # Errors
    /// What was expected.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expected =
            "expected a coordinate as --coordinates shows it: topic/partition/offset or topic/partition/offset/index";
        let parts: Vec<&str> = text.split('/').collect();
        let (topic, partition, offset, index) = match parts[..] {
            [topic, partition, offset] => (topic, partition, offset, None),
            [topic, partition, offset, index] => (topic, partition, offset, Some(index)),
            _ => return Err(expected.to_owned()),
        };
        match (partition.parse(), offset.parse(), index.map(str::parse).transpose()) {
            (Ok(partition), Ok(offset), Ok(index)) if !topic.is_empty() => {
                Ok(Self { topic: topic.to_owned(), partition, offset, index })
            }
            _ => Err(expected.to_owned()),
        }
    }

    /// The record and this many offsets on either side of it.
    ///
    /// # Errors
    /// The topic does not have the offset.
    pub(super) fn plan(&self, ranges: &[OffsetRange], context: u64) -> Result<Plan, Failure> {
        let Self { topic, partition, offset, .. } = self;
        let missing =
            |why: String| Failure::could_not_look(format!("{topic}/{partition}/{offset} is not on the bus: {why}"));
        let Some(range) = ranges.get(*partition as usize) else {
            return Err(missing(format!("the partitions of {topic} are 0 to {}", ranges.len().saturating_sub(1))));
        };
        if *offset >= range.end {
            return Err(missing(format!("the partition ends before offset {}", range.end)));
        }
        if *offset < range.first {
            return Err(missing(format!("retention has deleted what was before offset {}", range.first)));
        }
        let start = offset.saturating_sub(context).max(range.first);
        let end = offset.saturating_add(context).saturating_add(1).min(range.end);
        Ok(Plan { starts: vec![(*partition, start)], ends: vec![(*partition, end)], stops: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinate_names_a_record_or_an_event() {
        let place = |index| Place { topic: "t.x".to_owned(), partition: 3, offset: 7, index };
        assert_eq!(Place::parse("t.x/3/7"), Ok(place(None)));
        assert_eq!(Place::parse("t.x/3/7/0"), Ok(place(Some(0))));
        for wrong in ["", "t", "t/1", "/1/2", "t/1/2/3/4", "t/-1/2", "t/1/x", "t/1/2/"] {
            assert!(Place::parse(wrong).unwrap_err().starts_with("expected a coordinate"), "{wrong}");
        }
    }

    #[test]
    fn what_is_around_a_record_stays_within_its_partition() {
        let ranges = [OffsetRange { first: 0, end: 0 }, OffsetRange { first: 10, end: 20 }];
        let place = |partition, offset| Place { topic: "t".to_owned(), partition, offset, index: None };
        let spans = |offset| {
            let plan = place(1, offset).plan(&ranges, 3).unwrap();
            assert!(plan.stops);
            (plan.starts[0], plan.ends[0])
        };
        assert_eq!((spans(15), spans(10), spans(19)), (((1, 12), (1, 19)), ((1, 10), (1, 14)), ((1, 16), (1, 20))));
        for (partition, offset, why) in
            [(0, 0, "ends before offset 0"), (1, 9, "deleted what was before offset 10"), (2, 0, "are 0 to 1")]
        {
            let Err(Failure::CouldNotLook(error)) = place(partition, offset).plan(&ranges, 3) else { panic!("{why}") };
            assert!(error.to_string().ends_with(why), "{error}");
        }
    }
}
