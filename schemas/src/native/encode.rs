use super::intern::Interner;
use super::wire::{put_bytes, put_number, put_varint, zigzag};
use super::{VERSION, field};
use crate::Origin;

/// Collects events into native messages, one after the other; keeps its working memory between them.
///
/// Names and tags must be canonical (see [`canonical`](crate::canonical)): a decoder refuses a whole message for one
/// series that is not. Several events of one series share its name and tags.
#[derive(Debug)]
pub struct NativeEncoder {
    common: Vec<(Box<str>, Box<str>)>,
    strings: Interner<u8>,
    series: Interner<u32>,
    /// Name and tags of the current series, as indices into the string table.
    row: Vec<u32>,
    /// The string table as encoded in the message.
    table: Vec<u8>,
    /// The columns as encoded in the message.
    common_tags: Vec<u8>,
    series_name: Vec<u8>,
    series_tag_counts: Vec<u8>,
    series_tags: Vec<u8>,
    event_series: Vec<u8>,
    event_value: Vec<u8>,
    /// Empty until an event with a time of its own comes.
    times: Vec<Option<i64>>,
    events: usize,
    total: u64,
}

/// Most that the fields before the string table, and the keys and lengths of the columns, can take.
const FRAME_MAX: usize = 2 + 18 + 5 * 11 + 7 * 11;

/// Longest varint.
const VARINT_MAX: usize = 10;

impl NativeEncoder {
    /// An encoder whose messages give these tags to every series that has no tag of the same key.
    pub fn new(common_tags: &[(&str, &str)]) -> Self {
        let common = common_tags.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        let mut encoder = Self {
            common,
            strings: Interner::default(),
            series: Interner::default(),
            row: Vec::new(),
            table: Vec::new(),
            common_tags: Vec::new(),
            series_name: Vec::new(),
            series_tag_counts: Vec::new(),
            series_tags: Vec::new(),
            event_series: Vec::new(),
            event_value: Vec::new(),
            times: Vec::new(),
            events: 0,
            total: 0,
        };
        encoder.reset();
        encoder
    }

    /// Adds an event at the interval's end. A value of 0 adds nothing.
    pub fn push(&mut self, name: &str, tags: &[(&str, &str)], value: u64) {
        self.add(name, tags, value, None);
    }

    /// Adds an event at `time`: nanoseconds since the Unix epoch, not negative. A value of 0 adds nothing.
    pub fn push_at(&mut self, name: &str, tags: &[(&str, &str)], value: u64, time: i64) {
        self.add(name, tags, value, Some(time));
    }

    /// As [`NativeEncoder::push`], for a series that is pushed only once into the message: it is not searched for, which
    /// saves a third of the work. A series pushed twice is in the message twice, and counts correctly all the same.
    pub fn push_once(&mut self, name: &str, tags: &[(&str, &str)], value: u64) {
        if value == 0 {
            return;
        }
        self.read_row(name, tags);
        let series = self.series.skip();
        self.put_row();
        self.put_event(series, value, None);
    }

    fn add(&mut self, name: &str, tags: &[(&str, &str)], value: u64, time: Option<i64>) {
        if value == 0 {
            return;
        }
        self.read_row(name, tags);
        let (series, is_new) = self.series.intern(&self.row);
        if is_new {
            self.put_row();
        }
        self.put_event(series, value, time);
    }

    fn put_event(&mut self, series: u32, value: u64, time: Option<i64>) {
        if time.is_some() && self.times.is_empty() {
            self.times.resize(self.events, None);
        }
        if time.is_some() || !self.times.is_empty() {
            self.times.push(time);
        }
        put_varint(&mut self.event_series, u64::from(series));
        put_varint(&mut self.event_value, value);
        self.events += 1;
        self.total = self.total.wrapping_add(value);
    }

    fn read_row(&mut self, name: &str, tags: &[(&str, &str)]) {
        self.row.clear();
        let name = self.string_number(name);
        self.row.push(name);
        for &(key, value) in tags {
            let pair = [self.string_number(key), self.string_number(value)];
            self.row.extend_from_slice(&pair);
        }
    }

    /// Adds the current series to the columns.
    fn put_row(&mut self) {
        let Some((name, tags)) = self.row.split_first() else { return };
        put_varint(&mut self.series_name, u64::from(*name));
        put_varint(&mut self.series_tag_counts, (tags.len() / 2) as u64);
        for string in tags {
            put_varint(&mut self.series_tags, u64::from(*string));
        }
    }

    fn string_number(&mut self, text: &str) -> u32 {
        let (number, is_new) = self.strings.intern(text.as_bytes());
        if is_new {
            put_bytes(&mut self.table, field::STRINGS, text.as_bytes());
        }
        number
    }

    /// How many bytes the message would have at most if it were finished now.
    pub fn len_estimate(&self) -> usize {
        let columns = [
            &self.table,
            &self.common_tags,
            &self.series_name,
            &self.series_tag_counts,
            &self.series_tags,
            &self.event_series,
            &self.event_value,
        ];
        FRAME_MAX + columns.map(Vec::len).iter().sum::<usize>() + self.times.len() * VARINT_MAX
    }

    /// How many events the message has so far.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Whether the message has no event so far.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Sum of the message's values so far, modulo 2^64.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Ends the message and begins the next.
    pub fn finish(&mut self, origin: &Origin) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len_estimate());
        put_number(&mut out, field::VERSION, VERSION);
        put_bytes(&mut out, field::PRODUCER, &origin.producer);
        put_number(&mut out, field::SEQUENCE, origin.sequence);
        put_number(&mut out, field::INTERVAL_START, origin.interval_start.cast_unsigned());
        put_number(&mut out, field::INTERVAL_END, origin.interval_end.cast_unsigned());
        put_number(&mut out, field::PARTITION_TOTAL, origin.partition_total);
        put_number(&mut out, field::EMITTED_TOTAL, origin.emitted_total);
        out.extend_from_slice(&self.table);
        put_column(&mut out, field::COMMON_TAGS, &self.common_tags);
        put_column(&mut out, field::SERIES_NAME, &self.series_name);
        put_column(&mut out, field::SERIES_TAG_COUNTS, &self.series_tag_counts);
        put_column(&mut out, field::SERIES_TAGS, &self.series_tags);
        // Series are numbered as their first events come: as many of one as of the other is one event each, in order.
        if self.series.len() != self.events {
            put_column(&mut out, field::EVENT_SERIES, &self.event_series);
        }
        put_column(&mut out, field::EVENT_VALUE, &self.event_value);
        // The column is free again; it carries the times now.
        self.event_series.clear();
        for time in &self.times {
            let distance = time.map_or(0, |time| time.wrapping_sub(origin.interval_end));
            put_varint(&mut self.event_series, zigzag(distance));
        }
        put_column(&mut out, field::EVENT_TIME, &self.event_series);
        self.reset();
        out
    }

    fn reset(&mut self) {
        self.strings.clear();
        self.series.clear();
        self.table.clear();
        self.common_tags.clear();
        self.series_name.clear();
        self.series_tag_counts.clear();
        self.series_tags.clear();
        self.event_series.clear();
        self.event_value.clear();
        self.times.clear();
        self.events = 0;
        self.total = 0;

        let common = std::mem::take(&mut self.common);
        for text in common.iter().flat_map(|(key, value)| [key, value]) {
            let number = self.string_number(text);
            put_varint(&mut self.common_tags, u64::from(number));
        }
        self.common = common;
    }
}

fn put_column(out: &mut Vec<u8>, field: u32, packed: &[u8]) {
    if !packed.is_empty() {
        put_bytes(out, field, packed);
    }
}
