use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The time of a simulated bus.
pub trait Time: Send + Sync {
    /// Monotonic.
    fn now(&self) -> Instant;

    /// The wall clock, from which records get their timestamps.
    fn wall_time(&self) -> SystemTime;

    /// A caller of the bus waits: lets up to this much time pass, and does not block.
    fn pass(&self, wait: Duration);
}

/// A time that moves only while callers of the bus wait, and when it is told to.
#[derive(Debug)]
pub struct ManualTime {
    started: Instant,
    started_wall: SystemTime,
    passed: Mutex<Duration>,
}

impl ManualTime {
    /// Stands still at this wall time.
    pub fn at(wall_time: SystemTime) -> Self {
        Self { started: Instant::now(), started_wall: wall_time, passed: Mutex::default() }
    }

    fn passed(&self) -> Duration {
        // A plain value: a poisoned lock is harmless.
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Time for ManualTime {
    fn now(&self) -> Instant {
        self.started + self.passed()
    }

    fn wall_time(&self) -> SystemTime {
        self.started_wall + self.passed()
    }

    fn pass(&self, wait: Duration) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        *passed = passed.saturating_add(wait);
    }
}
