use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::PollWaker;

/// Wakes the polling thread: several queues of librdkafka write to one socket, so one wait covers all of them.
///
/// A wake-up between the check of the queues and the wait is not lost: it ends the wait at once.
pub(super) struct Wakeups {
    receiver: UnixStream,
    waker: Waker,
    /// A [`PollWaker`] requested the end of the wait, whatever the queues hold.
    is_called: Arc<AtomicBool>,
}

/// Ends the wait of its [`Wakeups`], from any thread.
#[derive(Clone)]
pub(super) struct Waker(Arc<UnixStream>);

/// Shorter waits are rounded up: zero would mean forever.
const SHORTEST: Duration = Duration::from_micros(100);

impl Wakeups {
    pub(super) fn new() -> io::Result<Self> {
        let (receiver, sender) = UnixStream::pair()?;
        // Waking never blocks: a full socket ends the wait anyway.
        sender.set_nonblocking(true)?;
        Ok(Self { receiver, waker: Waker(Arc::new(sender)), is_called: Arc::default() })
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    pub(super) fn poll_waker(&self) -> PollWaker {
        let (waker, is_called) = (self.waker.clone(), Arc::clone(&self.is_called));
        PollWaker::new(move || {
            is_called.store(true, Ordering::Release);
            waker.wake();
        })
    }

    /// Whether a [`PollWaker`] was used since the last call.
    pub(super) fn take_call(&self) -> bool {
        self.is_called.swap(false, Ordering::AcqRel)
    }

    /// Returns when woken, or after `timeout`; it may return sooner.
    pub(super) fn wait(&mut self, timeout: Duration) {
        if timeout.is_zero() || self.receiver.set_read_timeout(Some(timeout.max(SHORTEST))).is_err() {
            return;
        }
        // Why the read ends does not matter: the caller checks its queues next.
        let _woken = self.receiver.read(&mut [0; 256]);
    }
}

impl Waker {
    pub(super) fn wake(&self) {
        // Full: the wait will end anyway.
        let _written = (&*self.0).write(&[1]);
    }

    /// Writing a byte here wakes.
    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_wake_before_the_wait_ends_it_and_silence_does_not() {
        let mut wakeups = Wakeups::new().unwrap();
        // More than fit: none of them blocks.
        (0..1_000_000).for_each(|_| wakeups.waker().wake());
        let begun = Instant::now();
        wakeups.wait(Duration::from_secs(60));
        assert!(begun.elapsed() < Duration::from_secs(30), "the wake-up was not noticed");

        let mut silent = Wakeups::new().unwrap();
        let begun = Instant::now();
        silent.wait(Duration::from_millis(20));
        silent.wait(Duration::ZERO);
        assert!(begun.elapsed() >= Duration::from_millis(15));
    }

    #[test]
    fn another_thread_wakes_the_one_that_waits() {
        let mut wakeups = Wakeups::new().unwrap();
        let waker = wakeups.waker().clone();
        let begun = Instant::now();
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        wakeups.wait(Duration::from_secs(60));
        assert!(begun.elapsed() < Duration::from_secs(30));
        other.join().unwrap();
    }
}
