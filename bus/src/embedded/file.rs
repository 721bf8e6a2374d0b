//! The file: opening it, and the queue of its writers.

use std::collections::{BTreeMap, VecDeque};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::fault::{Fault, explain, is_busy};
use super::unsigned::Unsigned;
use super::{compaction, schema, streams};
use crate::address::Missing;
use crate::{BusError, OffsetRange, TopicPartition};

/// How long a writer waits for its turn unless its caller says otherwise. A transaction takes milliseconds.
pub(super) const WRITE_WAIT: Duration = Duration::from_secs(5);
/// A record's row number is its partition's number shifted by this, plus its offset: a partition is one stretch of the
/// table, and holds 2^40 records at most.
pub(super) const OFFSET_BITS: u32 = 40;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shared by all connections of this process to one file: writers queue here instead of sleeping on the file's lock,
/// and a write wakes the readers of this process at once.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    inode: (u64, u64),
    turns: Mutex<Turns>,
    turn_free: Condvar,
    writes: Mutex<u64>,
    written: Condvar,
}

/// The files that this process has open, and whether it ever had one.
pub(super) struct OpenFiles {
    by_path: BTreeMap<PathBuf, Weak<Shared>>,
    is_used: bool,
}

impl OpenFiles {
    /// Whether this process ever opened an embedded bus, and so was inside SQLite.
    pub(super) fn is_used(&self) -> bool {
        self.is_used
    }
}

static OPEN_FILES: Mutex<OpenFiles> = Mutex::new(OpenFiles { by_path: BTreeMap::new(), is_used: false });

pub(super) fn lock_open_files() -> MutexGuard<'static, OpenFiles> {
    lock(&OPEN_FILES)
}

/// What SQLite and rusqlite set up once in a process is set up under this lock, which is held over a fork: a child never
/// finds it half done.
fn set_up_sqlite() -> Result<(), rusqlite::Error> {
    let mut open = lock_open_files();
    if !open.is_used {
        Connection::open_in_memory()?;
        open.is_used = true;
    }
    Ok(())
}

// The file's identity. Only `stat`: opening and closing the file here would drop the locks that SQLite holds on it.
fn inode(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

impl Shared {
    fn of(path: &Path) -> Result<Arc<Self>, BusError> {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let Some(inode) = inode(&real) else {
            return Err(BusError::Unavailable(format!(
                "embedded bus {} was removed while it was opened",
                path.display()
            )));
        };
        let open = &mut lock_open_files().by_path;
        if let Some(shared) = open.get(&real).and_then(Weak::upgrade)
            && shared.inode == inode
        {
            return Ok(shared);
        }
        open.retain(|_, file| file.strong_count() > 0);
        let shared = Arc::new(Self {
            path: real.clone(),
            inode,
            turns: Mutex::new(Turns::default()),
            turn_free: Condvar::new(),
            writes: Mutex::new(0),
            written: Condvar::new(),
        });
        open.insert(real, Arc::downgrade(&shared));
        Ok(shared)
    }

    /// How many writes this process has made.
    pub(super) fn writes(&self) -> u64 {
        *lock(&self.writes)
    }

    /// Waits until this process writes again, at most this long.
    pub(super) fn wait_written(&self, seen: u64, timeout: Duration) {
        let writes = lock(&self.writes);
        drop(self.written.wait_timeout_while(writes, timeout, |writes| *writes == seen));
    }

    /// Ends the waits of this process; each waiting thread checks again.
    pub(super) fn end_waits(&self) {
        self.note_write();
    }

    fn note_write(&self) {
        *lock(&self.writes) += 1;
        self.written.notify_all();
    }

    /// First come, first served, so that a busy publisher does not starve the heartbeats.
    fn take_turn(&self, until: Instant) -> Option<Turn<'_>> {
        let mut turns = lock(&self.turns);
        let ticket = turns.next;
        turns.next += 1;
        turns.waiting.push_back(ticket);
        while turns.taken || turns.waiting.front() != Some(&ticket) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                turns.waiting.retain(|waiting| *waiting != ticket);
                self.turn_free.notify_all();
                return None;
            }
            turns = self.turn_free.wait_timeout(turns, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        turns.waiting.pop_front();
        turns.taken = true;
        Some(Turn(self))
    }

    /// Fails when the file at the path is no longer the open one: whatever is written to the open one would be lost.
    pub(super) fn check_still_there(&self) -> Result<(), BusError> {
        if inode(&self.path) == Some(self.inode) {
            return Ok(());
        }
        Err(BusError::Fatal(format!(
            "embedded bus {} was removed or replaced while it is open: restart this process",
            self.path.display()
        )))
    }
}

/// The waiting writers, by ticket.
#[derive(Default)]
struct Turns {
    taken: bool,
    next: u64,
    waiting: VecDeque<u64>,
}

struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.0.turns).taken = false;
        self.0.turn_free.notify_all();
    }
}

/// A connection of its own to the file.
pub(super) struct Conn {
    pub(super) sql: Connection,
    pub(super) shared: Arc<Shared>,
}

impl Conn {
    /// Opens the file; creates it, and its tables, when they are missing and shall be created.
    pub(super) fn open(path: &Path, missing: Missing) -> Result<Self, BusError> {
        check_place(path)?;
        if missing == Missing::Refuse && matches!(path.try_exists(), Ok(false)) {
            return Err(BusError::NoBus(format!("{} does not exist yet", path.display())));
        }
        set_up_sqlite().map_err(|error| explain(path, "setting up SQLite", &error))?;
        let until = Instant::now() + WRITE_WAIT;
        loop {
            match open_once(path, missing) {
                Ok(sql) => return Ok(Self { sql, shared: Shared::of(path)? }),
                // Two processes that create the file at the same moment may conflict once.
                Err(Fault::Sql(error)) if is_busy(&error) && Instant::now() < until => nap(2),
                // Waiting does not help.
                Err(Fault::Sql(error)) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => {
                    return Err(BusError::Access(format!(
                        "embedded bus {} cannot be opened: give this user write permission on the file and its \
                         directory",
                        path.display()
                    )));
                }
                Err(fault) => return Err(fault.at(path, "opening it")),
            }
        }
    }

    /// Another connection to the same file; fails when the file was replaced meanwhile.
    pub(super) fn another(&self) -> Result<Self, BusError> {
        self.shared.check_still_there()?;
        let conn = Self::open(&self.shared.path, Missing::Refuse)?;
        conn.shared.check_still_there()?;
        Ok(conn)
    }

    /// Heartbeats need not survive a power cut, because members do not either; so a beat does not wait for the disk.
    pub(super) fn do_not_wait_for_disk(&self) -> Result<(), BusError> {
        self.sql.execute_batch("PRAGMA synchronous=NORMAL").map_err(|error| self.explain("setting it up", &error))
    }

    pub(super) fn explain(&self, doing: &str, error: &rusqlite::Error) -> BusError {
        explain(&self.shared.path, doing, error)
    }

    /// Runs a query.
    pub(super) fn read<T>(
        &self,
        doing: &str,
        query: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, BusError> {
        query(&self.sql).map_err(|fault| fault.at(&self.shared.path, doing))
    }

    /// Runs queries that must see one state of the file.
    pub(super) fn snapshot<T>(
        &self,
        doing: &str,
        query: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, BusError> {
        self.read(doing, |sql| {
            end_unfinished(sql)?;
            sql.prepare_cached("BEGIN")?.execute([])?;
            let answer = query(sql);
            // Ending a transaction that only read cannot lose anything.
            sql.prepare_cached("COMMIT")?.execute([])?;
            answer
        })
    }

    /// Runs a transaction that writes. On an error nothing of it is kept: a commit that fails is rolled back, and the
    /// next transaction overwrites what it left in the log.
    pub(super) fn write<T>(
        &self,
        wait: Duration,
        doing: &str,
        body: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, BusError> {
        let path = &self.shared.path;
        let until = Instant::now() + wait;
        self.shared.check_still_there()?;
        let Some(turn) = self.shared.take_turn(until) else {
            return Err(BusError::Unavailable(format!(
                "embedded bus {} is busy while {doing}: other threads of this process are writing",
                path.display()
            )));
        };
        self.begin(until).map_err(|error| explain(path, doing, &error))?;
        let outcome = body(&self.sql).and_then(|answer| {
            self.sql.prepare_cached("COMMIT")?.execute([])?;
            Ok(answer)
        });
        end_unfinished(&self.sql).map_err(|error| explain(path, "rolling back", &error))?;
        drop(turn);
        let answer = outcome.map_err(|fault| fault.at(path, doing))?;
        self.shared.note_write();
        Ok(answer)
    }

    // SQLite's own wait sleeps up to 100 ms at a time, which starves a process among busy ones.
    fn begin(&self, until: Instant) -> rusqlite::Result<()> {
        end_unfinished(&self.sql)?;
        self.sql.busy_timeout(Duration::ZERO)?;
        let mut tries = 0;
        let began = loop {
            match self.sql.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])) {
                Err(error) if is_busy(&error) && Instant::now() < until => {
                    tries += 1;
                    nap(1 + tries / 20);
                }
                other => break other,
            }
        };
        self.sql.busy_timeout(WRITE_WAIT)?;
        began.map(drop)
    }

