//! Warnings to log once each. A call site only records one: the publisher's thread logs it, so that `count!` never waits
//! for a log, and a log subscriber that counts does not call itself.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::registry::{self, Spread};

/// The most distinct warnings kept; further ones are dropped.
const MOST: usize = 1_000;

/// A warning to log once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Warning {
    /// The name or a tag of this counter was changed to fit.
    Sanitised {
        /// As it was sent.
        name: String,
    },
    /// This counter got a series beyond the cap.
    Overflowed {
        name: String,
        /// The cap.
        max_series: usize,
    },
    /// This process was forked from one with a collector, and counted before it had one itself.
    Forked,
    /// Something was counted between two collectors.
    Late,
    /// A gauge or histogram of the `metrics` facade, which Tallybus does not carry.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code))]
    Ignored { kind: &'static str, name: String },
}

#[derive(Default)]
pub(crate) struct Pending {
    seen: HashSet<Warning>,
    waiting: Vec<Warning>,
}

static PENDING: Mutex<Option<Pending>> = Mutex::new(None);

/// The warnings, held over a fork: the child keeps them as they are.
pub(crate) struct ForkLock(
    #[allow(dead_code, reason = "held for as long as it lives")] MutexGuard<'static, Option<Pending>>,
);

pub(crate) fn lock_for_fork() -> ForkLock {
    ForkLock(pending())
}

fn pending() -> MutexGuard<'static, Option<Pending>> {
    PENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<T>(then: impl FnOnce(&mut Pending) -> T) -> T {
    then(pending().get_or_insert_default())
}

/// Records a warning, unless the same one was recorded before.
pub(crate) fn record(warning: Warning) {
    with(|warnings| {
        if warnings.seen.len() < MOST && warnings.seen.insert(warning.clone()) {
            warnings.waiting.push(warning);
        }
    });
}

/// Takes the warnings recorded since the last call.
fn take() -> Vec<Warning> {
    with(|warnings| std::mem::take(&mut warnings.waiting))
}

/// Logs the warnings recorded since the last call.
pub(crate) fn log() {
    for warning in take() {
        match warning {
            Warning::Sanitised { name } => tracing::warn!(
                name,
                "a counter's name or tags were empty, too long or had control characters; they were changed to fit"
            ),
            Warning::Forked => tracing::warn!(
                "this process was forked from one that runs a collector, and counted before it started a collector of its own; \
                 those counts are delivered now"
            ),
            Warning::Late => tracing::warn!(
                "there are counts from after the last collector of this process was shut down; they are delivered now"
            ),
            Warning::Ignored { kind, name } => {
                tracing::warn!(name, "a {kind} of the metrics facade is ignored: Tallybus carries counters only");
            }
            Warning::Overflowed { name, max_series } => {
                let (own, worst) = registry::widest(&name);
                let mut spreads: Vec<_> = own.into_iter().chain(worst).collect();
                spreads.dedup();
                let describe = |spread: &Spread| {
                    format!("; tag `{}` of `{}` has {} values", spread.key, spread.name, spread.values)
                };
                let why: String = spreads.iter().map(describe).collect();
                tracing::error!(
                    "more than {max_series} series: new series of `{name}` are counted together in one with the tag `tallybus.overflow`; raise `max_series`, or remove the tag with too many values{why}"
                );
            }
        }
    }
}
