//! Directories of this machine that sinks and buses write into.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the probe writes: more than file systems keep beside the name of a file.
static PROBED: [u8; 256 << 10] = [0; 256 << 10];

/// Whether files can be written in a directory: writes one and removes it at once. Permissions alone do not answer that: the
/// file system may be read-only or full, and a full one still creates empty files.
///
/// # Errors
/// Creating, writing or removing the file failed.
pub fn probe(folder: &Path) -> io::Result<()> {
    static PROBES: AtomicU64 = AtomicU64::new(0);
    let number = PROBES.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!(".tallybus-probe-{}-{number}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    // A network's file system may find out only when it has to keep the data.
    let written = file.write_all(&PROBED).and_then(|()| file.sync_all());
    fs::remove_file(&path)?;
    written
}

/// The directory of a file: `.` for a name alone.
pub fn of_file(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a write failed for want of space, and not of permission.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_leaves_nothing_and_fails_where_no_file_can_be_created() {
        let dir = tempfile::tempdir().unwrap();
        probe(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(probe(&dir.path().join("missing")).is_err());
        // Not even the superuser creates files there.
        assert!(probe(Path::new("/proc")).is_err());
    }
}
