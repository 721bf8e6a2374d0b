//! The running collector: the state shared by its thread, its guard and the hook at the end of the process.

use std::cell::Cell;
use std::panic;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::warnings::{self, Warning};
use crate::{InitError, Report, Stats, fork, ledger, registry, sys};

/// How long the end of the process, or the drop of a guard, waits for the last counts to be delivered.
pub(crate) const LAST_WAIT: Duration = Duration::from_secs(5);
/// How much longer a caller waits for a thread that is blocked in a call to the bus.
const GRACE: Duration = Duration::from_millis(250);
/// Longer waits are cut to this.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

static ACTIVE: Mutex<Active> = Mutex::new(Active { session: None, last: None });

/// The collector of this process.
#[derive(Debug)]
pub(crate) struct Active {
    session: Option<Arc<Session>>,
    /// The outcome of the one before.
    last: Option<Report>,
}

impl Active {
    /// The session whose publisher runs in this process. One that was started before a fork runs in the parent.
    fn running(&self) -> Option<&Arc<Session>> {
        self.session.as_ref().filter(|session| !session.is_of_parent())
    }
}

thread_local! {
    static IS_PUBLISHER: Cell<bool> = const { Cell::new(false) };
}

/// Outcomes of the messages handed to the bus: sums of counts, and numbers of messages.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) delivered: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) give_backs: AtomicU64,
    pub(crate) flush_errors: AtomicU64,
    pub(crate) checkpoint_failures: AtomicU64,
}

/// Requests to the publisher's thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders {
    /// Counts the flushes asked for, and those done.
    pub(crate) flush_wanted: u64,
    pub(crate) flush_done: u64,
    /// When the last caller of `flush` stops waiting.
    pub(crate) flush_until: Option<Instant>,
    /// By when to stop.
    pub(crate) stop: Option<Instant>,
    /// Whether to log the report, because no caller receives it.
    pub(crate) log: bool,
    report: Option<Report>,
}

impl Orders {
    pub(crate) fn is_flushing(&self, now: Instant) -> bool {
        self.flush_wanted > self.flush_done && self.flush_until.is_some_and(|until| now < until)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) producer: [u8; 16],
    /// The counts that earlier collectors took and this one does not deliver.
    pub(crate) base: u64,
    /// What waited in the counters when it started.
    before_start: u64,
    /// Whether its bus is a file of this machine.
    pub(crate) is_file: bool,
    /// See [`fork::generation`].
    generation: u32,
    pub(crate) numbers: Numbers,
    last_error: Mutex<Option<String>>,
    orders: Mutex<Orders>,
    changed: Condvar,
}

