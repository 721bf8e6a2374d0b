use std::collections::BTreeMap;

use async_trait::async_trait;
use tallybus_schemas::Series;

use crate::{SinkError, TimeRange};

/// Selects totals.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TotalsQuery {
    /// Only points whose time is in this range.
    pub range: TimeRange,
}

impl TotalsQuery {
    /// The total of every series, over points whose time lies in `range`.
    pub fn new(range: TimeRange) -> Self {
        Self { range }
    }
}

/// Selects windows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WindowsQuery {
    /// Only this series, as it is after the sink's selection.
    pub series: Series,
    /// Only points whose time is in this range.
    pub range: TimeRange,
    /// The length of a window in nanoseconds: the sink's own window or a multiple of it; with window 0, a multiple of a
    /// millisecond. Windows begin at multiples of their length.
    pub resolution: i64,
}

impl WindowsQuery {
    /// The windows of a series, over points whose time lies in `range`.
    pub fn new(series: Series, range: TimeRange, resolution: i64) -> Self {
        Self { series, range, resolution: resolution.max(1) }
    }

    /// The start of the window that contains a time.
    pub fn window_start(&self, time: i64) -> i64 {
        time.saturating_sub(time.rem_euclid(self.resolution))
    }
}

/// What a backend holds of a series, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesTotal {
    /// The series, as it is after the sink's selection.
    pub series: Series,
    /// The sum of its values.
    pub total: u64,
}

/// What a backend holds of one series in one window, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowTotal {
    /// The window's start: nanoseconds since the Unix epoch.
    pub start: i64,
    /// The sum of its values.
    pub total: u64,
}

/// Receives totals in the order in which the backend returns them.
pub type VisitTotal<'v> = dyn FnMut(SeriesTotal) + Send + 'v;
/// Receives windows in the order in which the backend returns them.
pub type VisitWindow<'v> = dyn FnMut(WindowTotal) + Send + 'v;

/// Reads what a backend holds: for audits, and for operators who compare backends.
///
/// Values are visited in any order, and the same series or window may be visited several times: its total is the sum.
/// So a sink need not have all of them in memory at once. After an error, the values visited before are invalid.
#[async_trait]
pub trait ReadBack: Send + Sync {
    /// Visits the totals of all series. They include every write that was acknowledged before the call.
    ///
    /// # Errors
    /// The backend cannot be read, or holds data that no sink wrote.
    async fn totals(&self, query: &TotalsQuery, visit: &mut VisitTotal<'_>) -> Result<(), SinkError>;

    /// Visits the windows of one series.
    ///
    /// # Errors
    /// As [`ReadBack::totals`].
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitWindow<'_>) -> Result<(), SinkError>;
}

impl dyn ReadBack + '_ {
    /// All totals, each series once, in order.
    ///
    /// # Errors
    /// As [`ReadBack::totals`]; or a total exceeds 64 bits.
    pub async fn collect_totals(&self, query: &TotalsQuery) -> Result<Vec<SeriesTotal>, SinkError> {
        let mut sums = Sums::default();
        self.totals(query, &mut |SeriesTotal { series, total }| sums.add(series, total)).await?;
        let totals = sums.finish()?.map(|(series, total)| SeriesTotal { series, total });
        Ok(totals.collect())
    }

    /// All windows of one series, each once, in order.
    ///
    /// # Errors
    /// As [`ReadBack::windows`]; or a total exceeds 64 bits.
    pub async fn collect_windows(&self, query: &WindowsQuery) -> Result<Vec<WindowTotal>, SinkError> {
        let mut sums = Sums::default();
        self.windows(query, &mut |WindowTotal { start, total }| sums.add(start, total)).await?;
        let windows = sums.finish()?.map(|(start, total)| WindowTotal { start, total });
        Ok(windows.collect())
    }
}

/// Sums by a key.
struct Sums<K> {
    sums: BTreeMap<K, u64>,
    overflows: bool,
}

impl<K> Default for Sums<K> {
    fn default() -> Self {
        Self { sums: BTreeMap::new(), overflows: false }
    }
}

impl<K: Ord> Sums<K> {
    fn add(&mut self, key: K, value: u64) {
        let sum = self.sums.entry(key).or_default();
        let (added, overflows) = sum.overflowing_add(value);
        *sum = added;
        self.overflows |= overflows;
    }

    fn finish(self) -> Result<impl Iterator<Item = (K, u64)>, SinkError> {
        match self.overflows {
            true => Err(SinkError::Halt(
                "the backend holds a total over 2^64 - 1: check which other programs write there".to_owned(),
            )),
            false => Ok(self.sums.into_iter()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Visits these, each value apart.
    struct Pieces(Vec<(&'static str, i64, u64)>);

    #[async_trait]
    impl ReadBack for Pieces {
        async fn totals(&self, query: &TotalsQuery, visit: &mut VisitTotal<'_>) -> Result<(), SinkError> {
            for (name, time, total) in &self.0 {
                if query.range.contains(*time) {
                    visit(SeriesTotal { series: Series::from_sorted(name, &[]), total: *total });
                }
            }
            Ok(())
        }

        async fn windows(&self, query: &WindowsQuery, visit: &mut VisitWindow<'_>) -> Result<(), SinkError> {
            for (name, time, total) in &self.0 {
                if query.range.contains(*time) && *name == query.series.name() {
                    visit(WindowTotal { start: query.window_start(*time), total: *total });
                }
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn pieces_of_a_series_or_window_are_summed_in_order() {
        let pieces = Pieces(vec![("b", 5, 1), ("a", 25, 2), ("b", 15, 4), ("a", 21, 8), ("a", -1, 16)]);
        let read_back: &dyn ReadBack = &pieces;
        let series = |name: &str| Series::from_sorted(name, &[]);
        let total = |name: &str, total| SeriesTotal { series: series(name), total };
        let all = read_back.collect_totals(&TotalsQuery::default()).await.unwrap();
        assert_eq!(all, [total("a", 26), total("b", 5)]);
        let range = TimeRange { from: Some(10), to: None };
        assert_eq!(read_back.collect_totals(&TotalsQuery::new(range)).await.unwrap(), [total("a", 10), total("b", 4)]);
        let query = WindowsQuery::new(series("a"), TimeRange::default(), 10);
        let window = |start, total| WindowTotal { start, total };
        assert_eq!(read_back.collect_windows(&query).await.unwrap(), [window(-10, 16), window(20, 10)]);
    }

    #[tokio::test]
    async fn a_total_over_64_bits_is_an_error() {
        let pieces = Pieces(vec![("a", 0, u64::MAX), ("a", 1, 1)]);
        let read_back: &dyn ReadBack = &pieces;
        assert!(matches!(read_back.collect_totals(&TotalsQuery::default()).await, Err(SinkError::Halt(_))));
        let by_time = WindowsQuery::new(Series::from_sorted("a", &[]), TimeRange::default(), 1);
        assert_eq!(read_back.collect_windows(&by_time).await.unwrap().len(), 2);
    }
}
