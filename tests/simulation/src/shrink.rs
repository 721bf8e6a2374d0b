//! From a life that failed to the faults that matter.

use crate::life::{Report, live_with};

/// Drops faults as long as the life fails without them.
pub fn shrink(failed: Report) -> Report {
    let mut smallest = failed;
    let mut at = 0;
    while at < smallest.plan.len() {
        let mut plan = smallest.plan.clone();
        plan.remove(at);
        let shorter = live_with(smallest.seed, plan);
        if shorter.violations.is_empty() {
            at += 1;
        } else {
            smallest = shorter;
        }
    }
    smallest
}
