//! The queries of a sink, as one call each.

use std::collections::BTreeMap;

use tallybus_schemas::Series;

use crate::{Holdings, Sink, SinkError, TimeRange, WindowsQuery};

/// What a sink holds of one series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesTotal {
    /// The series, as it is after the sink's selection.
    pub series: Series,
    /// The sum of its values.
    pub total: u64,
}

pub trait Ask {
    /// Everything, foreign points included.
    async fn holdings(&self, range: TimeRange) -> Result<Holdings, SinkError>;
    /// The sum of each series, in order, without foreign points.
    async fn totals(&self, range: TimeRange) -> Result<Vec<SeriesTotal>, SinkError>;
    /// Start and sum of each window of this length, without foreign points.
    async fn windows(&self, series: &Series, range: TimeRange, resolution: i64) -> Result<Vec<(i64, u64)>, SinkError>;
    async fn prepare(&self) -> Result<(), SinkError>;
    async fn fix(&self) -> Result<(), SinkError>;
    fn ddl(&self) -> Option<String>;
}

impl Ask for dyn Sink + '_ {
    async fn holdings(&self, range: TimeRange) -> Result<Holdings, SinkError> {
        self.read_back().expect("it can be read back").collect(&WindowsQuery::new(range)).await
    }

    async fn totals(&self, range: TimeRange) -> Result<Vec<SeriesTotal>, SinkError> {
        let holdings = self.holdings(range).await?;
        let totals = holdings.totals().into_iter();
        Ok(totals.map(|(series, total)| SeriesTotal { series: series.clone(), total: narrow(total) }).collect())
    }

    async fn windows(&self, series: &Series, range: TimeRange, resolution: i64) -> Result<Vec<(i64, u64)>, SinkError> {
        let mut sums: BTreeMap<i64, u64> = BTreeMap::new();
        for ((found, start), total) in self.holdings(range).await?.windows {
            if *found == *series {
                *sums.entry(start - start.rem_euclid(resolution)).or_default() += narrow(total);
            }
        }
        Ok(sums.into_iter().collect())
    }

    async fn prepare(&self) -> Result<(), SinkError> {
        match self.admin() {
            Some(admin) => admin.prepare().await,
            None => self.check().await,
        }
    }

    async fn fix(&self) -> Result<(), SinkError> {
        self.admin().expect("there is something to create").fix().await
    }

    fn ddl(&self) -> Option<String> {
        self.admin()?.ddl()
    }
}

fn narrow(total: u128) -> u64 {
    u64::try_from(total).expect("a total of a test that fits 64 bits")
}
