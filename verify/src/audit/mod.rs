//! Compares the bus with every backend, exactly, series by series.
//!
//! It may run while workers run. A group's settled offsets are read *before* the backend: everything below them is in
//! the backend. Its sealed offsets are read *after*: nothing from there on was in the backend. An event between the two
//! may or may not have been in it. So a series is equal when its total is between the sums up to both offsets; at rest
//! both are the same.

mod dead_letters;
mod locate;
mod messages;
mod pass;
mod producers;
mod sink_progress;
mod tally;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use messages::{Messages, RefusedLine, Row};
pub use producers::{FaultKind, MAX_KEPT, ProducerFault, ProducerReport};
use tallybus_bus::{Bus, BusError, Observer};
use tallybus_schemas::Series;
use tallybus_sdk::text::count_of;
use tallybus_sdk::{ReadBack, Shape, Sink, StartAt, TimeRange, TotalsQuery};
use thiserror::Error;
use tokio::runtime::Handle;

use self::dead_letters::DeadLetters;
use self::pass::{Pass, read_topic};
use self::producers::Producers;
use self::sink_progress::SinkProgress;
use self::tally::Tally;

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
    /// For how many differing series of a sink the first differing window is located.
    pub details: usize,
    /// How long the bus may return nothing before the audit fails.
    pub stall_timeout: Duration,
    /// Runs the sinks' requests; the audit itself must be called from outside of this runtime.
    pub runtime: &'a Handle,
}

/// A sink to compare with.
pub struct AuditedSink {
    /// Its name.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// The topic of its dead letters.
    pub dead_letter_topic: String,
    /// The topic of dead letters to be replayed.
    pub replay_topic: String,
    /// The consumer group that writes replayed dead letters.
    pub replay_group: String,
    /// The topics that its events come from.
    pub topics: Vec<String>,
    /// Its selection and window.
    pub shape: Shape,
    /// Where it started in partitions for which its group had not committed.
    pub start_at: StartAt,
    /// The backend.
    pub sink: Arc<dyn Sink>,
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
    #[error("{topic}/{partition} has lost messages up to {}: use a later --from", format_time(*time))]
    BeginsLater {
        /// Which topic.
        topic: String,
        /// Which partition.
        partition: u32,
        /// The time of the oldest message still there: nanoseconds since the Unix epoch.
        time: i64,
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

fn format_time(time: i64) -> String {
    format!("{} ms after the Unix epoch", time / 1_000_000)
}

/// The result of an audit.
#[derive(Debug)]
pub struct AuditReport {
    /// Sum of all events on the bus that are in the time range.
    pub bus_total: u128,
    /// The number of those events.
    pub bus_events: u64,
    /// Records that could not be decoded, and lines of records.
    pub undecodable: u64,
    /// The results by sink, in the order given.
    pub sinks: Vec<SinkReport>,
    /// The check of the producers' own figures.
    pub producers: ProducerReport,
}

impl AuditReport {
    /// Whether every sink could be read and is equal.
    pub fn equal(&self) -> bool {
        self.sinks.iter().all(|sink| sink.outcome.as_ref().is_ok_and(SinkFindings::equal))
    }
}

/// The result of an audit for one sink.
#[derive(Debug)]
pub struct SinkReport {
    /// The sink.
    pub name: String,
    /// The findings, or why the sink could not be read, for operators.
    pub outcome: Result<SinkFindings, String>,
}

/// The comparison of a sink with the bus.
#[derive(Debug, Clone, Default)]
pub struct SinkFindings {
    /// The value that it must hold: settled, and not a dead letter, unless that was replayed.
    pub expected: u128,
    /// The value that it holds.
    pub total: u128,
    /// Sum over the series that hold less than they must.
    pub missing: u128,
    /// Sum over the series that hold more than they may.
    pub extra: u128,
    /// Messages on the bus that the sink has not settled.
    pub behind: u64,
    /// The number of series that the bus has for it.
    pub series: usize,
    /// Dead letters in its topic that were not replayed; one that was refused again is a dead letter of its own.
    pub dead_letters: u64,
    /// The value of the dead letters, which the sink would otherwise have to hold.
    pub dead_total: u128,
    /// Dead letters that were replayed: written, or refused again.
    pub replayed: u64,
    /// The number of series that differ.
    pub differing_series: usize,
    /// The series that differ, the largest difference first.
    pub differences: Vec<Difference>,
    /// Further notes, for operators.
    pub notes: Vec<String>,
}

impl SinkFindings {
    /// Whether nothing is missing and nothing is extra.
    pub fn equal(&self) -> bool {
        self.missing == 0 && self.extra == 0
    }
}

/// A series that differs.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The series, after the sink's selection.
    pub series: Arc<Series>,
    /// The value that the sink must hold at least.
    pub expected: u128,
    /// The value that it holds.
    pub total: u128,
    /// The missing value.
    pub missing: u128,
    /// The extra value.
    pub extra: u128,
    /// The first window that differs; `None` when it was not located, or when no window differed any more.
    pub place: Option<Place>,
}

/// Where a series begins to differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Start of the window: nanoseconds since the Unix epoch.
    pub window_start: i64,
    /// Its length in nanoseconds.
    pub window: i64,
    /// The value that the sink must hold in it at least.
    pub expected: u128,
    /// The value that it holds.
    pub total: u128,
    /// The messages that the bus has for it; empty when it has none.
    pub offsets: Vec<OffsetSpan>,
}

