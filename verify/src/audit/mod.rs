//! Compares the bus with every backend, exactly, window by window of each series.
//!
//! It may run while workers run. A group's settled offsets are read *before* the backend: everything below them is in
//! the backend. Its sealed offsets are read *after*: nothing from there on was in the backend. An event between the two
//! may or may not have been in it. So a window is equal when its total is between the sums up to both offsets; at rest
//! both are the same.
//!
//! A dead letter explains why a value is missing only after it was checked against the event at its coordinate.

mod allowance;
mod audited_sink;
mod claims;
mod dead_letters;
mod foreign;
mod locate;
mod messages;
mod neighbours;
mod notes;
mod oldest;
mod pass;
mod producers;
mod report;
mod series_index;
mod sink_progress;
mod tally;
mod verdict;
mod windows;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use audited_sink::AuditedSink;
pub use foreign::ForeignFindings;
pub use messages::{Messages, Row};
pub use producers::{FaultKind, MAX_KEPT, ProducerFault, ProducerReport};
pub use report::{
    AuditReport, Begun, Difference, MOST_NAMED, OffsetSpan, Place, SinkFindings, SinkReport, WrongDeadLetter,
};
use tallybus_bus::{Bus, BusError, Observer, Record};
use tallybus_sdk::filter::Filter;
use tallybus_sdk::{Held, ReadBack, TimeRange, WindowsQuery};
use thiserror::Error;
use tokio::runtime::Handle;
pub use verdict::{Demands, Severity, Verdict, decisive};

use self::claims::{At, Event};
use self::dead_letters::DeadLetters;
use self::neighbours::Neighbours;
use self::notes::{Circumstances, notes};
use self::oldest::Oldest;
use self::pass::{Pass, read_topic};
use self::producers::Producers;
use self::sink_progress::{Look, SinkProgress, gone_unwritten};
use self::tally::{Fate, Places, Tally};

/// The input of an audit.
pub struct Audit<'a> {
    /// The bus.
    pub bus: &'a dyn Bus,
    /// An observer of this bus.
    pub observer: &'a dyn Observer,
    /// The bus's own topic; counted even if no sink reads it.
    pub topic: &'a str,
    /// Encodings set by the settings, by topic.
    pub encodings: &'a BTreeMap<String, String>,
    /// The sinks to compare.
    pub sinks: &'a [AuditedSink],
    /// Only points whose time is in this range; needed when retention has deleted the oldest messages.
    pub range: TimeRange,
    /// Compares windows of at least this length (nanoseconds), in whole windows of each sink; 0 for each sink's own.
    pub window: i64,
    /// Compares only the series of this part; all where it is `None`.
    pub part: Option<&'a Part>,
    /// For how many differing series of a sink the messages of the first differing window are looked up.
    pub details: usize,
    /// The present time: nanoseconds since the Unix epoch.
    pub now: i64,
    /// How long the bus may return nothing before the audit fails.
    pub stall_timeout: Duration,
    /// Runs the sinks' requests; the audit itself must be called from outside of this runtime.
    pub runtime: &'a Handle,
}

/// A part of all series.
#[derive(Debug)]
pub struct Part {
    /// What selects them, as it was given.
    pub expression: String,
    /// The same, compiled for series: their names and their tags as a sink writes them, which are the same in the backend.
    pub filter: Filter,
}

/// Why the audit failed. Nothing is known then.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The bus could not be read.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The settings name an unknown encoding.
    #[error("{0}")]
    Encoding(String),
    /// The oldest messages are gone, and no start time for the comparison was given.
    #[error(
        "{topic}/{partition} begins at offset {first}, older messages were deleted by retention: use --from TIME to \
         compare newer ones"
    )]
    Gone {
        /// Which topic.
        topic: String,
        /// Which partition.
        partition: u32,
        /// The oldest offset still there.
        first: u64,
    },
    /// The deleted messages may be newer than the start of the comparison.
    #[error("{topic}/{partition} has lost messages up to {}: use a later --from", rfc3339(*time))]
    BeginsLater {
        /// Which topic.
        topic: String,
        /// Which partition.
        partition: u32,
        /// The time of the oldest message still there: nanoseconds since the Unix epoch.
        time: i64,
    },
    /// Messages that a sink had not written were deleted.
    #[error(
        "sink {sink}: offsets {}-{} of {}/{} are gone unwritten: the bus deleted them before the sink had written them; \
         use --from TIME to compare newer messages",
        span.first, span.end, span.topic, span.partition
    )]
    Lost {
        /// The sink's name.
        sink: String,
        /// The first of them.
        span: OffsetSpan,
    },
    /// A sink could not be read.
    #[error("sink {sink}: {reason}")]
    Sink {
        /// The sink's name.
        sink: String,
        /// The cause.
        reason: String,
    },
}

