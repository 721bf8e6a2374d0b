//! The number of concurrent requests: raised while requests succeed, halved when the table throttles.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bound on requests at once, between 1 and `concurrency` of the settings, shared by all partitions of a sink. Permits are
/// given out in the order in which they are asked for.
#[derive(Debug)]
pub(super) struct AdaptiveConcurrency {
    most: usize,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// Permits that are still in use and are not given out again.
    surplus: usize,
    /// Answers since the limit last rose.
    good: usize,
    /// Counts how often the limit fell.
    falls: u64,
}

/// The right to make one request. Given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    concurrency: Arc<AdaptiveConcurrency>,
    held: Option<OwnedSemaphorePermit>,
    falls: u64,
}

impl AdaptiveConcurrency {
    /// Begins at the maximum.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let state = State { limit: most, surplus: 0, good: 0, falls: 0 };
        Arc::new(Self { most, permits: Arc::new(Semaphore::new(most)), state: Mutex::new(state) })
    }

    /// Waits until one more request may be made.
    pub(super) async fn permit(self: &Arc<Self>) -> Permit {
        // The semaphore is never closed.
        let held = Arc::clone(&self.permits).acquire_owned().await.ok();
        let falls = self.lock().falls;
        Permit { concurrency: Arc::clone(self), held, falls }
    }

    #[cfg(test)]
    fn limit(&self) -> usize {
        self.lock().limit
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The table accepted the request. After as many successes as the limit, the limit rises by one.
    pub(super) fn succeeded(&self) {
        let mut state = self.concurrency.lock();
        state.good += 1;
        if state.good < state.limit || state.limit == self.concurrency.most {
            return;
        }
        state.good = 0;
        state.limit += 1;
        match state.surplus {
            0 => self.concurrency.permits.add_permits(1),
            _ => state.surplus -= 1,
        }
    }

    /// The table throttled. Requests that were made before the limit fell for the same reason do not halve it again.
    pub(super) fn was_throttled(&self) {
        let mut state = self.concurrency.lock();
        if state.falls != self.falls || state.limit == 1 {
            return;
        }
        let fewer = state.limit - state.limit / 2;
        let gone = self.concurrency.permits.forget_permits(state.limit - fewer);
        state.surplus += state.limit - fewer - gone;
        state.limit = fewer;
        state.good = 0;
        state.falls += 1;
        tracing::debug!(requests = state.limit, "DynamoDB throttles: concurrency reduced");
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.concurrency.lock();
        if state.surplus == 0 {
            return;
        }
        if let Some(held) = self.held.take() {
            state.surplus -= 1;
            held.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn free(concurrency: &Arc<AdaptiveConcurrency>) -> usize {
        let mut permits = Vec::new();
        while concurrency.permits.available_permits() > 0 {
            permits.push(concurrency.permit().await);
        }
        permits.len()
    }

    #[tokio::test]
    async fn it_halves_once_for_all_that_was_under_way_and_rises_one_by_one() {
        let concurrency = AdaptiveConcurrency::new(8);
        let under_way = [
            concurrency.permit().await,
            concurrency.permit().await,
            concurrency.permit().await,
            concurrency.permit().await,
            concurrency.permit().await,
        ];
        for permit in &under_way {
            permit.was_throttled();
        }
        assert_eq!(concurrency.limit(), 4);
        // Five are under way where four may be: the end of one does not free a permit.
        assert_eq!(free(&concurrency).await, 0);
        drop(under_way);
        assert_eq!(free(&concurrency).await, 4);
        for _ in 0..4 {
            concurrency.permit().await.succeeded();
        }
        assert_eq!((concurrency.limit(), free(&concurrency).await), (5, 5));
        for _ in 0..1_000 {
            concurrency.permit().await.succeeded();
        }
        assert_eq!((concurrency.limit(), free(&concurrency).await), (8, 8));
    }

    #[tokio::test]
    async fn one_request_is_always_allowed() {
        let concurrency = AdaptiveConcurrency::new(5);
        for expected in [3, 2, 1, 1, 1] {
            concurrency.permit().await.was_throttled();
            assert_eq!((concurrency.limit(), free(&concurrency).await), (expected, expected));
        }
        concurrency.permit().await.succeeded();
        assert_eq!((concurrency.limit(), free(&concurrency).await), (2, 2));
    }

    #[tokio::test]
    async fn a_caller_that_stops_waiting_takes_no_permit() {
        let concurrency = AdaptiveConcurrency::new(1);
        let permit = concurrency.permit().await;
        let mut waiting = Box::pin(concurrency.permit());
        assert!(tokio::time::timeout(std::time::Duration::from_millis(5), &mut waiting).await.is_err());
        drop(waiting);
        drop(permit);
        assert_eq!(free(&concurrency).await, 1);
    }
}
