//! Queries about topics and groups.

use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, OptionalExtension};

use super::fault::Fault;
use super::file::{Conn, WRITE_WAIT, find_partitions, find_range, lock, row_number};
use super::{compaction, group, streams};
use crate::{BusError, Committed, Observer, OffsetRange, Retention, StreamId};

/// Each query sees one consistent state of the file, however many topics it names.
pub(super) struct EmbeddedObserver {
    conn: Mutex<Conn>,
}

impl EmbeddedObserver {
    pub(super) fn new(conn: Conn) -> Self {
        Self { conn: Mutex::new(conn) }
    }

    /// The connection, if the file at the path is still the one that it reads: what another one holds is no answer.
    fn current(&self) -> Result<MutexGuard<'_, Conn>, BusError> {
        let conn = lock(&self.conn);
        conn.shared.check_still_there()?;
        Ok(conn)
    }

    fn ask<Q, T>(
        &self,
        doing: &str,
        questions: &[Q],
        answer: impl Fn(&Connection, &Q) -> Result<T, Fault>,
    ) -> Result<Vec<T>, BusError> {
        self.current()?.snapshot(doing, |sql| questions.iter().map(|question| answer(sql, question)).collect())
    }
}

impl Observer for EmbeddedObserver {
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError> {
        self.ask("finding topics", topics, |sql, topic| {
            let found = find_partitions(sql, topic)?;
            Ok(found.map(|ids| u32::try_from(ids.len()).unwrap_or(u32::MAX)))
        })
    }

    fn offsets(&self, topics: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError> {
        self.ask("reading offsets", topics, |sql, topic| {
            let ids = existing(sql, topic)?;
            Ok(ids.into_iter().map(|id| find_range(sql, id)).collect::<rusqlite::Result<_>>()?)
        })
    }

    fn offsets_at(&self, topics: &[&str], time_ms: i64) -> Result<Vec<Vec<u64>>, BusError> {
        self.ask("searching by time", topics, |sql, topic| {
            let ids = existing(sql, topic)?;
            Ok(ids.into_iter().map(|id| search(sql, id, time_ms)).collect::<rusqlite::Result<_>>()?)
        })
    }

    fn committed(&self, of: &[(&str, &str)]) -> Result<Vec<Vec<Option<Committed>>>, BusError> {
        self.ask("reading commits", of, |sql, (group, topic)| {
            existing(sql, topic)?.into_iter().map(|id| group::committed(sql, group, id)).collect()
        })
    }

    fn groups(&self) -> Result<Vec<String>, BusError> {
        self.current()?.snapshot("listing groups", |sql| {
            let names =
                "SELECT name FROM groups UNION SELECT grp FROM commits UNION SELECT grp FROM members ORDER BY 1";
            let mut query = sql.prepare_cached(names)?;
            let names = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            Ok(names)
        })
    }

    fn retention(&self, topics: &[&str]) -> Result<Vec<Retention>, BusError> {
        self.ask("reading retention", topics, |sql, topic| {
            // A topic has one partition at least, and those of one topic are kept alike.
            let compacts = match existing(sql, topic)?.first() {
                Some(partition) => compaction::is_compacted(sql, *partition)?,
                None => false,
            };
            Ok(Retention { compacts, ..Retention::default() })
        })
    }

    fn stream_ids(&self, topics: &[&str]) -> Result<Vec<StreamId>, BusError> {
        let found = self.ask("finding topics", topics, |sql, topic| streams::find(sql, topic))?;
        if let Some(all) = found.into_iter().collect() {
            return Ok(all);
        }
        // Earlier versions create topics without ids.
        lock(&self.conn).write(WRITE_WAIT, "naming the streams of topics", |sql| {
            topics.iter().map(|topic| streams::find_or_give(sql, topic)).collect()
        })
    }
}

fn existing(sql: &Connection, topic: &str) -> Result<Vec<i64>, Fault> {
    Ok(find_partitions(sql, topic)?.ok_or_else(|| BusError::NoTopic(topic.to_owned()))?)
}

/// The first offset whose record is of `time_ms` or later. The maximum of the times so far never decreases along a
/// partition, and reaches `time_ms` exactly at that record.
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
