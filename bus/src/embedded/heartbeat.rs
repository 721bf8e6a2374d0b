//! The thread that keeps a member's session alive, and ends the sessions of members that are silent.
//!
//! Silence is measured by the members that watch: a member whose beat has not changed for its session timeout is dead. No
//! clock is shared, so neither a clock that is set nor a machine that sleeps ends a session.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::file::{Conn, lock};
use super::group;
use crate::BusError;

/// What a member and its heartbeat thread tell each other.
pub(super) struct Pulse {
    /// The member's number; another one after it had to join again.
    pub(super) member: AtomicI64,
    polled: Mutex<Instant>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

impl Pulse {
    /// The owner is alive and at work.
    pub(super) fn note_poll(&self) {
        *lock(&self.polled) = Instant::now();
    }

    pub(super) fn member(&self) -> i64 {
        self.member.load(Ordering::Acquire)
    }

    /// Waits; true when it is time to stop.
    fn rest(&self, timeout: Duration) -> bool {
        let stop = lock(&self.stop);
        let waited = self.stopped.wait_timeout_while(stop, timeout, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A running heartbeat; ends when dropped.
pub(super) struct Heartbeat {
    pub(super) pulse: Arc<Pulse>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    pub(super) fn start(
        conn: Conn,
        group: &str,
        member: i64,
        session: Duration,
        max_poll_interval: Duration,
    ) -> io::Result<Self> {
        let pulse = Arc::new(Pulse {
            member: AtomicI64::new(member),
            polled: Mutex::new(Instant::now()),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        });
        let mut watch = Watch {
            conn,
            group: group.to_owned(),
            pulse: Arc::clone(&pulse),
            interval: (session / 6).clamp(Duration::from_millis(10), Duration::from_secs(1)),
            max_poll_interval,
            seen: BTreeMap::new(),
            failing: false,
        };
        let thread = thread::Builder::new().name("bus-heartbeat".to_owned()).spawn(move || watch.run())?;
        Ok(Self { pulse, thread: Some(thread) })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        *lock(&self.pulse.stop) = true;
        self.pulse.stopped.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a heartbeat thread of the embedded bus panicked");
        }
    }
}

struct Seen {
    beat: i64,
    silent: Duration,
}

struct Watch {
    conn: Conn,
    group: String,
    pulse: Arc<Pulse>,
    interval: Duration,
    max_poll_interval: Duration,
    seen: BTreeMap<i64, Seen>,
    failing: bool,
}

impl Watch {
    fn run(&mut self) {
        let mut last = Instant::now();
        while !self.pulse.rest(self.interval) {
            // A watcher that was stopped itself has not watched: a long gap counts as a short one.
            let watched = last.elapsed().min(self.interval * 2);
            last = Instant::now();
            let outcome = self.beat().and_then(|()| self.watch(watched));
            self.report(outcome);
        }
    }

    fn report(&mut self, outcome: Result<(), BusError>) {
        match outcome {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(group = self.group, %error, "heartbeats fail; the session ends unless they recover");
            }
            Err(_) => {}
        }
    }

    fn beat(&self) -> Result<(), BusError> {
        let member = self.pulse.member();
        if lock(&self.pulse.polled).elapsed() <= self.max_poll_interval {
            return self.write("sending a heartbeat", |sql| group::beat(sql, member).map(drop));
        }
        if self.write("leaving the group", |sql| group::remove(sql, &self.group, member))? {
            tracing::warn!(group = self.group, limit = ?self.max_poll_interval, "left the group: this member was not polled for too long; it joins again with the next poll");
        }
        Ok(())
    }

    fn watch(&mut self, watched: Duration) -> Result<(), BusError> {
        let me = self.pulse.member();
        let others = self.conn.read("looking after the group", |sql| group::beats(sql, &self.group))?;
        self.seen.retain(|id, _| others.iter().any(|(other, ..)| other == id));
        for (id, beat, session) in others.into_iter().filter(|(id, ..)| *id != me) {
            let seen = self.seen.entry(id).or_insert(Seen { beat, silent: Duration::ZERO });
            if seen.beat != beat {
                *seen = Seen { beat, silent: Duration::ZERO };
                continue;
            }
            seen.silent += watched;
            if seen.silent < session {
                continue;
            }
            if self.write("removing a dead member", |sql| group::remove_silent(sql, &self.group, id, beat))? {
                tracing::info!(
                    group = self.group,
                    member = id,
                    ?session,
                    "removed a member that was silent for too long"
                );
            }
        }
        Ok(())
    }

    fn write<T>(
        &self,
        doing: &str,
        body: impl FnOnce(&rusqlite::Connection) -> Result<T, Fault>,
    ) -> Result<T, BusError> {
        self.conn.write(self.interval * 2, doing, body)
    }
}
