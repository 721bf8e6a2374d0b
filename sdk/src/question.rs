use std::collections::BTreeMap;

use tallybus_schemas::Series;

use crate::TimeRange;

/// Nanoseconds of a minute: the step of [`Question::SeriesByMinute`].
pub const NANOS_PER_MINUTE: i64 = 60_000_000_000;

/// Every question's [`Question::name`], in the order of tables.
pub const QUESTIONS: &[&str] = &["total_by_tag", "top_series", "series_by_minute", "series_count"];

/// A question that people ask a backend of counters. The backend answers it in its own query language, so that the time
/// that it takes is what a dashboard would wait. The range counts points whose time is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// The sum of the counters of one name, by the value of one tag.
    TotalByTag {
        /// The counter's name.
        name: String,
        /// The tag's key.
        tag: String,
        /// Points of this time.
        range: TimeRange,
    },
    /// The series with the largest sums, largest first.
    TopSeries {
        /// How many series.
        limit: usize,
        /// Points of this time.
        range: TimeRange,
    },
    /// The sum of one series in each minute that has points of it.
    SeriesByMinute {
        /// The series, as it is after the sink's selection.
        series: Series,
        /// Points of this time.
        range: TimeRange,
    },
    /// How many series have points.
    SeriesCount {
        /// Points of this time.
        range: TimeRange,
    },
}

impl Question {
    /// A short name, for tables and JSON; never changes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TotalByTag { .. } => "total_by_tag",
            Self::TopSeries { .. } => "top_series",
            Self::SeriesByMinute { .. } => "series_by_minute",
            Self::SeriesCount { .. } => "series_count",
        }
    }

    /// Which points it is about.
    pub fn range(&self) -> TimeRange {
        match self {
            Self::TotalByTag { range, .. }
            | Self::TopSeries { range, .. }
            | Self::SeriesByMinute { range, .. }
            | Self::SeriesCount { range } => *range,
        }
    }

    /// The answer of a destination that has no points in the range.
    pub fn empty_answer(&self) -> Answer {
        match self {
            Self::TotalByTag { .. } => Answer::ByTag(BTreeMap::new()),
            Self::TopSeries { .. } => Answer::Series(Vec::new()),
            Self::SeriesByMinute { .. } => Answer::ByMinute(BTreeMap::new()),
            Self::SeriesCount { .. } => Answer::Count(0),
        }
    }
}

/// What a backend answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// To [`Question::TotalByTag`]: the sum by the tag's value, `None` for series without the tag.
    ByTag(BTreeMap<Option<String>, u128>),
    /// To [`Question::TopSeries`]. Series of equal sums come in any order, and the last place may go to any of them.
    Series(Vec<(Series, u128)>),
    /// To [`Question::SeriesByMinute`]: the sum by the minute's start, nanoseconds since the Unix epoch.
    ByMinute(BTreeMap<i64, u128>),
    /// To [`Question::SeriesCount`].
    Count(u64),
    /// The backend, or this sink's way of writing to it, cannot answer: the reason, for operators.
    NotOffered(&'static str),
}

/// How much storage the destination takes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// Known.
    Bytes {
        /// How many bytes.
        bytes: u64,
        /// What they are, for operators: "the file with its log", "table and indexes as PostgreSQL counts them".
        what: &'static str,
    },
    /// The backend does not say, or not of one destination: the reason, for operators.
    NotOffered(&'static str),
}

/// Which version the backend has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendVersion {
    /// As the server, or the library that is the backend's engine, names it. Text from the backend, not escaped.
    Is(String),
    /// The backend names none: the reason, for operators.
    NotOffered(&'static str),
}
