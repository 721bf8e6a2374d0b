//! One name for each place in the file system.

use std::path::{Path, PathBuf};

/// The most links that are followed to something that does not exist yet, as many as Linux follows.
const MOST_LINKS: usize = 40;

/// The path with its links resolved, as far as it exists: two names of one place have one canonical path. Also a link to a
/// file that does not exist yet leads to that file's place.
pub fn canonical_path(path: &Path) -> PathBuf {
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..MOST_LINKS {
        let (Err(_), Ok(target)) = (path.canonicalize(), path.read_link()) else { break };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    for above in path.ancestors() {
        // What cannot be resolved is either missing or cannot be written to either.
        let (Ok(resolved), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) else { continue };
        return if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) };
    }
    path
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_place_has_one_canonical_path_whether_or_not_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        for rest in ["", "missing.db", "a/b"] {
            assert_eq!(canonical_path(&link.join(rest)), canonical_path(&real.join(rest)), "{rest}");
        }
        assert_eq!(canonical_path(&link.join("../real/x")), canonical_path(&real.join("x")));
        assert_ne!(canonical_path(&real.join("x")), canonical_path(&real.join("y")));
        let dangling = dir.path().join("dangling");
        std::os::unix::fs::symlink("real/missing.db", &dangling).unwrap();
        assert_eq!(canonical_path(&dangling), canonical_path(&real.join("missing.db")));
        assert!(canonical_path(Path::new("relative.db")).is_absolute());
    }
}
