//! Which incarnation of a topic the file holds: a random id in the topic's row.
//!
//! Files made before there were ids get the column when they are opened; the version of the file stays as it is, so that
//! programs of before and of now share it. A topic that a program of before creates has no id until it is asked for.

use rusqlite::{Connection, OptionalExtension};

use super::fault::Fault;
use super::file::end_unfinished;
use crate::{BusError, StreamId};

/// What a new id is made of: 128 random bits, in hexadecimal.
pub(super) const NEW: &str = "lower(hex(randomblob(16)))";

/// Adds the ids to a file made before there were any.
pub(super) fn adopt(sql: &Connection) -> Result<(), Fault> {
    if has_column(sql)? {
        return Ok(());
    }
    sql.execute_batch("BEGIN IMMEDIATE")?;
    let adopted = has_column(sql).and_then(|done| {
        if !done {
            sql.execute_batch(&format!("ALTER TABLE topics ADD COLUMN stream TEXT; UPDATE topics SET stream = {NEW}"))?;
        }
        Ok(sql.execute_batch("COMMIT")?)
    });
    end_unfinished(sql)?;
    adopted
}

fn has_column(sql: &Connection) -> Result<bool, Fault> {
    let query = "SELECT EXISTS(SELECT 1 FROM pragma_table_info('topics') WHERE name = 'stream')";
    Ok(sql.query_row(query, [], |row| row.get(0))?)
}

/// The topic's id; `None` when a program of before created the topic.
pub(super) fn find(sql: &Connection, topic: &str) -> Result<Option<StreamId>, Fault> {
    let mut query = sql.prepare_cached("SELECT stream FROM topics WHERE name = ?1")?;
    let found: Option<Option<String>> = query.query_row([topic], |row| row.get(0)).optional()?;
    let Some(id) = found else { return Err(BusError::NoTopic(topic.to_owned()).into()) };
    let parse = |id: String| {
        let damaged = |error| BusError::Fatal(format!("the embedded bus is damaged: topic {topic:?}: {error}"));
        format!("embedded:{id}").parse().map_err(damaged)
    };
    Ok(id.map(parse).transpose()?)
}

/// The same; a topic without an id gets one.
pub(super) fn find_or_give(sql: &Connection, topic: &str) -> Result<StreamId, Fault> {
    let give = format!("UPDATE topics SET stream = {NEW} WHERE name = ?1 AND stream IS NULL");
    sql.prepare_cached(&give)?.execute([topic])?;
    find(sql, topic)?.ok_or_else(|| BusError::Fatal(format!("topic {topic:?} got no stream id")).into())
}
