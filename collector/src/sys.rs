//! Calls into the C library.
#![allow(unsafe_code, reason = "calls into the C library, each with its proof")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

/// Calls `hook` when the process ends by returning from `main` or by `exit`. Hooks run in the reverse order of their
/// registration. Returns whether it was registered.
pub(crate) fn at_exit(hook: extern "C" fn()) -> bool {
    // SAFETY: `atexit` may be called from any thread and keeps only the pointer of a function that takes and returns
    // nothing by the C convention, as the type of `hook` says; functions live as long as the process.
    unsafe { libc::atexit(hook) == 0 }
}

/// Calls these functions around every `fork` of the process, in the thread that forks: the first before it, the others
/// after it, in the parent and in the child.
pub(crate) fn at_fork(before: extern "C" fn(), in_parent: extern "C" fn(), in_child: extern "C" fn()) {
    // SAFETY: `pthread_atfork` may be called from any thread and keeps only the pointers of functions that take and return
    // nothing by the C convention; functions live as long as the process. It fails only without memory, and then a fork
    // is what it was without handlers.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
}

/// Writes to standard error without a lock and without buffering: what a process may do in a child of `fork` and while
/// it ends. What cannot be written is dropped.
pub(crate) fn write_to_stderr(text: &str) {
    // SAFETY: pointer and length describe `text`, which outlives the call.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// This machine's name, if it has one.
pub(crate) fn host_name() -> Option<String> {
    let mut name = [0u8; 256];
    // SAFETY: the pointer and the length describe `name`, which outlives the call; the last byte is kept back so that
    // a name cut short still ends with a zero.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) } != 0;
    let end = name.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&name[..end]).ok()?;
    (!failed && !name.is_empty()).then(|| name.to_owned())
}

/// Time since some moment before the start of the process, never set back. On Linux it goes on while the machine is
/// suspended, as the wall clock does.
pub(crate) fn monotonic() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` that outlives the call. The clock exists on every system that this is
    // compiled for; were it missing, the time would stay zero.
    unsafe { libc::clock_gettime(CLOCK, &raw mut time) };
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

/// The process that catches signals, and the descriptor that it writes their numbers to.
static CATCHER: AtomicU32 = AtomicU32::new(0);
static CAUGHT: AtomicI32 = AtomicI32::new(-1);

/// Catches each of these signals whose default is to end the process and that the program neither handles nor ignores:
/// its number is written to `pipe` as a byte, once; the next one of the same signal ends the process. Returns how many
/// are caught.
pub(crate) fn catch(signals: &[libc::c_int], pipe: OwnedFd) -> usize {
    CAUGHT.store(pipe.as_raw_fd(), Ordering::Relaxed);
    CATCHER.store(std::process::id(), Ordering::Relaxed);
    // The handler may write to it until the process ends.
    std::mem::forget(pipe);
    signals.iter().filter(|signal| catch_one(**signal)).count()
}

fn catch_one(signal: libc::c_int) -> bool {
    // SAFETY: an all-zero `sigaction` is a valid value: the default disposition, no flags, an empty mask.
    let (mut present, mut wanted) =
        unsafe { (std::mem::zeroed::<libc::sigaction>(), std::mem::zeroed::<libc::sigaction>()) };
    // SAFETY: a null pointer asks for the present disposition only, which is written to `present`.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut present) } == 0;
    let is_ours = present.sa_sigaction == on_signal as *const () as usize;
    if !known || (present.sa_sigaction != libc::SIG_DFL && !is_ours) {
        return false;
    }
    wanted.sa_sigaction = on_signal as *const () as usize;
    wanted.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
    // SAFETY: `wanted` is a complete disposition whose handler takes the signal's number, as a handler without
    // SA_SIGINFO does, and calls nothing that is not async-signal-safe.
    unsafe { libc::sigaction(signal, &raw const wanted, std::ptr::null_mut()) == 0 }
}

/// In a child of `fork`, which has no thread that reads the pipe, the signal ends the process as it would uncaught.
extern "C" fn on_signal(signal: libc::c_int) {
    let byte = u8::try_from(signal).unwrap_or(0);
    // SAFETY: `getpid`, `write` and `raise` are async-signal-safe. The pointer is to one byte that outlives the call, and
    // the descriptor stays open, because `catch` forgot its owner. `raise` takes effect when this handler has
    // returned, with the default disposition that SA_RESETHAND has restored. `errno` changes only where `write`
    // fails, and then the process ends.
    unsafe {
        let is_child = u32::try_from(libc::getpid()).ok() != Some(CATCHER.load(Ordering::Relaxed));
        if is_child || libc::write(CAUGHT.load(Ordering::Relaxed), (&raw const byte).cast(), 1) != 1 {
            libc::raise(signal);
        }
    }
}

/// Sends a signal to this process.
pub(crate) fn send_to_self(signal: libc::c_int) {
    // SAFETY: sends a signal to the own process, which exists; no memory is involved.
    unsafe { libc::kill(libc::getpid(), signal) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_a_name() {
        let name = super::host_name().unwrap();
        assert!(!name.contains('\0') && name.len() < 256, "{name:?}");
    }

    #[test]
    fn the_monotonic_clock_goes_on() {
        let before = super::monotonic();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(super::monotonic() >= before + std::time::Duration::from_millis(2));
    }
}
