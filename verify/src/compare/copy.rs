//! A copy of a range of the bus, in an embedded bus of its own: the same records for every sink and round.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use tallybus_bus::embedded::{EmbeddedBus, ImportedRecord};
use tallybus_bus::{Bus, BusError, Observer, Record, TopicOptions, read_headers, read_range};
use tallybus_sdk::TimeRange;

use super::{CompareError, Known, Span, Total, Watch, Workload};
use crate::audit::Messages;

/// One transaction of the copy.
const CHUNK_BYTES: usize = 8 << 20;
const CHUNK_RECORDS: usize = 20_000;
/// Bytes in the file for a byte of records, and for a record: the write-ahead log may hold everything again.
const FILE_FACTOR: u64 = 2;
const FILE_BYTES_PER_RECORD: u64 = 64;
/// What is to remain free on the disk.
const SPARE: u64 = 64 << 20;
/// How long the bus may return nothing.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Which records are compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chosen {
    /// By the records' own time.
    pub range: TimeRange,
    /// Of these only the newest records that have at least so many events together.
    pub last_events: Option<u64>,
}

/// The offsets of the chosen records.
///
/// # Errors
/// The bus could not be read, or there are none.
pub(super) fn spans(
    bus: &dyn Bus,
    observer: &dyn Observer,
    topics: &[String],
    encodings: &BTreeMap<String, String>,
    chosen: &Chosen,
) -> Result<Vec<Span>, CompareError> {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let held = observer.offsets(&names)?;
    let ends = observer.readable_ends(&names)?;
    let at = |time: Option<i64>| match time {
        // Rounded up: a record of the millisecond in which the range begins may be older than its beginning.
        Some(nanos) => observer
            .offsets_at(&names, nanos.div_euclid(1_000_000) + i64::from(nanos.rem_euclid(1_000_000) > 0))
            .map(Some),
        None => Ok(None),
    };
    let (from, to) = (at(chosen.range.from)?, at(chosen.range.to)?);
    let bound = |bounds: &Option<Vec<Vec<u64>>>, topic: usize, partition: usize| {
        bounds.as_ref().and_then(|bounds| bounds.get(topic)?.get(partition).copied())
    };
    let mut spans = Vec::new();
    for (topic, (name, ranges)) in topics.iter().zip(&held).enumerate() {
        for (partition, range) in ranges.iter().enumerate() {
            let readable = ends.get(topic).and_then(|ends| ends.get(partition)).copied().unwrap_or(range.end);
            let first = bound(&from, topic, partition).unwrap_or(range.first).max(range.first);
            let end = bound(&to, topic, partition).unwrap_or(range.end).min(readable).max(first);
            let partition = u32::try_from(partition).unwrap_or(u32::MAX);
            spans.push(Span { topic: name.clone(), partition, first, end });
        }
    }
    if let Some(events) = chosen.last_events {
        newest(bus, &mut spans, encodings, events)?;
    }
    if spans.iter().all(|span| span.first == span.end) {
        let reason = format!("{} no records in the chosen range", names.join(", "));
        return Err(CompareError::Empty(reason.replacen(
            " no",
            if names.len() == 1 { " has no" } else { " have no" },
            1,
        )));
    }
    Ok(spans)
}

