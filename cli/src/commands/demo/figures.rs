use serde_json::{Value, json};
use tallybus_verify::audit::SinkReport;

use super::directory::what;
use super::samples::{Sample, delays, settled_after};
use crate::charts::Unit;
use crate::text::{Table, grouped};

/// What the demo measured of one sink.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) name: String,
    /// The backend and its windows, in words.
    pub(super) what: String,
    /// What its files take.
    pub(super) bytes: u64,
    /// Sums that it holds: one for each series and window. `None` when it could not be read.
    pub(super) windows: Option<u64>,
    /// The most messages that it was behind the bus.
    pub(super) most_behind: u64,
    /// As [`delays`] has it.
    pub(super) delays: Vec<(f64, f64)>,
    /// As [`settled_after`] has it.
    pub(super) settled_after: Option<f64>,
}

impl Figures {
    pub(super) fn new(number: usize, report: &SinkReport, samples: &[Sample], bytes: u64) -> Self {
        Self {
            name: report.name.clone(),
            what: what(&report.name).to_owned(),
            bytes,
            windows: report.outcome.as_ref().ok().map(|findings| findings.windows as u64),
            most_behind: samples.iter().map(|sample| sample.behind(number)).max().unwrap_or(0),
            delays: delays(samples, number),
            settled_after: settled_after(samples, number),
        }
    }

    /// The time within which this share of the messages was settled.
    pub(super) fn within(&self, share: f64) -> Option<f64> {
        self.delays.iter().find(|(_, reached)| *reached >= share - 1e-9).map(|(delay, _)| *delay)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "bytes": self.bytes,
            "windows": self.windows,
            "most_behind": self.most_behind,
            "half_settled_within_seconds": self.within(0.5),
            "all_settled_within_seconds": self.within(1.0),
            "settled_after_seconds": self.settled_after,
        })
    }
}

/// The sinks side by side, for a terminal.
pub(super) fn table(all: &[Figures]) -> Table {
    let mut table = Table::new(&["sink", ">on disk", ">windows", ">most behind", ">half within", ">all within"]);
    for figures in all {
        let windows = figures.windows.map(|windows| windows as f64);
        table.row(vec![
            figures.name.clone(),
            Unit::Bytes.exact(Some(figures.bytes as f64)),
            Unit::Count("windows").exact(windows),
            grouped(figures.most_behind),
            Unit::Seconds.exact(figures.within(0.5)),
            Unit::Seconds.exact(figures.within(1.0)),
        ]);
    }
    table
}
