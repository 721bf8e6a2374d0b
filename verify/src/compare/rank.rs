//! Which sink is better in what, as far as the figures tell.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::sink_result::SinkResult;
use super::stats::Summary;

/// What sinks are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// Events settled per second while the sink caught up with the range.
    CatchUpRate,
    /// Events per second up to which lag does not grow.
    SustainableRate,
    /// Seconds from emit to queryable: the median of the probes.
    FreshnessMedian,
    /// Seconds from emit to queryable: 99 % of the probes took no longer.
    FreshnessP99,
    /// Seconds of one write: the median of a round's writes.
    WriteTime,
    /// Requests for a million events.
    Requests,
    /// Bytes sent for each event.
    BytesPerEvent,
    /// Bytes of storage for each event.
    StoragePerEvent,
    /// Seconds of the question for the total by tag, later runs.
    TotalByTag,
    /// Seconds of the question for the largest series, later runs.
    TopSeries,
    /// Seconds of the question for one series by minute, later runs.
    SeriesByMinute,
    /// Seconds of the question for the number of series, later runs.
    SeriesCount,
}

impl Aspect {
    /// Every aspect, in the order of the report.
    pub const ALL: [Self; 12] = [
        Self::CatchUpRate,
        Self::SustainableRate,
        Self::FreshnessMedian,
        Self::FreshnessP99,
        Self::WriteTime,
        Self::Requests,
        Self::BytesPerEvent,
        Self::StoragePerEvent,
        Self::TotalByTag,
        Self::TopSeries,
        Self::SeriesByMinute,
        Self::SeriesCount,
    ];

    /// The aspect that a question's time belongs to, by the question's short name.
    pub fn of_question(name: &str) -> Option<Self> {
        match name {
            "total_by_tag" => Some(Self::TotalByTag),
            "top_series" => Some(Self::TopSeries),
            "series_by_minute" => Some(Self::SeriesByMinute),
            "series_count" => Some(Self::SeriesCount),
            _ => None,
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::CatchUpRate => "catch-up rate",
            Self::SustainableRate => "sustainable rate",
            Self::FreshnessMedian => "emit to queryable, median",
            Self::FreshnessP99 => "emit to queryable, p99",
            Self::WriteTime => "time of a write",
            Self::Requests => "requests",
            Self::BytesPerEvent => "bytes sent",
            Self::StoragePerEvent => "storage",
            Self::TotalByTag => "query: total by tag",
            Self::TopSeries => "query: top ten series",
            Self::SeriesByMinute => "query: series by minute",
            Self::SeriesCount => "query: number of series",
        }
    }

    /// The unit of its figures.
    pub fn unit(self) -> Unit {
        match self {
            Self::CatchUpRate | Self::SustainableRate => Unit::EventsPerSecond,
            Self::Requests => Unit::PerMillionEvents,
            Self::BytesPerEvent | Self::StoragePerEvent => Unit::BytesPerEvent,
            _ => Unit::Seconds,
        }
    }

    /// Whether a larger figure is better.
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::CatchUpRate | Self::SustainableRate)
    }
}

/// The unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Events per second.
    EventsPerSecond,
    /// Seconds.
    Seconds,
    /// How many for a million events.
    PerMillionEvents,
    /// Bytes for each event.
    BytesPerEvent,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EventsPerSecond => "events/s",
            Self::Seconds => "s",
            Self::PerMillionEvents => "per million events",
            Self::BytesPerEvent => "bytes/event",
        })
    }
}

/// How far the control is from the sink that it repeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// In what.
    pub aspect: Aspect,
    /// The difference of the medians, as a share of the smaller one: 0.05 is 5 %.
    pub difference: f64,
    /// Whether the two intervals overlap. Where they do not, what surrounds the sinks is unsteadier than the intervals show, and only
    /// the noise floor keeps such a difference from being a rank.
    pub intervals_overlap: bool,
}

/// The order of the sinks in one aspect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// In what.
    pub aspect: Aspect,
    /// The unit of the figures.
    pub unit: Unit,
    /// Whether a larger figure is better.
    pub more_is_better: bool,
    /// Groups of sinks, best first. Between the neighbours of one group no difference was seen.
    pub groups: Vec<Vec<String>>,
    /// Those that are not ranked, and why not.
    pub unranked: Vec<Unranked>,
}

