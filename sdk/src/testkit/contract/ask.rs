//! The queries of a sink, as one call each.

use tallybus_schemas::Series;

use crate::{ReadBack, SeriesTotal, Sink, SinkError, TimeRange, TotalsQuery, WindowsQuery};

pub trait Ask {
    async fn totals(&self, range: TimeRange) -> Result<Vec<SeriesTotal>, SinkError>;
    /// Start and sum of each window.
    async fn windows(&self, series: &Series, range: TimeRange, resolution: i64) -> Result<Vec<(i64, u64)>, SinkError>;
    async fn prepare(&self) -> Result<(), SinkError>;
    async fn fix(&self) -> Result<(), SinkError>;
    fn ddl(&self) -> Option<String>;
}

fn read_back(sink: &dyn Sink) -> &dyn ReadBack {
    sink.read_back().expect("it can be read back")
}

impl Ask for dyn Sink + '_ {
    async fn totals(&self, range: TimeRange) -> Result<Vec<SeriesTotal>, SinkError> {
        read_back(self).collect_totals(&TotalsQuery::new(range)).await
    }

    async fn windows(&self, series: &Series, range: TimeRange, resolution: i64) -> Result<Vec<(i64, u64)>, SinkError> {
        let query = WindowsQuery::new(series.clone(), range, resolution);
        let windows = read_back(self).collect_windows(&query).await?;
        Ok(windows.into_iter().map(|window| (window.start, window.total)).collect())
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
