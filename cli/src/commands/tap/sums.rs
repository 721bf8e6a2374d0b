use std::collections::BTreeMap;
use std::time::Duration;

use tallybus_schemas::Series;
use tallybus_verify::audit::Row;

use crate::groups::{Groups, Key, Sum};

/// How long an interval is kept open, in nanoseconds: producers send what they have counted once a second.
const GRACE: i64 = 2_000_000_000;
/// All sums are printed at this number of them: a tap may run for weeks, and tags may have any number of values.
const MOST_SUMS: usize = 100_000;

/// Sums of the events of an interval of their own time, group by group. Each event is in one sum: those that come after the
/// sums of their interval were printed make further ones.
#[derive(Debug)]
pub(super) struct Sums {
    groups: Groups,
    /// Nanoseconds.
    every: i64,
    /// By the start of the interval and the number of the group.
    open: BTreeMap<(i64, u32), Sum>,
    /// The newest time of each partition that has not been read to where it ended when the tap began.
    newest: Vec<(u32, Option<i64>)>,
}

/// One line of the result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where the interval begins.
    pub(super) time: i64,
    pub(super) key: Key,
    pub(super) sum: Sum,
}

impl Sums {
    /// `behind`: the partitions that have something to read.
    pub(super) fn new(by: &[String], every: Duration, behind: impl Iterator<Item = u32>) -> Self {
        let every = i64::try_from(every.as_nanos()).unwrap_or(i64::MAX).max(1);
        let newest = behind.map(|partition| (partition, None)).collect();
        Self { groups: Groups::new(by), every, open: BTreeMap::new(), newest }
    }

    pub(super) fn by(&self) -> &[String] {
        self.groups.by()
    }

    pub(super) fn add(&mut self, partition: u32, row: Row, series: &Series) {
        let (group, _) = self.groups.of(row.series, series);
        let start = row.time - row.time.rem_euclid(self.every);
        self.open.entry((start, group)).or_default().add(row.value);
        if let Some((_, newest)) = self.newest.iter_mut().find(|(other, _)| *other == partition) {
            *newest = (*newest).max(Some(row.time));
        }
    }

    /// Takes note of the partitions that still have something to read.
    pub(super) fn behind(&mut self, open: &[(u32, u64)]) {
        self.newest.retain(|(partition, _)| open.iter().any(|(other, _)| other == partition));
    }

    /// The sums of the intervals that are over: by the clock, or, as long as older messages are read, by the times that all
    /// partitions have reached.
    pub(super) fn finished(&mut self, now: i64) -> Vec<Line> {
        if self.open.len() >= MOST_SUMS || self.groups.len() >= MOST_SUMS {
            return self.all();
        }
        let reached = self.newest.iter().map(|(_, newest)| newest.unwrap_or(i64::MIN)).min();
        let until = reached.unwrap_or(now).saturating_sub(GRACE);
        let mut lines = Vec::new();
        while let Some(first) = self.open.first_entry() {
            if first.key().0.saturating_add(self.every) > until {
                break;
            }
            let ((time, group), sum) = first.remove_entry();
            lines.push(Line { time, key: self.groups.key(group).clone(), sum });
        }
        sorted(lines)
    }

    /// All sums.
    pub(super) fn all(&mut self) -> Vec<Line> {
        let open = std::mem::take(&mut self.open).into_iter();
        let lines = open.map(|((time, group), sum)| Line { time, key: self.groups.key(group).clone(), sum }).collect();
        self.groups.clear();
        sorted(lines)
    }

    /// The numbers of series begin again at 0.
    pub(super) fn forget_series(&mut self) {
        self.groups.forget_series();
    }
}

/// By time; within an interval, the largest sum first.
fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by(|one, other| {
        let sums = other.sum.total.cmp(&one.sum.total);
        one.time.cmp(&other.time).then(sums).then_with(|| one.key.cmp(&other.key))
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn row(series: u32, value: u64, time: i64) -> Row {
        Row { series, value, time, index: 0 }
    }

    fn shown(lines: &[Line]) -> Vec<(i64, Option<&str>, u128, u64)> {
        lines.iter().map(|line| (line.time / SECOND, line.key[0].as_deref(), line.sum.total, line.sum.events)).collect()
    }

    #[test]
    fn an_interval_is_printed_once_it_is_over_and_late_events_make_another_line_of_it() {
        let mut sums = Sums::new(&["route".to_owned()], Duration::from_secs(1), [].into_iter());
        let (a, none) = (Series::from_sorted("n", &[("route", "a")]), Series::from_sorted("n", &[]));
        sums.add(0, row(0, 3, 10 * SECOND), &a);
        sums.add(1, row(0, 4, 11 * SECOND - 1), &a);
        sums.add(1, row(1, 8, 10 * SECOND + 5), &none);
        sums.add(0, row(0, 1, 11 * SECOND), &a);
        assert_eq!(sums.finished(13 * SECOND - 1), []);
        assert_eq!(shown(&sums.finished(13 * SECOND)), [(10, None, 8, 1), (10, Some("a"), 7, 2)]);
        sums.add(0, row(0, 5, 10 * SECOND), &a);
        assert_eq!(shown(&sums.finished(13 * SECOND)), [(10, Some("a"), 5, 1)]);
        assert_eq!(shown(&sums.all()), [(11, Some("a"), 1, 1)]);
        assert_eq!(sums.all(), []);
    }

    #[test]
    fn older_messages_are_summed_up_to_what_all_partitions_have_reached() {
        let mut sums = Sums::new(&["route".to_owned()], Duration::from_secs(1), [0, 1].into_iter());
        let series = Series::from_sorted("n", &[]);
        (0..100).for_each(|second| sums.add(0, row(0, 1, second * SECOND), &series));
        assert_eq!(sums.finished(1_000 * SECOND), [], "nothing of the other partition has been read");
        sums.add(1, row(0, 1, 5 * SECOND), &series);
        assert_eq!(sums.finished(1_000 * SECOND).len(), 3);
        (6..50).for_each(|second| sums.add(1, row(0, 1, second * SECOND), &series));
        sums.behind(&[(1, 7)]);
        let lines = sums.finished(1_000 * SECOND);
        assert_eq!((lines[0].sum.events, lines[2].sum.events, lines.len()), (1, 2, 44));
        sums.behind(&[]);
        assert_eq!(sums.finished(1_000 * SECOND).len(), 53);
    }

    #[test]
    fn sums_are_printed_before_they_are_too_many() {
        let mut sums = Sums::new(&["id".to_owned()], Duration::from_secs(3_600), [0].into_iter());
        let mut printed = 0;
        for number in 0..250_000_u32 {
            let id = number.to_string();
            sums.add(0, row(number, 1, 0), &Series::from_sorted("n", &[("id", &id)]));
            printed += sums.finished(0).len();
        }
        assert_eq!((printed, sums.all().len()), (200_000, 50_000));
    }
}