/// Messages of one partition: from the first to the last relevant one; irrelevant messages may be between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetSpan {
    /// Which topic.
    pub topic: String,
    /// Which partition.
    pub partition: u32,
    /// The first offset.
    pub first: u64,
    /// One past the last.
    pub end: u64,
}

/// Runs the audit: reads every backend, then the bus once, and once more for each sink that differs. `progress`
/// receives the number of messages read so far, and the total number.
///
/// # Errors
/// The bus could not be read, or its messages do not go back far enough. A sink that cannot be read is not an error:
/// its report contains the cause.
pub fn run(audit: &Audit<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<AuditReport, AuditError> {
    let mut messages = Messages::new(audit.encodings).map_err(AuditError::Encoding)?;
    let mut looks: Vec<Result<Look, String>> = audit.sinks.iter().map(|sink| Look::take(audit, sink)).collect();
    let mut pass = Pass::new(audit.observer, &topics_of(audit), progress)?;
    let ranges = pass.ranges.clone();

    let mut report = AuditReport {
        bus_total: 0,
        bus_events: 0,
        undecodable: 0,
        sinks: Vec::with_capacity(audit.sinks.len()),
        producers: ProducerReport::default(),
    };
    let mut producers = Producers::default();
    for (topic, topic_ranges) in &ranges {
        read_topic(audit, topic, &mut pass, &mut |record| {
            if messages.decode(record).is_err() {
                report.undecodable += 1;
                return;
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
            for (sink, look) in audit.sinks.iter().zip(&mut looks) {
                let Ok(look) = look else { continue };
                if !sink.topics.contains(topic) {
                    continue;
                }
                let (before, after) =
                    (look.before.mark(topic, record.partition), look.after.mark(topic, record.partition));
                for row in messages.rows() {
                    let is_dead = look.dead_letters.is_dead(topic, record.partition, record.offset, row.index);
                    look.tally.take(*row, messages.series(row.series), (record.offset, is_dead), before, after);
                }
            }
        })?;
    }
    report.producers = producers.report();

    for (sink, look) in audit.sinks.iter().zip(looks) {
        let outcome = match look {
            Err(reason) => Err(reason),
            Ok(look) => Ok(finish(audit, sink, look, &mut pass)?),
        };
        report.sinks.push(SinkReport { name: sink.name.clone(), outcome });
    }
    Ok(report)
}

/// The state of a sink before the bus is read.
struct Look {
    before: SinkProgress,
    totals: Vec<tallybus_sdk::SeriesTotal>,
    after: SinkProgress,
    dead_letters: DeadLetters,
    tally: Tally,
}

impl Look {
    fn take(audit: &Audit<'_>, sink: &AuditedSink) -> Result<Self, String> {
        let tally = Tally::new(sink, audit.range)?;
        let before = SinkProgress::read(audit.observer, sink)?;
        let query = TotalsQuery::new(audit.range);
        let totals = audit.runtime.block_on(read_back(sink)?.collect_totals(&query));
        let totals = totals.map_err(|error| error.to_string())?;
        let after = SinkProgress::read(audit.observer, sink)?;
        // A dead letter is on the bus before its batch settles, so the dead letters of all batches settled in `before`
        // are there now.
        let dead_letters = DeadLetters::read(audit.bus, audit.observer, sink, &before, audit.stall_timeout)?;
        Ok(Self { before, totals, after, dead_letters, tally })
    }
}

fn finish(audit: &Audit<'_>, sink: &AuditedSink, look: Look, pass: &mut Pass<'_>) -> Result<SinkFindings, AuditError> {
    let Look { before, totals, after, dead_letters, tally } = look;
    let mut findings = tally.compare(&totals, &dead_letters, &before);
    findings.behind = after.behind(&pass.ranges);
    if dead_letters.gone > 0 {
        let note = "dead letters were deleted by retention: their value appears as missing".to_owned();
        findings.notes.push(note);
    }
    if dead_letters.replays_gone {
        let topic = &sink.replay_topic;
        findings.notes.push(format!("{topic} has lost its oldest records: replayed dead letters may appear as extra"));
    }
    if dead_letters.unreadable > 0 {
        let records = count_of(dead_letters.unreadable, "record");
        findings.notes.push(format!("not dead letters, in {}: {records}", sink.dead_letter_topic));
    }
    if findings.missing > 0 && sink.start_at == StartAt::Newest {
        let note = "start_at = \"newest\": messages published before its worker started are missing; use --from TIME \
                    to compare newer ones";
        findings.notes.push(note.to_owned());
    }
    if !findings.equal() {
        let looked_at = findings.differences.len().min(audit.details);
        match locate::locate(audit, sink, &dead_letters, &mut findings.differences[..looked_at], pass) {
            Ok(()) => {}
            Err(AuditError::Sink { reason, .. }) => {
                findings.notes.push(format!("the first differing window could not be located: {reason}"));
            }
            Err(error) => return Err(error),
        }
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
