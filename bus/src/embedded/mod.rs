//! The embedded bus: topics, partitions, offsets, groups and commit metadata in one SQLite file.
//!
//! For one machine: any number of processes and threads share the file. It is no broker: whoever outgrows one machine
//! points the same configuration at Kafka.
//!
//! # What it promises
//! - What is acknowledged (a delivery, a commit) is on the disk and survives a power cut.
//! - A record is never doubled: a transaction that fails left nothing, and its records are written again.
//! - A commit is made in the transaction that finds this member's lease, so nobody commits what it has lost.
//! - A member whose process dies is followed by others after its session timeout. A member that lives but does not poll
//!   for [`MAX_POLL_INTERVAL`] leaves by itself.
//!
//! The file must lie on a local disk. Nothing is deleted from it yet.

mod balance;
mod fault;
mod fetch;
mod file;
mod group;
mod headers;
mod heartbeat;
mod publisher;
mod reader;
mod subscriber;
mod unsigned;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use self::file::{Conn, WRITE_WAIT, find_partitions, find_range, lock, row_number};
use self::publisher::EmbeddedPublisher;
use self::reader::EmbeddedReader;
use self::subscriber::EmbeddedSubscriber;
use crate::{Bus, BusError, Committed, GroupOptions, OffsetRange, Publisher, Reader, Subscriber};

/// A member that has not polled for so long leaves its group, as with Kafka's default.
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);

/// More than anybody needs on one machine; keeps a slip of the hand from making millions of rows.
const MAX_PARTITIONS: u32 = 4096;

/// A bus in one file. Cloning shares it.
#[derive(Clone)]
pub struct EmbeddedBus {
    path: PathBuf,
    conn: Arc<Mutex<Conn>>,
    max_poll_interval: Duration,
}

impl fmt::Debug for EmbeddedBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBus").field("path", &self.path).finish_non_exhaustive()
    }
}

impl EmbeddedBus {
    /// Opens the file, and makes it when it does not exist. Its directory must.
    ///
    /// # Errors
    /// [`BusError::Settings`] when the path cannot be a bus: no such directory, another program's file, a newer version.
    /// [`BusError::Access`] when it cannot be written. [`BusError::Unavailable`] when another process blocks it.
    pub fn open(path: &Path) -> Result<Self, BusError> {
        let conn = Conn::open(path)?;
        Ok(Self { path: path.to_owned(), conn: Arc::new(Mutex::new(conn)), max_poll_interval: MAX_POLL_INTERVAL })
    }

    fn connect(&self) -> Result<Conn, BusError> {
        lock(&self.conn).another()
    }

    fn ids(sql: &Connection, topic: &str) -> Result<Vec<i64>, fault::Fault> {
        Ok(find_partitions(sql, topic)?.ok_or_else(|| BusError::NoTopic(topic.to_owned()))?)
    }
}

impl Bus for EmbeddedBus {
    fn describe(&self) -> String {
        format!("embedded bus {}", self.path.display())
    }

    fn create_topic(&self, topic: &str, partitions: u32) -> Result<bool, BusError> {
        if topic.is_empty() || topic.len() > 249 {
            return Err(BusError::Settings(format!("topic {topic:?}: a name has 1 to 249 bytes")));
        }
        if partitions == 0 || partitions > MAX_PARTITIONS {
            return Err(BusError::Settings(format!("topic {topic:?}: partitions must be 1 to {MAX_PARTITIONS}")));
        }
        let made = lock(&self.conn).write(WRITE_WAIT, "creating a topic", |sql| {
            if let Some(ids) = find_partitions(sql, topic)? {
                return Ok(Err(ids.len()));
            }
            sql.prepare_cached("INSERT INTO topics(name) VALUES(?1)")?.execute([topic])?;
            let id = sql.last_insert_rowid();
            for partition in 0..partitions {
                sql.prepare_cached("INSERT INTO partitions(topic, partition) VALUES(?1, ?2)")?
                    .execute(params![id, partition])?;
            }
            group::topic_appeared(sql, topic)?;
            Ok(Ok(()))
        })?;
        let Err(actual) = made else { return Ok(true) };
        let actual = u32::try_from(actual).unwrap_or(u32::MAX);
        if actual == partitions {
            return Ok(false);
        }
        Err(BusError::PartitionCount { topic: topic.to_owned(), wanted: partitions, actual })
    }

    fn partitions(&self, topic: &str) -> Result<Option<u32>, BusError> {
        let found = lock(&self.conn).read("finding a topic", |sql| Ok(find_partitions(sql, topic)?))?;
        Ok(found.map(|ids| u32::try_from(ids.len()).unwrap_or(u32::MAX)))
    }

    fn offsets(&self, topic: &str) -> Result<Vec<OffsetRange>, BusError> {
        lock(&self.conn).snapshot("reading offsets", |sql| {
            let ids = Self::ids(sql, topic)?;
            Ok(ids.into_iter().map(|id| find_range(sql, id)).collect::<rusqlite::Result<_>>()?)
        })
    }

    fn offsets_at(&self, topic: &str, time_ms: i64) -> Result<Vec<u64>, BusError> {
        lock(&self.conn).snapshot("searching by time", |sql| {
            let ids = Self::ids(sql, topic)?;
            Ok(ids.into_iter().map(|id| search(sql, id, time_ms)).collect::<rusqlite::Result<_>>()?)
        })
    }

    fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<Committed>>, BusError> {
        lock(&self.conn).snapshot("reading commits", |sql| {
            let ids = Self::ids(sql, topic)?;
            ids.into_iter().map(|id| group::committed(sql, group, id)).collect()
        })
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>, BusError> {
        Ok(Box::new(EmbeddedPublisher::new(self.connect()?)))
    }

    fn subscriber(
        &self,
        group: &str,
        topics: &[String],
        options: &GroupOptions,
    ) -> Result<Box<dyn Subscriber>, BusError> {
        let conn = self.connect()?;
        Ok(Box::new(EmbeddedSubscriber::join(conn, group, topics, options, self.max_poll_interval)?))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        Ok(Box::new(EmbeddedReader::new(self.connect()?)))
    }
}

/// The first offset whose record is of `time_ms` or later. The latest time so far never falls along a partition, and
/// passes `time_ms` exactly at that record.
fn search(sql: &Connection, id: i64, time_ms: i64) -> rusqlite::Result<u64> {
    let OffsetRange { first, end } = find_range(sql, id)?;
    let mut query =
        sql.prepare_cached("SELECT time_ms + behind_ms FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1")?;
    let (mut low, mut high) = (first, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let bounds = (row_number(id, middle), row_number(id, high));
        let latest: Option<i64> = query.query_row(bounds, |row| row.get(0)).optional()?;
        if latest.is_none_or(|latest| latest >= time_ms) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}
