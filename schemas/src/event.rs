use crate::Series;

/// One increment of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What was counted.
    pub series: Series,
    /// The increment; never 0.
    pub value: u64,
    /// Nanoseconds since the Unix epoch, UTC; never negative.
    pub time: i64,
}

/// Identifies an event, permanently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinate {
    /// Partition of the topic.
    pub partition: u32,
    /// Offset of the message in the partition.
    pub offset: u64,
    /// Index of the event in the message, from 0.
    pub index: u32,
}
