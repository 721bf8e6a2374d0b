//! Injected time: code that reads time or sleeps uses a [`Clock`], so that a test or a simulation controls the time.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

/// A future that completes after the wait.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Monotonic time, wall time, and waiting.
pub trait Clock: Debug + Send + Sync {
    /// Monotonic: never goes back, whatever the operator or NTP does to the wall clock.
    fn now(&self) -> Instant;

    /// The wall clock, which may jump.
    fn wall_time(&self) -> SystemTime;

    /// Blocks the calling thread.
    fn sleep(&self, duration: Duration);

    /// Waits without blocking a thread.
    fn sleep_async(&self, duration: Duration) -> Sleep;
}

/// A clock that only a test or a simulation moves. Cheap to clone: clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    passed: Duration,
    wall_time: SystemTime,
    sleepers: Vec<Waker>,
}

impl ManualClock {
    /// Creates a clock that stands still at this wall time.
    pub fn at(wall_time: SystemTime) -> Self {
        let state = State { passed: Duration::ZERO, wall_time, sleepers: Vec::new() };
        Self(Arc::new(Shared { started: Instant::now(), state: Mutex::new(state) }))
    }

    /// Advances the time, and wakes all sleepers that are due.
    pub fn advance(&self, duration: Duration) {
        let sleepers = {
            let mut state = self.state();
            state.passed = state.passed.saturating_add(duration);
            state.wall_time += duration;
            std::mem::take(&mut state.sleepers)
        };
        sleepers.into_iter().for_each(Waker::wake);
    }

    /// The wall clock jumps, as an operator or NTP sets it; the monotonic time goes on.
    pub fn set_wall_time(&self, wall_time: SystemTime) {
        self.state().wall_time = wall_time;
    }

    /// How much time has passed since the clock was created.
    pub fn passed(&self) -> Duration {
        self.state().passed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values, always consistent, so a poisoned lock is harmless.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.0.started + self.passed()
    }

    fn wall_time(&self) -> SystemTime {
        self.state().wall_time
    }

    /// Advances the time at once: no other code could move the clock while its only thread sleeps.
    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }

    fn sleep_async(&self, duration: Duration) -> Sleep {
        Box::pin(ManualSleep { clock: self.clone(), until: self.passed().saturating_add(duration) })
    }
}

struct ManualSleep {
    clock: ManualClock,
    until: Duration,
}

impl Future for ManualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.state();
        if state.passed >= self.until {
            return Poll::Ready(());
        }
        state.sleepers.push(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_moves_only_when_it_is_advanced() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let began = clock.now();
        let sleeper = clock.clone();
        let sleeping = tokio::spawn(async move {
            sleeper.sleep_async(Duration::from_secs(10)).await;
            sleeper.passed()
        });
        while clock.state().sleepers.is_empty() {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(9));
        assert!(!sleeping.is_finished());
        clock.advance(Duration::from_secs(1));
        assert_eq!(sleeping.await.unwrap(), Duration::from_secs(10));
        clock.sleep(Duration::from_secs(5));
        assert_eq!(clock.now() - began, Duration::from_secs(15));
        assert_eq!(clock.wall_time(), SystemTime::UNIX_EPOCH + Duration::from_secs(15));
        clock.set_wall_time(SystemTime::UNIX_EPOCH);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.wall_time(), SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(clock.now() - began, Duration::from_secs(16), "the monotonic time does not jump");
    }
}
