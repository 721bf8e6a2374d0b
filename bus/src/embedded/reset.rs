//! Sets a group's offsets while no member lives.

use std::time::Duration;

use rusqlite::Connection;

use super::fault::Fault;
use super::file::{Conn, WRITE_WAIT, find_partitions};
use super::group::{beats, remove_silent, set};
use crate::{BusError, Committed, TopicPartition};

/// A live member sends a heartbeat well within its session; this much is added for a busy machine.
const MARGIN: Duration = Duration::from_millis(200);

pub(super) fn reset_group(conn: &Conn, group: &str, to: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
    // A worker that was killed is still in the file. Whether a member lives shows in its heartbeats.
    let before = conn.read("reading the group", |sql| beats(sql, group))?;
    if let Some(session) = before.iter().map(|(_, _, session)| *session).max() {
        std::thread::sleep(session + MARGIN);
    }
    conn.write(WRITE_WAIT, "setting the group's offsets", |sql| {
        for (member, beat, _) in &before {
            remove_silent(sql, group, *member, *beat)?;
        }
        if !beats(sql, group)?.is_empty() {
            return Err(BusError::GroupInUse(group.to_owned()).into());
        }
        to.iter().try_for_each(|(at, committed)| set(sql, group, id_of(sql, at)?, committed))
    })
}

fn id_of(sql: &Connection, at: &TopicPartition) -> Result<i64, Fault> {
    let ids = find_partitions(sql, &at.topic)?.ok_or_else(|| BusError::NoTopic(at.topic.to_string()))?;
    let number = usize::try_from(at.partition).ok().and_then(|number| ids.get(number).copied());
    number.ok_or_else(|| BusError::Settings(format!("{at}: the topic has {} partitions", ids.len())).into())
}
