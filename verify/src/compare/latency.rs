//! Times from emit to queryable.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Times are kept in microseconds with three significant digits, up to a day.
const LONGEST: u64 = 24 * 3_600 * 1_000_000;
const DIGITS: u8 = 3;
/// At most so many points of the distribution are kept.
const POINTS: usize = 400;

/// How long probes took from the intended time of their emission until a query saw them. Times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many probes became visible.
    pub n: u64,
    /// How many did not before the comparison stopped waiting. They are not in the percentiles.
    pub never_seen: u64,
    /// Half of the probes took no longer.
    pub p50: f64,
    /// 90 % of the probes took no longer.
    pub p90: f64,
    /// 99 % of the probes took no longer.
    pub p99: f64,
    /// 99.9 % of the probes took no longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// How far each of these may be too high, because the backend was queried only so often: the median interval between the
    /// starts of two queries, the time that a query takes included.
    pub resolution: f64,
    /// The distribution, shortest first.
    pub distribution: Vec<Share>,
}

/// A point of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// A time in seconds.
    pub value: f64,
    /// The share of the probes that took no longer, from 0 to 1.
    pub cumulative: f64,
}

/// Collects times; constant memory.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None so far. `None` only if the histogram's constants were invalid, which a test excludes.
    pub fn new() -> Option<Self> {
        Histogram::new_with_bounds(1, LONGEST, DIGITS).ok().map(Self)
    }

    /// Adds one. A time beyond a day counts as a day.
    pub fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(LONGEST);
        self.0.saturating_record(micros.max(1));
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time in seconds that this share of them did not exceed; `None` of nothing.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        (self.count() > 0).then(|| seconds(self.0.value_at_quantile(share)))
    }

    /// The figures; `None` of nothing.
    pub fn report(&self, never_seen: u64, resolution: f64) -> Option<Latency> {
        let at = |share| self.quantile(share);
        Some(Latency {
            n: self.count(),
            never_seen,
            p50: at(0.5)?,
            p90: at(0.9)?,
            p99: at(0.99)?,
            p999: at(0.999)?,
            max: seconds(self.0.max()),
            resolution,
            distribution: self.distribution(),
        })
    }

    fn distribution(&self) -> Vec<Share> {
        let whole = self.count() as f64;
        let mut seen = 0;
        let mut all: Vec<Share> = Vec::new();
        for step in self.0.iter_recorded() {
            seen += step.count_since_last_iteration();
            let value = seconds(step.value_iterated_to());
            all.push(Share { value, cumulative: seen as f64 / whole });
        }
        let stride = all.len().div_ceil(POINTS).max(1);
        let last = all.len().saturating_sub(1);
        let kept = all.into_iter().enumerate().filter(|(index, _)| index % stride == 0 || *index == last);
        kept.map(|(_, share)| share).collect()
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(millis: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::new().unwrap();
        millis.into_iter().for_each(|millis| latencies.add(Duration::from_millis(millis)));
        latencies
    }

    #[test]
    fn percentiles_are_those_of_the_times_within_the_histograms_digits() {
        let report = latencies(1..=1_000).report(3, 0.01).unwrap();
        for (found, expected) in [(report.p50, 0.5), (report.p90, 0.9), (report.p99, 0.99), (report.max, 1.0)] {
            assert!((found - expected).abs() / expected < 0.002, "{found} is not {expected}");
        }
        assert_eq!((report.n, report.never_seen, report.resolution), (1_000, 3, 0.01));
    }

    #[test]
    fn a_stall_shows_in_p99_and_max() {
        // 200 probes at 10/s with a stall of 3 s: those that were due in the stall waited from their intended time.
        let stalled = (0..200).map(|probe| if (100..130).contains(&probe) { 3_000 - (probe - 100) * 100 } else { 20 });
        let report = latencies(stalled).report(0, 0.01).unwrap();
        assert!(report.p50 < 0.03 && report.p99 > 2.7 && report.max > 2.9, "{report:?}");
    }

    #[test]
    fn the_distribution_rises_to_one_and_stays_small() {
        let report = latencies((0..100_000).map(|probe| probe * 7 % 60_000)).report(0, 0.0).unwrap();
        assert!(report.distribution.len() <= POINTS + 1 && report.distribution.len() > 100);
        let rises = report
            .distribution
            .windows(2)
            .all(|two| two[0].value < two[1].value && two[0].cumulative < two[1].cumulative);
        assert!(rises);
        assert_eq!(report.distribution.last().unwrap().cumulative, 1.0);
    }

    #[test]
    fn nothing_has_no_percentiles_and_extremes_are_kept() {
        assert_eq!(latencies([]).report(5, 0.0), None);
        let mut extreme = Latencies::new().unwrap();
        extreme.add(Duration::ZERO);
        extreme.add(Duration::MAX);
        assert_eq!(extreme.count(), 2);
        assert!(extreme.report(0, 0.0).unwrap().max > 86_000.0);
    }
}
