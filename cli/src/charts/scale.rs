/// Maps values to places on an axis, from 0 to 1, and chooses round ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// Equal steps are equally long.
    Linear { low: f64, high: f64, step: f64 },
    /// Equal ratios are equally long; the bounds are exponents of ten.
    Log { low: i32, high: i32 },
}

/// About how many ticks an axis has.
const TICKS: f64 = 5.0;
/// The most decades that have a tick each.
const DECADES: i32 = 7;
/// Figures beyond it are drawn at the end of the axis: the length of an axis must be a number too.
const LARGEST: f64 = 1e300;
/// Figures that differ by less are drawn in one place.
const SMALLEST: f64 = 1e-300;

impl Scale {
    /// From 0, or from the lowest value if that is negative, to a round number at or above the highest.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = bounds(values).unwrap_or((0.0, 1.0));
        let (low, high) = (low.min(0.0), high.max(0.0));
        let high = if high - low < SMALLEST { 1.0 } else { high };
        let step = round_step(high, low);
        Self::Linear { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    /// From the lowest to the highest value.
    pub(super) fn between(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = bounds(values).unwrap_or((0.0, 1.0));
        // One point stands in the middle.
        let (low, high) = match high - low < SMALLEST {
            true if low.abs() < SMALLEST => (-0.5, 0.5),
            true => (low - low.abs() / 2.0, low + low.abs() / 2.0),
            false => (low, high),
        };
        Self::Linear { low, high, step: round_step(high, low) }
    }

    /// Whole decades around the values; those that are not above 0 have no place on it and are drawn at its lower end.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = bounds(values.filter(|value| *value > 0.0)).unwrap_or((0.001, 1.0));
        let (low, high) = (exponent(low.log10().floor()), exponent(high.log10().ceil()));
        Self::Log { low, high: high.max(low + 1) }
    }

    /// Where a value stands: 0 at the lower end, 1 at the upper one, never outside.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = match *self {
            Self::Linear { low, high, .. } => (value.clamp(low, high) - low) / (high - low),
            Self::Log { low, .. } if value <= 0.0 || value < 10f64.powi(low) => 0.0,
            Self::Log { low, high } => (value.log10() - f64::from(low)) / f64::from(high - low),
        };
        place.clamp(0.0, 1.0)
    }

    /// The values that have a tick, in order.
    pub(super) fn ticks(&self) -> Vec<f64> {
        match *self {
            Self::Linear { low, high, step } => {
                let first = (low / step).ceil();
                let ticks = (0..=20).map(|tick| (first + f64::from(tick)) * step);
                // What rounding adds at the upper end is not beyond it.
                ticks.take_while(|tick| *tick <= high + step / 1e6).map(|tick| tick + 0.0).collect()
            }
            Self::Log { low, high } => {
                let every = (high - low + DECADES - 1) / DECADES;
                let decades = (low..=high).step_by(usize::try_from(every).unwrap_or(1));
                let inside: &[f64] = if high - low == 1 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let ticks = decades.flat_map(|decade| inside.iter().map(move |digit| digit * 10f64.powi(decade)));
                ticks.filter(|tick| *tick <= 10f64.powi(high) * 1.000_001).collect()
            }
        }
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let values = values.filter(|value| value.is_finite()).map(|value| value.clamp(-LARGEST, LARGEST));
    values.fold(None, |bounds, value| match bounds {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// 1, 2 or 5 times a power of ten, so that there are about [`TICKS`] steps.
fn round_step(high: f64, low: f64) -> f64 {
    let rough = high / TICKS - low / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough * 0.999);
    step.filter(|step| step.is_finite() && *step > 0.0).unwrap_or(rough)
}

/// The exponents of all finite numbers.
#[expect(clippy::cast_possible_truncation, reason = "clamped to the exponents that a number can have")]
fn exponent(value: f64) -> i32 {
    value.clamp(-307.0, 307.0) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        for (values, expected) in [
            (vec![], vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
            (vec![0.0], vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
            (vec![3.0, 10.0], vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (vec![970_000.0], vec![0.0, 200_000.0, 400_000.0, 600_000.0, 800_000.0, 1_000_000.0]),
            (vec![-4.0, 6.0], vec![-4.0, -2.0, 0.0, 2.0, 4.0, 6.0]),
            (vec![f64::NAN, 1e18], vec![0.0, 2e17, 4e17, 6e17, 8e17, 1e18]),
        ] {
            let ticks = Scale::from_zero(values.iter().copied()).ticks();
            let are_equal = ticks.len() == expected.len()
                && ticks.iter().zip(&expected).all(|(tick, expected)| (tick - expected).abs() <= expected.abs() * 1e-9);
            assert!(are_equal, "{values:?}: {ticks:?}");
        }
    }

    #[test]
    fn a_log_axis_has_decades() {
        let ticks = |values: &[f64]| Scale::log(values.iter().copied()).ticks();
        assert_eq!(ticks(&[0.0, 0.002, 0.7]).len(), 4, "from 1 ms to 1 s");
        assert_eq!(ticks(&[2.0]), [1.0, 2.0, 5.0, 10.0]);
        assert!(ticks(&[1e-300, 1e300]).len() <= 8);
        assert_eq!(ticks(&[]).len(), 4);
    }

    #[test]
    fn every_finite_value_has_a_place_on_every_axis() {
        let extreme = [0.0, -1.0, f64::MIN_POSITIVE, 1e-300, 1.0, 1e18, f64::MAX, f64::MIN];
        for low in extreme {
            for high in extreme {
                let values = || [low, high].into_iter();
                for scale in [Scale::from_zero(values()), Scale::between(values()), Scale::log(values())] {
                    assert!(scale.ticks().len() <= 21, "{scale:?}");
                    for value in extreme {
                        let place = scale.place(value);
                        assert!((0.0..=1.0).contains(&place), "{value} on {scale:?}: {place}");
                    }
                }
            }
        }
    }
}
