//! Consumer groups, in the file: members, targets (which member shall own a partition) and leases (which member owns
//! it).
//!
//! A change of membership writes new targets in the same transaction. A member that holds a lease without the target is
//! asked to release it, and keeps it until it does; a member takes a lease when it has the target and no other member
//! holds the lease.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Fault;
use super::file::find_range;
use super::streams;
use super::unsigned::Unsigned;
use crate::balance::{Member, Share, assign};
use crate::{Commit, Committed, Expected, OffsetRange, StreamId};

/// Adds a member; its number is never used again.
pub(super) fn join(
    sql: &Connection,
    group: &str,
    topics: &[String],
    client_id: &str,
    session: Duration,
) -> Result<i64, Fault> {
    let session_ms = i64::try_from(session.as_millis()).unwrap_or(i64::MAX);
    sql.prepare_cached("INSERT INTO members(grp, client_id, process, session_ms) VALUES(?1, ?2, ?3, ?4)")?
        .execute(params![group, client_id, std::process::id(), session_ms])?;
    let member = sql.last_insert_rowid();
    for topic in topics {
        sql.prepare_cached("INSERT OR IGNORE INTO subscriptions(member, topic) VALUES(?1, ?2)")?
            .execute(params![member, topic])?;
    }
    retarget(sql, group)?;
    Ok(member)
}

/// Ends a membership and frees its leases. Returns false when it had ended already.
pub(super) fn remove(sql: &Connection, group: &str, member: i64) -> Result<bool, Fault> {
    if sql.prepare_cached("DELETE FROM members WHERE id = ?1")?.execute([member])? == 0 {
        return Ok(false);
    }
    sql.prepare_cached("DELETE FROM subscriptions WHERE member = ?1")?.execute([member])?;
    sql.prepare_cached("DELETE FROM leases WHERE grp = ?1 AND member = ?2")?.execute(params![group, member])?;
    retarget(sql, group)?;
    Ok(true)
}

/// Ends a membership unless it has sent a heartbeat since `beat`.
pub(super) fn remove_silent(sql: &Connection, group: &str, member: i64, beat: i64) -> Result<bool, Fault> {
    let now: Option<i64> = sql
        .prepare_cached("SELECT beat FROM members WHERE id = ?1")?
        .query_row([member], |row| row.get(0))
        .optional()?;
    if now == Some(beat) { remove(sql, group, member) } else { Ok(false) }
}

/// Counts a heartbeat. Returns false when the membership has ended.
pub(super) fn beat(sql: &Connection, member: i64) -> Result<bool, Fault> {
    Ok(sql.prepare_cached("UPDATE members SET beat = beat + 1 WHERE id = ?1")?.execute([member])? > 0)
}

