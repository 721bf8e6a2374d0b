//! Compares the bus with every backend, to the last count.
//!
//! It may run while workers run. A group's settled offsets are read *before* the backend: everything below is in it. Its
//! sealed offsets are read *after*: nothing from there on was in it. Between the two the backend may hold an event or
//! not. So a series is equal when its total lies between the sums up to both, and at rest both are the same.

mod dead_letters;
mod locate;
mod messages;
mod pass;
mod producers;
mod standing;
mod tally;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use messages::{Messages, Row};
pub use producers::{FaultKind, MAX_KEPT, ProducerFault, ProducerReport};
use tallybus_bus::{Bus, BusError, Observer};
use tallybus_schemas::{Series, UnknownEncoding};
use tallybus_sdk::{ReadBack, Shape, Sink, StartAt, TimeRange, TotalsQuery};
use thiserror::Error;
use tokio::runtime::Handle;

use self::dead_letters::DeadLetters;
use self::pass::{Pass, read_topic};
use self::producers::Producers;
use self::standing::Standing;
use self::tally::Tally;

/// An audit to be made.
pub struct Audit<'a> {
    /// The bus.
    pub bus: &'a dyn Bus,
    /// An observer of this bus.
    pub observer: &'a dyn Observer,
    /// The bus's own topic; counted even if no sink reads it.
    pub topic: &'a str,
    /// Encodings fixed by the settings, by topic.
    pub encodings: &'a BTreeMap<String, String>,
    /// The sinks to compare.
    pub sinks: &'a [AuditedSink],
    /// Only points whose time lies inside; needed when retention has taken the beginning.
    pub range: TimeRange,
    /// How many differing series of a sink are looked at in detail.
    pub details: usize,
    /// How long the bus may give nothing before the audit gives up.
    pub stall_timeout: Duration,
    /// Where the sinks' requests run; the audit itself must be called from outside of it.
    pub runtime: &'a Handle,
}

/// A sink to compare with.
pub struct AuditedSink {
    /// Its name.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// Where its dead letters are.
    pub dead_letter_topic: String,
    /// Where those stand that are written again.
    pub replay_topic: String,
    /// The consumer group that writes them again.
    pub replay_group: String,
    /// Where its events come from.
    pub topics: Vec<String>,
    /// What it gets of them.
    pub shape: Shape,
    /// Where it began where its group had committed nothing.
    pub start_at: StartAt,
    /// The backend.
    pub sink: Arc<dyn Sink>,
}

/// Why the audit could not look. Nothing is known then.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The bus did not let us look.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The settings name an encoding that does not exist.
    #[error(transparent)]
    Encoding(#[from] UnknownEncoding),
    /// The beginning is gone, and nobody said from when on to compare.
    #[error(
        "{topic}/{partition} begins at offset {first}, older messages are gone: compare what is younger with --from TIME"
    )]
    Gone {
        /// Which topic.
        topic: String,
        /// Which partition.
        partition: u32,
        /// The oldest offset still there.
        first: u64,
    },
    /// What is gone may be younger than the comparison's beginning.
    #[error("{topic}/{partition} has lost messages up to {}: give a later --from", format_time(*time))]
    BeginsLater {
        /// Which topic.
        topic: String,
        /// Which partition.
        partition: u32,
        /// The time of the oldest message still there: nanoseconds since the Unix epoch.
        time: i64,
    },
    /// One sink could not be looked at.
    #[error("sink {sink}: {reason}")]
    Sink {
        /// Which.
        sink: String,
        /// Why.
        reason: String,
    },
}

fn format_time(time: i64) -> String {
    format!("{} ms after the Unix epoch", time / 1_000_000)
}

/// What an audit found.
#[derive(Debug)]
pub struct AuditReport {
    /// Sum of all events on the bus that lie inside the time range.
    pub bus_total: u128,
    /// How many events that is.
    pub bus_events: u64,
    /// Records that hold no events that anybody could decode.
    pub undecodable: u64,
    /// By sink, in the order given.
    pub sinks: Vec<SinkReport>,
    /// What the producers' own figures say.
    pub producers: ProducerReport,
}

impl AuditReport {
    /// Whether every sink could be looked at and is equal.
    pub fn equal(&self) -> bool {
        self.sinks.iter().all(|sink| sink.outcome.as_ref().is_ok_and(SinkFindings::equal))
    }
}

/// What an audit found of one sink.
#[derive(Debug)]
pub struct SinkReport {
    /// The sink.
    pub name: String,
    /// Why it could not be looked at, in words for people.
    pub outcome: Result<SinkFindings, String>,
}

/// How a sink differs from the bus.
#[derive(Debug, Clone, Default)]
pub struct SinkFindings {
    /// What it must hold: settled, and not a dead letter, unless that was written again.
    pub expected: u128,
    /// What it holds.
    pub total: u128,
    /// Sum over the series that hold less than they must.
    pub missing: u128,
    /// Sum over the series that hold more than they may.
    pub extra: u128,
    /// Messages on the bus that the sink has not settled.
    pub behind: u64,
    /// How many series the bus has for it.
    pub series: usize,
    /// Dead letters that stand in its topic and were not written again; what was refused again is a dead letter of its own.
    pub dead_letters: u64,
    /// The value of the dead letters that it would have to hold otherwise.
    pub dead_total: u128,
    /// Dead letters that were written again: taken, or refused again.
    pub replayed: u64,
    /// How many series differ.
    pub differing_series: usize,
    /// The series that differ, the largest difference first.
    pub differences: Vec<Difference>,
    /// What else there is to know, for people.
    pub notes: Vec<String>,
}

