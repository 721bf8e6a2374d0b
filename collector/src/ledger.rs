//! How much of each counter has been taken to be published. Counters only rise; the counts to publish are the
//! difference.
//!
//! Outlives a collector: the counts that one could not deliver are given back here, and the next one takes them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cells::{self, CHUNK};
use crate::{registry, vec_growth};

/// By series.
static TAKEN: Mutex<Vec<u64>> = Mutex::new(Vec::new());

fn taken() -> MutexGuard<'static, Vec<u64>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was taken, held over a fork.
pub(crate) struct ForkLock(MutexGuard<'static, Vec<u64>>);

pub(crate) fn lock_for_fork() -> ForkLock {
    ForkLock(taken())
}

impl ForkLock {
    /// In the child, whose counters are at zero: nothing was taken.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

/// Part of a series' count: series, value.
pub(crate) type Share = (u32, u64);

/// Marks as taken.
pub(crate) fn take(shares: &[Share]) {
    let mut taken = taken();
    for &(series, value) in shares {
        let series = series as usize;
        vec_growth::lengthen(&mut taken, series + 1, 0);
        taken[series] = taken[series].wrapping_add(value);
    }
}

/// Undoes [`take`].
pub(crate) fn give_back(shares: &[Share]) {
    let mut taken = taken();
    for &(series, value) in shares {
        if let Some(taken) = taken.get_mut(series as usize) {
            *taken = taken.wrapping_sub(value);
        }
    }
}

/// Everything ever taken and not given back.
pub(crate) fn taken_total() -> u64 {
    taken().iter().fold(0, |sum, taken| sum.wrapping_add(*taken))
}

/// Hands each series with something waiting to `each`, and returns everything that was ever counted.
pub(crate) fn scan(mut each: impl FnMut(Share)) -> u64 {
    let series = registry::len();
    let mut counted = 0u64;
    for column in 0..series.div_ceil(CHUNK) {
        let first = column * CHUNK;
        let totals = cells::totals(column);
        let taken = taken();
        for (id, total) in (first..series).zip(totals) {
            counted = counted.wrapping_add(total);
            let waiting = total.wrapping_sub(taken.get(id).copied().unwrap_or(0));
            if waiting > 0
                && let Ok(id) = u32::try_from(id)
            {
                each((id, waiting));
            }
        }
    }
    counted
}

/// Everything ever counted.
pub(crate) fn counted() -> u64 {
    scan(|_| ())
}

/// Everything ever counted in these series.
pub(crate) fn counted_in(series: &[u32]) -> u64 {
    series.iter().fold(0, |sum, id| {
        let id = *id as usize;
        sum.wrapping_add(cells::totals(id / CHUNK)[id % CHUNK])
    })
}