/// The active session, held over a fork.
pub(crate) struct ForkLock(MutexGuard<'static, Active>);

pub(crate) fn lock_for_fork() -> ForkLock {
    ForkLock(lock_active())
}

impl ForkLock {
    /// The session that runs in the process that forks.
    pub(crate) fn running(&self) -> Option<&Arc<Session>> {
        self.0.running()
    }

    /// In the child: what the last collector left belongs to the parent.
    pub(crate) fn forget(&mut self) {
        self.0.last = None;
    }
}

/// Starts a session, the only active one of the process. `is_file` says whether its bus is a file of this machine.
pub(crate) fn begin(producer: [u8; 16], is_file: bool) -> Result<Arc<Session>, InitError> {
    fork::watch();
    let mut active = lock_active();
    if active.running().is_some() {
        return Err(InitError::Running);
    }
    if is_file && fork::has_inherited_file() {
        return Err(InitError::Forked);
    }
    let base = ledger::taken_total();
    let before_start = ledger::counted().wrapping_sub(base);
    let late = active.last.as_ref().map_or(0, |last| before_start.saturating_sub(last.undelivered));
    let session = Arc::new(Session {
        producer,
        base,
        before_start,
        is_file,
        generation: fork::generation(),
        numbers: Numbers::default(),
        last_error: Mutex::new(None),
        orders: Mutex::new(Orders::default()),
        changed: Condvar::new(),
    });
    active.session = Some(Arc::clone(&session));
    fork::collector_started();
    if late > 0 {
        warnings::record(Warning::Late);
    }
    Ok(session)
}

fn lock_active() -> MutexGuard<'static, Active> {
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marks the current thread as the publisher's.
pub(crate) fn enter_publisher() {
    IS_PUBLISHER.with(|is_publisher| is_publisher.set(true));
}

/// Makes a process that ends without `shutdown` deliver what it can. Call it after each bus client was created: hooks run
/// in reverse order of registration, and those of the client (of its TLS library, say) must run after this one.
pub(crate) fn watch_exit() {
    const MOST: usize = 8;
    static REGISTERED: AtomicUsize = AtomicUsize::new(0);
    if REGISTERED.load(Ordering::Relaxed) < MOST && sys::at_exit(finish_at_exit) {
        REGISTERED.fetch_add(1, Ordering::Relaxed);
    }
}

extern "C" fn finish_at_exit() {
    // A panic must not cross into the C library.
    let _ = panic::catch_unwind(finish);
}

/// The process ends: delivers what it can, and says on standard error what it could not.
pub(crate) fn finish() {
    let running = lock_active().running().cloned();
    let report = match running {
        Some(session) => Some(session.stop(LAST_WAIT, true)),
        None => lock_active().last.clone(),
    };
    let left = ledger::counted().wrapping_sub(ledger::taken_total());
    let unknown = report.as_ref().map_or(0, |report| report.unknown);
    if left == 0 && unknown == 0 {
        return;
    }
    let mut text = format!("tallybus: the process ends with undelivered counts: a sum of {left} is lost with it");
    if unknown > 0 {
        text.push_str(&format!(", {unknown} may or may not be on the bus"));
    }
    let late = report.as_ref().map_or(0, |report| left.saturating_sub(report.undelivered));
    if late > 0 {
        text.push_str(&format!("; {late} of it was counted after the collector had stopped"));
    }
    if let Some(error) = report.and_then(|report| report.last_error) {
        text.push_str(&format!("; last error: {error}"));
    }
    text.push('\n');
    sys::write_to_stderr(&text);
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was started by a process that this one was forked from: its publisher does not run here.
    fn is_of_parent(&self) -> bool {
        self.generation != fork::generation()
    }

    pub(crate) fn orders(&self) -> Orders {
        self.lock().clone()
    }

    /// Remembers why the bus took nothing, for the report.
    pub(crate) fn failed(&self, error: &str) {
        *self.lock_last_error() = Some(error.to_owned());
    }

    fn lock_last_error(&self) -> MutexGuard<'_, Option<String>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for new requests for at most `timeout`. `seen` are the requests that the caller knows.
    pub(crate) fn wait(&self, seen: &Orders, timeout: Duration) {
        let orders = self.lock();
        let same = |orders: &mut Orders| orders.flush_wanted == seen.flush_wanted && orders.stop == seen.stop;
        drop(self.changed.wait_timeout_while(orders, timeout, same));
    }

    /// Wakes the callers that wait: every flush up to this one is done.
    pub(crate) fn flushed(&self, done: u64) {
        let mut orders = self.lock();
        orders.flush_done = orders.flush_done.max(done);
        self.changed.notify_all();
    }

    /// Asks for everything counted so far to be delivered, and waits. Returns whether it was.
    pub(crate) fn flush(&self, deadline: Duration) -> bool {
        if IS_PUBLISHER.with(Cell::get) || self.is_of_parent() {
            return false;
        }
        let until = later(deadline);
        let mut orders = self.lock();
        orders.flush_wanted += 1;
        orders.flush_until = orders.flush_until.max(Some(until));
        let wanted = orders.flush_wanted;
        self.changed.notify_all();
        let waiting = |orders: &mut Orders| orders.flush_done < wanted && orders.report.is_none();
        let timeout = until.saturating_duration_since(Instant::now());
        let (orders, _) =
            self.changed.wait_timeout_while(orders, timeout, waiting).unwrap_or_else(PoisonError::into_inner);
        orders.flush_done >= wanted
    }

    /// Asks the publisher to deliver what it can within `deadline` and to stop; waits, and returns the outcome.
    pub(crate) fn stop(&self, deadline: Duration, log: bool) -> Report {
        if self.is_of_parent() {
            return Report::of_fork();
        }
        if IS_PUBLISHER.with(Cell::get) {
            return self.report();
        }
        let mut orders = self.lock();
        // An earlier caller has already waited, and a later deadline changes nothing: the hook at the end returns at
        // once.
        let until = orders.stop.map_or(later(deadline), |earlier| earlier.min(later(deadline)));
        orders.stop = Some(until);
        orders.log |= log;
        self.changed.notify_all();
        let timeout = until.saturating_duration_since(Instant::now()) + GRACE;
        let (orders, _) = self
            .changed
            .wait_timeout_while(orders, timeout, |orders| orders.report.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let report = orders.report.clone();
        drop(orders);
        report.unwrap_or_else(|| self.report())
    }

    /// Ends the session. Called once, by the publisher's thread, when it will not touch the counters again.
    pub(crate) fn end(self: &Arc<Self>) -> Report {
        let report = self.report();
        let mut active = lock_active();
        if active.session.take_if(|active| Arc::ptr_eq(active, self)).is_some() {
            active.last = Some(report.clone());
        }
        drop(active);
        self.lock().report = Some(report.clone());
        self.changed.notify_all();
        report
    }

    /// Everything counted that this collector must deliver.
    pub(crate) fn emitted(&self) -> u64 {
        ledger::counted().wrapping_sub(self.base)
    }

    fn report(&self) -> Report {
        let numbers = self.numbers();
        // Everything that was taken out of the counters and is not known to be on the bus.
        let unknown = ledger::taken_total().wrapping_sub(self.base).wrapping_sub(numbers.delivered);
        let emitted = self.emitted();
        let undelivered = emitted.wrapping_sub(numbers.delivered).wrapping_sub(unknown);
        Report {
            emitted,
            before_start: self.before_start,
            delivered: numbers.delivered,
            undelivered,
            unknown,
            messages: numbers.messages,
            last_error: self.lock_last_error().clone(),
            #[cfg(feature = "commands")]
            commands: crate::commands::CommandCounts::default(),
        }
    }

    fn numbers(&self) -> Stats {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Stats {
            delivered: read(&self.numbers.delivered),
            unknown: read(&self.numbers.unknown),
            in_flight: read(&self.numbers.in_flight),
            messages: read(&self.numbers.messages),
            give_backs: read(&self.numbers.give_backs),
            flush_errors: read(&self.numbers.flush_errors),
            checkpoint_failures: read(&self.numbers.checkpoint_failures),
            ..Stats::default()
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        if self.is_of_parent() {
            return Stats::default();
        }
        let stats = self.numbers();
        let emitted = self.emitted();
        let gone = stats.delivered.wrapping_add(stats.unknown).wrapping_add(stats.in_flight);
        Stats {
            emitted,
            // Deliveries continue while this is computed.
            waiting: emitted.saturating_sub(gone),
            series: registry::len() as u64,
            overflowed: ledger::counted_in(&registry::overflows()),
            sanitised: registry::sanitised(),
            ..stats
        }
    }
}

fn later(wait: Duration) -> Instant {
    Instant::now() + wait.min(LONGEST_WAIT)
}
