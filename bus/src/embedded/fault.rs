use std::path::Path;

use rusqlite::ErrorCode;

use crate::BusError;

/// What can go wrong inside a transaction.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(rusqlite::Error),
    Bus(BusError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<BusError> for Fault {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

impl Fault {
    pub(super) fn at(self, path: &Path, doing: &str) -> BusError {
        match self {
            Self::Sql(error) => explain(path, doing, &error),
            Self::Bus(error) => error,
        }
    }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Converts the fault into an error that names the file, the failed operation and the remedy.
pub(super) fn explain(path: &Path, doing: &str, error: &rusqlite::Error) -> BusError {
    let file = path.display();
    let Some(code) = error.sqlite_error_code() else {
        return BusError::Fatal(format!("embedded bus {file}: {doing}: {error}"));
    };
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => BusError::Unavailable(format!(
            "embedded bus {file} is locked while {doing}: another process holds its lock; stop the process that has \
             it open"
        )),
        ErrorCode::DiskFull => {
            BusError::Unavailable(format!("embedded bus {file}: the disk is full while {doing}: free some space"))
        }
        ErrorCode::ReadOnly => BusError::Access(format!(
            "embedded bus {file} cannot be written while {doing}: give this user write permission on the file and its \
             directory"
        )),
        ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
            BusError::Access(format!("embedded bus {file}: no permission while {doing}: check who owns the file"))
        }
        ErrorCode::NotADatabase => BusError::Settings(format!(
            "{file} is not a Tallybus bus (not even a database): choose another `path` in [bus]"
        )),
        ErrorCode::DatabaseCorrupt => BusError::Fatal(format!(
            "embedded bus {file} is damaged ({error}): stop everything that uses it and restore it from a copy"
        )),
        ErrorCode::CannotOpen => BusError::Unavailable(format!(
            "embedded bus {file} cannot be opened while {doing} ({error}): check that the file and its directory exist and \
             may be written"
        )),
        ErrorCode::SystemIoFailure => {
            BusError::Unavailable(format!("embedded bus {file}: the disk failed while {doing}: {error}"))
        }
        _ => BusError::Fatal(format!("embedded bus {file}: {doing}: {error}")),
    }
}
