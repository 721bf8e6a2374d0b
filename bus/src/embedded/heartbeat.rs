//! The thread that keeps a member's session alive, and ends the sessions of members that are silent.
//!
//! Silence is measured by the members that watch: a member whose beat has not changed for its session timeout is dead. No
//! clock is shared, so neither a changed clock nor a suspended machine ends a session.

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

/// State shared by a member and its heartbeat thread.
pub(super) struct Pulse {
    /// The member's number; another one after it had to join again.
    pub(super) member: AtomicI64,
    polled: Mutex<Instant>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

impl Pulse {
    /// The owner has polled, or is working on what it polled.
    pub(super) fn note_poll(&self) {
        *lock(&self.polled) = Instant::now();
    }

    pub(super) fn member(&self) -> i64 {
        self.member.load(Ordering::Acquire)
    }

    /// Waits; returns true when the thread shall stop.
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
            // A watcher that was suspended has not observed the others meanwhile: a long gap counts as a short one.
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
                tracing::warn!(group = self.group, %error, "heartbeats failed, retrying; the session ends unless they \
                    recover");
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
            // The owner learns of the loss at its next poll, and warns of it.
            tracing::debug!(group = self.group, limit = ?self.max_poll_interval, "left the group: this member was not \
                polled for too long; it rejoins at the next poll");
        }
        Ok(())
    }

    fn watch(&mut self, watched: Duration) -> Result<(), BusError> {
        let me = self.pulse.member();
        let others = self.conn.read("checking the members of the group", |sql| group::beats(sql, &self.group))?;
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
                    "removed a member that sent no heartbeat within its session timeout"
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
