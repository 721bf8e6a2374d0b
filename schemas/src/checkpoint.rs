//! What a producer says of itself on the topic of the producers: how far everything that it counted is on the bus.
//!
//! The topic is compacted and has one partition. The key of a [`Checkpoint`] is its producer's id, so that the newest one
//! remains; a [`Dismissal`] has a key of its own, so that it outlives the next checkpoint.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The topic of the producers; a namespace and a dot may come before it.
pub const PRODUCERS_TOPIC: &str = "tallybus.producers";

/// The version that is written. Keys may be added to a version; readers ignore those that they do not know.
pub const CHECKPOINT_VERSION: u32 = 1;

/// The most bytes of a record that is read.
pub const MAX_CHECKPOINT: usize = 900_000;
/// The most bytes of a text in a checkpoint.
pub const MAX_CHECKPOINT_TEXT: usize = 256;
/// The most marks of a checkpoint.
const MAX_MARKS: usize = 64;
/// The most partitions that a mark names.
const MAX_PARTITIONS: usize = 100_000;
/// The most doubts of a checkpoint.
const MAX_DOUBTS: usize = 64;
/// What follows the producer's id in the key of its dismissal.
const DISMISSED: &str = "/dismissed";

/// How far a producer is, and who it is. Times are nanoseconds since the Unix epoch by the clock that dates its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The producer's id in its messages: sixteen bytes in hexadecimal. One life of one collector.
    pub producer: String,
    /// Counts the checkpoints of this producer, from 1.
    pub number: u64,
    /// The service, as in the tag of its series.
    pub service: String,
    /// Which of the service's processes, as in the tag of its series.
    pub instance: String,
    /// The host that it runs on; empty where it is unknown.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// The version of the collector.
    pub version: String,
    /// The topic that it publishes counts to.
    pub topic: String,
    /// The topic's incarnation that the offsets belong to; `None` where the bus does not tell it.
    pub stream: Option<String>,
    /// When it started. None of its events is dated before.
    pub started: i64,
    /// When this was written, by the wall clock.
    pub time: i64,
    /// How often it writes one, in milliseconds.
    pub interval_ms: u64,
    /// How far it is, newest first; older marks are for sinks that have not come as far as the newest.
    pub marks: Vec<Mark>,
    /// What keeps the marks from being the whole truth.
    pub doubts: Vec<Doubt>,
    /// How it ended; `None` while it runs.
    pub end: Option<End>,
    /// The sum of everything that it has counted.
    pub emitted: u64,
    /// The sum of what the bus has acknowledged.
    pub delivered: u64,
    /// The sum of the messages that were never answered.
    pub unknown: u64,
    /// Messages that the bus has acknowledged.
    pub messages: u64,
    /// Messages that the bus refused; their counts returned to the counters.
    pub give_backs: u64,
    /// Series that exist.
    pub series: u64,
    /// The sum of what was counted in overflow series.
    pub overflowed: u64,
    /// The time and `emitted` of the checkpoint before: for a rate.
    pub previous: Option<(i64, u64)>,
}

/// Every event of the producer that is dated before `before`, and everything that it counted before, is in a message below
/// these offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Nanoseconds since the Unix epoch; exclusive.
    pub before: i64,
    /// By partition: one past the last of its acknowledged messages; 0 where it has none.
    pub ends: Vec<u64>,
}

/// Events dated `since` or later may be missing whatever the marks say, until an operator dismisses the producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// What happened.
    pub kind: DoubtKind,
    /// Everything before this time is certain.
    pub since: i64,
    /// The first checkpoint that has it: dismissing this one, or a later one, accepts it.
    pub number: u64,
    /// The sum of the counts concerned, where it is known.
    pub value: u64,
}

/// Why a producer does not know whether its counts are on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoubtKind {
    /// A message was never answered, and was not sent again.
    InDoubt,
    /// The topic was deleted and recreated, or its incarnation is not known: earlier messages were on another one.
    Recreated,
}

