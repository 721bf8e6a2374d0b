//! The clock of the publisher: it dates the counts, and logs when the system's clock jumps.

use std::time::{Duration, SystemTime};

use crate::sys;
use crate::time::nanos_of;
use crate::timeline::{Finding, Timeline};

/// Reads the wall clock; the system's unless a test replaces it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock(pub(crate) fn() -> SystemTime);

impl Default for WallClock {
    fn default() -> Self {
        Self(SystemTime::now)
    }
}

impl PartialEq for WallClock {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for WallClock {}

/// See the module.
#[derive(Debug)]
pub(crate) struct Clock {
    wall: WallClock,
    timeline: Timeline,
    last: Option<i64>,
    moved: i64,
}

impl Clock {
    pub(crate) fn new(wall: WallClock) -> Self {
        Self { wall, timeline: Timeline::default(), last: None, moved: 0 }
    }

    /// The time in nanoseconds since the Unix epoch, later than the time before unless [`Self::take_moved`] says
    /// otherwise. `None` until the system's clock has shown a valid time; then always a time.
    pub(crate) fn now(&mut self) -> Option<i64> {
        let (time, finding) = self.timeline.read(nanos_of((self.wall.0)()), sys::monotonic())?;
        log(finding);
        if let Finding::Adopted(by) = finding {
            self.moved = self.moved.saturating_add(by);
            self.last = None;
        }
        // The system's clock may be set back a little.
        let time = self.last.map_or(time, |last| time.max(last + 1));
        self.last = Some(time);
        Some(time)
    }

    /// By how much times have been moved since the last call, in nanoseconds: earlier times, moved too, keep their
    /// distance from later ones.
    pub(crate) fn take_moved(&mut self) -> i64 {
        std::mem::take(&mut self.moved)
    }
}

fn log(finding: Finding) {
    match finding {
        Finding::Steady | Finding::Away => {}
        Finding::Jumped(Some(by)) => tracing::warn!(
            "the system clock jumped by {}: counts are dated by the monotonic clock until it is back, or has gone on \
             steadily for a minute",
            signed(by)
        ),
        Finding::Jumped(None) => tracing::warn!(
            "the system clock shows a time before 1970 or after 2262: counts are dated by the monotonic clock until it is \
             set"
        ),
        Finding::Returned => tracing::info!("the system clock is back: counts are dated by it again"),
        Finding::Adopted(by) => tracing::warn!(
            "the system clock has gone on steadily since it jumped by {}: counts are dated by it from now on",
            signed(by)
        ),
    }
}

fn signed(nanos: i64) -> String {
    let length = Duration::from_nanos(nanos.unsigned_abs());
    format!("{}{:.1} s", if nanos < 0 { '-' } else { '+' }, length.as_secs_f64())
}
