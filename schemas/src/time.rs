use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The unit of times that a producer writes as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeUnit {
    /// `ns`: what is expected where nothing is declared.
    Nanoseconds,
    /// `us`.
    Microseconds,
    /// `ms`.
    Milliseconds,
    /// `s`.
    Seconds,
}

/// Not the name of a unit; change the setting that contains it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown time unit {0:?}: use ns, us, ms or s")]
pub struct UnknownTimeUnit(pub String);

impl TimeUnit {
    /// Every unit.
    pub const ALL: [Self; 4] = [Self::Nanoseconds, Self::Microseconds, Self::Milliseconds, Self::Seconds];

    /// Its name in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
        }
    }

    const fn nanoseconds(self) -> i64 {
        match self {
            Self::Nanoseconds => 1,
            Self::Microseconds => 1_000,
            Self::Milliseconds => 1_000_000,
            Self::Seconds => 1_000_000_000,
        }
    }
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TimeUnit {
    type Err = UnknownTimeUnit;

    fn from_str(name: &str) -> Result<Self, UnknownTimeUnit> {
        let known = Self::ALL.into_iter().find(|unit| unit.name() == name);
        known.ok_or_else(|| UnknownTimeUnit(crate::error::excerpt(name)))
    }
}

/// 3 March 1973 in nanoseconds since the Unix epoch. The same number of a coarser unit is later than any event.
const PLAUSIBLE: i64 = 100_000_000_000_000_000;
/// The same date in seconds since the Unix epoch.
const SECONDS: i64 = PLAUSIBLE / 1_000_000_000;

pub(crate) const TOO_EARLY: &str = "must not be before 1970";
pub(crate) const TOO_LATE: &str = "must not be after April 2262";

/// The time that a number means, in nanoseconds since the Unix epoch.
///
/// # Errors
/// The number is most likely of another unit: as nanoseconds it would be a time before March 1973. (A smaller number than
/// the seconds until then is early in 1970 in every unit, and stays what it is.) Where a unit is declared, the number does
/// not fit it. Nanoseconds that are declared are never in doubt.
#[inline]
pub(crate) fn nanoseconds(number: i64, declared: Option<TimeUnit>) -> Result<i64, &'static str> {
    match declared {
        None if (SECONDS..PLAUSIBLE).contains(&number) => Err(other_unit(number)),
        None | Some(TimeUnit::Nanoseconds) => Ok(number),
        Some(unit) => {
            let time = number.checked_mul(unit.nanoseconds());
            let time = time.ok_or("is after April 2262 in the topic's declared unit (`time_units`)")?;
            if (SECONDS..PLAUSIBLE).contains(&time) {
                return Err("is before 1973 in the topic's declared unit (`time_units`)");
            }
            Ok(time)
        }
    }
}

fn other_unit(number: i64) -> &'static str {
    if number < 100_000_000_000 {
        "looks like seconds: write nanoseconds, or declare the topic's unit (`time_units`) as \"s\""
    } else if number < 100_000_000_000_000 {
        "looks like milliseconds: write nanoseconds, or declare the topic's unit (`time_units`) as \"ms\""
    } else {
        "looks like microseconds: write nanoseconds, or declare the topic's unit (`time_units`) as \"us\""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_time_in_nanoseconds_names_the_likely_unit() {
        for (number, unit) in [
            (1_700_000_000, "looks like seconds"),
            (1_700_000_000_123, "looks like milliseconds"),
            (1_700_000_000_123_456, "looks like microseconds"),
        ] {
            assert!(nanoseconds(number, None).unwrap_err().starts_with(unit), "{number}");
            assert_eq!(nanoseconds(number, Some(TimeUnit::Nanoseconds)), Ok(number));
        }
        for number in [0, 5, SECONDS - 1, PLAUSIBLE, 1_700_000_000_123_456_789, i64::MAX] {
            assert_eq!(nanoseconds(number, None), Ok(number));
        }
    }

    #[test]
    fn a_declared_unit_is_converted_and_a_number_of_another_is_refused() {
        use TimeUnit::{Microseconds, Milliseconds, Seconds};
        assert_eq!(nanoseconds(1_700_000_000, Some(Seconds)), Ok(1_700_000_000_000_000_000));
        assert_eq!(nanoseconds(1_700_000_000_123, Some(Milliseconds)), Ok(1_700_000_000_123_000_000));
        assert_eq!(nanoseconds(1_700_000_000_123_456, Some(Microseconds)), Ok(1_700_000_000_123_456_000));
        let refused = |number, unit| nanoseconds(number, Some(unit)).unwrap_err();
        assert!(refused(1_700_000_000_123, Seconds).starts_with("is after April 2262"));
        assert!(refused(1_700_000_000, Milliseconds).starts_with("is before 1973"));
        assert!(refused(1_700_000_000_000_000_000, Milliseconds).starts_with("is after April 2262"));
    }

    #[test]
    fn names_go_both_ways() {
        for unit in TimeUnit::ALL {
            assert_eq!(unit.to_string().parse(), Ok(unit));
        }
        let error = "sec".parse::<TimeUnit>().unwrap_err();
        assert_eq!(error.to_string(), "unknown time unit \"sec\": use ns, us, ms or s");
    }
}
