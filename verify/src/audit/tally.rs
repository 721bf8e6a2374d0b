use std::collections::HashMap;
use std::sync::Arc;

use tallybus_schemas::Series;
use tallybus_sdk::filter::Filter;
use tallybus_sdk::{Foreign, ForeignKind, Held, Selector, TimeRange, WindowTotal, resolution};

use super::AuditedSink;
use super::allowance::Allowance;
use super::claims::Refused;
use super::foreign::ForeignFindings;
use super::report::{Difference, FirstWindow, SinkFindings};
use super::series_index::SeriesIndex;
use super::windows::Windows;

/// What one sink must and may hold according to the bus, and what it holds, by series and window.
pub(super) struct Tally<'f> {
    /// Which series are compared; all where there is none.
    only: Option<&'f Filter>,
    /// Its answers, by the number of the series.
    chosen: Vec<bool>,
    selector: Selector,
    range: TimeRange,
    /// The length of the windows that are compared: nanoseconds.
    window: i64,
    series: SeriesIndex,
    sums: Vec<Sums>,
    windows: Windows,
    /// The windows that may hold more than they must.
    allowances: HashMap<(u32, i64), Allowance>,
    foreign: ForeignFindings,
    dead_total: u128,
}

/// The sums of one series.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    must: u128,
    held: u128,
    is_on_bus: bool,
}

/// The number of each series of the bus here; `None` inside: excluded by the sink's selection.
pub(super) type Places = Vec<Option<Option<u32>>>;

/// What became of a record, as far as the group has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in the backend.
    Settled,
    /// It is sealed, and may or may not be in the backend.
    InFlight,
    /// The worker could not decode it: each of its events may be in the backend, and need not be.
    Dead,
}

impl<'f> Tally<'f> {
    /// `window`: compares windows of at least this length.
    pub(super) fn new(sink: &AuditedSink, range: TimeRange, window: i64) -> Result<Self, String> {
        let selector = sink.shape.selector()?;
        let own = resolution(selector.window);
        // Whole windows of the sink.
        let window = own.saturating_mul((window.max(1) - 1) / own + 1);
        Ok(Self {
            only: None,
            chosen: Vec::new(),
            selector,
            range,
            window,
            series: SeriesIndex::default(),
            sums: Vec::new(),
            windows: Windows::default(),
            allowances: HashMap::new(),
            foreign: ForeignFindings::default(),
            dead_total: 0,
        })
    }

    /// Compares only the series that this selects.
    pub(super) fn only(mut self, only: Option<&'f Filter>) -> Self {
        self.only = only;
        self
    }

    /// Whether a series is compared. The number is one of this tally's.
    pub(super) fn chooses(&self, series: u32) -> bool {
        match (self.only, self.chosen.get(series as usize)) {
            (None, _) => true,
            (Some(_), Some(chosen)) => *chosen,
            (Some(only), None) => self.asks(only, series),
        }
    }

    /// The filter's answer about a series. What a filter of series leaves open depends on no event.
    fn asks(&self, only: &Filter, series: u32) -> bool {
        only.ask(&self.series.series(series)).settled() == Some(true)
    }

    /// Asks the filter about each series that has come since.
    fn ask_filter(&mut self) {
        let Some(only) = self.only else { return };
        for series in self.chosen.len()..self.series.len() {
            // Numbers of series fit 32 bits.
            let chosen = u32::try_from(series).is_ok_and(|series| self.asks(only, series));
            self.chosen.push(chosen);
        }
    }

    /// The start of the window that contains a time.
    pub(super) fn window(&self, time: i64) -> i64 {
        time.saturating_sub(time.rem_euclid(self.window))
    }

    /// The length of the windows: nanoseconds.
    pub(super) fn window_length(&self) -> i64 {
        self.window
    }

    /// The range in whole windows: a time is in it exactly when the start of its window is in the audited range.
    pub(super) fn whole_windows(&self) -> TimeRange {
        let up = |time: i64| match time.rem_euclid(self.window) {
            0 => time,
            rest => time.saturating_add(self.window - rest),
        };
        TimeRange { from: self.range.from.map(up), to: self.range.to.map(up) }
    }

    /// Takes what the backend holds.
    pub(super) fn hold(&mut self, held: Held) {
        let WindowTotal { series, start, total } = match held {
            Held::Window(window) => window,
            Held::Foreign(foreign) => return self.foreign.add(foreign),
        };
        let number = self.series.number_of(&series);
        self.ask_filter();
        if !self.chooses(number) {
            return;
        }
        let Ok(amount) = i128::try_from(total) else {
            let what = format!("{series}, time {start}, a sum of {total}");
            return self.foreign.add(Foreign::new(ForeignKind::ValueType, what));
        };
        if start.rem_euclid(resolution(self.selector.window)) != 0 && self.selector.window != 0 {
            let what = format!("{series}, time {start}, value {total}");
            self.foreign.add(Foreign::new(ForeignKind::OffWindow, what));
        }
        let window = self.window(start);
        self.sums_of(number).held += total;
        self.windows.add(number, window, -amount);
    }

