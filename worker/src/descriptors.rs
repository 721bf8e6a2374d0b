//! Whether this process can open another file or connection.

use std::fs::File;
use std::time::{Duration, Instant};

/// `EMFILE` and `ENFILE`: the process, or the system, has no descriptor left. The same numbers on every Unix.
const RAN_OUT: [i32; 2] = [24, 23];
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For so long it may be that a connection is about to be closed.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many must be free for a worker that owns nothing yet: a connection to the bus takes several, and gives them back when it
/// fails.
pub(crate) const FOR_A_CONNECTION: usize = 8;

/// Watches the limit of open files and connections (`ulimit -n`).
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    looked: Option<Instant>,
    out_since: Option<Instant>,
}

impl Descriptors {
    /// Whether fewer than `needed` have been free for some seconds.
    pub(crate) fn have_run_out(&mut self, now: Instant, needed: usize) -> bool {
        self.look(now, || is_limit_reached(needed))
    }

    fn look(&mut self, now: Instant, is_limit_reached: impl FnOnce() -> bool) -> bool {
        if self.looked.is_none_or(|looked| now - looked >= LOOK_EVERY) {
            self.looked = Some(now);
            self.out_since = is_limit_reached().then(|| self.out_since.unwrap_or(now));
        }
        self.out_since.is_some_and(|since| now - since >= PATIENCE)
    }
}

fn is_limit_reached(needed: usize) -> bool {
    // All of them are open at once.
    let opened: std::io::Result<Vec<File>> = (0..needed).map(|_| File::open("/dev/null")).collect();
    opened.is_err_and(|error| error.raw_os_error().is_some_and(|code| RAN_OUT.contains(&code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_must_be_reached_for_some_seconds() {
        let (mut descriptors, begun) = (Descriptors::default(), Instant::now());
        let mut found = |seconds, reached| descriptors.look(begun + Duration::from_secs(seconds), || reached);
        assert!((0..4).all(|second| !found(second, true)));
        assert!(!found(4, false), "one was free in between");
        assert!((5..10).all(|second| !found(second, true)));
        assert!(found(10, true));
        assert!(!found(11, false));
        assert!(!is_limit_reached(1));
    }
}
