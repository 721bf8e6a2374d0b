use std::fmt;
use std::sync::Arc;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: u32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: &str, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// The headers of a record, in order; a name may repeat.
pub trait Headers {
    /// The first header of that name.
    fn get(&self, name: &str) -> Option<&[u8]>;
    /// Calls `each` for every header, in order.
    fn each(&self, each: &mut dyn FnMut(&str, &[u8]));
}

/// A record without headers.
#[derive(Debug)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn get(&self, _name: &str) -> Option<&[u8]> {
        None
    }
    fn each(&self, _each: &mut dyn FnMut(&str, &[u8])) {}
}

impl Headers for Vec<(String, Vec<u8>)> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }
    fn each(&self, each: &mut dyn FnMut(&str, &[u8])) {
        for (key, value) in self {
            each(key, value);
        }
    }
}

/// Copies headers out of a borrowed record.
pub fn read_headers(headers: &dyn Headers) -> Vec<(String, Vec<u8>)> {
    let mut copied = Vec::new();
    headers.each(&mut |key, value| copied.push((key.to_owned(), value.to_vec())));
    copied
}

/// A record in the client's memory: valid during the call that hands it over.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The topic it came from.
    pub topic: &'a str,
    /// The partition it came from.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// The record's own timestamp: milliseconds since the Unix epoch; negative when it has none.
    pub time_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its bytes; empty for a tombstone.
    pub payload: &'a [u8],
    /// Whether it has a null value instead of bytes: the mark by which a key is deleted from a compacted topic.
    pub is_tombstone: bool,
    /// Why the bus's client cannot read it, although it is there: then this has no payload, key, time or headers.
    pub unreadable: Option<&'a str>,
    /// Its headers.
    pub headers: &'a dyn Headers,
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{} ({} bytes)", self.topic, self.partition, self.offset, self.payload.len())
    }
}

/// A record to publish.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Which partition; chosen by key (or at random without one) when absent.
    pub partition: Option<u32>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its bytes.
    pub payload: &'a [u8],
    /// Its headers.
    pub headers: &'a [(&'a str, &'a [u8])],
}
