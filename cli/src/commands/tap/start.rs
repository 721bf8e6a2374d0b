use tallybus_bus::{Observer, OffsetRange, StreamId};

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
    /// The incarnation of the topic that the coordinate is of, where it says: the stream id, or the part of it that logs have.
    pub(super) stream: Option<String>,
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
    /// Reads `topic/partition/offset` and `topic/partition/offset/index`; also as logs and dead letters have them, with the
    /// topic's incarnation after an `@`, and the batch `topic@incarnation/partition/first-end`, which stands for its first record.
    ///
    /// # Errors
    /// What was expected.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::of(text).ok_or_else(|| {
            "expected a coordinate as --coordinates or the log shows it: topic/partition/offset or \
             topic/partition/offset/index"
                .to_owned()
        })
    }

    fn of(text: &str) -> Option<Self> {
        let mut parts: Vec<&str> = text.split('/').collect();
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let index = match parts[..] {
            [.., partition, offset, index]
                if parts.len() >= 4 && [partition, offset, index].into_iter().all(is_number) =>
            {
                parts.pop();
                Some(index.parse().ok()?)
            }
            _ => None,
        };
        let offset = parts.pop()?;
        let offset = match offset.split_once('-') {
            Some((first, end)) if index.is_none() && is_number(end) => first,
            _ => offset,
        };
        let partition = parts.pop()?;
        // Only an id of an incarnation may have slashes in it.
        let named = parts.join("/");
        let (topic, stream) = match named.split_once('@') {
            Some((topic, stream)) if !stream.is_empty() => (topic.to_owned(), Some(stream.to_owned())),
            Some(_) => return None,
            None => (named, None),
        };
        if topic.is_empty() || topic.contains('/') || !is_number(partition) || !is_number(offset) {
            return None;
        }
        Some(Self { topic, stream, partition: partition.parse().ok()?, offset: offset.parse().ok()?, index })
    }

    /// Whether the coordinate is of this incarnation of its topic.
    ///
    /// # Errors
    /// It is of another one: its offset names another record now.
    pub(super) fn check(&self, present: &StreamId) -> Result<(), Failure> {
        match &self.stream {
            Some(stream) if stream != present.as_str() && stream != present.short() => {
                Err(Failure::could_not_look(format!(
                    "{topic}@{stream}/{}/{} is of the topic {topic} before it was recreated; it is {} now. To show what has this \
                     offset there, leave out @{stream}",
                    self.partition,
                    self.offset,
                    present.short(),
                    topic = self.topic
                )))
            }
            _ => Ok(()),
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
        let place = |index| Place { topic: "t.x".to_owned(), stream: None, partition: 3, offset: 7, index };
        assert_eq!(Place::parse("t.x/3/7"), Ok(place(None)));
        assert_eq!(Place::parse("t.x/3/7/0"), Ok(place(Some(0))));
        let of = |stream: &str, index| Place { stream: Some(stream.to_owned()), ..place(index) };
        assert_eq!(Place::parse("t.x@00ff/3/7/0"), Ok(of("00ff", Some(0))));
        assert_eq!(Place::parse("t.x@kafka:a+b/c==:d/e/3/7"), Ok(of("kafka:a+b/c==:d/e", None)));
        assert_eq!(Place::parse("t.x@00ff/3/7-90"), Ok(of("00ff", None)), "a batch, as logs name it");
        let wrong = ["t/1/2/3-4", "t/1/2-", "t/1/-2", "t@/1/2", "@x/1/2", "t/1/2/3/4", "t/99999999999/2"];
        for wrong in ["", "t", "t/1", "/1/2", "t/-1/2", "t/1/x", "t/1/2/"].into_iter().chain(wrong) {
            assert!(Place::parse(wrong).unwrap_err().starts_with("expected a coordinate"), "{wrong}");
        }
    }

    #[test]
    fn a_coordinate_of_the_topic_before_it_was_recreated_is_refused() {
        let present: StreamId = "kafka:cluster:now".parse().unwrap();
        for (text, is_present) in
            [("t/0/1", true), ("t@now/0/1", true), ("t@kafka:cluster:now/0/1", true), ("t@before/0/1", false)]
        {
            assert_eq!(Place::parse(text).unwrap().check(&present).is_ok(), is_present, "{text}");
        }
    }

    #[test]
    fn what_is_around_a_record_stays_within_its_partition() {
        let ranges = [OffsetRange { first: 0, end: 0 }, OffsetRange { first: 10, end: 20 }];
        let place = |partition, offset| Place { topic: "t".to_owned(), stream: None, partition, offset, index: None };
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
