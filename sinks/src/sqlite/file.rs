//! The database file: opened, created, recognised.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tallybus_sdk::Fault;

/// `TALY`: marks the file as one of Tallybus, also for `file(1)`.
const APPLICATION_ID: i32 = 0x5441_4c59;

/// Raised with every change of the tables.
const VERSION: i32 = 1;

/// How long a writer waits for another one's transaction before it returns an error; the worker retries.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Which sinks write to this file. In files of before it is created when it is first needed, and means nothing to earlier
/// versions.
pub(super) const CLAIMS: &str =
    "CREATE TABLE IF NOT EXISTS claims (entry TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID";

const TABLES: &str = "
    CREATE TABLE counters (
        name         TEXT    NOT NULL,
        tags         TEXT    NOT NULL, -- a JSON object, sorted by key, without spaces
        window_start INTEGER NOT NULL, -- nanoseconds since 1970-01-01 UTC
        value        INTEGER NOT NULL,
        PRIMARY KEY (name, tags, window_start)
    ) STRICT, WITHOUT ROWID;

    -- Up to where each partition is in this file; changed in the same transaction as the counters.
    CREATE TABLE ledger (
        topic       TEXT    NOT NULL,
        partition   INTEGER NOT NULL,
        next_offset INTEGER NOT NULL,
        PRIMARY KEY (topic, partition)
    ) STRICT, WITHOUT ROWID;

    -- Points that did not fit, so that a batch written again gets the same answer.
    CREATE TABLE refused (
        topic        TEXT    NOT NULL,
        partition    INTEGER NOT NULL,
        first_offset INTEGER NOT NULL,
        point        INTEGER NOT NULL,
        reason       TEXT    NOT NULL,
        PRIMARY KEY (topic, partition, first_offset, point)
    ) STRICT, WITHOUT ROWID;

    CREATE VIEW readable AS
        SELECT strftime('%Y-%m-%d %H:%M:%S', window_start / 1000000000, 'unixepoch')
               || printf('.%03d', window_start / 1000000 % 1000) AS time, name, tags, value
        FROM counters;
";

/// Sums are exact: SQLite's own `sum` fails over 2^63, so billions and the rest are summed apart. A total that fits is an
/// integer; a larger one is text of 28 characters with leading blanks, which sorts as its number does.
const COUNTS: &str = "
    CREATE VIEW counts AS
        SELECT name, tags,
               CASE WHEN billions < 9223372036 OR billions = 9223372036 AND rest <= 854775807
                    THEN billions * 1000000000 + rest
                    ELSE printf('%19d%09d', billions, rest) END AS total,
               windows, first_window, last_window
        FROM (SELECT name, tags,
                     sum(value / 1000000000) + sum(value % 1000000000) / 1000000000 AS billions,
                     sum(value % 1000000000) % 1000000000 AS rest,
                     count(*) AS windows,
                     strftime('%Y-%m-%d %H:%M:%S', min(window_start) / 1000000000, 'unixepoch') AS first_window,
                     strftime('%Y-%m-%d %H:%M:%S', max(window_start) / 1000000000, 'unixepoch') AS last_window
              FROM counters GROUP BY name, tags);
";

/// The identity of the file in the operating system, independent of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// `None` when there is no file of that name.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// Opens the file for writing; creates it when `create` allows.
pub(super) fn open(path: &Path, create: bool) -> Result<Connection, Fault> {
    let exists = exists(path)?;
    if !exists && !create {
        return Err(Fault::operator(format!(
            "{} does not exist: set `create = true`, or correct `path`",
            path.display()
        )));
    }
    let created = if exists { OpenFlags::empty() } else { OpenFlags::SQLITE_OPEN_CREATE };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | created;
    let fault = |error| fault(path, &error);
    let mut connection = Connection::open_with_flags(path, flags).map_err(fault)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fault)?;
    recognise(&connection, path)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(fault)?;
    // An acknowledged batch must be on the disk: the group's offset passes it on the bus.
    connection.pragma_update(None, "synchronous", "FULL").map_err(fault)?;
    make_tables(&mut connection).map_err(fault)?;
    recognise(&connection, path)?;
    Ok(connection)
}

