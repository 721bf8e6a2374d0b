//! `batch.proto` as `prost` understands it: an independent check that the hand-written code speaks real protobuf.

use std::collections::BTreeMap;

use prost::Message;
use tallybus_schemas::{Event, Origin};

#[derive(Clone, PartialEq, Message)]
pub struct Batch {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub producer: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    #[prost(int64, tag = "4")]
    pub interval_start: i64,
    #[prost(int64, tag = "5")]
    pub interval_end: i64,
    #[prost(uint64, tag = "6")]
    pub partition_total: u64,
    #[prost(uint64, tag = "7")]
    pub emitted_total: u64,
    #[prost(string, repeated, tag = "8")]
    pub strings: Vec<String>,
    #[prost(uint32, repeated, tag = "9")]
    pub common_tags: Vec<u32>,
    #[prost(uint32, repeated, tag = "10")]
    pub series_name: Vec<u32>,
    #[prost(uint32, repeated, tag = "11")]
    pub series_tag_counts: Vec<u32>,
    #[prost(uint32, repeated, tag = "12")]
    pub series_tags: Vec<u32>,
    #[prost(uint32, repeated, tag = "13")]
    pub event_series: Vec<u32>,
    #[prost(uint64, repeated, tag = "14")]
    pub event_value: Vec<u64>,
    #[prost(sint64, repeated, tag = "15")]
    pub event_time: Vec<i64>,
}

impl Batch {
    /// A batch without events.
    pub fn from_origin(origin: &Origin) -> Self {
        Self {
            version: 1,
            producer: origin.producer.to_vec(),
            sequence: origin.sequence,
            interval_start: origin.interval_start,
            interval_end: origin.interval_end,
            partition_total: origin.partition_total,
            emitted_total: origin.emitted_total,
            ..Self::default()
        }
    }

    /// Lays events out in the plainest way: nothing is shared, and tags stand in reverse order.
    pub fn plain(origin: &Origin, events: &[Event]) -> Self {
        let mut batch = Self::from_origin(origin);
        for (index, event) in events.iter().enumerate() {
            let name = batch.string(event.series.name());
            batch.series_name.push(name);
            batch.series_tag_counts.push(event.series.tags().len() as u32);
            for (key, value) in event.series.tags().iter().rev() {
                let pair = [batch.string(key), batch.string(value)];
                batch.series_tags.extend(pair);
            }
            batch.event_series.push(index as u32);
            batch.event_value.push(event.value);
            batch.event_time.push(event.time.wrapping_sub(origin.interval_end));
        }
        batch
    }

    pub fn string(&mut self, text: &str) -> u32 {
        self.strings.push(text.to_owned());
        self.strings.len() as u32 - 1
    }

    pub fn origin(&self) -> Origin {
        Origin {
            producer: self.producer.as_slice().try_into().unwrap(),
            sequence: self.sequence,
            interval_start: self.interval_start,
            interval_end: self.interval_end,
            partition_total: self.partition_total,
            emitted_total: self.emitted_total,
        }
    }

    /// Reads the events as `batch.proto` describes them.
    pub fn events(&self) -> Vec<Event> {
        let string = |index: u32| self.strings[index as usize].clone();
        let pairs = |indices: &[u32]| -> Vec<(String, String)> {
            indices.chunks(2).map(|pair| (string(pair[0]), string(pair[1]))).collect()
        };
        let mut rest = self.series_tags.as_slice();
        let mut rows = Vec::new();
        for (&name, &count) in self.series_name.iter().zip(&self.series_tag_counts) {
            let (own, others) = rest.split_at(count as usize * 2);
            rest = others;
            let mut tags: BTreeMap<String, String> = pairs(&self.common_tags).into_iter().collect();
            tags.extend(pairs(own));
            rows.push(super::series(&string(name), &tags));
        }
        assert!(rest.is_empty());
        let event = |(index, &value): (usize, &u64)| Event {
            series: rows[self.event_series.get(index).map_or(index, |&row| row as usize)].clone(),
            value,
            time: self.interval_end + self.event_time.get(index).unwrap_or(&0),
        };
        self.event_value.iter().enumerate().map(event).collect()
    }
}
