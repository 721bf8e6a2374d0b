//! The storage of counts: each thread has its own cell for each series, so that threads do not contend.
//!
//! Only its own thread writes a cell, with a plain load and store; the publisher reads it. Cells only rise: published
//! counts are recorded in the ledger, never subtracted here. When a thread ends, its cells are added to the series'
//! retired counts and handed to the next thread, so memory is proportional to the live threads, not to all threads ever
//! started. Sums are taken modulo 2^64.
//!
//! Cells are allocated in chunks that are never freed, only reused; that lets safe code share them between threads.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{fork, vec_growth};

/// Series per chunk: 2 KiB, the cost for a thread of the first series it counts in each range of this many.
pub(crate) const CHUNK: usize = 256;
/// Chunks that a thread finds without an indirection: the first 131,072 series, for 4 KiB per thread. The indirection
/// costs two nanoseconds.
const DIRECT: usize = 512;

/// One thread's cells for a range of series. Aligned so that two threads' chunks share no cache line, nor the pair of
/// lines that processors fetch together.
#[repr(align(128))]
struct Chunk([AtomicU64; CHUNK]);

impl Chunk {
    #[inline]
    fn raise(&self, cell: usize, value: u64) {
        let cell = &self.0[cell % CHUNK];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
    }
}

thread_local! {
    // Needs no destructor, so reading it is one instruction, and it works while a thread is being torn down.
    static NEAR: [Cell<Option<&'static Chunk>>; DIRECT] = const { [const { Cell::new(None) }; DIRECT] };
    // Returns the thread's cells when it ends.
    static OWNED: Owned = const { Owned(RefCell::new(Vec::new())) };
}

struct Owned(RefCell<Vec<Option<&'static Chunk>>>);

/// The owner of each chunk, and the counts of threads that have ended.
pub(crate) struct Book {
    /// For each range of series, the chunks of live threads.
    held: Vec<Vec<&'static Chunk>>,
    /// By series.
    retired: Vec<u64>,
    /// Free chunks, all zero, ready for another thread.
    free: Vec<&'static Chunk>,
}

static BOOK: Mutex<Book> = Mutex::new(Book { held: Vec::new(), retired: Vec::new(), free: Vec::new() });

fn book() -> MutexGuard<'static, Book> {
    BOOK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The book, held over a fork.
pub(crate) struct ForkLock(MutexGuard<'static, Book>);

pub(crate) fn lock_for_fork() -> ForkLock {
    ForkLock(book())
}

impl ForkLock {
    /// In the child: forgets all counts, and the cells of this thread, the only one. Chunks are left where they are: to
    /// empty them would copy their memory.
    pub(crate) fn forget(&mut self) {
        *self.0 = Book { held: Vec::new(), retired: Vec::new(), free: Vec::new() };
        NEAR.with(|near| near.iter().for_each(|near| near.set(None)));
        // A thread that has returned its cells has none to forget.
        let _ = OWNED.try_with(|owned| owned.0.borrow_mut().clear());
    }
}

/// Raises the series if this thread has a cell for it already; otherwise returns false and does nothing.
#[inline]
pub(crate) fn try_add(series: u32, value: u64) -> bool {
    let series = series as usize;
    let chunk = NEAR.with(|near| near.get(series / CHUNK).and_then(Cell::get));
    let Some(chunk) = chunk else { return false };
    chunk.raise(series % CHUNK, value);
    true
}

/// Raises the series.
#[inline]
pub(crate) fn add(series: u32, value: u64) {
    if !try_add(series, value) {
        add_slowly(series, value);
    }
}

#[cold]
#[inline(never)]
pub(crate) fn add_slowly(series: u32, value: u64) {
    if value == 0 {
        return;
    }
    fork::notice();
    // A thread that has returned its cells may still count, from the destructor of a thread-local value.
    if OWNED.try_with(|owned| owned.add(series, value)).is_err() {
        book().retire(series as usize, value);
    }
}

impl Owned {
    fn add(&self, series: u32, value: u64) {
        let column = series as usize / CHUNK;
        let mut chunks = self.0.borrow_mut();
        if chunks.len() <= column {
            chunks.resize(column + 1, None);
        }
        let chunk = *chunks[column].get_or_insert_with(|| {
            let chunk = book().hold(column);
            NEAR.with(|near| near.get(column).into_iter().for_each(|near| near.set(Some(chunk))));
            chunk
        });
        chunk.raise(series as usize % CHUNK, value);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        NEAR.with(|near| near.iter().for_each(|near| near.set(None)));
        let mut book = book();
        for (column, chunk) in self.0.get_mut().drain(..).enumerate() {
            if let Some(chunk) = chunk {
                book.release(column, chunk);
            }
        }
    }
}

impl Book {
    fn hold(&mut self, column: usize) -> &'static Chunk {
        let chunk = self.free.pop().unwrap_or_else(|| Box::leak(Box::new(Chunk([const { AtomicU64::new(0) }; CHUNK]))));
        if self.held.len() <= column {
            self.held.resize_with(column + 1, Vec::new);
        }
        self.held[column].push(chunk);
        chunk
    }

    fn release(&mut self, column: usize, chunk: &'static Chunk) {
        for (cell, count) in chunk.0.iter().enumerate() {
            let count = count.swap(0, Ordering::Relaxed);
            if count > 0 {
                self.retire(column * CHUNK + cell, count);
            }
        }
        if let Some(held) = self.held.get_mut(column)
            && let Some(place) = held.iter().position(|held| std::ptr::eq(*held, chunk))
        {
            held.swap_remove(place);
        }
        self.free.push(chunk);
    }

    fn retire(&mut self, series: usize, count: u64) {
        vec_growth::lengthen(&mut self.retired, series + 1, 0);
        self.retired[series] = self.retired[series].wrapping_add(count);
    }
}

/// The totals of one range of [`CHUNK`] series, over all live and ended threads. Each total is exact at one instant of
/// the call; the lock is held for this range only, so threads that start or end wait microseconds.
pub(crate) fn totals(column: usize) -> [u64; CHUNK] {
    let mut totals = [0; CHUNK];
    let book = book();
    for (total, retired) in totals.iter_mut().zip(book.retired.iter().skip(column * CHUNK)) {
        *total = *retired;
    }
    for chunk in book.held.get(column).into_iter().flatten() {
        for (total, cell) in totals.iter_mut().zip(&chunk.0) {
            *total = total.wrapping_add(cell.load(Ordering::Relaxed));
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    // Series ids far from those of other tests: these tests count without a registry.
    fn total(series: u32) -> u64 {
        totals(series as usize / CHUNK)[series as usize % CHUNK]
    }

    #[test]
    fn threads_that_come_and_go_leave_their_counts() {
        let base = 5_000;
        for round in 0..50 {
            thread::scope(|scope| {
                for thread in 0..20 {
                    scope.spawn(move || {
                        for count in 0..100 {
                            add(base + (thread + round + count) % 300, 1);
                        }
                    });
                }
            });
        }
        assert_eq!((base..base + 300).map(total).sum::<u64>(), 50 * 20 * 100);
    }

    #[test]
    fn a_chunk_is_handed_on_empty() {
        for _ in 0..100 {
            thread::spawn(|| add(6_000, 1)).join().unwrap();
        }
        assert_eq!(total(6_000), 100);
        let book = book();
        let chunks = book.held.iter().map(Vec::len).sum::<usize>() + book.free.len();
        // Other tests run beside this one; a hundred threads one after the other would show.
        assert!(chunks < 90, "{chunks} chunks");
    }

    #[test]
    fn far_series_count_too() {
        let far = u32::try_from(CHUNK * DIRECT).unwrap() + 77;
        assert!(!try_add(far, 1));
        thread::spawn(move || {
            for _ in 0..10 {
                add(far, 3);
            }
        })
        .join()
        .unwrap();
        add(far, 1);
        assert_eq!(total(far), 31);
    }

    #[test]
    fn counting_while_the_thread_is_torn_down() {
        struct Late;
        impl Drop for Late {
            fn drop(&mut self) {
                add(7_000, 1);
            }
        }
        thread_local! { static LATE: Late = const { Late }; }
        for early in [true, false] {
            thread::spawn(move || {
                // Destructors run in reverse order of first use, or the other way round: both orders are tried.
                if early {
                    add(7_000, 1);
                    LATE.with(|_| ());
                } else {
                    LATE.with(|_| ());
                    add(7_000, 1);
                }
            })
            .join()
            .unwrap();
        }
        assert_eq!(total(7_000), 4);
    }

    #[test]
    fn totals_never_fall_while_threads_end() {
        let stop = &std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let now = total(8_000);
                    assert!(now >= last, "{now} < {last}");
                    last = now;
                }
            });
            for _ in 0..300 {
                thread::spawn(|| (0..50).for_each(|_| add(8_000, 1))).join().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(total(8_000), 300 * 50);
    }
}
