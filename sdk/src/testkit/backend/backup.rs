use std::collections::BTreeSet;

use super::{FakeBackend, Ledger, Rows, Taken};

/// What a [`FakeBackend`] stored when it was copied.
#[derive(Debug, Clone)]
pub struct Backup {
    rows: Rows,
    taken: Taken,
    ledger: Ledger,
    claims: BTreeSet<String>,
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
        }
    }

    /// Replaces everything that it stores.
    pub fn restore(&self, backup: &Backup) {
        let mut state = self.lock();
        let Backup { rows, taken, ledger, claims } = backup.clone();
        (state.rows, state.taken, state.ledger, state.claims) = (rows, taken, ledger, claims);
    }
}
