use std::collections::BTreeMap;

use tallybus_bus::Record;
use tallybus_schemas::checkpoint::{Checkpoint, CheckpointKey, Dismissal, Doubt, End};

use super::SILENT_AFTER_INTERVALS;

const NANOS_PER_MS: i64 = 1_000_000;

/// Every producer that the topic names.
#[derive(Debug, Default)]
pub struct Known {
    producers: BTreeMap<String, Producer>,
    skipped: u64,
    bytes: usize,
}

/// A producer, as its last record has it.
#[derive(Debug, Clone, Default)]
pub struct Producer {
    /// The last record about it; `None` when only its dismissal is known.
    pub word: Option<Word>,
    /// The time of that record: milliseconds since the Unix epoch.
    pub record_ms: i64,
    /// The last dismissal.
    pub dismissal: Option<Dismissal>,
    /// Where the two records are: partition and offset.
    word_at: (u32, u64),
    dismissal_at: (u32, u64),
    bytes: usize,
}

/// What a producer's last record says.
#[derive(Debug, Clone)]
pub enum Word {
    /// How far it is.
    Checkpoint(Box<Checkpoint>),
    /// Nothing that this program understands, and why. It may be anything, so nothing is known of the producer.
    Unreadable(String),
}

/// Whether a producer still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It writes checkpoints.
    Live,
    /// It has not for several intervals, and has not said that it ends: it was killed, hangs, or cannot reach the bus.
    Silent,
    /// It has ended, and everything that it counted is on the bus.
    Ended,
    /// It has ended, and not everything that it counted is on the bus.
    EndedIncomplete,
    /// An operator no longer waits for it.
    Dismissed,
    /// Its last record is not understood.
    Unreadable,
}

impl Presence {
    /// As it is shown, also in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Silent => "silent",
            Self::Ended => "ended",
            Self::EndedIncomplete => "incomplete",
            Self::Dismissed => "dismissed",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Known {
    /// Takes a record of the topic. What has no key of a producer is counted and left out.
    pub fn take(&mut self, record: &Record<'_>) {
        let Some(key) = record.key.and_then(CheckpointKey::parse) else {
            self.skipped += 1;
            return;
        };
        match key {
            CheckpointKey::Checkpoint(id) if record.is_tombstone => self.forget(id),
            CheckpointKey::Checkpoint(id) => self.hear(id, record),
            CheckpointKey::Dismissal(id) => {
                let dismissal = (!record.is_tombstone).then(|| Dismissal::decode(record.payload));
                match dismissal {
                    Some(Ok(dismissal)) if dismissal.dismissed == id => {
                        let producer = self.producers.entry(id.to_owned()).or_default();
                        producer.dismissal = Some(dismissal);
                        producer.dismissal_at = (record.partition, record.offset);
                    }
                    None => {
                        if let Some(producer) = self.producers.get_mut(id) {
                            producer.dismissal = None;
                        }
                    }
                    // One that is not understood dismisses nothing.
                    Some(_) => self.skipped += 1,
                }
            }
        }
    }

    fn hear(&mut self, id: &str, record: &Record<'_>) {
        let word = match record.unreadable {
            Some(reason) => Word::Unreadable(reason.to_owned()),
            None => match Checkpoint::decode(record.payload) {
                Ok(checkpoint) if checkpoint.producer == id => Word::Checkpoint(Box::new(checkpoint)),
                Ok(_) => Word::Unreadable("it is about another producer than its key".to_owned()),
                Err(error) => Word::Unreadable(error.to_string()),
            },
        };
        let producer = self.producers.entry(id.to_owned()).or_default();
        // A checkpoint that was late on its way to the bus is older than the one before it.
        if let (Word::Checkpoint(new), Some(Word::Checkpoint(known))) = (&word, &producer.word)
            && new.number < known.number
        {
            return;
        }
        self.bytes = self.bytes - producer.bytes + record.payload.len();
        producer.bytes = record.payload.len();
        producer.record_ms = record.time_ms;
        producer.word_at = (record.partition, record.offset);
        producer.word = Some(word);
    }

    fn forget(&mut self, id: &str) {
        if let Some(gone) = self.producers.remove(id) {
            self.bytes -= gone.bytes;
        }
    }

    /// By id.
    pub fn producers(&self) -> impl Iterator<Item = (&str, &Producer)> {
        let has_word = |(_, producer): &(_, &Producer)| producer.word.is_some();
        self.producers.iter().map(|(id, producer)| (id.as_str(), producer)).filter(has_word)
    }

    /// Records that are about no producer.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The bytes of the last records.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Producer {
    /// Its last checkpoint, if that is understood.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        match &self.word {
            Some(Word::Checkpoint(checkpoint)) => Some(checkpoint),
            Some(Word::Unreadable(_)) | None => None,
        }
    }

    /// Whether it still counts, by this clock: milliseconds since the Unix epoch.
    pub fn presence(&self, now_ms: i64) -> Presence {
        let Some(checkpoint) = self.checkpoint() else {
            return if self.is_dismissed_unread() { Presence::Dismissed } else { Presence::Unreadable };
        };
        if self.dismissed_number() >= checkpoint.number {
            return Presence::Dismissed;
        }
        match checkpoint.end {
            Some(End::Complete) => Presence::Ended,
            Some(End::Incomplete) => Presence::EndedIncomplete,
            None => {
                let written = if self.record_ms >= 0 { self.record_ms } else { checkpoint.time / NANOS_PER_MS };
                let age = u64::try_from(now_ms.saturating_sub(written)).unwrap_or(0);
                let is_silent = age > checkpoint.interval_ms.saturating_mul(SILENT_AFTER_INTERVALS);
                if is_silent { Presence::Silent } else { Presence::Live }
            }
        }
    }

    /// Whether the record that is not understood was dismissed: that is what a dismissal behind it, of no checkpoint, means.
    fn is_dismissed_unread(&self) -> bool {
        let is_behind = self.dismissal_at.0 == self.word_at.0 && self.dismissal_at.1 > self.word_at.1;
        is_behind && self.dismissal.as_ref().is_some_and(|dismissal| dismissal.number == 0)
    }

    /// The doubts that no operator has accepted.
    pub fn open_doubts(&self) -> impl Iterator<Item = &Doubt> {
        let dismissed = self.dismissed_number();
        let doubts = self.checkpoint().map_or(&[][..], |checkpoint| &checkpoint.doubts);
        doubts.iter().filter(move |doubt| doubt.number > dismissed)
    }

    fn dismissed_number(&self) -> u64 {
        self.dismissal.as_ref().map_or(0, |dismissal| dismissal.number)
    }

    /// The time before which everything that it counted is on the bus, whatever sinks have done with it: nanoseconds since the Unix
    /// epoch. `None` where its record is not understood.
    pub fn on_the_bus_before(&self) -> Option<i64> {
        let newest = self.checkpoint()?.marks.first()?.before;
        Some(self.open_doubts().map(|doubt| doubt.since).fold(newest, i64::min))
    }

    /// Its counts per second between its last two checkpoints.
    pub fn rate(&self) -> Option<f64> {
        let checkpoint = self.checkpoint()?;
        let (time, emitted) = checkpoint.previous?;
        let seconds = checkpoint.time.checked_sub(time).filter(|nanos| *nanos > 0)? as f64 / 1e9;
        Some(checkpoint.emitted.wrapping_sub(emitted) as f64 / seconds)
    }
}
