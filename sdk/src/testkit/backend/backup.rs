use std::collections::{BTreeMap, BTreeSet};

use super::{FakeBackend, Ledger, Rows, Taken};

/// What a [`FakeBackend`] stored when it was copied.
#[derive(Debug, Clone)]
pub struct Backup {
    rows: Rows,
    taken: Taken,
    ledger: Ledger,
    claims: BTreeSet<String>,
    marks: BTreeMap<String, u64>,
}

impl FakeBackend {
    /// A copy of everything that it stores, for [`FakeBackend::restore`].
    pub fn backup(&self) -> Backup {
        let state = self.lock();
        Backup {
            rows: state.rows.clone(),
            taken: state.taken.clone(),
            ledger: state.ledger.clone(),
            claims: state.claims.clone(),
            marks: state.marks.clone(),
        }
    }

    /// Replaces everything that it stores. Requests that have not arrived yet go with the connections.
    pub fn restore(&self, backup: &Backup) {
        let mut state = self.lock();
        state.late.clear();
        let Backup { rows, taken, ledger, claims, marks } = backup.clone();
        (state.rows, state.taken, state.ledger) = (rows, taken, ledger);
        (state.claims, state.marks) = (claims, marks);
    }

    /// Sets the ledger of a partition to an offset and forgets the keys of all batches: all that an older backup would hold,
    /// with rows that are as they are.
    pub fn set_back(&self, topic: &str, partition: u32, offset: u64) {
        let mut state = self.lock();
        state.ledger.insert((topic.into(), partition), offset.into());
        state.taken.clear();
    }
}
