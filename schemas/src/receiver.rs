/// What a decoder feeds.
///
/// A decoder announces a series before the first event of it, and may announce it again. On an error the events handed
/// over so far do not count: a message is taken whole or not at all, and the receiver's owner rolls back.
pub trait Receiver {
    /// Names a series and returns the receiver's own handle for it. `tags` are sorted by key, without repeats, without
    /// empty keys or values.
    fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32;

    /// Takes one event. `value` > 0; `time` in nanoseconds since the Unix epoch, >= 0.
    fn event(&mut self, series: u32, value: u64, time: i64);

    /// Takes what a native message says of its producer; called once, before its events.
    fn origin(&mut self, origin: &Origin) {
        let _ = origin;
    }
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
