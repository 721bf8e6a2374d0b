//! The tables, and the check that a file is an embedded bus.

use std::path::Path;

use rusqlite::Connection;

use super::fault::Fault;
use super::file::end_unfinished;
use crate::BusError;

/// "TALY": marks a SQLite file as a Tallybus bus.
const APPLICATION_ID: i64 = 0x5441_4c59;
/// Version of the tables below.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
-- stream: random, made with the topic; names this incarnation of it. compacted: whether a record is
-- deleted once a later one has its key.
CREATE TABLE topics(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, stream TEXT, compacted INTEGER NOT NULL DEFAULT 0);
-- first: the oldest offset kept; next: the offset to be written; max_ms: the latest timestamp of any record so far.
CREATE TABLE partitions(
    id INTEGER PRIMARY KEY, topic INTEGER NOT NULL REFERENCES topics(id), partition INTEGER NOT NULL,
    first INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0, max_ms INTEGER NOT NULL DEFAULT 0,
    UNIQUE(topic, partition));
-- id: partition << 40 | offset. behind_ms: how far the timestamp lies behind the latest one before it, so that
-- time_ms + behind_ms never falls along a partition and can be searched.
CREATE TABLE records(
    id INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, behind_ms INTEGER NOT NULL,
    key BLOB, headers BLOB, payload BLOB NOT NULL);
-- generation: grows with everything that its members must look at.
CREATE TABLE groups(name TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE members(
    id INTEGER PRIMARY KEY AUTOINCREMENT, grp TEXT NOT NULL, client_id TEXT NOT NULL, process INTEGER NOT NULL,
    session_ms INTEGER NOT NULL, beat INTEGER NOT NULL DEFAULT 0);
CREATE INDEX members_by_group ON members(grp);
CREATE TABLE subscriptions(member INTEGER NOT NULL, topic TEXT NOT NULL, PRIMARY KEY(member, topic)) WITHOUT ROWID;
-- Who shall have a partition, and who has it until released.
CREATE TABLE targets(
    grp TEXT NOT NULL, partition INTEGER NOT NULL, member INTEGER NOT NULL, PRIMARY KEY(grp, partition)) WITHOUT ROWID;
CREATE TABLE leases(
    grp TEXT NOT NULL, partition INTEGER NOT NULL, member INTEGER NOT NULL, PRIMARY KEY(grp, partition)) WITHOUT ROWID;
CREATE TABLE commits(
    grp TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, metadata TEXT NOT NULL,
    PRIMARY KEY(grp, partition)) WITHOUT ROWID;
";

/// Whether the file holds the tables of a bus; false for a file that is still empty.
pub(super) fn is_ours(sql: &Connection, path: &Path) -> Result<bool, Fault> {
    // One statement, so that it sees one state of a file that another process may be creating.
    let (id, version, tables): (i64, i64, i64) = sql.query_row(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
                (SELECT count(*) FROM sqlite_schema)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let file = path.display();
    if id == 0 && version == 0 && tables == 0 {
        return Ok(false);
    }
    if id != APPLICATION_ID {
        return Err(Fault::Bus(BusError::Settings(format!(
            "{file} is a database, but not a Tallybus bus: choose another `path` in [bus]"
        ))));
    }
    if version > SCHEMA_VERSION {
        return Err(Fault::Bus(BusError::Settings(format!(
            "embedded bus {file} was written by a newer Tallybus (file version {version}, this one knows {SCHEMA_VERSION}): \
             upgrade this Tallybus"
        ))));
    }
    Ok(true)
}

pub(super) fn create_tables(sql: &Connection, path: &Path) -> Result<(), Fault> {
    sql.execute_batch("BEGIN IMMEDIATE")?;
    let made = is_ours(sql, path).and_then(|made| {
        if !made {
            sql.execute_batch(SCHEMA)?;
            sql.execute_batch(&format!(
                "PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA_VERSION}"
            ))?;
        }
        Ok(sql.execute_batch("COMMIT")?)
    });
    end_unfinished(sql)?;
    made
}

/// Adds a column to the topics of a file of a version without it, by these statements.
pub(super) fn add_to_topics(sql: &Connection, column: &str, statements: &str) -> Result<(), Fault> {
    if has_column(sql, column)? {
        return Ok(());
    }
    sql.execute_batch("BEGIN IMMEDIATE")?;
    let added = has_column(sql, column).and_then(|done| {
        if !done {
            sql.execute_batch(statements)?;
        }
        Ok(sql.execute_batch("COMMIT")?)
    });
    end_unfinished(sql)?;
    added
}

fn has_column(sql: &Connection, column: &str) -> Result<bool, Fault> {
    let query = "SELECT EXISTS(SELECT 1 FROM pragma_table_info('topics') WHERE name = ?1)";
    Ok(sql.query_row(query, [column], |row| row.get(0))?)
}
