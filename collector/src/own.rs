//! What the collector counts of itself, sent like any other counter when asked for.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::Numbers;
use crate::{Counter, ledger, registry};

type Read = fn(&Numbers) -> u64;

/// A number of the collector and the counter that follows it.
struct Own {
    counter: Counter,
    read: Read,
    sent: u64,
}

/// Empty when not asked for.
pub(crate) struct OwnCounters(Vec<Own>);

const NUMBERS: [(&str, Read); 5] = [
    ("tallybus.collector.messages", |numbers| read(&numbers.messages)),
    ("tallybus.collector.give_backs", |numbers| read(&numbers.give_backs)),
    ("tallybus.collector.flush_errors", |numbers| read(&numbers.flush_errors)),
    ("tallybus.collector.overflowed", |_| ledger::counted_in(&registry::overflows())),
    ("tallybus.collector.sanitised", |_| registry::sanitised()),
];

fn read(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

impl OwnCounters {
    pub(crate) fn new(wanted: bool) -> Self {
        if !wanted {
            return Self(Vec::new());
        }
        let start = Numbers::default();
        let own = |(name, read): (&str, Read)| Own {
            counter: Counter::of(registry::resolve(name, &[], &[]).series),
            read,
            sent: read(&start),
        };
        Self(NUMBERS.into_iter().map(own).collect())
    }

    /// Raises the counters to where the numbers stand.
    pub(crate) fn count(&mut self, numbers: &Numbers) {
        for own in &mut self.0 {
            let now = (own.read)(numbers);
            own.counter.add(now.wrapping_sub(own.sent));
            own.sent = now;
        }
    }
}
