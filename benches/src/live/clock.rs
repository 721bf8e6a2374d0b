//! One clock for everything that a run notes.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

struct Origin {
    instant: Instant,
    /// Nanoseconds since the Unix epoch, negative before it.
    wall: i128,
}

static ORIGIN: LazyLock<Origin> = LazyLock::new(|| Origin { instant: Instant::now(), wall: wall() });

/// Nanoseconds since the run began.
#[must_use]
pub fn now() -> u64 {
    of(Instant::now())
}

/// The same, of an instant.
#[must_use]
pub fn of(instant: Instant) -> u64 {
    nanos(instant.saturating_duration_since(ORIGIN.instant).as_nanos())
}

/// The same, of a time of day in nanoseconds since the Unix epoch; 0 before the run began. Both clocks run alike within one
/// run, unless the time of day is set meanwhile.
#[must_use]
pub fn of_wall(nanoseconds: i64) -> u64 {
    nanos(u128::try_from(i128::from(nanoseconds) - ORIGIN.wall).unwrap_or(0))
}

/// Begins the run's time, if nobody has.
pub fn begin() {
    LazyLock::force(&ORIGIN);
}

fn wall() -> i128 {
    let nanoseconds = |duration: std::time::Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => nanoseconds(since),
        Err(before) => -nanoseconds(before.duration()),
    }
}

fn nanos(nanoseconds: u128) -> u64 {
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}
