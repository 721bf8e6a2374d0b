use std::time::Duration;

/// The time of the oldest message that is not settled.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Oldest {
    /// There was none.
    #[default]
    None,
    /// Milliseconds since the Unix epoch.
    At(i64),
    /// A message has no timestamp, so it may be of any age.
    Unknown,
}

impl Oldest {
    /// Notes the time of a message that is not settled: milliseconds since the Unix epoch, negative when it has none.
    pub(super) fn note(&mut self, time_ms: i64) {
        *self = match *self {
            _ if time_ms < 0 => Self::Unknown,
            Self::None => Self::At(time_ms),
            Self::At(oldest) => Self::At(oldest.min(time_ms)),
            Self::Unknown => Self::Unknown,
        };
    }

    /// The age of the oldest at `now` (nanoseconds since the Unix epoch); `None` when there is none or it is not known. The
    /// clock of a producer may be ahead: such a message has no age yet.
    pub(super) fn age(self, now: i64) -> Option<Duration> {
        match self {
            Self::At(time_ms) => Some(age(now, time_ms)),
            Self::None | Self::Unknown => None,
        }
    }
}

/// The age at `now` (nanoseconds) of a message of this time (milliseconds).
fn age(now: i64, time_ms: i64) -> Duration {
    let nanos = now.saturating_sub(time_ms.saturating_mul(1_000_000));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_message_decides_and_one_without_a_time_leaves_the_age_unknown() {
        for (times, expected) in [
            (&[][..], None),
            (&[0], Some(10_000)),
            (&[7_000, 3_000, 5_000], Some(7_000)),
            (&[9_999], Some(1)),
            // Its producer's clock is ahead.
            (&[12_000], Some(0)),
            (&[-1], None),
            (&[3_000, -1, 5_000], None),
        ] {
            let mut oldest = Oldest::default();
            times.iter().for_each(|time_ms| oldest.note(*time_ms));
            assert_eq!(oldest.age(10_000_000_000), expected.map(Duration::from_millis), "{times:?}");
        }
    }
}
