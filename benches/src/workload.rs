//! The events of the drain benchmark: which event has which series, value and time, so that a reader can tell from a time
//! alone which event it is.

use std::fmt;
use std::str::FromStr;

use tallybus_schemas::{NativeEncoder, Origin};

/// The millisecond of event 0. Event `i` stands `i` milliseconds later, so that each has a millisecond of its own.
pub const BASE_MS: u64 = 1_700_000_000_000;

/// Events in one native message.
pub const NATIVE_EVENTS: u64 = 2_000;

const NAME: &str = "http.requests";
const NANOS_PER_MILLI: u64 = 1_000_000;

/// How the events are written on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// One JSON event a message, 133 bytes.
    Json,
    /// One line of Influx line protocol a message, 90 bytes.
    Line,
    /// Native batches of [`NATIVE_EVENTS`] events.
    Native,
}

impl Input {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::Line, Self::Native];
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Line => "line",
            Self::Native => "native",
        })
    }
}

impl FromStr for Input {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|input| input.to_string() == text).ok_or_else(|| format!("unknown input {text:?}"))
    }
}

/// Takes a message: its partition and its bytes.
pub type Each<'a, E> = &'a mut dyn FnMut(u32, &[u8]) -> Result<(), E>;

/// Which events there are, and how they lie on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// How they are written.
    pub input: Input,
    /// How many.
    pub events: u64,
    /// Of how many series; up to 1,000,000 of them have names of the same length.
    pub series: u64,
    /// Into how many partitions. A series lies in one partition.
    pub partitions: u32,
}

impl Workload {
    /// Messages on the bus.
    pub fn messages(&self) -> u64 {
        match self.input {
            Input::Json | Input::Line => self.events,
            // The last message of each partition may be smaller.
            Input::Native => (0..u64::from(self.partitions)).map(|p| self.events_in(p).div_ceil(NATIVE_EVENTS)).sum(),
        }
    }

    /// The sum of all values.
    pub fn sum(&self) -> u64 {
        (0..self.events).map(value).sum()
    }

    /// Which series an event counts: scattered, so that neighbours differ, and all series are met equally often.
    pub fn series_of(&self, event: u64) -> u64 {
        // The finaliser of splitmix64.
        let mut mixed = event.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % self.series
    }

    /// Where a series lies.
    pub fn partition_of(&self, series: u64) -> u32 {
        // The remainder is smaller than a u32.
        u32::try_from(series % u64::from(self.partitions)).unwrap_or_default()
    }

    fn events_in(&self, partition: u64) -> u64 {
        let lies_there = |event: &u64| self.series_of(*event) % u64::from(self.partitions) == partition;
        u64::try_from((0..self.events).filter(lies_there).count()).unwrap_or(u64::MAX)
    }

    /// Hands every message to `each`, as partition and bytes.
    ///
    /// # Errors
    /// The first one that `each` answers.
    pub fn write<E>(&self, each: Each<'_, E>) -> Result<(), E> {
        match self.input {
            Input::Json => self.write_text(each, json_tail, |text, event, tail| {
                push_all(text, &["{\"ts\":", &time(event).to_string(), ",\"name\":\"", NAME, "\",\"value\":"]);
                push_all(text, &[&value(event).to_string(), tail]);
            }),
            Input::Line => self.write_text(each, line_head, |text, event, head| {
                push_all(text, &[head, " value=", &value(event).to_string(), "i ", &time(event).to_string()]);
            }),
            Input::Native => self.write_native(each),
        }
    }

    fn write_text<E>(
        &self,
        each: Each<'_, E>,
        of_series: impl Fn(u64) -> String,
        put: impl Fn(&mut String, u64, &str),
    ) -> Result<(), E> {
        let of_series: Vec<String> = (0..self.series).map(of_series).collect();
        let mut text = String::new();
        for event in 0..self.events {
            let series = self.series_of(event);
            let Some(known) = usize::try_from(series).ok().and_then(|series| of_series.get(series)) else { continue };
            text.clear();
            put(&mut text, event, known);
            each(self.partition_of(series), text.as_bytes())?;
        }
        Ok(())
    }

