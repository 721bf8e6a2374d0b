use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether files can be created in a directory: creates an empty one and removes it at once. Permissions alone do not
/// answer that: the file system may be read-only or full.
///
/// # Errors
/// Creating or removing the file failed.
pub(crate) fn probe(folder: &Path) -> io::Result<()> {
    static PROBES: AtomicU64 = AtomicU64::new(0);
    let number = PROBES.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!(".tallybus-probe-{}-{number}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)
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
