use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use tallybus_bus::{StreamId, TopicPartition};
use tallybus_schemas::Coordinate;

use crate::SeriesTable;

/// Identifies a batch for ever: all events of offsets [first, end) of one partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// The first offset.
    pub first: u64,
    /// One past the last offset.
    pub end: u64,
}

impl BatchId {
    /// Returns its topic and partition.
    pub fn at(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}-{}", self.topic, self.partition, self.first, self.end)
    }
}

/// The increments of one series in one batch and window, summed; with window 0, one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The series' number in [`Batch::series`].
    pub series: u32,
    /// Start of the window, or the event's own time when the window is 0: nanoseconds since the Unix epoch.
    pub time: i64,
    /// The sum; from 1 to `i64::MAX`, which every backend can hold.
    pub value: u64,
    /// How many events were summed.
    pub events: u32,
    /// The coordinate of the first of them.
    pub first: Coordinate,
}

/// The unit that a worker hands to a sink. The same id always has the same content, whichever worker writes it, however
/// often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The offsets that it covers.
    pub id: BatchId,
    /// Index of the topic in the sink's list of topics; the index after the last one is that of the topic from which
    /// dead letters are replayed.
    pub topic_index: u32,
    /// The series that the points refer to; parts of a split batch share it with the whole.
    pub series: Arc<SeriesTable>,
    /// The points, in the order of the first event of each.
    pub points: Vec<Point>,
    /// The window in nanoseconds; 0: each event is its own point.
    pub window: i64,
    /// Empty for a whole batch; for a part created by [`Batch::split`], the path to it: `0` first half, `1` second
    /// half.
    pub part: String,
    /// The incarnation of the topic; `None` for a batch that a version without stream ids sealed, which keeps the key that
    /// it had then.
    pub stream: Option<StreamId>,
    /// Whether this worker found the batch sealed, so that another worker may have written it before.
    pub recovered: bool,
}

impl Batch {
    /// The id as a backend sees it, for idempotency keys: `topic@stream/partition/first-end`, followed by `#01` for a part,
    /// where `stream` is the short form of the topic's incarnation. The same offsets of a recreated topic have another
    /// key.
    pub fn key(&self) -> String {
        let BatchId { topic, partition, first, end } = &self.id;
        let mut key = match &self.stream {
            Some(stream) => format!("{topic}@{}/{partition}/{first}-{end}", stream.short()),
            None => self.id.to_string(),
        };
        if !self.part.is_empty() {
            key.push('#');
            key.push_str(&self.part);
        }
        key
    }

    /// Sum of all points.
    pub fn total(&self) -> u128 {
        self.points.iter().map(|point| u128::from(point.value)).sum()
    }

    /// Halves the batch; `None` when its points must stay together: one point, or with window 0 the events of one
    /// series and millisecond, because a backend may store those as one and writing one half would overwrite the other.
    /// The halves are determined by the batch alone.
    pub fn split(&self) -> Option<(Self, Self)> {
        let group_of = self.groups();
        let groups = group_of.iter().max().map_or(0, |last| last + 1);
        if groups < 2 {
            return None;
        }
        let mut sizes = vec![0_usize; groups];
        for &group in &group_of {
            sizes[group] += 1;
        }
        let mut cut = 0;
        let mut taken = 0;
        while cut < groups - 1 && (cut == 0 || taken + sizes[cut] <= self.points.len() / 2) {
            taken += sizes[cut];
            cut += 1;
        }
        let half = |side: char| {
            let wanted = |group: usize| (group < cut) == (side == '0');
            let points = self.points.iter().zip(&group_of).filter(|(_, group)| wanted(**group));
            Self {
                id: self.id.clone(),
                topic_index: self.topic_index,
                series: self.series.clone(),
                points: points.map(|(point, _)| *point).collect(),
                window: self.window,
                part: format!("{}{side}", self.part),
                stream: self.stream.clone(),
                recovered: self.recovered,
            }
        };
        Some((half('0'), half('1')))
    }

    /// For each point, the number of the group of points that a split keeps together, in order of first appearance.
    fn groups(&self) -> Vec<usize> {
        if self.window != 0 {
            return (0..self.points.len()).collect();
        }
        let mut known = HashMap::new();
        let mut group_of = Vec::with_capacity(self.points.len());
        for point in &self.points {
            let fresh = known.len();
            group_of.push(*known.entry((point.series, point.time.div_euclid(NANOS_PER_MILLI))).or_insert(fresh));
        }
        group_of
    }
}

