use std::collections::HashMap;
use std::sync::Arc;

use tallybus_schemas::Series;
use tallybus_sdk::{Selector, SeriesTotal, TimeRange};

use super::dead_letters::{DeadLetterPoint, DeadLetters};
use super::messages::Row;
use super::sink_progress::{Mark, SinkProgress};
use super::{AuditedSink, Difference, SinkFindings};

/// The value that one sink must and may hold according to the bus, by series after the sink's selection.
pub(super) struct Tally {
    selector: Selector,
    range: TimeRange,
    /// Indexes in `bounds` by the bus's series number; `None` inside: excluded by the selection.
    places: Vec<Option<Option<usize>>>,
    known: HashMap<Series, usize>,
    bounds: Vec<Bounds>,
}

/// The lower and upper bounds of what a sink may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) low: u128,
    pub(super) high: u128,
    /// The value that dead letters subtracted from `low`.
    dead: u128,
}

impl Bounds {
    /// Adds the event of an offset; the events of a record that the worker could not decode may be in the sink, but
    /// need not be.
    pub(super) fn add(&mut self, value: u64, (offset, is_dead): (u64, bool), settled: u64, sealed: u64) {
        if offset < settled {
            match is_dead {
                true => self.dead += u128::from(value),
                false => self.low += u128::from(value),
            }
        }
        if offset < sealed {
            self.high += u128::from(value);
        }
    }

    /// Adds dead letters: those that were replayed must be in the sink, the others need not be.
    pub(super) fn add_letters<'l>(&mut self, dead_letters: impl Iterator<Item = &'l DeadLetterPoint> + Clone) {
        let sum = |again: bool| {
            dead_letters.clone().filter(|one| one.again == again).map(|one| u128::from(one.value)).sum::<u128>()
        };
        let (refused, again) = (sum(false), sum(true));
        self.low = (self.low + again).saturating_sub(refused);
        self.dead = (self.dead + refused).saturating_sub(again);
    }

    /// The missing value, and the extra value.
    pub(super) fn compare(self, total: u128) -> (u128, u128) {
        (self.low.saturating_sub(total), total.saturating_sub(self.high))
    }

    /// How much of a total is explained only if the backend stored dead letters after all.
    fn beyond_dead_letters(self, total: u128) -> u128 {
        total.min(self.high).saturating_sub(self.high.saturating_sub(self.dead))
    }
}

impl Tally {
    pub(super) fn new(sink: &AuditedSink, range: TimeRange) -> Result<Self, String> {
        let selector = sink.shape.selector()?;
        Ok(Self { selector, range, places: Vec::new(), known: HashMap::new(), bounds: Vec::new() })
    }

    /// Adds one event of a record, possibly one that the worker could not decode; `before` and `after` are the group's
    /// progress before and after the backend was read.
    pub(super) fn take(&mut self, row: Row, series: &Series, record: (u64, bool), before: Mark, after: Mark) {
        if record.0 >= after.sealed.max(after.settled) {
            return;
        }
        if !self.range.contains(self.selector.window_start(row.time)) {
            return;
        }
        if let Some(place) = self.place(row.series, series) {
            self.bounds[place].add(row.value, record, before.settled, after.sealed.max(after.settled));
        }
    }

    fn place(&mut self, number: u32, series: &Series) -> Option<usize> {
        let number = number as usize;
        if number >= self.places.len() {
            self.places.resize(number + 1, None);
        }
        if let Some(place) = self.places[number] {
            return place;
        }
        let place = shape(&self.selector, series).map(|shaped| {
            *self.known.entry(shaped).or_insert_with(|| {
                self.bounds.push(Bounds::default());
                self.bounds.len() - 1
            })
        });
        self.places[number] = Some(place);
        place
    }

    /// Compares with the backend. A dead letter lowers what the backend must hold, not what it may hold: a backend that
    /// accepted the point after all in a later attempt is right too.
    pub(super) fn compare(
        mut self,
        totals: &[SeriesTotal],
        dead_letters: &DeadLetters,
        before: &SinkProgress,
    ) -> SinkFindings {
        let mut findings = SinkFindings {
            dead_letters: dead_letters.count.saturating_sub(dead_letters.replayed),
            replayed: dead_letters.replayed,
            ..SinkFindings::default()
        };
        for (series, points) in &dead_letters.points {
            let Some(&place) = self.known.get(series) else { continue };
            let counts = |point: &&DeadLetterPoint| {
                let settled = before.mark(&point.topic, point.partition).settled;
                point.offset < settled && self.range.contains(self.selector.window_start(point.time))
            };
            self.bounds[place].add_letters(points.iter().filter(counts));
        }
        findings.dead_total = self.bounds.iter().map(|bounds| bounds.dead).sum();
        let mut held = vec![0_u128; self.bounds.len()];
        let mut foreign: HashMap<&Series, u128> = HashMap::new();
        for total in totals {
            findings.total += u128::from(total.total);
            match self.known.get(&total.series) {
                Some(&place) => held[place] += u128::from(total.total),
                None => *foreign.entry(&total.series).or_default() += u128::from(total.total),
            }
        }
        findings.series = self.known.len();
        let mut taken_after_all = 0;
        let known = self.known.iter().map(|(series, &place)| (series, self.bounds[place], held[place]));
        let strange = foreign.into_iter().map(|(series, total)| (series, Bounds::default(), total));
        for (series, bounds, total) in known.chain(strange) {
            findings.expected += bounds.low;
            let (missing, extra) = bounds.compare(total);
            taken_after_all += bounds.beyond_dead_letters(total);
            findings.missing += missing;
            findings.extra += extra;
            if missing > 0 || extra > 0 {
                let series = Arc::new(series.clone());
                let difference = Difference { series, expected: bounds.low, total, missing, extra, place: None };
                findings.differences.push(difference);
            }
        }
        if taken_after_all > 0 {
            findings.notes.push(format!(
                "a value of {taken_after_all} in dead letters is also in the backend, or as much is extra: a later \
                 attempt may have written it after all; check this before replaying those dead letters"
            ));
        }
        findings.differing_series = findings.differences.len();
        findings
            .differences
            .sort_by(|a, b| (b.missing + b.extra).cmp(&(a.missing + a.extra)).then(a.series.cmp(&b.series)));
        findings
    }
}

/// The series after the sink's selection; `None` when the selection excludes it.
pub(super) fn shape(selector: &Selector, series: &Series) -> Option<Series> {
    if !selector.takes(series.name()) {
        return None;
    }
    let tags: Vec<(&str, &str)> = series.tags().iter().map(|(key, value)| (&**key, &**value)).collect();
    let mut shaped = Vec::with_capacity(tags.len());
    selector.shape_tags(&tags, &mut shaped);
    Some(Series::from_sorted(series.name(), &shaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_that_is_in_the_backend_too_is_told() {
        // 100 on the bus, 30 of them in dead letters; nothing is in flight.
        let bounds = Bounds { low: 70, high: 100, dead: 30 };
        let told = |total| (bounds.compare(total), bounds.beyond_dead_letters(total));
        assert_eq!(told(60), ((10, 0), 0));
        assert_eq!(told(70), ((0, 0), 0));
        assert_eq!(told(85), ((0, 0), 15));
        assert_eq!(told(110), ((0, 10), 30));
        // 20 more are sealed, and may or may not be in the backend.
        let busy = Bounds { low: 70, high: 120, dead: 30 };
        assert_eq!((busy.beyond_dead_letters(90), busy.beyond_dead_letters(91)), (0, 1));
    }
}