/// How a producer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Everything that it counted was acknowledged, but for its doubts. No event of it comes any more, and the newest mark covers
    /// all of them.
    Complete,
    /// Not everything was acknowledged.
    Incomplete,
}

/// An operator's decision: what a producer has not confirmed up to a checkpoint is waited for no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dismissal {
    /// [`CHECKPOINT_VERSION`].
    pub v: u32,
    /// The producer's id.
    pub dismissed: String,
    /// The last checkpoint that the operator knew. A later one brings the producer back. 0 for a record that was not understood: it
    /// is the one before this in the partition.
    pub number: u64,
    /// When: nanoseconds since the Unix epoch.
    pub time: i64,
}

/// Why a record is no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// It is no JSON of this form.
    #[error("not a checkpoint: {0}")]
    Form(String),
    /// A newer version wrote it.
    #[error("a checkpoint of version {0}, which this program does not know: use a newer one")]
    Version(u32),
}

/// The form on the bus. Of a mark after the first, the offsets are how far it is behind the one before.
#[derive(Serialize, Deserialize)]
struct Form {
    v: u32,
    producer: String,
    number: u64,
    service: String,
    instance: String,
    host: String,
    pid: u32,
    version: String,
    topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    started: i64,
    time: i64,
    interval_ms: u64,
    marks: Vec<(i64, Vec<u64>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    doubts: Vec<Doubt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<End>,
    emitted: u64,
    delivered: u64,
    #[serde(default)]
    unknown: u64,
    messages: u64,
    #[serde(default)]
    give_backs: u64,
    series: u64,
    #[serde(default)]
    overflowed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<(i64, u64)>,
}

/// Only the version, so that a newer form is recognised whatever else it holds.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

/// What a record of the topic is about, by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointKey<'k> {
    /// The checkpoint of this producer.
    Checkpoint(&'k str),
    /// The dismissal of this producer.
    Dismissal(&'k str),
}

impl<'k> CheckpointKey<'k> {
    /// `None` for a key of neither.
    pub fn parse(key: &'k [u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        let (id, is_dismissal) = match key.strip_suffix(DISMISSED) {
            Some(id) => (id, true),
            None => (key, false),
        };
        if !is_producer(id) {
            return None;
        }
        Some(if is_dismissal { Self::Dismissal(id) } else { Self::Checkpoint(id) })
    }
}

/// Whether a text is a producer's id: sixteen bytes in lower-case hexadecimal.
pub fn is_producer(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl Checkpoint {
    /// The record's payload. Its key is [`Checkpoint::producer`].
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, CheckpointError> {
        let mut marks = Vec::with_capacity(self.marks.len());
        let mut newer: Option<&Mark> = None;
        for mark in &self.marks {
            let offsets = match newer {
                None => mark.ends.clone(),
                Some(newer) => {
                    newer.ends.iter().zip(padded(&mark.ends)).map(|(newer, end)| newer.saturating_sub(end)).collect()
                }
            };
            marks.push((mark.before, offsets));
            newer = Some(mark);
        }
        let form = Form {
            v: CHECKPOINT_VERSION,
            producer: self.producer.clone(),
            number: self.number,
            service: self.service.clone(),
            instance: self.instance.clone(),
            host: self.host.clone(),
            pid: self.pid,
            version: self.version.clone(),
            topic: self.topic.clone(),
            stream: self.stream.clone(),
            started: self.started,
            time: self.time,
            interval_ms: self.interval_ms,
            marks,
            doubts: self.doubts.clone(),
            end: self.end,
            emitted: self.emitted,
            delivered: self.delivered,
            unknown: self.unknown,
            messages: self.messages,
            give_backs: self.give_backs,
            series: self.series,
            overflowed: self.overflowed,
            previous: self.previous,
        };
        serde_json::to_vec(&form).map_err(|error| CheckpointError::Form(error.to_string()))
    }

    /// Reads a payload. What it accepts is bounded and consistent: ids, sizes, marks that fall in time and offsets.
    ///
    /// # Errors
    /// It is no checkpoint of a known version.
    pub fn decode(payload: &[u8]) -> Result<Self, CheckpointError> {
        let wrong = |what: &str| Err(CheckpointError::Form(what.to_owned()));
        if payload.len() > MAX_CHECKPOINT {
            return wrong("too large");
        }
        let form = parse::<Form>(payload)?;
        let texts = [&form.service, &form.instance, &form.host, &form.version, &form.topic];
        let stream = form.stream.iter();
        if texts.into_iter().chain(stream).any(|text| text.len() > MAX_CHECKPOINT_TEXT) {
            return wrong("a text is too long");
        }
        if !is_producer(&form.producer) || form.number == 0 {
            return wrong("the producer's id or the checkpoint's number");
        }
        if form.marks.len() > MAX_MARKS || form.doubts.len() > MAX_DOUBTS {
            return wrong("too many marks or doubts");
        }
        let Some(marks) = marks_of(form.marks) else { return wrong("marks that contradict each other") };
        if form.doubts.iter().any(|doubt| doubt.number == 0 || doubt.number > form.number) {
            return wrong("a doubt of a later checkpoint");
        }
        Ok(Self {
            producer: form.producer,
            number: form.number,
            service: form.service,
            instance: form.instance,
            host: form.host,
            pid: form.pid,
            version: form.version,
            topic: form.topic,
            stream: form.stream,
            started: form.started,
            time: form.time,
            interval_ms: form.interval_ms,
            marks,
            doubts: form.doubts,
            end: form.end,
            emitted: form.emitted,
            delivered: form.delivered,
            unknown: form.unknown,
            messages: form.messages,
            give_backs: form.give_backs,
            series: form.series,
            overflowed: form.overflowed,
            previous: form.previous,
        })
    }
}

impl Dismissal {
    /// Dismisses a producer as of a checkpoint.
    pub fn new(producer: &str, number: u64, time: i64) -> Self {
        Self { v: CHECKPOINT_VERSION, dismissed: producer.to_owned(), number, time }
    }

    /// The record's key.
    pub fn key(&self) -> String {
        format!("{}{DISMISSED}", self.dismissed)
    }

    /// The record's payload.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, CheckpointError> {
        serde_json::to_vec(self).map_err(|error| CheckpointError::Form(error.to_string()))
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// It is no dismissal of a known version.
    pub fn decode(payload: &[u8]) -> Result<Self, CheckpointError> {
        parse(payload)
    }
}

fn parse<'p, T: Deserialize<'p>>(payload: &'p [u8]) -> Result<T, CheckpointError> {
    let form = |error: serde_json::Error| CheckpointError::Form(error.to_string());
    let Versioned { v } = serde_json::from_slice(payload).map_err(form)?;
    if v != CHECKPOINT_VERSION {
        return Err(CheckpointError::Version(v));
    }
    serde_json::from_slice(payload).map_err(form)
}

fn padded(ends: &[u64]) -> impl Iterator<Item = u64> {
    ends.iter().copied().chain(std::iter::repeat(0))
}

fn marks_of(form: Vec<(i64, Vec<u64>)>) -> Option<Vec<Mark>> {
    let mut marks: Vec<Mark> = Vec::with_capacity(form.len());
    for (before, offsets) in form {
        let ends = match marks.last() {
            None if offsets.len() > MAX_PARTITIONS => return None,
            None => offsets,
            Some(newer) if before >= newer.before || offsets.len() > newer.ends.len() => return None,
            Some(newer) => {
                let behind = newer.ends.iter().zip(padded(&offsets));
                behind.map(|(end, behind)| end.checked_sub(behind)).collect::<Option<_>>()?
            }
        };
        marks.push(Mark { before, ends });
    }
    Some(marks)
}

#[cfg(test)]
mod tests;
