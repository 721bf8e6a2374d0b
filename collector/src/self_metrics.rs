//! Metrics of the collector itself, published as counters when the program asks for them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::Numbers;
use crate::{Counter, ledger, registry};

type Read = fn(&Numbers) -> u64;

/// A number of the collector and the counter that publishes it.
struct SelfMetric {
    counter: Counter,
    read: Read,
    sent: u64,
}

/// Empty unless the program asked for them.
pub(crate) struct SelfMetrics(Vec<SelfMetric>);

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

impl SelfMetrics {
    pub(crate) fn new(wanted: bool) -> Self {
        if !wanted {
            return Self(Vec::new());
        }
        let start = Numbers::default();
        let metric = |(name, read): (&str, Read)| SelfMetric {
            counter: Counter::of(registry::resolve(name, &[], &[]).series),
            read,
            sent: read(&start),
        };
        Self(NUMBERS.into_iter().map(metric).collect())
    }

    /// Raises the counters by what the numbers have risen since the last call.
    pub(crate) fn count(&mut self, numbers: &Numbers) {
        for metric in &mut self.0 {
            let now = (metric.read)(numbers);
            metric.counter.add(now.wrapping_sub(metric.sent));
            metric.sent = now;
        }
    }
}
