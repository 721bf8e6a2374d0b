//! What the log should say once. Call sites only leave a note: the publisher's thread logs it, so that a `count!` never
//! waits for a log, and a log that counts never meets itself.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The most distinct notices kept; whoever has more has read enough.
const MOST: usize = 1_000;

/// Something to log once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Notice {
    /// A name or tag of this counter had to be made to fit.
    Sanitised {
        /// As it was sent.
        name: String,
    },
    /// This counter has a series too many.
    Overflowed {
        name: String,
        /// The cap.
        max_series: usize,
    },
    /// A gauge or histogram of the `metrics` facade: not something that Tallybus carries.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code))]
    Ignored { kind: &'static str, name: String },
}

#[derive(Default)]
struct Notices {
    seen: HashSet<Notice>,
    waiting: Vec<Notice>,
}

static NOTICES: Mutex<Option<Notices>> = Mutex::new(None);

fn with<T>(then: impl FnOnce(&mut Notices) -> T) -> T {
    then(NOTICES.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// Leaves a note, unless the same was left before.
pub(crate) fn leave(notice: Notice) {
    with(|notices| {
        if notices.seen.len() < MOST && notices.seen.insert(notice.clone()) {
            notices.waiting.push(notice);
        }
    });
}

/// Takes the notes left since the last call.
pub(crate) fn take() -> Vec<Notice> {
    with(|notices| std::mem::take(&mut notices.waiting))
}