/// A sink that is not ranked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unranked {
    /// Which.
    pub sink: String,
    /// Why not.
    pub why: String,
}

/// The control's difference in each aspect that was measured of both.
pub fn noise_floor(sinks: &[SinkResult]) -> Vec<Noise> {
    let Some(control) = sinks.iter().find(|sink| sink.control_of.is_some()) else { return Vec::new() };
    let Some(twin) = sinks.iter().find(|sink| Some(&sink.name) == control.control_of.as_ref()) else {
        return Vec::new();
    };
    let both =
        Aspect::ALL.into_iter().filter_map(|aspect| Some((aspect, twin.summary(aspect)?, control.summary(aspect)?)));
    both.map(|(aspect, one, other)| Noise {
        aspect,
        // JSON has no infinity; a difference from nothing is the largest number.
        difference: one.difference(other).min(f64::MAX),
        intervals_overlap: one.overlaps(other),
    })
    .collect()
}

/// The rankings in each aspect that was measured of any sink. The control is not ranked.
pub fn rankings(sinks: &[SinkResult], noise: &[Noise]) -> Vec<Ranking> {
    Aspect::ALL.into_iter().filter_map(|aspect| ranking(sinks, noise, aspect)).collect()
}

fn ranking(sinks: &[SinkResult], noise: &[Noise], aspect: Aspect) -> Option<Ranking> {
    let floor = noise.iter().find(|noise| noise.aspect == aspect).map_or(0.0, |noise| noise.difference);
    let (mut ranked, mut unranked) = (Vec::new(), Vec::new());
    for sink in sinks.iter().filter(|sink| sink.control_of.is_none()) {
        match (why_not(sink, aspect), sink.summary(aspect)) {
            (None, Some(summary)) => ranked.push((sink.name.as_str(), summary)),
            (why, _) => {
                let why = why.unwrap_or_else(|| "not measured".to_owned());
                unranked.push(Unranked { sink: sink.name.clone(), why });
            }
        }
    }
    let is_measured = sinks.iter().any(|sink| sink.summary(aspect).is_some());
    let more_is_better = aspect.more_is_better();
    is_measured.then(|| Ranking {
        aspect,
        unit: aspect.unit(),
        more_is_better,
        groups: groups(ranked, floor, more_is_better),
        unranked,
    })
}

/// Why a sink is not ranked; `None` when it is.
fn why_not(sink: &SinkResult, aspect: Aspect) -> Option<String> {
    match &sink.completeness {
        super::Known::Unknown(reason) => return Some(format!("not audited: {reason}")),
        super::Known::Is(completeness) => {
            if let Some(fault) = completeness.fault() {
                return Some(format!("not equal: {fault}"));
            }
        }
    }
    match sink.summaries.get(&aspect) {
        Some(super::Known::Is(_)) => None,
        Some(super::Known::Unknown(reason)) => Some(reason.clone()),
        None => Some("not measured".to_owned()),
    }
}

/// Sorts by the median, best first; a sink joins the group of the one before it when their intervals overlap, or their
/// difference is within the noise floor. So no group boundary claims a difference that was not seen.
fn groups(mut ranked: Vec<(&str, &Summary)>, floor: f64, more_is_better: bool) -> Vec<Vec<String>> {
    ranked.sort_by(|(_, one), (_, other)| {
        let order = one.median.total_cmp(&other.median);
        if more_is_better { order.reverse() } else { order }
    });
    let mut groups: Vec<Vec<(&str, &Summary)>> = Vec::new();
    for (name, summary) in ranked {
        let is_same = |before: &Summary| before.overlaps(summary) || before.difference(summary) <= floor;
        match groups.last_mut() {
            // With all of the group: a wide interval further up may overlap where the last one's does not.
            Some(group) if group.iter().any(|(_, before)| is_same(before)) => group.push((name, summary)),
            _ => groups.push(vec![(name, summary)]),
        }
    }
    groups.into_iter().map(|group| group.into_iter().map(|(name, _)| name.to_owned()).collect()).collect()
}

#[cfg(test)]
#[path = "rank_tests.rs"]
mod tests;
