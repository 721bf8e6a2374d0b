use std::sync::Arc;
use std::time::Duration;

use crate::session::{LAST_WAIT, Session};
use crate::{Report, Stats};

/// Keeps a collector running.
///
/// Dropping it delivers what it can within five seconds, stops the collector and logs its [`Report`];
/// [`Guard::shutdown`] returns the report instead. If a guard is leaked, or kept in a static, the same happens when `main`
/// returns or `std::process::exit` is called. A signal ends a process without any of that, see
/// [`Builder::flush_on_signals`](crate::Builder::flush_on_signals). Counting still works afterwards: the counts wait for the next collector of
/// this process.
#[derive(Debug)]
#[must_use = "dropping the guard stops the collector"]
pub struct Guard {
    /// `None` once shut down.
    session: Option<Arc<Session>>,
    #[cfg(feature = "commands")]
    commands: crate::commands::Attached,
}

impl Guard {
    pub(crate) fn new(session: Arc<Session>, #[cfg(feature = "commands")] commands: crate::commands::Attached) -> Self {
        Self {
            session: Some(session),
            #[cfg(feature = "commands")]
            commands,
        }
    }

    /// Reads commands from the collector's bus, does them and answers them, until the guard is shut down or dropped. Once for all
    /// commands of a process. Does not wait for the bus.
    ///
    /// # Errors
    /// A setting cannot work, there is no key and unsigned commands are not allowed, commands are served already, or the system
    /// refuses a thread.
    #[cfg(feature = "commands")]
    pub fn serve(&self, commands: crate::commands::Commands) -> Result<(), crate::commands::CommandsError> {
        self.commands.serve(commands)
    }

    /// The address of this instance, `service/NAME@INSTANCE`; `None` before [`Guard::serve`].
    #[cfg(feature = "commands")]
    pub fn address(&self) -> Option<String> {
        self.commands.address()
    }

    /// What came of the commands and tasks of this instance up to now.
    #[cfg(feature = "commands")]
    pub fn command_counts(&self) -> crate::commands::CommandCounts {
        self.commands.counts()
    }

    /// Delivers what it can within `deadline`, stops the collector and returns the outcome of everything counted.
    /// Returns as soon as everything is delivered. A service with commands first ends the command and the task in hand, for at most
    /// half of the time.
    #[must_use = "the report says what was not delivered"]
    pub fn shutdown(mut self, deadline: Duration) -> Report {
        let Some(session) = self.session.take() else { return Report::default() };
        #[cfg(feature = "commands")]
        let (deadline, counts) = self.commands.stop(deadline);
        let report = session.stop(deadline, false);
        #[cfg(feature = "commands")]
        let report = Report { commands: counts, ..report };
        report
    }

    /// Waits until everything counted before this call is on the bus, for at most `deadline`. Returns whether it is.
    pub fn flush(&self, deadline: Duration) -> bool {
        self.session.as_ref().is_some_and(|session| session.flush(deadline))
    }

    /// Statistics of the collector up to now.
    pub fn stats(&self) -> Stats {
        self.session.as_ref().map_or_else(Stats::default, |session| session.stats())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            #[cfg(feature = "commands")]
            let wait = self.commands.stop_and_log(LAST_WAIT);
            #[cfg(not(feature = "commands"))]
            let wait = LAST_WAIT;
            session.stop(wait, true);
        }
    }
}
