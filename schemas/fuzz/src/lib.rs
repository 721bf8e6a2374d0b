//! What must hold for every message, whoever made it. The fuzz targets run it, and so do the crate's own tests.

use std::cell::RefCell;
use std::collections::HashMap;

use tallybus_schemas::{
    Decoder, Encoding, Event, Events, NativeEncoder, Origin, RawSeriesKey, Receiver, SchemaError, Series, canonical,
    json as json_encoding, line,
};

/// The record's timestamp, wherever one is needed.
pub const RECORD_TIME: i64 = 1_700_000_000_000_000_000;

/// Native messages decode or are refused; what decodes survives being encoded again.
pub fn native(message: &[u8]) {
    let Ok(events) = decode(Some(Encoding::Native), message) else { return };
    through_native(&events);
    through_json(&events);
}

/// JSON decodes or is refused; what decodes survives being encoded again.
pub fn json(message: &[u8]) {
    let Ok(events) = decode(Some(Encoding::Json), message) else { return };
    through_json(&events);
    through_native(&events);
}

/// Line protocol decodes or is refused; what decodes survives being encoded again.
pub fn influx(message: &[u8]) {
    let Ok(events) = decode(Some(Encoding::Influx), message) else { return };
    through_lines(&events);
    through_json(&events);
}

/// Decodes under the promises of [`Receiver`], in every way there is: all must agree.
pub fn decode(encoding: Option<Encoding>, message: &[u8]) -> Result<Vec<Event>, SchemaError> {
    decode_at(encoding, message, RECORD_TIME)
}

/// As [`decode`], for a record of another time.
pub fn decode_at(encoding: Option<Encoding>, message: &[u8], record_time: i64) -> Result<Vec<Event>, SchemaError> {
    let strictly = |decoder: &mut Decoder| {
        let mut strict = Strict::default();
        decoder.decode(encoding, message, record_time, &mut strict).map(|count| {
            assert_eq!(count as usize, strict.events.len());
            strict.events.to_vec()
        })
    };
    let mut decoder = Decoder::new();
    let first = strictly(&mut decoder);
    assert_eq!(first, strictly(&mut decoder), "the decoder keeps nothing from one message to the next");
    if let Err(error) = &first {
        assert!(error.position <= message.len());
        assert!(!error.field.is_empty() && !error.reason.is_empty());
        assert!(error.to_string().len() < 2_000, "an error fits a log");
        assert!(!error.to_string().contains('\n'));
    }

    if encoding != Some(Encoding::Native) {
        assert_eq!(first, strictly(&mut Decoder::thorough()), "the short way leads where the long one does");
        MEMORY.with_borrow_mut(|memory| {
            for _ in 0..2 {
                let remembered = memory.decode(&mut decoder, encoding, message, record_time);
                assert_eq!(first, remembered, "what was remembered, from whatever message, is still true");
            }
        });
    }
    first
}