/// Nanoseconds since the Unix epoch as text.
fn rfc3339(time: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time)).map_or_else(|_| time.to_string(), |time| time.to_string())
}

/// Runs the audit: reads every backend, then the bus once, and once more for each sink that differs. `progress`
/// receives the number of messages read so far, and the total number.
///
/// # Errors
/// The bus could not be read, or its messages do not go back far enough. A sink that cannot be read is not an error:
/// its report contains the cause.
pub fn run(audit: &Audit<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<AuditReport, AuditError> {
    let mut messages = Messages::new(audit.encodings).map_err(AuditError::Encoding)?;
    let mut readings: Vec<Result<Reading<'_>, String>> =
        audit.sinks.iter().map(|sink| Reading::take(audit, sink)).collect();
    let mut pass = Pass::new(audit.observer, &topics_of(audit), progress)?;
    let ranges = pass.ranges.clone();
    for (sink, reading) in audit.sinks.iter().zip(&mut readings) {
        let Ok(reading) = reading else { continue };
        reading.gone_unwritten = gone_unwritten(audit.observer, sink, &reading.look, &ranges)?;
        if let Some(span) = reading.gone_unwritten.first()
            && audit.range.from.is_none()
        {
            // Without a start, nothing can be compared with the rest.
            return Err(AuditError::Lost { sink: sink.name.clone(), span: span.clone() });
        }
    }

    let mut report = AuditReport {
        bus_total: 0,
        bus_events: 0,
        undecodable: 0,
        part: audit.part.map(|part| part.expression.clone()),
        time: audit.now,
        sinks: Vec::with_capacity(audit.sinks.len()),
        producers: ProducerReport::default(),
    };
    let mut producers = Producers::default();
    for (topic, topic_ranges) in &ranges {
        read_topic(audit, topic, &mut pass, &mut |record| {
            let is_decoded = messages.decode(record).is_ok();
            if !is_decoded {
                report.undecodable += 1;
            }
            report.undecodable += messages.refused().len() as u64;
            if let Some(origin) = messages.origin() {
                let sum = messages.rows().iter().fold(0_u64, |sum, row| sum.wrapping_add(row.value));
                let whole = topic_ranges.get(record.partition as usize).is_some_and(|range| range.first == 0);
                producers.note(record, origin, sum, whole);
            }
            for row in messages.rows() {
                if audit.range.contains(row.time) {
                    report.bus_total += u128::from(row.value);
                    report.bus_events += 1;
                }
            }
            for (sink, reading) in audit.sinks.iter().zip(&mut readings) {
                let Ok(reading) = reading else { continue };
                if sink.topics.contains(topic) {
                    reading.take_record(topic, record, &messages);
                }
            }
        })?;
        for reading in readings.iter_mut().flatten() {
            reading.dead_letters.claims.end_topic();
        }
    }
    report.producers = producers.report();

    for (sink, reading) in audit.sinks.iter().zip(readings) {
        let outcome = match reading {
            Err(reason) => Err(reason),
            Ok(reading) => Ok(finish(audit, sink, reading, &mut pass)?),
        };
        report.sinks.push(SinkReport { name: sink.name.clone(), outcome });
    }
    Ok(report)
}

/// What was read of a sink, and what the bus has for it as far as that was read.
struct Reading<'a> {
    look: Look,
    dead_letters: DeadLetters,
    tally: Tally<'a>,
    places: Places,
    gone_unwritten: Vec<OffsetSpan>,
    oldest_behind: Oldest,
    /// Whether the destination has claims of the group.
    has_written: bool,
    /// Windows of other sinks that write to the destination.
    of_others: u64,
    /// Another sink that has claimed the destination.
    claimed_by: Option<String>,
}

impl<'a> Reading<'a> {
    fn take(audit: &Audit<'a>, sink: &AuditedSink) -> Result<Self, String> {
        let mut tally = Tally::new(sink, audit.range, audit.window)?.only(audit.part.map(|part| &part.filter));
        let before = SinkProgress::read(audit.observer, sink)?;
        let neighbours = audit.runtime.block_on(Neighbours::read(sink)).map_err(|error| error.to_string())?;
        let query = WindowsQuery::new(tally.whole_windows());
        let mut of_others = 0;
        let mut hold = |held| match held {
            Held::Window(window) if neighbours.own(&window.series) => of_others += 1,
            held => tally.hold(held),
        };
        let read = audit.runtime.block_on(read_back(sink)?.windows(&query, &mut hold));
        read.map_err(|error| error.to_string())?;
        let after = SinkProgress::read(audit.observer, sink)?;
        // A dead letter is on the bus before its batch settles, so the dead letters of all batches settled in `before`
        // are there now.
        let dead_letters =
            DeadLetters::read(audit.bus, audit.observer, sink, &mut tally, &before, audit.stall_timeout)?;
        let look = Look { before, after };
        let has_written = neighbours.has_ours;
        let (places, gone_unwritten, oldest_behind) = (Places::new(), Vec::new(), Oldest::default());
        let claimed_by = neighbours.claimed_by;
        Ok(Self {
            look,
            dead_letters,
            tally,
            places,
            gone_unwritten,
            oldest_behind,
            has_written,
            of_others,
            claimed_by,
        })
    }