/// Narrows the spans down to the newest records with at least this many events.
fn newest(
    bus: &dyn Bus,
    spans: &mut [Span],
    encodings: &BTreeMap<String, String>,
    events: u64,
) -> Result<(), CompareError> {
    // A record that counts anything has an event: so many records of each partition are enough.
    for span in spans.iter_mut() {
        span.first = span.first.max(span.end.saturating_sub(events));
    }
    let mut messages = Messages::new(encodings).map_err(CompareError::Settings)?;
    let mut found: Vec<(i64, usize, u64, u64)> = Vec::new();
    for topic in topics_of(spans) {
        read(bus, &topic, spans, &mut |record| {
            // Records that cannot be decoded have none.
            let count = if messages.decode(record).is_ok() { messages.rows().len() as u64 } else { 0 };
            let place = spans.iter().position(|span| span.topic == topic && span.partition == record.partition);
            found.extend(place.map(|place| (record.time_ms, place, record.offset, count)));
        })?;
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    let mut firsts: Vec<u64> = spans.iter().map(|span| span.end).collect();
    let mut taken = 0;
    for (_, place, offset, count) in found {
        if taken >= events {
            break;
        }
        taken += count;
        firsts[place] = firsts[place].min(offset);
    }
    for (span, first) in spans.iter_mut().zip(firsts) {
        span.first = first;
    }
    Ok(())
}

fn topics_of(spans: &[Span]) -> Vec<String> {
    let mut topics: Vec<String> = spans.iter().map(|span| span.topic.clone()).collect();
    topics.dedup();
    topics
}

/// Reads the spans of one topic.
fn read(bus: &dyn Bus, topic: &str, spans: &[Span], each: &mut dyn FnMut(&Record<'_>)) -> Result<(), BusError> {
    let own = spans.iter().filter(|span| span.topic == topic);
    let ranges: Vec<(u32, Range<u64>)> = own.map(|span| (span.partition, span.first..span.end)).collect();
    read_range(bus.reader()?.as_mut(), topic, &ranges, STALL_TIMEOUT, &mut |record| each(&record))
}

/// The copy, and what is in it.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) workload: Workload,
    /// By the counter's name, how many events.
    pub(super) names: BTreeMap<String, u64>,
    /// By the start of the hour, how many events: nanoseconds since the Unix epoch.
    pub(super) hours: BTreeMap<i64, u64>,
    /// Records without a payload, which no worker counts.
    pub(super) tombstones: u64,
    /// Records that the bus could not deliver.
    pub(super) unreadable: u64,
}

const HOUR: i64 = 3_600_000_000_000;

/// Copies the spans. Partitions, keys, times, headers and payloads stay the same; offsets begin at 0.
///
/// # Errors
/// The bus cannot be read, the copy cannot be written, or the disk is too small.
pub(super) fn copy(
    bus: &dyn Bus,
    observer: &dyn Observer,
    spans: &[Span],
    encodings: &BTreeMap<String, String>,
    target: &EmbeddedBus,
    dir: &Path,
    watch: &mut dyn Watch,
) -> Result<Copied, CompareError> {
    let mut counting = Counting::new(encodings)?;
    let whole: u64 = spans.iter().map(|span| span.end - span.first).sum();
    for topic in topics_of(spans) {
        let partitions = observer.partitions_of(&topic)?.ok_or_else(|| BusError::NoTopic(topic.clone()))?;
        target.create_topic(&topic, &TopicOptions::new(partitions))?;
        let mut importing = Importing { target, topic: &topic, dir, waiting: Vec::new(), bytes: 0, failure: None };
        read(bus, &topic, spans, &mut |record| {
            if importing.failure.is_some() {
                return;
            }
            counting.take(record);
            let copied = counting.messages;
            if copied.is_multiple_of(1_000) {
                watch.step(copied, whole, "copying the range");
                if watch.is_stopped() {
                    importing.failure = Some(CompareError::Interrupted);
                    return;
                }
            }
            importing.take(record, || Left { records: whole.saturating_sub(copied), copied, bytes: counting.bytes });
        })?;
        importing.finish()?;
    }
    Ok(counting.finish(bus.describe(), spans))
}

/// What of the range is still to be copied.
struct Left {
    records: u64,
    copied: u64,
    bytes: u64,
}

/// About how many bytes the rest of the copy takes on the disk.
fn needed(left: &Left) -> u64 {
    let each = left.bytes.checked_div(left.copied).unwrap_or(0).saturating_mul(FILE_FACTOR) + FILE_BYTES_PER_RECORD;
    left.records.saturating_mul(each).saturating_add(SPARE)
}

struct Importing<'a> {
    target: &'a EmbeddedBus,
    topic: &'a str,
    dir: &'a Path,
    waiting: Vec<ImportedRecord>,
    bytes: usize,
    failure: Option<CompareError>,
}

