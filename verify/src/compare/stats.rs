//! Medians, and how far they may be off.

use serde::{Deserialize, Serialize};
use tallybus_sdk::Rng;

use super::Known;

/// How often the figures are drawn again for an interval.
const DRAWS: usize = 2_000;
/// With fewer figures, an interval would look narrower than it is.
pub const FEWEST_FIGURES: usize = 3;

/// The median of several figures, and its 95 % interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// How many figures it comes from.
    pub n: u64,
}

impl Summary {
    /// A figure that is the same however often it is measured, as the number of requests of one run.
    pub fn exactly(figure: f64) -> Self {
        Self { median: figure, low: figure, high: figure, n: 1 }
    }

    /// The same, where each figure may be off by this much in either direction.
    #[must_use]
    pub fn widened(self, by: f64) -> Self {
        Self { low: (self.low - by).max(0.0), high: self.high + by, ..self }
    }

    /// Whether both may be the same.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    /// The medians' difference, as a share of the smaller one. Infinite when only one of them is 0.
    pub fn difference(&self, other: &Self) -> f64 {
        let (small, large) = (self.median.min(other.median), self.median.max(other.median));
        if small == large { 0.0 } else { (large - small) / small }
    }
}

/// The median; `None` of nothing, and where a figure is not a number.
pub fn median(figures: &[f64]) -> Option<f64> {
    if figures.is_empty() || figures.iter().any(|figure| figure.is_nan()) {
        return None;
    }
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(middle(&sorted))
}

/// Of sorted figures, at least one.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

/// The median with its 95 % bootstrap interval (percentile method): the same seed gives the same interval. Not known of
/// fewer than [`FEWEST_FIGURES`] figures.
pub fn summarize(figures: &[f64], seed: u64) -> Known<Summary> {
    let Some(median) = median(figures) else {
        return Known::unknown(if figures.is_empty() { "nothing was measured" } else { "a figure is not a number" });
    };
    if figures.len() < FEWEST_FIGURES {
        return Known::unknown(format!("{} of at least {FEWEST_FIGURES} figures were measured", figures.len()));
    }
    let mut rng = Rng::new(seed);
    let mut drawn = vec![0.0; figures.len()];
    let mut medians: Vec<f64> = (0..DRAWS)
        .map(|_| {
            for figure in &mut drawn {
                let at = rng.below(figures.len() as u64);
                *figure = figures[usize::try_from(at).unwrap_or_default()];
            }
            drawn.sort_by(f64::total_cmp);
            middle(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let cut = DRAWS * 25 / 1_000;
    let (low, high) = (medians[cut], medians[DRAWS - 1 - cut]);
    Known::Is(Summary { median, low, high, n: figures.len() as u64 })
}

/// A straight line through points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    /// By how much the second coordinate grows with the first.
    pub(super) slope: f64,
    /// The slope's standard error.
    pub(super) error: f64,
}

/// The line of the least squares; `None` of fewer than three points, or of points with one first coordinate.
pub(super) fn line(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len() as f64;
    if points.len() < 3 {
        return None;
    }
    let mean = |figure: fn(&(f64, f64)) -> f64| points.iter().map(figure).sum::<f64>() / n;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if spread == 0.0 {
        return None;
    }
    let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
    let rest: f64 = points.iter().map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2)).sum();
    Some(Line { slope, error: (rest / (n - 2.0) / spread).sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_half_way_between_the_middle_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[f64::NAN, 1.0]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_it_lies_around_the_median() {
        let figures = [10.0, 12.0, 11.0, 30.0, 9.0];
        let summary = summarize(&figures, 7);
        assert_eq!(summary, summarize(&figures, 7));
        let Known::Is(summary) = summary else { panic!("{summary:?}") };
        assert_eq!((summary.median, summary.n), (11.0, 5));
        assert!(summary.low < 11.0 && summary.high > 11.0 && summary.low >= 9.0 && summary.high <= 30.0, "{summary:?}");
    }

    #[test]
    fn an_interval_holds_the_true_median_about_as_often_as_it_says() {
        // Uniform numbers below 1,000: the true median is 499.5. The percentile method is a little narrow for few figures.
        let mut rng = Rng::new(3);
        let mut held = 0;
        for seed in 0..400 {
            let figures: Vec<f64> = (0..15).map(|_| rng.below(1_000) as f64).collect();
            let Known::Is(summary) = summarize(&figures, seed) else { panic!("known") };
            held += u32::from(summary.low <= 499.5 && 499.5 <= summary.high);
        }
        assert!((360..=396).contains(&held), "{held} of 400");
    }

    #[test]
    fn too_few_figures_have_no_interval() {
        for figures in [&[][..], &[1.0], &[1.0, 2.0], &[1.0, 2.0, f64::NAN]] {
            assert!(summarize(figures, 1).reason().is_some(), "{figures:?}");
        }
    }

    #[test]
    fn a_difference_is_a_share_of_the_smaller_and_a_resolution_widens_both_ends() {
        let (a, b) = (Summary::exactly(100.0), Summary::exactly(110.0));
        assert!((a.difference(&b) - 0.1).abs() < 1e-12 && (b.difference(&a) - 0.1).abs() < 1e-12);
        assert_eq!(Summary::exactly(0.0).difference(&Summary::exactly(0.0)), 0.0);
        assert_eq!(Summary::exactly(0.0).difference(&a), f64::INFINITY);
        assert!(!a.overlaps(&b));
        assert!(a.clone().widened(5.0).overlaps(&b.clone().widened(5.0)));
        assert_eq!(a.widened(200.0).low, 0.0);
    }

    #[test]
    fn a_line_has_the_slope_of_its_points_and_scatter_makes_it_less_certain() {
        let points: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), 3.0 * f64::from(x) + 1.0)).collect();
        let exact = line(&points).unwrap();
        assert!((exact.slope - 3.0).abs() < 1e-9 && exact.error < 1e-6, "{exact:?}");
        let scattered: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), f64::from(x % 2) * 100.0)).collect();
        let scattered = line(&scattered).unwrap();
        assert!(scattered.slope.abs() < 2.0 * scattered.error, "{scattered:?}");
        assert!(line(&points[..2]).is_none() && line(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]).is_none());
    }
}
