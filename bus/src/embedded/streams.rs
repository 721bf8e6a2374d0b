//! Stream ids: a random id in the topic's row names the incarnation of the topic.
//!
//! Files of versions without ids get the column when they are opened; the file's version number does not change, so
//! that earlier and current versions can share it. A topic that an earlier version creates gets its id when it is first
//! requested.

use rusqlite::{Connection, OptionalExtension};

use super::fault::Fault;
use super::schema;
use crate::{BusError, StreamId};

/// SQL for a new id: 128 random bits, in hexadecimal.
pub(super) const NEW: &str = "lower(hex(randomblob(16)))";

/// Adds the ids to a file of a version without them.
pub(super) fn adopt(sql: &Connection) -> Result<(), Fault> {
    let add = format!("ALTER TABLE topics ADD COLUMN stream TEXT; UPDATE topics SET stream = {NEW}");
    schema::add_to_topics(sql, "stream", &add)
}

/// The topic's id; `None` when an earlier version created the topic.
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

/// The topic's id; a topic without one gets one.
pub(super) fn find_or_give(sql: &Connection, topic: &str) -> Result<StreamId, Fault> {
    let give = format!("UPDATE topics SET stream = {NEW} WHERE name = ?1 AND stream IS NULL");
    sql.prepare_cached(&give)?.execute([topic])?;
    find(sql, topic)?.ok_or_else(|| BusError::Fatal(format!("topic {topic:?} got no stream id")).into())
}
