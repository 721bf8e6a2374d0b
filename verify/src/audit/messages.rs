use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use tallybus_bus::Record;
use tallybus_schemas::{Decoder, ENCODING_HEADER, Encoding, Origin, Receiver, Series, UnknownEncoding};

/// Decodes records exactly as a worker does, for commands that only read.
#[derive(Debug)]
pub struct Messages {
    decoder: Decoder,
    encodings: HashMap<String, Encoding>,
    message: Message,
}

/// One event of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The number for [`Messages::series`].
    pub series: u32,
    /// The increment.
    pub value: u64,
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
}

#[derive(Debug, Default)]
struct Message {
    /// Indexes in `series`.
    known: HashTable<u32>,
    /// Their hashes.
    series: Vec<(u64, Arc<Series>)>,
    rows: Vec<Row>,
    origin: Option<Origin>,
}

impl Messages {
    /// `encodings` sets the encoding of topics whose records do not name theirs.
    ///
    /// # Errors
    /// Names an unknown encoding.
    pub fn new(encodings: &BTreeMap<String, String>) -> Result<Self, UnknownEncoding> {
        let encodings: Result<_, _> =
            encodings.iter().map(|(topic, name)| Ok((topic.clone(), name.parse::<Encoding>()?))).collect();
        Ok(Self { decoder: Decoder::new(), encodings: encodings?, message: Message::default() })
    }

    /// Decodes a record; afterwards [`Messages::rows`] returns its events.
    ///
    /// # Errors
    /// The reason for which a worker would create a dead letter of it; there are no rows then.
    pub fn decode(&mut self, record: &Record<'_>) -> Result<(), String> {
        self.message.rows.clear();
        self.message.origin = None;
        let outcome = self.fill(record);
        if outcome.is_err() {
            self.message.rows.clear();
            self.message.origin = None;
        }
        outcome
    }

    fn fill(&mut self, record: &Record<'_>) -> Result<(), String> {
        let header = record.headers.get(ENCODING_HEADER).and_then(|name| std::str::from_utf8(name).ok());
        let encoding = match header {
            Some(name) => Some(name.parse::<Encoding>().map_err(|error| error.to_string())?),
            None => self.encodings.get(record.topic).copied(),
        };
        let time = record.time_ms.max(0).saturating_mul(1_000_000);
        match self.decoder.decode(encoding, record.payload, time, &mut self.message) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The events of the message, in order.
    pub fn rows(&self) -> &[Row] {
        &self.message.rows
    }

    /// Returns the series of a row; the same series has the same number in every message.
    pub fn series(&self, number: u32) -> &Arc<Series> {
        &self.message.series[number as usize].1
    }

    /// The producer's details in a native message.
    pub fn origin(&self) -> Option<&Origin> {
        self.message.origin.as_ref()
    }

    /// Removes all series when there are more than `most`; numbers start at 0 again. For commands that run for days.
    pub fn forget_series(&mut self, most: usize) {
        if self.message.series.len() > most {
            self.message = Message::default();
        }
    }
}

impl Receiver for Message {
    fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32 {
        let hash = hash(name, tags);
        let all = &mut self.series;
        if let Some(&number) = self.known.find(hash, |&number| is_same(&all[number as usize].1, name, tags)) {
            return number;
        }
        let number = u32::try_from(all.len()).unwrap_or(u32::MAX);
        all.push((hash, Arc::new(Series::from_sorted(name, tags))));
        self.known.insert_unique(hash, number, |&number| all[number as usize].0);
        number
    }

    fn event(&mut self, series: u32, value: u64, time: i64) {
        self.rows.push(Row { series, value, time });
    }

    fn origin(&mut self, origin: &Origin) {
        self.origin = Some(*origin);
    }
}

fn hash(name: &str, tags: &[(&str, &str)]) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    name.hash(&mut hasher);
    tags.hash(&mut hasher);
    hasher.finish()
}

fn is_same(series: &Series, name: &str, tags: &[(&str, &str)]) -> bool {
    series.name() == name
        && series.tags().len() == tags.len()
        && series.tags().iter().zip(tags).all(|((key, value), other)| (&**key, &**value) == *other)
}