    /// Adds an event of the bus.
    pub(super) fn take(&mut self, series: u32, window: i64, value: u64, fate: Fate) {
        if !self.range.contains(window) || !self.chooses(series) {
            return;
        }
        self.sums_of(series).is_on_bus = true;
        let amount = u128::from(value);
        match fate {
            Fate::Settled => {
                self.sums_of(series).must += amount;
                self.windows.add(series, window, i128::from(value));
            }
            Fate::InFlight => self.allowances.entry((series, window)).or_default().in_flight += amount,
            Fate::Dead => {
                self.allowances.entry((series, window)).or_default().dead_letters.push(amount);
                self.dead_total += amount;
            }
        }
    }

    /// Takes back what the sink refused: it need not be in the backend. The event was [taken](Self::take) as settled.
    pub(super) fn refuse(&mut self, refused: &Refused) {
        let Refused { series, window, value, .. } = *refused;
        if !self.range.contains(window) || !self.chooses(series) {
            return;
        }
        let amount = u128::from(value);
        let sums = self.sums_of(series);
        sums.must = sums.must.saturating_sub(amount);
        self.windows.add(series, window, -i128::from(value));
        self.allowances.entry((series, window)).or_default().dead_letters.push(amount);
        self.dead_total += amount;
    }

    /// The number of a series of the bus after the sink's selection; `None` when the selection excludes it.
    pub(super) fn place(&mut self, places: &mut Places, number: u32, series: &Arc<Series>) -> Option<u32> {
        let number = number as usize;
        if number >= places.len() {
            places.resize(number + 1, None);
        }
        if let Some(place) = places[number] {
            return place;
        }
        let place = self.selected(series);
        self.ask_filter();
        places[number] = Some(place);
        place
    }

    fn selected(&mut self, series: &Arc<Series>) -> Option<u32> {
        if !self.selector.takes(series.name()) {
            return None;
        }
        let tags: Vec<(&str, &str)> = series.tags().iter().map(|(key, value)| (&**key, &**value)).collect();
        let mut shaped = Vec::with_capacity(tags.len());
        self.selector.shape_tags(&tags, &mut shaped);
        Some(self.series.number(series.name(), &shaped))
    }

    /// The number of a series that is already as the sink takes it.
    pub(super) fn number(&mut self, series: &Series) -> u32 {
        let tags: Vec<(&str, &str)> = series.tags().iter().map(|(key, value)| (&**key, &**value)).collect();
        self.series.number(series.name(), &tags)
    }

    fn sums_of(&mut self, series: u32) -> &mut Sums {
        let place = series as usize;
        if place >= self.sums.len() {
            self.sums.resize(self.series.len(), Sums::default());
        }
        &mut self.sums[place]
    }

    /// Compares, window by window.
    pub(super) fn compare(self) -> SinkFindings {
        let mut findings = SinkFindings {
            compared: self.sums.iter().filter(|sums| sums.is_on_bus || sums.held > 0).count(),
            expected: self.sums.iter().map(|sums| sums.must).sum(),
            total: self.sums.iter().map(|sums| sums.held).sum(),
            series: self.sums.iter().filter(|sums| sums.is_on_bus).count(),
            windows: self.windows.len(),
            window: self.window,
            dead_total: self.dead_total,
            ..SinkFindings::default()
        };
        let nothing = Allowance::default();
        let mut differing: HashMap<u32, Difference> = HashMap::new();
        for (series, start, balance) in self.windows.unbalanced() {
            let allowance = self.allowances.get(&(series, start)).unwrap_or(&nothing);
            let judged = allowance.judge(balance);
            findings.taken_after_all += judged.taken_after_all;
            let (missing, extra) = (judged.missing, judged.extra);
            if missing == 0 && extra == 0 {
                continue;
            }
            findings.missing += missing;
            findings.extra += extra;
            findings.differing_windows += 1;
            let sums = self.sums[series as usize];
            let first = FirstWindow { start, balance, dead: allowance.dead_letters.iter().sum() };
            let difference = differing.entry(series).or_insert_with(|| Difference {
                series: Arc::new(self.series.series(series)),
                expected: sums.must,
                total: sums.held,
                missing: 0,
                extra: 0,
                windows: 0,
                first,
                place: None,
            });
            difference.missing += missing;
            difference.extra += extra;
            difference.windows += 1;
            difference.first = difference.first.min(first);
        }
        findings.differing_series = differing.len();
        findings.differences = differing.into_values().collect();
        findings
            .differences
            .sort_by(|a, b| (b.missing + b.extra).cmp(&(a.missing + a.extra)).then(a.series.cmp(&b.series)));
        findings.foreign = self.foreign;
        findings
    }
}

#[cfg(test)]
mod tests;
