use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tallybus_schemas::Series;

use crate::{Answer, BackendVersion, Question, SinkError, Storage, TimeRange};

/// Selects windows.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct WindowsQuery {
    /// Only points whose time is in this range.
    pub range: TimeRange,
    /// Only series of this counter name are wanted. A sink asks its backend for these alone where it can, and may visit others
    /// as well: the caller ignores them.
    pub name: Option<String>,
}

impl WindowsQuery {
    /// Everything whose time lies in `range`.
    pub fn new(range: TimeRange) -> Self {
        Self { range, name: None }
    }

    /// Of these, only series of one counter name are wanted.
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }
}

/// What a backend holds of one series in one window, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowTotal {
    /// The series, as it is after the sink's selection. A sink that visits several windows of one series in a row visits
    /// them with the same `Arc`: that spares whoever reads them a look-up.
    pub series: Arc<Series>,
    /// The time that the backend has for it: nanoseconds since the Unix epoch. The start of the window, unless the
    /// backend needs several times for the points of one window.
    pub start: i64,
    /// The sum of its values.
    pub total: u128,
}

/// Something in the destination that no sink writes: it came from another program, or was changed by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Why no sink wrote it.
    pub kind: ForeignKind,
    /// What it is and where, in the backend's terms, for operators. Text from the backend, not escaped.
    pub what: String,
    /// How many points or rows it stands for; at least 1.
    pub points: u64,
}

impl Foreign {
    /// One point or row.
    pub fn new(kind: ForeignKind, what: impl fmt::Display) -> Self {
        Self { kind, what: what.to_string(), points: 1 }
    }

    /// The same for several.
    pub fn of(self, points: u64) -> Self {
        Self { points, ..self }
    }
}

/// Why a point is foreign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ForeignKind {
    /// Its name or tags are not those of a series.
    Tags,
    /// Its value is negative.
    Negative,
    /// Its value is not a whole number.
    Fraction,
    /// Its value has a type that the sink does not write.
    ValueType,
    /// Its time is before 1970.
    BeforeEpoch,
    /// Its time is missing, or has a form that the sink does not write.
    Time,
    /// Its time is not the start of a window.
    OffWindow,
}

impl fmt::Display for ForeignKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tags => "not the name and tags of a series",
            Self::Negative => "negative value",
            Self::Fraction => "fractional value",
            Self::ValueType => "another type of value",
            Self::BeforeEpoch => "time before 1970",
            Self::Time => "not a time that the sink writes",
            Self::OffWindow => "time that is not a window's start",
        })
    }
}

/// One thing that a backend holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// What a sink wrote, or what cannot be told apart from it.
    Window(WindowTotal),
    /// What no sink wrote. It is visited in place of an error, so that it hides nothing else.
    Foreign(Foreign),
}

/// Receives what a backend holds, in the order in which the backend returns it.
pub type VisitHeld<'v> = dyn FnMut(Held) + Send + 'v;

/// Reads what a backend holds: for audits, and for operators who compare backends.
///
/// Everything in the range is visited, in any order, and the same series and window may be visited several times: its
/// total is the sum. So a sink need not have all of it in memory at once. After an error, what was visited before is
/// invalid.
#[async_trait]
pub trait ReadBack: Send + Sync {
    /// Visits everything that the destination holds in the range, foreign points included. It includes every write that
    /// was acknowledged before the call.
    ///
    /// # Errors
    /// The backend cannot be read. Foreign points are no error.
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError>;

    /// Asks the backend one question. The answer includes every write that was acknowledged before the call. What no sink
    /// wrote may be part of it: an audit names that.
    ///
    /// # Errors
    /// The backend cannot be read. A question that it does not answer is [`Answer::NotOffered`].
    async fn ask(&self, question: &Question) -> Result<Answer, SinkError> {
        let _ = question;
        Ok(Answer::NotOffered("this kind of sink answers no questions"))
    }

    /// How much storage the destination takes now.
    ///
    /// # Errors
    /// The backend cannot be read. A backend that does not say is [`Storage::NotOffered`].
    async fn storage(&self) -> Result<Storage, SinkError> {
        Ok(Storage::NotOffered("this kind of sink does not say"))
    }

    /// Which version the backend has.
    ///
    /// # Errors
    /// The backend cannot be reached. A backend that names none is [`BackendVersion::NotOffered`].
    async fn version(&self) -> Result<BackendVersion, SinkError> {
        Ok(BackendVersion::NotOffered("this kind of sink does not ask its backend for it"))
    }
}

/// All that a backend holds in a range, in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The sum by series and time.
    pub windows: BTreeMap<(Arc<Series>, i64), u128>,
    /// What no sink wrote.
    pub foreign: Vec<Foreign>,
}

impl dyn ReadBack + '_ {
    /// Reads everything into memory: for tests and small destinations.
    ///
    /// # Errors
    /// As [`ReadBack::windows`].
    pub async fn collect(&self, query: &WindowsQuery) -> Result<Holdings, SinkError> {
        let mut holdings = Holdings::default();
        self.windows(query, &mut |held| match held {
            Held::Window(WindowTotal { series, start, total }) => {
                let sum = holdings.windows.entry((series, start)).or_default();
                *sum = sum.saturating_add(total);
            }
            Held::Foreign(foreign) => holdings.foreign.push(foreign),
        })
        .await?;
        Ok(holdings)
    }
}

impl Holdings {
    /// The sum of each series, in order.
    pub fn totals(&self) -> BTreeMap<&Series, u128> {
        let mut totals: BTreeMap<&Series, u128> = BTreeMap::new();
        for ((series, _), total) in &self.windows {
            let sum = totals.entry(series).or_default();
            *sum = sum.saturating_add(*total);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Visits these, each value apart.
    struct Pieces(Vec<(&'static str, i64, u128)>);

    #[async_trait]
    impl ReadBack for Pieces {
        async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
            for (name, start, total) in &self.0 {
                if query.range.contains(*start) {
                    let series = Arc::new(Series::from_sorted(name, &[]));
                    visit(Held::Window(WindowTotal { series, start: *start, total: *total }));
                }
            }
            visit(Held::Foreign(Foreign::new(ForeignKind::Negative, "a row").of(2)));
            Ok(())
        }
    }

    #[tokio::test]
    async fn pieces_of_a_window_are_summed_in_128_bits_and_foreign_points_are_kept() {
        let most = u128::from(u64::MAX);
        let pieces = Pieces(vec![("b", 5, 1), ("a", 20, most), ("b", 15, 4), ("a", 20, most), ("a", -1, 16)]);
        let read_back: &dyn ReadBack = &pieces;
        let series = |name: &str| Arc::new(Series::from_sorted(name, &[]));
        let all = read_back.collect(&WindowsQuery::default()).await.unwrap();
        let expected = [(("a", -1), 16), (("a", 20), 2 * most), (("b", 5), 1), (("b", 15), 4)];
        let expected = expected.map(|((name, start), total)| ((series(name), start), total));
        assert_eq!(all.windows, BTreeMap::from(expected));
        assert_eq!(all.totals().into_values().collect::<Vec<_>>(), [2 * most + 16, 5]);
        assert_eq!(all.foreign, [Foreign { kind: ForeignKind::Negative, what: "a row".to_owned(), points: 2 }]);
        let range = TimeRange { from: Some(0), to: Some(15) };
        let some = read_back.collect(&WindowsQuery::new(range)).await.unwrap();
        assert_eq!(some.windows, BTreeMap::from([((series("b"), 5), 1)]));
    }
}