/// The group's members: number, last beat, session timeout.
pub(super) fn beats(sql: &Connection, group: &str) -> Result<Vec<(i64, i64, Duration)>, Fault> {
    let mut query = sql.prepare_cached("SELECT id, beat, session_ms FROM members WHERE grp = ?1")?;
    let rows = query.query_map([group], |row| {
        let Unsigned(session_ms) = row.get(2)?;
        Ok((row.get(0)?, row.get(1)?, Duration::from_millis(session_ms)))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Grows with every change that concerns a member of the group.
pub(super) fn generation(sql: &Connection, group: &str) -> Result<i64, Fault> {
    let mut query = sql.prepare_cached("SELECT generation FROM groups WHERE name = ?1")?;
    Ok(query.query_row([group], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn bump(sql: &Connection, group: &str) -> Result<(), Fault> {
    sql.prepare_cached(
        "INSERT INTO groups(name, generation) VALUES(?1, 1) ON CONFLICT(name) DO UPDATE SET generation = generation + 1",
    )?
    .execute([group])?;
    Ok(())
}

/// Reassigns the partitions in all groups that have a member subscribed to this topic.
pub(super) fn topic_appeared(sql: &Connection, topic: &str) -> Result<(), Fault> {
    let groups = {
        let mut query = sql.prepare_cached(
            "SELECT DISTINCT m.grp FROM subscriptions s JOIN members m ON m.id = s.member WHERE s.topic = ?1",
        )?;
        query.query_map([topic], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?
    };
    groups.iter().try_for_each(|group| retarget(sql, group))
}

/// Reassigns the partitions among the current members.
fn retarget(sql: &Connection, group: &str) -> Result<(), Fault> {
    let mut members: Vec<Member> = Vec::new();
    let mut query = sql.prepare_cached(
        "SELECT m.id, s.topic FROM members m JOIN subscriptions s ON s.member = m.id WHERE m.grp = ?1 ORDER BY m.id, s.topic",
    )?;
    let mut rows = query.query([group])?;
    while let Some(row) = rows.next()? {
        let (id, topic) = (row.get(0)?, row.get(1)?);
        match members.last_mut() {
            Some(last) if last.id == id => last.topics.push(topic),
            _ => members.push(Member { id, topics: vec![topic] }),
        }
    }
    let mut query = sql.prepare_cached(
        "SELECT p.id, t.name, g.member FROM topics t JOIN partitions p ON p.topic = t.id
         LEFT JOIN targets g ON g.grp = ?1 AND g.partition = p.id
         WHERE t.name IN (SELECT s.topic FROM subscriptions s JOIN members m ON m.id = s.member WHERE m.grp = ?1)
         ORDER BY t.name, p.partition",
    )?;
    let shares = query
        .query_map([group], |row| Ok(Share { partition: row.get(0)?, topic: row.get(1)?, so_far: row.get(2)? }))?
        .collect::<rusqlite::Result<Vec<Share>>>()?;

    sql.prepare_cached("DELETE FROM targets WHERE grp = ?1")?.execute([group])?;
    for (partition, member) in assign(&members, &shares) {
        sql.prepare_cached("INSERT INTO targets(grp, partition, member) VALUES(?1, ?2, ?3)")?
            .execute(params![group, partition, member])?;
    }
    bump(sql, group)
}

/// The differences between a member's leases and its targets.
pub(super) struct MemberState {
    /// Whether the membership has ended.
    pub(super) ended: bool,
    /// Partitions it has leased whose target is another member.
    pub(super) to_give: Vec<i64>,
    /// Partitions with this member as target that no other member has leased.
    pub(super) to_take: Vec<i64>,
}

pub(super) fn member_state(sql: &Connection, group: &str, member: i64) -> Result<MemberState, Fault> {
    let alive = sql.prepare_cached("SELECT 1 FROM members WHERE id = ?1")?.exists([member])?;
    let list = |query: &str| -> Result<Vec<i64>, Fault> {
        let mut query = sql.prepare_cached(query)?;
        let rows = query.query_map(params![group, member], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    };
    Ok(MemberState {
        ended: !alive,
        to_give: list(
            "SELECT l.partition FROM leases l LEFT JOIN targets g ON g.grp = l.grp AND g.partition = l.partition
             WHERE l.grp = ?1 AND l.member = ?2 AND g.member IS NOT l.member ORDER BY l.partition",
        )?,
        to_take: list(
            "SELECT g.partition FROM targets g LEFT JOIN leases l ON l.grp = g.grp AND l.partition = g.partition
             WHERE g.grp = ?1 AND g.member = ?2 AND (l.member IS NULL OR l.member = g.member) ORDER BY g.partition",
        )?,
    })
}

/// A newly taken lease.
pub(super) struct Taken {
    pub(super) id: i64,
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) stream: StreamId,
    pub(super) committed: Option<Committed>,
    pub(super) range: OffsetRange,
}

/// Takes the leases whose target is this member and that no other member holds, except those it has already.
pub(super) fn take(sql: &Connection, group: &str, member: i64, has: &[i64]) -> Result<Vec<Taken>, Fault> {
    let member_state = member_state(sql, group, member)?;
    let mut taken = Vec::new();
    for id in member_state.to_take.into_iter().filter(|id| !member_state.ended && !has.contains(id)) {
        sql.prepare_cached("INSERT OR REPLACE INTO leases(grp, partition, member) VALUES(?1, ?2, ?3)")?
            .execute(params![group, id, member])?;
        let (topic, partition): (String, u32) = sql
            .prepare_cached(
                "SELECT t.name, p.partition FROM partitions p JOIN topics t ON t.id = p.topic WHERE p.id = ?1",
            )?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let stream = streams::find_or_give(sql, &topic)?;
        let (committed, range) = (committed(sql, group, id)?, find_range(sql, id)?);
        taken.push(Taken { id, topic, partition, stream, committed, range });
    }
    Ok(taken)
}

/// Gives leases back, for other members to take.
pub(super) fn release(sql: &Connection, group: &str, member: i64, partitions: &[i64]) -> Result<(), Fault> {
    for partition in partitions {
        sql.prepare_cached("DELETE FROM leases WHERE grp = ?1 AND partition = ?2 AND member = ?3")?
            .execute(params![group, partition, member])?;
    }
    bump(sql, group)
}

/// The outcome of a commit.
pub(super) enum Change {
    Made,
    /// Another member holds the lease.
    NotOwner,
    /// The group's committed state is not the expected one, but this.
    Changed(Option<Committed>),
}

/// Commits if the member holds the lease and the group's committed state is the expected one.
pub(super) fn commit(
    sql: &Connection,
    group: &str,
    member: i64,
    partition: i64,
    commit: &Commit,
) -> Result<Change, Fault> {
    let mut lease = sql.prepare_cached("SELECT 1 FROM leases WHERE grp = ?1 AND partition = ?2 AND member = ?3")?;
    if !lease.exists(params![group, partition, member])? {
        return Ok(Change::NotOwner);
    }
    if let Expected::Exactly(expected) = &commit.expected {
        let held = committed(sql, group, partition)?;
        if held != *expected {
            return Ok(Change::Changed(held));
        }
    }
    set(sql, group, partition, commit.offset, &commit.metadata)?;
    Ok(Change::Made)
}

/// Sets what the group holds for a partition.
pub(super) fn set(sql: &Connection, group: &str, partition: i64, offset: u64, metadata: &str) -> Result<(), Fault> {
    sql.prepare_cached(
        "INSERT INTO commits(grp, partition, next, metadata) VALUES(?1, ?2, ?3, ?4)
         ON CONFLICT(grp, partition) DO UPDATE SET next = excluded.next, metadata = excluded.metadata",
    )?
    .execute(params![group, partition, Unsigned(offset), metadata])?;
    Ok(())
}

/// What the group committed last for a partition.
pub(super) fn committed(sql: &Connection, group: &str, partition: i64) -> Result<Option<Committed>, Fault> {
    let mut query = sql.prepare_cached("SELECT next, metadata FROM commits WHERE grp = ?1 AND partition = ?2")?;
    let found = query
        .query_row(params![group, partition], |row| {
            let Unsigned(offset) = row.get(0)?;
            Ok(Committed { offset, metadata: row.get(1)? })
        })
        .optional()?;
    Ok(found)
}
