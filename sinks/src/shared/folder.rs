use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
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

/// The path with its links resolved, as far as it exists: two names of one place have one canonical path.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for above in path.ancestors() {
        // What cannot be resolved is either missing or cannot be written to either.
        let (Ok(resolved), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) else { continue };
        return if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) };
    }
    path
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

    #[test]
    fn a_place_has_one_canonical_path_whether_or_not_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        for rest in ["", "missing.db", "a/b"] {
            assert_eq!(canonical(&link.join(rest)), canonical(&real.join(rest)), "{rest}");
        }
        assert_eq!(canonical(&link.join("../real/x")), canonical(&real.join("x")));
        assert_ne!(canonical(&real.join("x")), canonical(&real.join("y")));
        assert!(canonical(Path::new("relative.db")).is_absolute());
    }
}
