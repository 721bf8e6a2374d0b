use std::sync::Arc;
use std::time::Duration;

use tallybus_schemas::Series;

use super::ProducerReport;
use super::foreign::ForeignFindings;

/// The result of an audit.
#[derive(Debug)]
pub struct AuditReport {
    /// Sum of all events on the bus that are in the time range.
    pub bus_total: u128,
    /// The number of those events.
    pub bus_events: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// The expression that selects the series that were compared; all where it is `None`. The sums of the bus are of all.
    pub part: Option<String>,
    /// When the audit began: nanoseconds since the Unix epoch.
    pub time: i64,
    /// The results by sink, in the order given.
    pub sinks: Vec<SinkReport>,
    /// The check of the producers' own figures.
    pub producers: ProducerReport,
}

impl AuditReport {
    /// Whether every sink could be read, has begun and is equal.
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
    /// The value that it holds, without foreign points.
    pub total: u128,
    /// Sum over the windows that hold less than they must.
    pub missing: u128,
    /// Sum over the windows that hold more than they may.
    pub extra: u128,
    /// Messages on the bus that the sink has not settled.
    pub behind: u64,
    /// How old the oldest of them is; `None` when it is not known.
    pub oldest_behind: Option<Duration>,
    /// Whether its group holds an offset.
    pub begun: Begun,
    /// Another sink that has claimed the destination, so that what it holds may be another's: which, for operators.
    pub claimed_by: Option<String>,
    /// Offsets that the bus no longer has and the sink had not settled: their events are lost to it.
    pub gone_unwritten: Vec<OffsetSpan>,
    /// The number of series that the bus has for it.
    pub series: usize,
    /// The number of series that bus or backend have, and so were compared.
    pub compared: usize,
    /// The number of windows that bus or backend have.
    pub windows: usize,
    /// The length of the windows that were compared: nanoseconds.
    pub window: i64,
    /// Dead letters in its topic that were not replayed; one that was refused again is a dead letter of its own.
    pub dead_letters: u64,
    /// The value of the dead letters, which the sink would otherwise have to hold.
    pub dead_total: u128,
    /// The value of dead letters that the backend holds nevertheless.
    pub taken_after_all: u128,
    /// Dead letters that were replayed: written, or refused again.
    pub replayed: u64,
    /// Dead letters that are not what the bus has at their coordinate; they explain nothing. The first
    /// [`MOST_NAMED`].
    pub wrong_dead_letters: Vec<WrongDeadLetter>,
    /// The total number of them.
    pub wrong_dead_letter_count: u64,
    /// What the backend holds and no sink wrote.
    pub foreign: ForeignFindings,
    /// The number of series that differ.
    pub differing_series: usize,
    /// The number of windows that differ.
    pub differing_windows: u64,
    /// The series that differ, the largest difference first.
    pub differences: Vec<Difference>,
    /// Further notes, for operators.
    pub notes: Vec<String>,
}

/// Whether a sink's group holds an offset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Begun {
    /// It does, or the bus has no message for it.
    #[default]
    Yes,
    /// It never committed anything, although the bus has messages for it.
    Never,
    /// It holds none, but its destination has claims of it: the group was deleted, the bus forgot it, or the topic was
    /// recreated.
    Forgotten,
}

/// How many wrong dead letters are named.
pub const MOST_NAMED: usize = 100;

impl SinkFindings {
    /// Whether the backend holds what it must and nothing else, up to where the sink has settled; the sink has begun, no
    /// other one has claimed its destination, and nothing was lost to it.
    pub fn equal(&self) -> bool {
        self.missing == 0
            && self.extra == 0
            && self.foreign.left_out() == 0
            && self.gone_unwritten.is_empty()
            && self.begun == Begun::Yes
            && self.claimed_by.is_none()
    }

    /// Whether values differ only in their windows: each series that differs has the right sum.
    pub fn misplaced(&self) -> bool {
        !self.differences.is_empty() && self.differences.iter().all(|difference| difference.missing == difference.extra)
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
    /// The missing value, over its windows.
    pub missing: u128,
    /// The extra value, over its windows.
    pub extra: u128,
    /// How many of its windows differ.
    pub windows: u64,
    /// The first window that differs, in the order of time.
    pub(super) first: FirstWindow,
    /// The first window that differs, with its messages; `None` when they were not looked up.
    pub place: Option<Place>,
}

/// The earlier one is the lesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FirstWindow {
    pub(super) start: i64,
    /// What it must hold, less what it holds.
    pub(super) balance: i128,
    /// The value of its dead letters, which it need not hold.
    pub(super) dead: u128,
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

/// Offsets of one partition, from the first to the last relevant one; irrelevant messages may be between them.
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

/// A dead letter that is not what the bus has at its coordinate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongDeadLetter {
    /// The topic of its coordinate.
    pub topic: String,
    /// The partition of its coordinate.
    pub partition: u32,
    /// The offset of its coordinate.
    pub offset: u64,
    /// The index of its coordinate; `None` for a record that could not be decoded.
    pub index: Option<u32>,
    /// What does not match, for operators.
    pub reason: String,
}
