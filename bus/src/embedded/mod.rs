//! The embedded bus: topics, partitions, offsets, groups and commit metadata in one SQLite file.
//!
//! For one machine: any number of processes and threads share the file. It is not a broker: when one machine is no
//! longer enough, point the same configuration at Kafka.
//!
//! # Guarantees
//! - Whatever was acknowledged (a delivery, a commit) is on the disk and survives a power cut.
//! - A record is never duplicated: a failed transaction leaves nothing behind, and its records are written again.
//! - A commit is made in the transaction that checks this member's lease, so no member commits a partition that it has
//!   lost.
//! - When a member's process dies, other members take over its partitions after its session timeout. A live member that
//!   does not poll for [`MAX_POLL_INTERVAL`] leaves by itself.
//!
//! The file must be on a local disk. Nothing is deleted from it, except records of a compacted topic
//! that a later record with the same key replaces.

mod compaction;
mod fault;
mod fetch;
mod file;
mod fork;
mod group;
mod headers;
mod heartbeat;
mod import;
mod kind;
mod observer;
mod publisher;
mod reader;
mod reset;
mod schema;
mod streams;
mod subscriber;
mod unsigned;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::params;

use self::file::{Conn, WRITE_WAIT, find_partitions, lock};
pub use self::fork::ForkLock;
pub use self::import::ImportedRecord;
pub(crate) use self::kind::KIND;
use self::observer::EmbeddedObserver;
use self::publisher::EmbeddedPublisher;
use self::reader::EmbeddedReader;
use self::subscriber::EmbeddedSubscriber;
use crate::address::Missing;
use crate::{
    Bus, BusError, Committed, GroupOptions, Observer, Publisher, Reader, Subscriber, TopicOptions, TopicPartition,
    rules,
};

/// A member that has not polled for this long leaves its group; the same as Kafka's default.
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);

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
    /// Opens the file, and creates it when it does not exist. Its directory must exist.
    ///
    /// # Errors
    /// [`BusError::Settings`] when the path is not usable: a missing directory, another program's file, a newer file
    /// version.
    /// [`BusError::Access`] when it cannot be written. [`BusError::Unavailable`] when another process blocks it.
    pub fn open(path: &Path) -> Result<Self, BusError> {
        Self::open_as(path, Missing::Create)
    }

    pub(crate) fn open_as(path: &Path, missing: Missing) -> Result<Self, BusError> {
        let conn = Conn::open(path, missing)?;
        Ok(Self { path: path.to_owned(), conn: Arc::new(Mutex::new(conn)), max_poll_interval: MAX_POLL_INTERVAL })
    }

    fn connect(&self) -> Result<Conn, BusError> {
        lock(&self.conn).another()
    }
}

impl Bus for EmbeddedBus {
    fn describe(&self) -> String {
        format!("embedded bus {}", self.path.display())
    }

    fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<bool, BusError> {
        // Only a compacted topic loses records, so `keep` needs nothing.
        let partitions = options.partitions;
        if topic.is_empty() || topic.len() > 249 {
            return Err(BusError::Settings(format!("topic {topic:?}: a name has 1 to 249 bytes")));
        }
        rules::check_partitions(topic, partitions)?;
        if options.replicas.is_some_and(|replicas| replicas != 1) {
            return Err(BusError::Settings(format!("topic {topic:?}: the embedded bus stores exactly one replica")));
        }
        let made = lock(&self.conn).write(WRITE_WAIT, "creating a topic", |sql| {
            if let Some(ids) = find_partitions(sql, topic)? {
                return Ok(Err(ids.len()));
            }
            let insert = format!("INSERT INTO topics(name, stream, compacted) VALUES(?1, {}, ?2)", streams::NEW);
            sql.prepare_cached(&insert)?.execute(params![topic, options.compact])?;
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

    fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
        Ok(Box::new(EmbeddedObserver::new(self.connect()?)))
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

    fn reset_group(&self, group: &str, to: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
        reset::reset_group(&self.connect()?, group, to)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        Ok(Box::new(EmbeddedReader::new(self.connect()?)))
    }
}
