//! The embedded bus under the contract.

#![allow(clippy::unwrap_used)]

mod contract;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tallybus_bus::Bus;
use tallybus_bus::embedded::EmbeddedBus;

/// One file for all cases, so that they also meet each other as strangers do.
struct Embedded {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl contract::Subject for Embedded {
    fn bus(&self) -> Box<dyn Bus> {
        reopen(&self.address())
    }

    fn address(&self) -> String {
        self.path.to_str().unwrap().to_owned()
    }

    fn trim(&self, topic: &str, partition: u32, first: u64) {
        let mut sql = rusqlite::Connection::open(&self.path).unwrap();
        sql.busy_timeout(Duration::from_secs(30)).unwrap();
        let trimming = sql.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
        let find =
            "SELECT p.id FROM partitions p JOIN topics t ON t.id = p.topic WHERE t.name = ?1 AND p.partition = ?2";
        let id: i64 = trimming.query_row(find, (topic, partition), |row| row.get(0)).unwrap();
        // A record's number is its partition's, shifted, and its offset.
        let first = i64::try_from(first).unwrap();
        let rows = (id << 40, (id << 40) + first);
        trimming.execute("DELETE FROM records WHERE id >= ?1 AND id < ?2", rows).unwrap();
        trimming.execute("UPDATE partitions SET first = ?2 WHERE id = ?1", (id, first)).unwrap();
        trimming.commit().unwrap();
    }

    fn delete_topic(&self, topic: &str) {
        let mut sql = rusqlite::Connection::open(&self.path).unwrap();
        sql.busy_timeout(Duration::from_secs(30)).unwrap();
        let deleting = sql.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
        let ids = "SELECT p.id FROM partitions p JOIN topics t ON t.id = p.topic WHERE t.name = ?1";
        for statement in [
            &format!("DELETE FROM records WHERE id >> 40 IN ({ids})"),
            &format!("DELETE FROM commits WHERE partition IN ({ids})"),
            &format!("DELETE FROM partitions WHERE id IN ({ids})"),
            "DELETE FROM topics WHERE name = ?1",
        ] {
            deleting.execute(statement, [topic]).unwrap();
        }
        deleting.commit().unwrap();
    }

    fn compares(&self) -> bool {
        true
    }

    fn session_timeout(&self) -> Duration {
        Duration::from_secs(2)
    }
}

fn reopen(address: &str) -> Box<dyn Bus> {
    Box::new(EmbeddedBus::open(Path::new(address)).unwrap())
}

/// The file goes when the last case that uses it is done.
fn subject() -> Arc<Embedded> {
    static SUBJECT: Mutex<Weak<Embedded>> = Mutex::new(Weak::new());
    let mut shared = SUBJECT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(subject) = shared.upgrade() {
        return subject;
    }
    let directory = tempfile::tempdir().unwrap();
    let subject = Arc::new(Embedded { path: directory.path().join("bus.db"), _directory: directory });
    *shared = Arc::downgrade(&subject);
    subject
}

contract::suite!(&*subject(), reopen);
