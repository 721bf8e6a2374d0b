//! Which transactions Redshift would not let stand beside each other, table by table.

use std::collections::BTreeSet;

/// The tables that a transaction has read and written, and since when it sees none of what others do.
#[derive(Debug, Clone, Default)]
pub(super) struct Touched {
    pub(super) since: u64,
    pub(super) reads: BTreeSet<String>,
    pub(super) writes: BTreeSet<String>,
}

/// What was committed.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    clock: u64,
    committed: Vec<(u64, Touched)>,
}

impl Conflicts {
    pub(super) fn now(&self) -> u64 {
        self.clock
    }

    /// The table of a cycle with a transaction that was committed since: each has read what the other wrote.
    pub(super) fn cycle(&self, own: &Touched) -> Option<String> {
        let since = self.committed.iter().rev().take_while(|(at, _)| *at > own.since);
        for (_, other) in since {
            let hers = other.writes.intersection(&own.reads).next();
            if let Some(table) = hers
                && other.reads.intersection(&own.writes).next().is_some()
            {
                return Some(table.clone());
            }
        }
        None
    }

    pub(super) fn commit(&mut self, own: Touched) {
        self.clock += 1;
        self.committed.push((self.clock, own));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(since: u64, reads: &[&str], writes: &[&str]) -> Touched {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Touched { since, reads: set(reads), writes: set(writes) }
    }

    #[test]
    fn a_cycle_is_found_and_mere_writing_is_none() {
        let mut conflicts = Conflicts::default();
        conflicts.commit(touched(0, &["ledger"], &["ledger", "counters"]));
        assert_eq!(conflicts.cycle(&touched(0, &["ledger"], &["ledger"])).as_deref(), Some("ledger"));
        assert_eq!(conflicts.cycle(&touched(1, &["ledger"], &["ledger"])), None, "began after");
        assert_eq!(conflicts.cycle(&touched(0, &[], &["counters"])), None, "only writes");
        assert_eq!(conflicts.cycle(&touched(0, &["counters"], &["other"])), None, "the other read nothing of it");
    }
}
