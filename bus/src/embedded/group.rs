//! Consumer groups, in the file: who is a member, who shall have which partition, and who has it.
//!
//! A change of membership writes new targets in the same transaction. A member whose lease is no longer its target is
//! asked for it and keeps it until it releases; a member takes a lease that is its target and that no other member holds.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::balance::{Member, Share, assign};
use super::fault::Fault;
use super::file::find_range;
use super::unsigned::Unsigned;
use crate::{Commit, Committed, Expected, OffsetRange};

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

/// Ends a membership and frees what it held. False when it had ended already.
pub(super) fn remove(sql: &Connection, group: &str, member: i64) -> Result<bool, Fault> {
    if sql.prepare_cached("DELETE FROM members WHERE id = ?1")?.execute([member])? == 0 {
        return Ok(false);
    }
    sql.prepare_cached("DELETE FROM subscriptions WHERE member = ?1")?.execute([member])?;
    sql.prepare_cached("DELETE FROM leases WHERE grp = ?1 AND member = ?2")?.execute(params![group, member])?;
    retarget(sql, group)?;
    Ok(true)
}

/// Ends a membership unless it has shown life since `beat`.
pub(super) fn remove_silent(sql: &Connection, group: &str, member: i64, beat: i64) -> Result<bool, Fault> {
    let now: Option<i64> = sql
        .prepare_cached("SELECT beat FROM members WHERE id = ?1")?
        .query_row([member], |row| row.get(0))
        .optional()?;
    if now == Some(beat) { remove(sql, group, member) } else { Ok(false) }
}

/// A sign of life. False when the membership has ended.
pub(super) fn beat(sql: &Connection, member: i64) -> Result<bool, Fault> {
    Ok(sql.prepare_cached("UPDATE members SET beat = beat + 1 WHERE id = ?1")?.execute([member])? > 0)
}

/// What the group's members last showed: number, beat, session timeout.
pub(super) fn beats(sql: &Connection, group: &str) -> Result<Vec<(i64, i64, Duration)>, Fault> {
    let mut query = sql.prepare_cached("SELECT id, beat, session_ms FROM members WHERE grp = ?1")?;
    let rows = query.query_map([group], |row| {
        let Unsigned(session_ms) = row.get(2)?;
        Ok((row.get(0)?, row.get(1)?, Duration::from_millis(session_ms)))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Grows with every change that a member of the group must look at.
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

/// Shares the partitions out again in all groups with a member that waits for this topic.
pub(super) fn topic_appeared(sql: &Connection, topic: &str) -> Result<(), Fault> {
    let groups = {
        let mut query = sql.prepare_cached(
            "SELECT DISTINCT m.grp FROM subscriptions s JOIN members m ON m.id = s.member WHERE s.topic = ?1",
        )?;
        query.query_map([topic], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?
    };
    groups.iter().try_for_each(|group| retarget(sql, group))
}

/// Shares the partitions out again among the present members.
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

/// What a member has and shall have.
pub(super) struct Standing {
    /// Whether the membership has ended.
    pub(super) ended: bool,
    /// Partitions it holds that another shall have.
    pub(super) to_give: Vec<i64>,
    /// Partitions it shall have that no other member holds.
    pub(super) to_take: Vec<i64>,
}

pub(super) fn standing(sql: &Connection, group: &str, member: i64) -> Result<Standing, Fault> {
    let alive = sql.prepare_cached("SELECT 1 FROM members WHERE id = ?1")?.exists([member])?;
    let list = |query: &str| -> Result<Vec<i64>, Fault> {
        let mut query = sql.prepare_cached(query)?;
        let rows = query.query_map(params![group, member], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    };
    Ok(Standing {
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

/// A lease that was taken.
pub(super) struct Taken {
    pub(super) id: i64,
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) committed: Option<Committed>,
    pub(super) range: OffsetRange,
}

/// Takes what the member shall have and no other member holds, save what it has already.
pub(super) fn take(sql: &Connection, group: &str, member: i64, has: &[i64]) -> Result<Vec<Taken>, Fault> {
    let standing = standing(sql, group, member)?;
    let mut taken = Vec::new();
    for id in standing.to_take.into_iter().filter(|id| !standing.ended && !has.contains(id)) {
        sql.prepare_cached("INSERT OR REPLACE INTO leases(grp, partition, member) VALUES(?1, ?2, ?3)")?
            .execute(params![group, id, member])?;
        let (topic, partition) = sql
            .prepare_cached(
                "SELECT t.name, p.partition FROM partitions p JOIN topics t ON t.id = p.topic WHERE p.id = ?1",
            )?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        taken.push(Taken { id, topic, partition, committed: committed(sql, group, id)?, range: find_range(sql, id)? });
    }
    Ok(taken)
}

/// Gives leases back, for others to take.
pub(super) fn release(sql: &Connection, group: &str, member: i64, partitions: &[i64]) -> Result<(), Fault> {
    for partition in partitions {
        sql.prepare_cached("DELETE FROM leases WHERE grp = ?1 AND partition = ?2 AND member = ?3")?
            .execute(params![group, partition, member])?;
    }
    bump(sql, group)
}

/// What became of a change.
pub(super) enum Change {
    Made,
    /// Another member holds the lease.
    NotOwner,
    /// The group does not hold what was expected, but this.
    Changed(Option<Committed>),
}

/// Commits if the member holds the lease and the group holds what is expected.
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
    sql.prepare_cached(
        "INSERT INTO commits(grp, partition, next, metadata) VALUES(?1, ?2, ?3, ?4)
         ON CONFLICT(grp, partition) DO UPDATE SET next = excluded.next, metadata = excluded.metadata",
    )?
    .execute(params![group, partition, Unsigned(commit.offset), commit.metadata])?;
    Ok(Change::Made)
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