    /// Takes a record of the bus; `messages` has its events.
    fn take_record(&mut self, topic: &str, record: &Record<'_>, messages: &Messages) {
        let before = self.look.before.mark(topic, record.partition);
        let after = self.look.after.mark(topic, record.partition);
        if record.offset >= after.settled {
            self.oldest_behind.note(record.time_ms);
        }
        let claims = &mut self.dead_letters.claims;
        let has_claims = claims.concern(topic);
        let is_dead = has_claims && claims.check_record(topic, record.partition, record.offset, record.payload);
        // Dead letters were read last: they may be of batches that were sealed since.
        let is_sealed = record.offset < after.sealed.max(after.settled);
        if !is_sealed && !has_claims {
            return;
        }
        let fate = match (record.offset < before.settled, is_dead) {
            (true, false) => Fate::Settled,
            (true, true) => Fate::Dead,
            (false, _) => Fate::InFlight,
        };
        for row in messages.rows() {
            let series = self.tally.place(&mut self.places, row.series, messages.series(row.series));
            let window = self.tally.window(row.time);
            let mut fate = fate;
            if has_claims {
                let (partition, offset, value) = (record.partition, record.offset, row.value);
                let event = Event { partition, offset, index: row.index, series, window, value, stands_for: 1 };
                let is_dead = self.dead_letters.claims.check_event(topic, &event);
                if is_dead && fate == Fate::Settled {
                    fate = Fate::Dead;
                }
            }
            if let Some(series) = series.filter(|_| is_sealed) {
                self.tally.take(series, window, row.value, fate);
            }
        }
    }
}

fn finish(
    audit: &Audit<'_>,
    sink: &AuditedSink,
    reading: Reading<'_>,
    pass: &mut Pass<'_>,
) -> Result<SinkFindings, AuditError> {
    let Reading {
        look,
        dead_letters,
        mut tally,
        gone_unwritten,
        oldest_behind,
        has_written,
        of_others,
        claimed_by,
        ..
    } = reading;
    let first_of = |at: &At| {
        let ranges = pass.ranges.iter().find(|(topic, _)| *topic == at.topic).map(|(_, ranges)| ranges);
        ranges.and_then(|ranges| ranges.get(at.partition as usize)).map_or(0, |range| range.first)
    };
    let checked = dead_letters.claims.finish(&|at| at.offset < first_of(at), &|series| tally.chooses(series));
    for refused in &checked.refused {
        if refused.at.offset < look.before.mark(&refused.at.topic, refused.at.partition).settled {
            tally.refuse(refused);
        }
    }
    let mut findings = tally.compare();
    findings.behind = look.after.behind(&pass.ranges);
    findings.oldest_behind = oldest_behind.age(audit.now);
    findings.begun = match (look.after.never_ran(&pass.ranges), has_written) {
        (false, _) => Begun::Yes,
        (true, false) => Begun::Never,
        (true, true) => Begun::Forgotten,
    };
    findings.gone_unwritten = gone_unwritten;
    findings.claimed_by = claimed_by;
    findings.dead_letters = checked.outstanding;
    findings.replayed = dead_letters.replayed;
    findings.wrong_dead_letter_count = checked.wrong.len() as u64;
    findings.wrong_dead_letters = checked.wrong;
    findings.wrong_dead_letters.truncate(MOST_NAMED);
    let circumstances = Circumstances {
        of_others,
        dead_letters_gone: dead_letters.gone,
        replays_gone: dead_letters.replays_gone,
        unreadable: dead_letters.unreadable,
    };
    findings.notes = notes(sink, &findings, &circumstances);
    if !findings.differences.is_empty() {
        let looked_at = findings.differences.len().min(audit.details);
        locate::locate(audit, sink, &look, &mut findings.differences[..looked_at], pass)?;
    }
    Ok(findings)
}

/// The sink's interface for reading back.
fn read_back(sink: &AuditedSink) -> Result<&dyn ReadBack, String> {
    sink.sink.read_back().ok_or_else(|| "this kind of sink cannot be read back, so it cannot be audited".to_owned())
}

/// Every relevant topic, each once.
fn topics_of(audit: &Audit<'_>) -> Vec<String> {
    let mut topics = vec![audit.topic.to_owned()];
    for topic in audit.sinks.iter().flat_map(|sink| &sink.topics) {
        if !topics.contains(topic) {
            topics.push(topic.clone());
        }
    }
    topics
}