impl SinkFindings {
    /// Whether nothing is missing and nothing is too much.
    pub fn equal(&self) -> bool {
        self.missing == 0 && self.extra == 0
    }
}

/// A series that differs.
#[derive(Debug, Clone)]
pub struct Difference {
    /// As the sink has it.
    pub series: Arc<Series>,
    /// What the sink must hold at least.
    pub expected: u128,
    /// What it holds.
    pub total: u128,
    /// How much is missing.
    pub missing: u128,
    /// How much is too much.
    pub extra: u128,
    /// The first window that differs; absent when that was not looked up, or when no window differed any more.
    pub place: Option<Place>,
}

/// Where a series begins to differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Start of the window: nanoseconds since the Unix epoch.
    pub window_start: i64,
    /// Its length in nanoseconds.
    pub window: i64,
    /// What the sink must hold of it at least.
    pub expected: u128,
    /// What it holds.
    pub total: u128,
    /// Which messages the bus has for it; empty when it has none.
    pub offsets: Vec<OffsetSpan>,
}

/// Messages of one partition: from the first to the last that matters, others may lie between.
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

/// Makes the audit: reads every backend, then the bus once, and once more for each sink that differs. `progress` is told how
/// many messages have been read, and how many there are.
///
/// # Errors
/// The bus could not be read, or does not reach back far enough. A sink that cannot be read is no error: its report
/// says so.
pub fn run(audit: &Audit<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<AuditReport, AuditError> {
    let mut messages = Messages::new(audit.encodings)?;
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
                let is_dead = look.dead_letters.is_dead(topic, record.partition, record.offset);
                for row in messages.rows() {
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

/// What was seen of a sink before the bus is read.
struct Look {
    before: Standing,
    totals: Vec<tallybus_sdk::SeriesTotal>,
    after: Standing,
    dead_letters: DeadLetters,
    tally: Tally,
}

impl Look {
    fn take(audit: &Audit<'_>, sink: &AuditedSink) -> Result<Self, String> {
        let tally = Tally::new(sink, audit.range)?;
        let before = Standing::read(audit.observer, sink)?;
        let query = TotalsQuery::new(audit.range);
        let totals = audit.runtime.block_on(read_back(sink)?.collect_totals(&query));
        let totals = totals.map_err(|error| error.to_string())?;
        let after = Standing::read(audit.observer, sink)?;
        // A dead letter is on the bus before its batch settles, so all that `before` settled are there now.
        let dead_letters = DeadLetters::read(audit.bus, audit.observer, sink, &before, audit.stall_timeout)?;
        Ok(Self { before, totals, after, dead_letters, tally })
    }
}

fn finish(audit: &Audit<'_>, sink: &AuditedSink, look: Look, pass: &mut Pass<'_>) -> Result<SinkFindings, AuditError> {
    let Look { before, totals, after, dead_letters, tally } = look;
    let mut findings = tally.compare(&totals, &dead_letters, &before);
    findings.behind = after.behind(&pass.ranges);
    if dead_letters.gone > 0 {
        let note = "dead letters are gone by retention: what they held looks missing".to_owned();
        findings.notes.push(note);
    }
    if dead_letters.replays_gone {
        let topic = &sink.replay_topic;
        findings.notes.push(format!(
            "{topic} has lost its beginning: dead letters that were written again may look like extra ones"
        ));
    }
    if dead_letters.unreadable > 0 {
        findings
            .notes
            .push(format!("{} records in {} are no dead letters", dead_letters.unreadable, sink.dead_letter_topic));
    }
    if findings.missing > 0 && sink.start_at == StartAt::Newest {
        let note =
            "start_at = \"newest\": what was on the bus before its worker began is missing; compare with --from TIME";
        findings.notes.push(note.to_owned());
    }
    if !findings.equal() {
        let looked_at = findings.differences.len().min(audit.details);
        match locate::locate(audit, sink, &dead_letters, &mut findings.differences[..looked_at], pass) {
            Ok(()) => {}
            Err(AuditError::Sink { reason, .. }) => {
                findings.notes.push(format!("cannot say where it begins to differ: {reason}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// What answers what the backend holds.
fn read_back(sink: &AuditedSink) -> Result<&dyn ReadBack, String> {
    sink.sink
        .read_back()
        .ok_or_else(|| "this kind of sink cannot be read back, so that it cannot be audited".to_owned())
}

/// Every topic that matters, each once.
fn topics_of(audit: &Audit<'_>) -> Vec<String> {
    let mut topics = vec![audit.topic.to_owned()];
    for topic in audit.sinks.iter().flat_map(|sink| &sink.topics) {
        if !topics.contains(topic) {
            topics.push(topic.clone());
        }
    }
    topics
}