/// Whether there is a file of that name. One that cannot be looked at is not missing.
pub(super) fn exists(path: &Path) -> Result<bool, Fault> {
    path.try_exists().map_err(|error| {
        Fault::operator(format!(
            "{} cannot be opened: {error}; give this user permission on its directory, or correct `path`",
            path.display()
        ))
    })
}

/// Opens the file for reading; `None` when it does not exist.
pub(super) fn open_to_read(path: &Path) -> Result<Option<Connection>, Fault> {
    if !exists(path)? {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let fault = |error| fault(path, &error);
    let connection = Connection::open_with_flags(path, flags).map_err(fault)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fault)?;
    connection.pragma_update(None, "query_only", true).map_err(fault)?;
    recognise(&connection, path)?;
    let is_made = number(&connection, "application_id").map_err(fault)? == APPLICATION_ID;
    Ok(is_made.then_some(connection))
}

/// How many bytes the file and its log take; 0 where there is none.
pub(super) fn size(path: &Path) -> Result<u64, Fault> {
    let mut bytes = 0_u64;
    for end in ["", "-wal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match fs::metadata(&name) {
            Ok(found) => bytes = bytes.saturating_add(found.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Fault::operator(format!("{} cannot be looked at: {error}", Path::new(&name).display())));
            }
        }
    }
    Ok(bytes)
}

/// Removes a file of Tallybus, with its log; one that does not exist is no error.
pub(super) fn remove(path: &Path) -> Result<(), Fault> {
    open_to_read(path)?;
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match fs::remove_file(&name) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let name = Path::new(&name).display();
                return Err(Fault::operator(format!("{name} cannot be removed: {error}; remove it by hand")));
            }
        }
    }
    Ok(())
}

/// Refuses a file that holds something else, or was made by a later version.
fn recognise(connection: &Connection, path: &Path) -> Result<(), Fault> {
    let (id, version, tables) = marks(connection).map_err(|error| fault(path, &error))?;
    let path = path.display();
    if id == APPLICATION_ID && version > VERSION {
        return Err(Fault::operator(format!("{path} was created by a later version of Tallybus: upgrade this one")));
    }
    if id != APPLICATION_ID && (id != 0 || version != 0 || tables > 0) {
        return Err(Fault::operator(format!("{path} is not a file of Tallybus: name another file")));
    }
    Ok(())
}

/// Application, version and number of tables in one snapshot: another process may be creating them.
fn marks(connection: &Connection) -> rusqlite::Result<(i32, i32, i64)> {
    let moment = connection.unchecked_transaction()?;
    let tables = moment.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok((number(&moment, "application_id")?, number(&moment, "user_version")?, tables))
}

fn make_tables(connection: &mut Connection) -> rusqlite::Result<()> {
    if number(connection, "application_id")? == APPLICATION_ID {
        return renew_view(connection);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been here in between.
    if number(&transaction, "application_id")? != APPLICATION_ID {
        transaction.execute_batch(TABLES)?;
        transaction.execute_batch(COUNTS)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    transaction.commit()
}

/// Replaces the view of earlier versions, which failed on sums over 2^63. A view that an operator changed stays.
fn renew_view(connection: &mut Connection) -> rusqlite::Result<()> {
    const EARLIER: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'counts' AND type = 'view' AND sql LIKE '%sum(value) AS total%'";
    let is_earlier = |connection: &Connection| connection.query_row(EARLIER, [], |row| row.get::<_, bool>(0));
    if !is_earlier(connection)? {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been here in between.
    if is_earlier(&transaction)? {
        transaction.execute_batch("DROP VIEW counts")?;
        transaction.execute_batch(COUNTS)?;
    }
    transaction.commit()
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

/// Classifies an error of SQLite.
pub(super) fn fault(path: &Path, error: &rusqlite::Error) -> Fault {
    let text = format!("{}: {error}", path.display());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            Fault::retry(format!("{text} (another process holds its lock)"))
        }
        Some(ErrorCode::DiskFull) => Fault::retry(format!("{text} (free some space)")),
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::SchemaChanged
            | ErrorCode::OperationAborted
            | ErrorCode::OperationInterrupted,
        ) => Fault::retry(text),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            Fault::operator(format!("{text} (check that the file and its directory exist and may be written)"))
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Fault::operator(format!("{text} (restore the file from a backup, or set another `path` and replay)"))
        }
        _ => Fault::operator(text),
    }
}
