//! Each thread's cache of series: lookups take no lock and do not allocate.

use std::cell::RefCell;

use crate::table::{Entry, Table};

thread_local! {
    static KNOWN: RefCell<Table> = const { RefCell::new(Table::new()) };
}

/// The entry, if this thread has counted the series before.
#[inline]
pub(crate) fn find(hash: u64, matches: impl Fn(&Entry) -> bool) -> Option<&'static Entry> {
    KNOWN.try_with(|known| known.try_borrow().ok()?.find(hash, matches)).ok().flatten()
}

/// Remembers an entry that [`find`] did not find. Only entries of the registry are remembered, so that a thread's table
/// is bounded by the cap on series.
pub(crate) fn remember(hash: u64, entry: &'static Entry) {
    // A thread being torn down remembers nothing, and asks the registry each time.
    let _ = KNOWN.try_with(|known| {
        if let Ok(mut known) = known.try_borrow_mut() {
            known.insert(hash, entry);
        }
    });
}
