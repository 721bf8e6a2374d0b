//! Sets a group's offsets while no member lives.

use std::time::Duration;

use super::file::{Conn, WRITE_WAIT, find_partition};
use super::group::{beats, remove_silent, set};
use crate::{BusError, Committed, TopicPartition};

/// A live member sends a heartbeat well within its session; this much is added for a busy machine.
const MARGIN: Duration = Duration::from_millis(200);

/// Waits for one session when the group has members: one that sends no heartbeat meanwhile is removed.
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
        to.iter().try_for_each(|(at, committed)| {
            set(sql, group, find_partition(sql, at)?, committed.offset, &committed.metadata)
        })
    })
}