/// Nanoseconds in a millisecond.
pub const NANOS_PER_MILLI: i64 = 1_000_000;

/// The finest resolution at which a sink with this window can be read back: the window, or a millisecond with window 0.
/// Nanoseconds.
pub fn resolution(window: i64) -> i64 {
    if window == 0 { NANOS_PER_MILLI } else { window }
}

/// A point that the backend will never accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Index into [`Batch::points`].
    pub point: usize,
    /// The reason, in the backend's words; contains no secret.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use tallybus_schemas::Series;

    use super::*;

    fn batch(window: i64, points: &[(u32, i64)]) -> Batch {
        let point = |(index, &(series, time)): (usize, &(u32, i64))| {
            let first = Coordinate { partition: 0, offset: index as u64, index: 0 };
            Point { series, time, value: 1 + index as u64, events: 1, first }
        };
        Batch {
            id: BatchId { topic: "t".into(), partition: 0, first: 0, end: points.len() as u64 },
            topic_index: 0,
            series: Arc::new((0..9).map(|n| Series::from_sorted(&format!("n{n}"), &[])).collect()),
            points: points.iter().enumerate().map(point).collect(),
            window,
            part: String::new(),
            stream: None,
            recovered: false,
        }
    }

    /// All parts that cannot be split further, from left to right.
    fn leaves(batch: &Batch) -> Vec<Batch> {
        match batch.split() {
            None => vec![batch.clone()],
            Some((left, right)) => leaves(&left).into_iter().chain(leaves(&right)).collect(),
        }
    }

    #[test]
    fn halves_hold_everything_once_and_name_their_way() {
        for count in 0..40_u32 {
            let points: Vec<(u32, i64)> = (0..count).map(|n| (n % 7, i64::from(n) * 1_000_000_000)).collect();
            let whole = batch(1_000_000_000, &points);
            assert_eq!(whole.split().is_some(), count > 1);
            let leaves = leaves(&whole);
            let gathered: Vec<Point> = leaves.iter().flat_map(|leaf| leaf.points.clone()).collect();
            assert_eq!(gathered, whole.points);
            let mut keys: Vec<String> = leaves.iter().map(Batch::key).collect();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), leaves.len());
            if let Some((left, right)) = whole.split() {
                assert!(left.points.len().abs_diff(right.points.len()) <= 1);
                assert_eq!((left.key(), right.key()), (format!("{}#0", whole.key()), format!("{}#1", whole.key())));
            }
        }
    }

    #[test]
    fn the_same_offsets_of_a_recreated_topic_have_another_key() {
        let key = |stream: Option<&str>, part: &str| {
            let stream = stream.map(|stream| stream.parse().unwrap());
            Batch { stream, part: part.to_owned(), ..batch(0, &[(1, 0)]) }.key()
        };
        assert_eq!(key(None, ""), "t/0/0-1");
        assert_eq!(key(None, "01"), "t/0/0-1#01");
        assert_eq!(key(Some("kafka:cluster:AAAA"), ""), "t@AAAA/0/0-1");
        assert_eq!(key(Some("kafka:cluster:BBBB"), "01"), "t@BBBB/0/0-1#01");
    }

    #[test]
    fn events_of_one_series_and_millisecond_stay_together() {
        let points: Vec<(u32, i64)> = (0..60).map(|n| (n % 3, i64::from(n / 20) * 1_000_000 + i64::from(n))).collect();
        let whole = batch(0, &points);
        let leaves = leaves(&whole);
        assert_eq!(leaves.len(), 9);
        for leaf in &leaves {
            assert!(leaf.split().is_none());
            let key = |point: &Point| (point.series, point.time / 1_000_000);
            assert!(leaf.points.iter().all(|point| key(point) == key(&leaf.points[0])));
        }
        assert_eq!(leaves.iter().map(Batch::total).sum::<u128>(), whole.total());
        assert!(batch(0, &[(1, 5), (1, 999_999)]).split().is_none());
        assert!(batch(0, &[(1, 5), (1, 1_000_000)]).split().is_some());
    }
}
