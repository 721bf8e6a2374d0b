//! A process that forks: the counts of before belong to the parent, which delivers them; the child begins at zero.
//!
//! Only the thread that called `fork` goes on in the child. A lock that another thread held at that moment would never be
//! released there, so all locks of the counters, and those of an embedded bus, are held over the fork. The collector of the parent has no thread in the
//! child; a child that counts without a collector of its own says so on standard error, once. Nothing of this touches
//! the path of a count whose series its thread knows.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::{cells, ledger, registry, session, sys, warnings};

/// How many forks lie between the first process and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// Whether this process is the child of one that ran a collector, has none itself, and has not said so.
static OWES_NOTICE: AtomicBool = AtomicBool::new(false);
/// Whether a bus that is a file was open when a process of which this one is a child forked.
static HAS_INHERITED_FILE: AtomicBool = AtomicBool::new(false);

/// All locks of the counters, in the order in which they are taken elsewhere.
struct Locks {
    session: session::ForkLock,
    ledger: ledger::ForkLock,
    _registry: registry::ForkLock,
    _warnings: warnings::ForkLock,
    cells: cells::ForkLock,
    /// Last, because a thread may call the bus while it holds one of the others, and SQLite calls none of them.
    #[cfg(feature = "embedded")]
    _sqlite: tallybus_bus::embedded::ForkLock,
}

thread_local! {
    // The locks between the two handlers of one fork. Has no destructor, so that it works in a thread being torn down.
    static HELD: Cell<Option<ManuallyDrop<Locks>>> = const { Cell::new(None) };
}

/// Registers the handlers, once.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| sys::at_fork(before, after_in_parent, after_in_child));
}

/// This process among its ancestors: a collector of another generation runs in the parent, not here.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Whether an ancestor had a bus open that is a file. SQLite would take the ancestor's locks for its own.
pub(crate) fn has_inherited_file() -> bool {
    HAS_INHERITED_FILE.load(Ordering::Relaxed)
}

/// This process has a collector of its own now.
pub(crate) fn collector_started() {
    OWES_NOTICE.store(false, Ordering::Relaxed);
}

/// Says once that this process counts and no collector delivers it. Called from the slow path of a count.
pub(crate) fn notice() {
    if OWES_NOTICE.load(Ordering::Relaxed) && OWES_NOTICE.swap(false, Ordering::Relaxed) {
        // Not through a log or `std::io::stderr`: another thread of the parent may have held their locks.
        sys::write_to_stderr(
            "tallybus: this process was forked from one that runs a collector, and has none itself: its counts stay in \
             memory and are lost when it ends, unless it starts a collector of its own\n",
        );
        warnings::record(warnings::Warning::Forked);
    }
}

extern "C" fn before() {
    let locks = Locks {
        session: session::lock_for_fork(),
        ledger: ledger::lock_for_fork(),
        _registry: registry::lock_for_fork(),
        _warnings: warnings::lock_for_fork(),
        cells: cells::lock_for_fork(),
        #[cfg(feature = "embedded")]
        _sqlite: tallybus_bus::embedded::ForkLock::take(),
    };
    HELD.set(Some(ManuallyDrop::new(locks)));
}

extern "C" fn after_in_parent() {
    drop(HELD.take().map(ManuallyDrop::into_inner));
}

extern "C" fn after_in_child() {
    let Some(mut locks) = HELD.take().map(ManuallyDrop::into_inner) else { return };
    if let Some(running) = locks.session.running() {
        OWES_NOTICE.store(true, Ordering::Relaxed);
        if running.is_file {
            HAS_INHERITED_FILE.store(true, Ordering::Relaxed);
        }
    }
    GENERATION.fetch_add(1, Ordering::Relaxed);
    locks.session.forget();
    locks.ledger.forget();
    locks.cells.forget();
}
