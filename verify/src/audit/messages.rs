use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use tallybus_bus::Record;
use tallybus_schemas::{Decoder, Lines, Origin, Receiver, Series};
use tallybus_sdk::reading::{Reading, record_time};

/// Decodes records exactly as a worker does, for commands that only read.
#[derive(Debug)]
pub struct Messages {
    decoder: Decoder,
    readings: HashMap<String, Reading>,
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
    /// Its index in the message.
    pub index: u32,
}

/// A line of a message that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLine {
    /// Its index in the message.
    pub index: u32,
    /// Why it was refused.
    pub reason: String,
}

#[derive(Debug, Default)]
struct Message {
    /// Indexes in `series`.
    known: HashTable<u32>,
    /// Their hashes.
    series: Vec<(u64, Arc<Series>)>,
    rows: Vec<Row>,
    /// The next event's index in the message.
    next: u32,
    refused: Vec<RefusedLine>,
    origin: Option<Origin>,
}

impl Messages {
    /// `encodings`: how the messages of topics are read where their records do not say it, as texts of [`Reading`]s.
    ///
    /// # Errors
    /// Names an unknown encoding.
    pub fn new(encodings: &BTreeMap<String, String>) -> Result<Self, String> {
        let readings: Result<_, String> =
            encodings.iter().map(|(topic, text)| Ok((topic.clone(), text.parse::<Reading>()?))).collect();
        Ok(Self { decoder: Decoder::new(), readings: readings?, message: Message::default() })
    }

    /// Decodes a record; afterwards [`Messages::rows`] returns its events.
    ///
    /// # Errors
    /// The reason for which a worker would create a dead letter of it; there are no rows then.
    pub fn decode(&mut self, record: &Record<'_>) -> Result<(), String> {
        self.message.begin();
        let outcome = self.fill(record);
        if outcome.is_err() {
            self.message.begin();
        }
        outcome
    }

    fn fill(&mut self, record: &Record<'_>) -> Result<(), String> {
        if record.is_tombstone {
            return Ok(());
        }
        let reading = self.readings.get(record.topic).copied().unwrap_or_default().of(record)?;
        let time = record_time(record);
        self.decoder.set_time_unit(reading.time_unit);
        let Err(error) = self.decoder.decode(reading.encoding, record.payload, time, &mut self.message) else {
            return Ok(());
        };
        self.message.begin();
        let Some(lines) = self.decoder.lines(reading.encoding, record.payload, time) else {
            return Err(error.to_string());
        };
        self.fill_lines(&lines, time)
    }

    /// Takes the lines that can be decoded.
    fn fill_lines(&mut self, lines: &Lines<'_>, time: i64) -> Result<(), String> {
        for line in &lines.lines {
            match &line.events {
                Ok(_) => {
                    let decoded = self.decoder.decode(Some(lines.encoding), line.text, time, &mut self.message);
                    decoded.map_err(|error| error.to_string())?;
                }
                Err(error) => {
                    let index = self.message.next;
                    self.message.refused.push(RefusedLine { index, reason: error.to_string() });
                    self.message.next += 1;
                }
            }
        }
        Ok(())
    }

    /// The lines of the message that could not be decoded; a worker creates a dead letter of each.
    pub fn refused(&self) -> &[RefusedLine] {
        &self.message.refused
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

    /// Removes all series when there are more than `most`; numbers start at 0 again. For commands that run for days. Returns
    /// whether it did.
    pub fn forget_series(&mut self, most: usize) -> bool {
        let forgets = self.message.series.len() > most;
        if forgets {
            self.message = Message::default();
        }
        forgets
    }
}

impl Message {
    /// Forgets the last message, and keeps the series.
    fn begin(&mut self) {
        self.rows.clear();
        self.refused.clear();
        self.next = 0;
        self.origin = None;
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
        self.rows.push(Row { series, value, time, index: self.next });
        self.next += 1;
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

#[cfg(test)]
mod tests;
