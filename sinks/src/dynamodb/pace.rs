//! How many requests are made at once: more while all goes well, half when the table asks for less.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Shared by all lanes of a sink; who waits longest is next. Between 1 and the most that the settings allow.
#[derive(Debug)]
pub(super) struct Pace {
    most: usize,
    slots: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// Slots that are still in use and go when they are given back.
    surplus: usize,
    /// Answers since the limit last rose.
    good: usize,
    /// Counts how often the limit fell.
    falls: u64,
}

/// The right to make one request. Given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    pace: Arc<Pace>,
    permit: Option<OwnedSemaphorePermit>,
    falls: u64,
}

impl Pace {
    /// Begins at the most.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let state = State { limit: most, surplus: 0, good: 0, falls: 0 };
        Arc::new(Self { most, slots: Arc::new(Semaphore::new(most)), state: Mutex::new(state) })
    }

    /// Waits until one more request may be made.
    pub(super) async fn slot(self: &Arc<Self>) -> Slot {
        // Nobody closes it.
        let permit = Arc::clone(&self.slots).acquire_owned().await.ok();
        let falls = self.lock().falls;
        Slot { pace: Arc::clone(self), permit, falls }
    }

    #[cfg(test)]
    fn limit(&self) -> usize {
        self.lock().limit
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The table took it. After as many as may be made at once, one more is.
    pub(super) fn went_well(&self) {
        let mut state = self.pace.lock();
        state.good += 1;
        if state.good < state.limit || state.limit == self.pace.most {
            return;
        }
        state.good = 0;
        state.limit += 1;
        match state.surplus {
            0 => self.pace.slots.add_permits(1),
            _ => state.surplus -= 1,
        }
    }

    /// The table asks for less. Requests that were made before the limit fell for the same reason do not halve it again.
    pub(super) fn was_throttled(&self) {
        let mut state = self.pace.lock();
        if state.falls != self.falls || state.limit == 1 {
            return;
        }
        let fewer = state.limit - state.limit / 2;
        let gone = self.pace.slots.forget_permits(state.limit - fewer);
        state.surplus += state.limit - fewer - gone;
        state.limit = fewer;
        state.good = 0;
        state.falls += 1;
        tracing::debug!(requests = state.limit, "DynamoDB throttles: fewer requests at once");
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.pace.lock();
        if state.surplus == 0 {
            return;
        }
        if let Some(permit) = self.permit.take() {
            state.surplus -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn free(pace: &Arc<Pace>) -> usize {
        let mut slots = Vec::new();
        while pace.slots.available_permits() > 0 {
            slots.push(pace.slot().await);
        }
        slots.len()
    }

    #[tokio::test]
    async fn it_halves_once_for_all_that_was_under_way_and_rises_one_by_one() {
        let pace = Pace::new(8);
        let under_way = [pace.slot().await, pace.slot().await, pace.slot().await, pace.slot().await, pace.slot().await];
        for slot in &under_way {
            slot.was_throttled();
        }
        assert_eq!(pace.limit(), 4);
        // Five are under way where four may be: one of them makes no room.
        assert_eq!(free(&pace).await, 0);
        drop(under_way);
        assert_eq!(free(&pace).await, 4);
        for _ in 0..4 {
            pace.slot().await.went_well();
        }
        assert_eq!((pace.limit(), free(&pace).await), (5, 5));
        for _ in 0..1_000 {
            pace.slot().await.went_well();
        }
        assert_eq!((pace.limit(), free(&pace).await), (8, 8));
    }

    #[tokio::test]
    async fn one_request_is_always_allowed() {
        let pace = Pace::new(5);
        for expected in [3, 2, 1, 1, 1] {
            pace.slot().await.was_throttled();
            assert_eq!((pace.limit(), free(&pace).await), (expected, expected));
        }
        pace.slot().await.went_well();
        assert_eq!((pace.limit(), free(&pace).await), (2, 2));
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_slot() {
        let pace = Pace::new(1);
        let slot = pace.slot().await;
        let mut waiting = Box::pin(pace.slot());
        assert!(tokio::time::timeout(std::time::Duration::from_millis(5), &mut waiting).await.is_err());
        drop(waiting);
        drop(slot);
        assert_eq!(free(&pace).await, 1);
    }
}
