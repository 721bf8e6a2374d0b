/// What a decoder feeds.
///
/// A decoder announces a series before the first event of it, and may announce it again. On an error the events handed
/// over so far do not count: a message is taken whole or not at all, and the receiver's owner rolls back.
pub trait Receiver {
    /// Names a series and returns the receiver's own handle for it. `tags` are sorted by key, without repeats, without
    /// empty keys or values.
    fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32;

    /// The handle of the series that these very bytes named before; `None` where the receiver does not know or does not
    /// remember. Only [`Receiver::learn`] makes a spelling known, so that a hit needs no look at what the bytes say.
    fn recall(&mut self, spelling: Spelling<'_>) -> Option<u32> {
        let _ = spelling;
        None
    }

    /// Told after [`Receiver::series`] which bytes named the series, where they alone decide which one is meant.
    fn learn(&mut self, spelling: Spelling<'_>, series: u32) {
        let _ = (spelling, series);
    }

    /// Takes one event. `value` > 0; `time` in nanoseconds since the Unix epoch, >= 0.
    fn event(&mut self, series: u32, value: u64, time: i64);

    /// Takes what a native message says of its producer; called once, before its events.
    fn origin(&mut self, origin: &Origin) {
        let _ = origin;
    }
}

/// How a message of a text encoding spells a series: the same bytes always mean the same series, in every encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spelling<'a> {
    /// The name as it stands in the message, or the whole key where name and tags stand together.
    pub name: &'a [u8],
    /// The tags as they stand in the message, with what encloses them; empty where they are part of `name`, or none.
    pub tags: &'a [u8],
}

/// Who sent a native message, and what an auditor needs to see a gap or a duplicate before the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Random, one per process (or per `init` in it).
    pub producer: [u8; 16],
    /// Counts this producer's messages in this partition, from 1, without gaps.
    pub sequence: u64,
    /// When the counting of this message's events began: nanoseconds since the Unix epoch.
    pub interval_start: i64,
    /// When they were taken; the time of the events that carry none of their own.
    pub interval_end: i64,
    /// Sum of all values that this producer sent to this partition, this message included.
    pub partition_total: u64,
    /// Everything the producer's process had counted by `interval_end`, sent or not, in all partitions.
    pub emitted_total: u64,
}
