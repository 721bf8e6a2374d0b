//! One virtual time for everything.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use tallybus_bus::sim::Time;
use tallybus_sdk::clock::{Clock, ManualClock, Sleep};
use tokio::runtime::Runtime;

/// A caller of the bus never waits longer: others get their turn.
const LONGEST_WAIT: Duration = Duration::from_millis(5);
/// Enough for a batch to get from the encoder to the backend and its answer back.
const TURNS: u32 = 24;

/// The time of the bus.
pub(crate) struct BusTime(pub(crate) ManualClock);

impl Time for BusTime {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn wall_time(&self) -> SystemTime {
        self.0.wall_time()
    }

    fn pass(&self, wait: Duration) {
        self.0.advance(wait.min(LONGEST_WAIT));
    }
}

/// The time of one process: while its polling thread sleeps, its other tasks run.
pub(crate) struct ProcessClock {
    time: ManualClock,
    runtime: Weak<Runtime>,
}

impl ProcessClock {
    pub(crate) fn new(time: ManualClock, runtime: &Arc<Runtime>) -> Self {
        Self { time, runtime: Arc::downgrade(runtime) }
    }
}

impl fmt::Debug for ProcessClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProcessClock")
    }
}

impl Clock for ProcessClock {
    fn now(&self) -> Instant {
        self.time.now()
    }

    fn wall_time(&self) -> SystemTime {
        self.time.wall_time()
    }

    fn sleep(&self, duration: Duration) {
        self.time.advance(duration);
        if let Some(runtime) = self.runtime.upgrade() {
            turn(&runtime, TURNS);
        }
    }

    fn sleep_async(&self, duration: Duration) -> Sleep {
        self.time.sleep_async(duration)
    }
}

/// Runs a process's tasks for a few turns; `None` for so many that they wait for time or for each other.
pub(crate) fn run_tasks(runtime: &Runtime, turns: Option<u32>) {
    turn(runtime, turns.unwrap_or(TURNS));
}

fn turn(runtime: &Runtime, turns: u32) {
    runtime.block_on(async {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    });
}