/// How many series this thread's [`decode`] knew by their raw key so far.
pub fn cache_hits() -> u64 {
    MEMORY.with_borrow(|memory| memory.cache_hits)
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Remembers every raw key, over all messages and encodings, even those of messages that are refused.
#[derive(Default)]
struct Memory {
    series: Vec<Series>,
    known: HashMap<(Vec<u8>, Vec<u8>), u32>,
    events: Vec<Event>,
    cache_hits: u64,
}

impl Memory {
    fn decode(
        &mut self,
        decoder: &mut Decoder,
        encoding: Option<Encoding>,
        message: &[u8],
        record_time: i64,
    ) -> Result<Vec<Event>, SchemaError> {
        // So that a long run of the fuzzer does not fill the machine.
        if self.series.len() > 100_000 {
            *self = Self { cache_hits: self.cache_hits, ..Self::default() };
        }
        self.events.clear();
        let count = decoder.decode(encoding, message, record_time, self)?;
        assert_eq!(count as usize, self.events.len());
        Ok(self.events.clone())
    }
}

impl Receiver for Memory {
    fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32 {
        self.series.push(Series::from_sorted(name, tags));
        self.series.len() as u32 - 1
    }

    fn lookup(&mut self, key: RawSeriesKey<'_>) -> Option<u32> {
        let known = self.known.get(&(key.name.to_vec(), key.tags.to_vec())).copied();
        self.cache_hits += u64::from(known.is_some());
        known
    }

    fn remember(&mut self, key: RawSeriesKey<'_>, series: u32) {
        assert_eq!(series as usize, self.series.len() - 1, "told right after the series");
        let known = self.known.insert((key.name.to_vec(), key.tags.to_vec()), series);
        assert_eq!(known, None, "what is known is found");
    }

    fn event(&mut self, series: u32, value: u64, time: i64) {
        self.events.push(Event { series: self.series[series as usize].clone(), value, time });
    }
}

/// Encodes as native messages do and decodes again.
pub fn through_native(events: &[Event]) {
    let mut encoder = NativeEncoder::new(&[]);
    for event in events {
        let tags: Vec<(&str, &str)> = event.series.tags().iter().map(|(key, value)| (&**key, &**value)).collect();
        encoder.push_at(event.series.name(), &tags, event.value, event.time);
    }
    let estimate = encoder.len_estimate();
    let message = encoder.finish(&Origin {
        producer: [7; 16],
        sequence: 1,
        interval_start: 0,
        interval_end: RECORD_TIME,
        partition_total: 0,
        emitted_total: 0,
    });
    assert!(message.len() <= estimate);
    assert_eq!(Encoding::recognise(&message), Some(Encoding::Native));
    assert_eq!(decode(None, &message).as_deref(), Ok(events));
}

/// Writes the events as newline-delimited JSON and decodes them again.
pub fn through_json(events: &[Event]) {
    let mut message = Vec::new();
    for event in events {
        json_encoding::write_event(&mut message, event);
        assert!(!message.contains(&b'\n') || message.last() == Some(&b'}'));
        message.push(b'\n');
    }
    if events.is_empty() {
        return;
    }
    assert_eq!(message.iter().filter(|&&byte| byte == b'\n').count(), events.len(), "one line an event");
    assert_eq!(decode(None, &message).as_deref(), Ok(events));
}

/// Writes those events that line protocol can hold as lines and decodes them again.
pub fn through_lines(events: &[Event]) {
    let mut message = Vec::new();
    let mut expected = Vec::new();
    for event in events {
        if line::write_series_key(&mut message, event.series.name(), event.series.tags()).is_ok() {
            message.extend_from_slice(format!(" value={}u {}\n", event.value, event.time).as_bytes());
            expected.push(event.clone());
        }
    }
    if !expected.is_empty() {
        assert_eq!(decode(Some(Encoding::Influx), &message), Ok(expected));
    }
}

/// Keeps events and checks what a [`Receiver`] may rely on.
#[derive(Default)]
struct Strict {
    events: Events,
    announced: u32,
    has_origin: bool,
}

impl Receiver for Strict {
    fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32 {
        assert!(!name.is_empty() && name.len() <= canonical::MAX_NAME && canonical::is_printable(name));
        assert!(tags.len() <= canonical::MAX_TAGS);
        assert!(tags.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted, without repeats");
        for (key, value) in tags {
            assert!(!key.is_empty() && key.len() <= canonical::MAX_KEY && canonical::is_printable(key));
            assert!(!value.is_empty() && value.len() <= canonical::MAX_VALUE && canonical::is_printable(value));
        }
        self.announced += 1;
        self.events.series(name, tags)
    }

    fn event(&mut self, series: u32, value: u64, time: i64) {
        assert!(series < self.announced, "announced before its first event");
        assert!(value > 0 && time >= 0);
        self.events.event(series, value, time);
    }

    fn origin(&mut self, origin: &Origin) {
        assert!(!self.has_origin && self.announced == 0 && self.events.is_empty(), "once, before the events");
        assert!(origin.interval_start >= 0 && origin.interval_end >= 0);
        self.has_origin = true;
        self.events.origin(origin);
    }
}
