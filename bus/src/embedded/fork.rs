//! A process that forks while another of its threads is inside SQLite.
//!
//! SQLite keeps its allocator, page cache, random numbers and files under mutexes that are shared by all connections of
//! the process. Only the thread that calls `fork` exists in the child, so a mutex that another thread held would stay
//! locked there, and the child's first call into SQLite would wait for ever.
#![allow(unsafe_code, reason = "SQLite's own mutexes, which rusqlite has no safe name for")]

use std::ffi::c_int;
use std::sync::MutexGuard;

use rusqlite::ffi;

use super::file::{self, OpenFiles};

/// The mutexes that the library itself shares, in the order in which it takes one while it holds another: opening a
/// database; files (a temporary file's name needs a random number); the page cache; random numbers, which look up
/// the file system's interface under the main mutex; memory last, since any of them may allocate.
const SHARED: [c_int; 9] = [
    ffi::SQLITE_MUTEX_STATIC_OPEN as c_int,
    ffi::SQLITE_MUTEX_STATIC_VFS1 as c_int,
    ffi::SQLITE_MUTEX_STATIC_VFS2 as c_int,
    ffi::SQLITE_MUTEX_STATIC_VFS3 as c_int,
    ffi::SQLITE_MUTEX_STATIC_LRU as c_int,
    ffi::SQLITE_MUTEX_STATIC_PRNG as c_int,
    ffi::SQLITE_MUTEX_STATIC_MAIN as c_int,
    ffi::SQLITE_MUTEX_STATIC_PMEM as c_int,
    ffi::SQLITE_MUTEX_STATIC_MEM as c_int,
];

/// No other thread of the process is inside these parts of SQLite, or opens an embedded bus, while this exists. To be
/// made before a `fork`, and dropped after it by the same thread, in the parent and in the child: a child can then open
/// an embedded bus of its own. It must not be the file that the parent has open.
#[must_use = "the mutexes are released when this is dropped"]
pub struct ForkLock {
    /// Empty when this process never opened an embedded bus.
    held: Vec<*mut ffi::sqlite3_mutex>,
    _open_files: MutexGuard<'static, OpenFiles>,
}

impl ForkLock {
    /// Waits for the other threads to leave. None of them holds these mutexes while it waits for a disk or a lock of
    /// a file.
    pub fn take() -> Self {
        let open_files = file::lock_open_files();
        if !open_files.is_used() {
            return Self { held: Vec::new(), _open_files: open_files };
        }
        // Allocated before the first is held: the allocator is not SQLite's, but a caller's own might be.
        let mut held = Vec::with_capacity(SHARED.len());
        for id in SHARED {
            // SAFETY: `sqlite3_mutex_alloc` of a static mutex's number returns a pointer that is valid for as long as the
            // process lives, or null where SQLite was built without threads; entering null does nothing. This thread
            // holds none of them yet, and `drop` leaves each once, in the same thread: raw pointers keep this type
            // from being sent to another one.
            unsafe {
                let mutex = ffi::sqlite3_mutex_alloc(id);
                ffi::sqlite3_mutex_enter(mutex);
                held.push(mutex);
            }
        }
        Self { held, _open_files: open_files }
    }
}

impl Drop for ForkLock {
    fn drop(&mut self) {
        while let Some(mutex) = self.held.pop() {
            // SAFETY: entered by `take` in this thread, or in the thread of the parent that this one is a copy of.
            unsafe { ffi::sqlite3_mutex_leave(mutex) };
        }
    }
}