    fn write_native<E>(&self, each: Each<'_, E>) -> Result<(), E> {
        let mut packers: Vec<Packer> = (0..self.partitions).map(Packer::new).collect();
        for event in 0..self.events {
            let series = self.series_of(event);
            let partition = self.partition_of(series);
            let Some(packer) = usize::try_from(partition).ok().and_then(|at| packers.get_mut(at)) else { continue };
            let route = format!("/v1/{series:06}");
            let tags = [("dc", "eu-w1"), ("route", route.as_str()), ("service", "api"), ("status", "200")];
            packer.encoder.push_at(NAME, &tags, value(event), i64::try_from(time(event)).unwrap_or(i64::MAX));
            packer.last = event;
            if u64::try_from(packer.encoder.events()).is_ok_and(|events| events >= NATIVE_EVENTS) {
                each(partition, &packer.finish())?;
            }
        }
        for (partition, packer) in (0..).zip(&mut packers) {
            if !packer.encoder.is_empty() {
                each(partition, &packer.finish())?;
            }
        }
        Ok(())
    }
}

/// Packs the events of one partition, as a producer of its own.
struct Packer {
    encoder: NativeEncoder,
    origin: Origin,
    last: u64,
}

impl Packer {
    fn new(partition: u32) -> Self {
        let mut producer = [0x5a; 16];
        producer[..4].copy_from_slice(&partition.to_be_bytes());
        let start = i64::try_from(time(0)).unwrap_or(i64::MAX);
        let origin = Origin {
            producer,
            sequence: 0,
            interval_start: start,
            interval_end: start,
            partition_total: 0,
            emitted_total: 0,
        };
        Self { encoder: NativeEncoder::new(&[]), origin, last: 0 }
    }

    fn finish(&mut self) -> Vec<u8> {
        self.origin.sequence += 1;
        self.origin.interval_start = self.origin.interval_end;
        self.origin.interval_end = i64::try_from(time(self.last)).unwrap_or(i64::MAX);
        self.origin.partition_total += self.encoder.total();
        self.origin.emitted_total = self.origin.partition_total;
        self.encoder.finish(&self.origin)
    }
}

/// An event's value: 1 to 9.
pub fn value(event: u64) -> u64 {
    1 + event % 9
}

/// An event's time: nanoseconds since the Unix epoch.
fn time(event: u64) -> u64 {
    (BASE_MS + event) * NANOS_PER_MILLI
}

fn json_tail(series: u64) -> String {
    format!(r#","tags":{{"service":"api","route":"/v1/{series:06}","status":"200","dc":"eu-w1"}}}}"#)
}

fn line_head(series: u64) -> String {
    // One letter shorter than in JSON: then a line has the 90 bytes that others were measured with.
    format!("{NAME},dc=eu-1,route=/v1/{series:06},service=api,status=200")
}

fn push_all(text: &mut String, parts: &[&str]) {
    for part in parts {
        text.push_str(part);
    }
}

#[cfg(test)]
mod tests {
    use tallybus_schemas::decode_all;

    use super::*;

    #[test]
    fn messages_have_the_sizes_that_others_were_measured_with() {
        for (input, size) in [(Input::Json, 133), (Input::Line, 90)] {
            let workload = Workload { input, events: 100, series: 10, partitions: 4 };
            workload
                .write::<()>(&mut |_, message| {
                    assert_eq!(message.len(), size, "{}", String::from_utf8_lossy(message));
                    Ok(())
                })
                .unwrap();
        }
    }

    #[test]
    fn every_input_says_the_same_events() {
        for input in Input::ALL {
            let workload = Workload { input, events: 9_001, series: 10, partitions: 4 };
            let (mut messages, mut times, mut sum) = (0, Vec::new(), 0);
            workload
                .write::<()>(&mut |partition, message| {
                    messages += 1;
                    for event in decode_all(None, message, 0).unwrap() {
                        let index = u64::try_from(event.time).unwrap() / NANOS_PER_MILLI - BASE_MS;
                        let series = workload.series_of(index);
                        assert_eq!(event.value, value(index));
                        assert_eq!(partition, workload.partition_of(series));
                        assert!(event.series.tags().iter().any(|(_, value)| **value == *format!("/v1/{series:06}")));
                        times.push(index);
                        sum += event.value;
                    }
                    Ok(())
                })
                .unwrap();
            times.sort_unstable();
            assert_eq!(times, (0..9_001).collect::<Vec<_>>());
            assert_eq!((messages, sum), (workload.messages(), workload.sum()));
        }
    }
}
