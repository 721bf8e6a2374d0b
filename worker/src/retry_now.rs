//! Ends the waits of a worker before it asks its backend again.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tallybus_sdk::clock::{Clock, Sleep};
use tokio::sync::Notify;

/// Cheap to share.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryNow(Arc<Notify>);

impl RetryNow {
    /// Ends the waits that have begun.
    pub(crate) fn now(&self) {
        self.0.notify_waiters();
    }

    /// A clock whose asynchronous waits end early then.
    pub(crate) fn clock(&self, inner: Arc<dyn Clock>) -> ImpatientClock {
        ImpatientClock { inner, retries: self.clone() }
    }
}

/// See [`RetryNow::clock`].
#[derive(Debug)]
pub(crate) struct ImpatientClock {
    inner: Arc<dyn Clock>,
    retries: RetryNow,
}

impl Clock for ImpatientClock {
    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn wall_time(&self) -> SystemTime {
        self.inner.wall_time()
    }

    fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration);
    }

    fn sleep_async(&self, duration: Duration) -> Sleep {
        let (sleep, retries) = (self.inner.sleep_async(duration), Arc::clone(&self.retries.0));
        Box::pin(async move {
            tokio::select! {
                () = sleep => {}
                () = retries.notified() => {}
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use tallybus_sdk::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_its_time_or_when_asked_for_and_the_next_one_waits_again() {
        let inner = ManualClock::at(SystemTime::UNIX_EPOCH);
        let retries = RetryNow::default();
        let clock = retries.clock(Arc::new(inner.clone()));
        retries.now();
        let mut first = clock.sleep_async(Duration::from_secs(30));
        assert!(futures_poll(&mut first).is_pending(), "what was asked for before is over");
        retries.now();
        assert!(futures_poll(&mut first).is_ready());
        let mut second = clock.sleep_async(Duration::from_secs(30));
        assert!(futures_poll(&mut second).is_pending());
        inner.advance(Duration::from_secs(30));
        assert!(futures_poll(&mut second).is_ready());
    }

    fn futures_poll(sleep: &mut Sleep) -> Poll<()> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        sleep.as_mut().poll(&mut context)
    }
}