impl Importing<'_> {
    fn take(&mut self, record: &Record<'_>, left: impl FnOnce() -> Left) {
        if record.is_tombstone || record.unreadable.is_some() {
            return;
        }
        let record = ImportedRecord {
            partition: record.partition,
            time_ms: record.time_ms,
            key: record.key.map(<[u8]>::to_vec),
            headers: read_headers(record.headers),
            payload: record.payload.to_vec(),
        };
        self.bytes += record.bytes();
        self.waiting.push(record);
        if self.bytes >= CHUNK_BYTES || self.waiting.len() >= CHUNK_RECORDS {
            self.failure = self.write(&left()).err();
        }
    }

    fn write(&mut self, left: &Left) -> Result<(), CompareError> {
        let free = free_bytes(self.dir)?;
        let needed = needed(left).saturating_add(self.bytes as u64 * FILE_FACTOR);
        if free < needed {
            return Err(CompareError::Space { dir: self.dir.to_owned(), needed, free });
        }
        self.target.import(self.topic, std::mem::take(&mut self.waiting))?;
        self.bytes = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<(), CompareError> {
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.write(&Left { records: 0, copied: 0, bytes: 0 }),
        }
    }
}

fn free_bytes(dir: &Path) -> Result<u64, CompareError> {
    let failed = CompareError::system(format!("cannot see how much space is free in {}", dir.display()));
    let stat = rustix::fs::statvfs(dir).map_err(std::io::Error::from).map_err(failed)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Counts what is copied.
struct Counting {
    decoder: Messages,
    messages: u64,
    bytes: u64,
    events: u64,
    total: u128,
    series: HashSet<u32>,
    undecodable: u64,
    tombstones: u64,
    unreadable: u64,
    oldest: Option<i64>,
    newest: Option<i64>,
    by_series: Vec<u64>,
    hours: BTreeMap<i64, u64>,
}

impl Counting {
    fn new(encodings: &BTreeMap<String, String>) -> Result<Self, CompareError> {
        Ok(Self {
            decoder: Messages::new(encodings).map_err(CompareError::Settings)?,
            messages: 0,
            bytes: 0,
            events: 0,
            total: 0,
            series: HashSet::new(),
            undecodable: 0,
            tombstones: 0,
            unreadable: 0,
            oldest: None,
            newest: None,
            by_series: Vec::new(),
            hours: BTreeMap::new(),
        })
    }

    fn take(&mut self, record: &Record<'_>) {
        self.messages += 1;
        self.tombstones += u64::from(record.is_tombstone);
        self.unreadable += u64::from(record.unreadable.is_some());
        if record.is_tombstone || record.unreadable.is_some() {
            return;
        }
        self.bytes += (record.payload.len() + record.key.map_or(0, <[u8]>::len)) as u64;
        if self.decoder.decode(record).is_err() {
            self.undecodable += 1;
            return;
        }
        self.undecodable += self.decoder.refused().len() as u64;
        for row in self.decoder.rows() {
            self.events += 1;
            self.total += u128::from(row.value);
            self.series.insert(row.series);
            let place = row.series as usize;
            if self.by_series.len() <= place {
                self.by_series.resize(place + 1, 0);
            }
            self.by_series[place] += 1;
            self.oldest = Some(self.oldest.map_or(row.time, |oldest| oldest.min(row.time)));
            self.newest = self.newest.max(Some(row.time));
            *self.hours.entry(row.time - row.time.rem_euclid(HOUR)).or_default() += 1;
        }
    }

    fn finish(self, bus: String, spans: &[Span]) -> Copied {
        let mut names: BTreeMap<String, u64> = BTreeMap::new();
        for (number, events) in (0..).zip(&self.by_series).filter(|(_, events)| **events > 0) {
            *names.entry(self.decoder.series(number).name().to_owned()).or_default() += events;
        }
        let time = |time: Option<i64>| match time {
            Some(time) => Known::Is(super::time_text(time)),
            None => Known::unknown("the range has no events"),
        };
        let workload = Workload {
            bus,
            spans: spans.to_vec(),
            messages: self.messages,
            bytes: Known::Is(self.bytes),
            events: self.events,
            total: Total(self.total),
            series: Known::Is(self.series.len() as u64),
            undecodable: self.undecodable,
            oldest: time(self.oldest),
            newest: time(self.newest),
        };
        Copied { workload, names, hours: self.hours, tombstones: self.tombstones, unreadable: self.unreadable }
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
