use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tallybus_bus::PollWaker;
use tallybus_control::Command;

/// What an instance is asked about its pool.
#[derive(Debug)]
pub(in super::super) enum Order {
    /// To leave it.
    Drain(Command),
    /// To come back.
    Resume(Command),
}

/// Orders for the thread that takes tasks, and what ends its waits. Cloning shares it.
#[derive(Clone, Default)]
pub(in super::super) struct Orders(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    orders: VecDeque<Order>,
    waker: Option<PollWaker>,
    is_woken: bool,
}

impl Orders {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in super::super) fn send(&self, order: Order) {
        self.lock().orders.push_back(order);
        self.wake();
    }

    /// Ends the wait of the thread, whatever it waits for.
    pub(super) fn wake(&self) {
        let mut state = self.lock();
        state.is_woken = true;
        self.0.1.notify_all();
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn next(&self) -> Option<Order> {
        self.lock().orders.pop_front()
    }

    /// What ends a wait for the bus.
    pub(super) fn set_waker(&self, waker: Option<PollWaker>) {
        self.lock().waker = waker;
    }

    /// Waits without the bus.
    pub(super) fn wait(&self, at_most: Duration) {
        let state = self.lock();
        let waited = self.0.1.wait_timeout_while(state, at_most, |state| !state.is_woken);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_woken = false;
    }
}
