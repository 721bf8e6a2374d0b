use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::PollWaker;

/// Wakes the polling thread: several queues of librdkafka ring it, and one wait hears them all.
///
/// A ring between a look at the queues and the wait is not lost, it ends the wait at once.
pub(super) struct Doorbell {
    hears: UnixStream,
    bell: Bell,
    /// Somebody wants the wait to end, whatever the queues hold.
    is_called: Arc<AtomicBool>,
}

/// The other side of a [`Doorbell`].
#[derive(Clone)]
pub(super) struct Bell(Arc<UnixStream>);

/// Shorter waits are rounded up: zero would mean for ever.
const SHORTEST: Duration = Duration::from_micros(100);

impl Doorbell {
    pub(super) fn new() -> io::Result<Self> {
        let (hears, rings) = UnixStream::pair()?;
        // Whoever rings never waits: a bell that rings already needs no further ring.
        rings.set_nonblocking(true)?;
        Ok(Self { hears, bell: Bell(Arc::new(rings)), is_called: Arc::default() })
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(super) fn waker(&self) -> PollWaker {
        let (bell, is_called) = (self.bell.clone(), Arc::clone(&self.is_called));
        PollWaker::new(move || {
            is_called.store(true, Ordering::Release);
            bell.ring();
        })
    }

    /// Whether somebody called since this was asked last.
    pub(super) fn take_call(&self) -> bool {
        self.is_called.swap(false, Ordering::AcqRel)
    }

    /// Returns when it rang, or after `timeout`; it may return sooner.
    pub(super) fn wait(&mut self, timeout: Duration) {
        if timeout.is_zero() || self.hears.set_read_timeout(Some(timeout.max(SHORTEST))).is_err() {
            return;
        }
        // What ends the read does not matter: whoever waited looks again.
        let _woken = self.hears.read(&mut [0; 256]);
    }
}

impl Bell {
    pub(super) fn ring(&self) {
        // Full: it rings already.
        let _rung = (&*self.0).write(&[1]);
    }

    /// Writing a byte here rings.
    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_ring_before_the_wait_ends_it_and_silence_does_not() {
        let mut doorbell = Doorbell::new().unwrap();
        // More rings than fit: none of them waits.
        (0..1_000_000).for_each(|_| doorbell.bell().ring());
        let begun = Instant::now();
        doorbell.wait(Duration::from_secs(60));
        assert!(begun.elapsed() < Duration::from_secs(30), "rung and not heard");

        let mut silent = Doorbell::new().unwrap();
        let begun = Instant::now();
        silent.wait(Duration::from_millis(20));
        silent.wait(Duration::ZERO);
        assert!(begun.elapsed() >= Duration::from_millis(15));
    }

    #[test]
    fn another_thread_wakes_the_one_that_waits() {
        let mut doorbell = Doorbell::new().unwrap();
        let bell = doorbell.bell().clone();
        let begun = Instant::now();
        let ringer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            bell.ring();
        });
        doorbell.wait(Duration::from_secs(60));
        assert!(begun.elapsed() < Duration::from_secs(30));
        ringer.join().unwrap();
    }
}
