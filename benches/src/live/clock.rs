//! One clock for everything that a run notes.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

struct Origin {
    instant: Instant,
    wall: u64,
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

/// The same, of a time of day in nanoseconds since the Unix epoch. Both clocks run alike within one run, unless somebody sets
/// the time of day meanwhile.
#[must_use]
pub fn of_wall(nanoseconds: i64) -> u64 {
    u64::try_from(nanoseconds).unwrap_or(0).saturating_sub(ORIGIN.wall)
}

/// Begins the run's time, if nobody has.
pub fn begin() {
    LazyLock::force(&ORIGIN);
}

fn wall() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos())
}

fn nanos(nanoseconds: u128) -> u64 {
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}
