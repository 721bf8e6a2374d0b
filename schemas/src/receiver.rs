/// Receives the events of a message from a decoder.
///
/// A decoder announces a series before its first event, and may announce it again. After an error the events handed over
/// so far do not count: a message is taken whole or not at all, and the receiver's owner rolls back.
pub trait Receiver {
    /// Names a series and returns the receiver's own handle for it. `tags` are sorted by key, without repeats, without
    /// empty keys or values.
    fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32;

    /// Looks up a raw series key in the receiver's cache: the handle of the series that the same bytes named before;
    /// `None` when it is not cached. Only [`Receiver::remember`] adds a key, so that a hit needs no parsing.
    fn lookup(&mut self, key: RawSeriesKey<'_>) -> Option<u32> {
        let _ = key;
        None
    }

    /// Caches which bytes named the series, called after [`Receiver::series`]; only for bytes that alone decide which series
    /// is meant. A receiver may ignore it.
    fn remember(&mut self, key: RawSeriesKey<'_>, series: u32) {
        let _ = (key, series);
    }

    /// Takes one event. `value` > 0; `time` in nanoseconds since the Unix epoch, >= 0.
    fn event(&mut self, series: u32, value: u64, time: i64);

    /// Takes the origin of a native message; called once, before its events.
    fn origin(&mut self, origin: &Origin) {
        let _ = origin;
    }
}

/// The bytes that name a series in a message of a text encoding. The same bytes always mean the same series, in every
/// encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawSeriesKey<'a> {
    /// The name as written in the message, or name and tags where they are written together.
    pub name: &'a [u8],
    /// The tags as written in the message, with what encloses them; empty where they are part of `name`, or absent.
    pub tags: &'a [u8],
}

/// Which producer sent a native message, and what an audit needs to see a gap or a duplicate before the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Random, one per collector (so usually one per process).
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
