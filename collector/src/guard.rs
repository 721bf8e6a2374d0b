use std::sync::Arc;
use std::time::Duration;

use crate::session::{LAST_WAIT, Session};
use crate::{Report, Stats};

/// Keeps a collector running.
///
/// Dropped, it delivers what it can within five seconds, stops the collector and logs what became of the counts;
/// [`Guard::shutdown`] returns that instead. A guard that is leaked, or kept in a static, does the same when `main`
/// returns or `std::process::exit` is called. Counting goes on working after the end: what is counted then waits in the
/// counters for the next collector.
#[derive(Debug)]
#[must_use = "dropping the guard stops the collector"]
pub struct Guard {
    /// `None` once shut down.
    session: Option<Arc<Session>>,
}

impl Guard {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session: Some(session) }
    }

    /// Delivers what it can until the deadline, stops the collector, and tells what became of everything counted.
    /// Returns as soon as everything is delivered.
    #[must_use = "tells what was not delivered"]
    pub fn shutdown(mut self, deadline: Duration) -> Report {
        self.session.take().map_or_else(Report::default, |session| session.stop(deadline, false))
    }

    /// Waits until everything counted before this call is on the bus, at most until the deadline; answers whether it
    /// is.
    pub fn flush(&self, deadline: Duration) -> bool {
        self.session.as_ref().is_some_and(|session| session.flush(deadline))
    }

    /// How the collector fares.
    pub fn stats(&self) -> Stats {
        self.session.as_ref().map_or_else(Stats::default, |session| session.stats())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.stop(LAST_WAIT, true);
        }
    }
}