    /// A number that changes when another connection has written.
    pub(super) fn data_version(&self) -> Result<i64, BusError> {
        self.read("checking for changes", |sql| {
            Ok(sql.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
        })
    }
}

/// Rolls back a transaction whose end failed, so that it does not block the next one.
pub(super) fn end_unfinished(sql: &Connection) -> rusqlite::Result<()> {
    if sql.is_autocommit() { Ok(()) } else { sql.execute_batch("ROLLBACK") }
}

fn nap(ms: u64) {
    thread::sleep(Duration::from_millis(ms.min(5)));
}

fn check_place(path: &Path) -> Result<(), BusError> {
    if path.is_dir() {
        return Err(BusError::Settings(format!(
            "embedded bus {} is a directory: name a file in it, such as {}",
            path.display(),
            path.join("tallybus.db").display()
        )));
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match std::fs::metadata(parent) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(BusError::Settings(format!(
            "embedded bus {}: {} is not a directory: change `path` in [bus]",
            path.display(),
            parent.display()
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(BusError::Settings(format!(
            "embedded bus {}: the directory {} does not exist: create it, or change `path` in [bus]",
            path.display(),
            parent.display()
        ))),
        Err(error) => Err(BusError::Access(format!(
            "embedded bus {}: the directory {} cannot be opened: {error}: give this user permission on it and on the \
             directories above it, or change `path` in [bus]",
            path.display(),
            parent.display()
        ))),
    }
}

/// Creates the file, unless it exists, without rights for others: it holds counts, and whoever writes it adds some. SQLite gives its
/// other files the same rights. What keeps the file from being created, SQLite meets too, and reports.
fn create_private(path: &Path) {
    let _exists = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
}

fn open_once(path: &Path, missing: Missing) -> Result<Connection, Fault> {
    let create = match missing {
        Missing::Create => OpenFlags::SQLITE_OPEN_CREATE,
        Missing::Refuse => OpenFlags::empty(),
    };
    if missing == Missing::Create {
        create_private(path);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let sql = Connection::open_with_flags(path, flags)?;
    sql.busy_timeout(WRITE_WAIT)?;
    sql.set_prepared_statement_cache_capacity(64);
    if sql.is_readonly(rusqlite::MAIN_DB)? {
        return Err(Fault::Bus(BusError::Access(format!(
            "embedded bus {} cannot be written: give this user write permission on the file",
            path.display()
        ))));
    }
    if !schema::is_ours(&sql, path)? {
        if missing == Missing::Refuse {
            return Err(Fault::Bus(BusError::NoBus(format!("{} is still empty", path.display()))));
        }
        sql.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        schema::create_tables(&sql, path)?;
    }
    streams::adopt(&sql)?;
    compaction::adopt(&sql)?;
    let mode: String = sql.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::Bus(BusError::Settings(format!(
            "embedded bus {}: this file system cannot share a SQLite database (journal mode {mode}): put the file on \
             a local disk",
            path.display()
        ))));
    }
    // FULL: acknowledged writes are on the disk. The log is truncated to 64 MiB after a burst.
    sql.execute_batch("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=2000; PRAGMA journal_size_limit=67108864")?;
    Ok(sql)
}

/// The row numbers of a topic's partitions, by partition number; `None` when it does not exist.
pub(super) fn find_partitions(sql: &Connection, topic: &str) -> rusqlite::Result<Option<Vec<i64>>> {
    let mut query = sql.prepare_cached(
        "SELECT p.id FROM topics t JOIN partitions p ON p.topic = t.id WHERE t.name = ?1 ORDER BY p.partition",
    )?;
    let ids = query.query_map([topic], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    Ok((!ids.is_empty()).then_some(ids))
}

/// The row number of a partition.
pub(super) fn find_partition(sql: &Connection, at: &TopicPartition) -> Result<i64, Fault> {
    let ids = find_partitions(sql, &at.topic)?;
    let number = usize::try_from(at.partition).unwrap_or(usize::MAX);
    let id = ids.as_ref().and_then(|ids| ids.get(number)).copied();
    id.ok_or_else(|| BusError::NoTopic(at.topic.to_string()).into())
}

/// The offsets that a partition holds.
pub(super) fn find_range(sql: &Connection, id: i64) -> rusqlite::Result<OffsetRange> {
    let mut query = sql.prepare_cached("SELECT first, next FROM partitions WHERE id = ?1")?;
    let found = query
        .query_row([id], |row| {
            let (Unsigned(first), Unsigned(end)) = (row.get(0)?, row.get(1)?);
            Ok(OffsetRange { first, end })
        })
        .optional()?;
    found.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// The row number of the partition's record at an offset.
pub(super) fn row_number(partition: i64, offset: u64) -> i64 {
    // An offset past what a partition can hold names the place after its last row.
    let offset = i64::try_from(offset).unwrap_or(i64::MAX).min(1 << OFFSET_BITS);
    (partition << OFFSET_BITS) + offset
}
