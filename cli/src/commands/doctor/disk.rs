//! The disks of this machine that are written to: the bus's file, and the sinks that write files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tallybus_bus::BusAddress;

use super::checks::{Checks, Finding};
use crate::charts::Unit;
use crate::failure::Failure;

/// Less free space than this is noted: at a hundred bytes an event, it is full after ten million more.
const LOW: u64 = 1 << 30;

/// What is written to find out whether the disk is full: more than file systems keep beside the name of a file.
static PROBED: [u8; 256 << 10] = [0; 256 << 10];

/// Whether the file of an embedded bus can grow. A sink's own check tells that of its directory.
pub(super) fn check_bus(address: &BusAddress, checks: &mut Checks<'_>) -> Result<(), Failure> {
    let Some(file) = address.file() else { return Ok(()) };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(error) = probe(folder) {
        let what = format!("disk of {}", folder.display());
        let fault = format!("the bus {} cannot grow: {error}; free some space", file.display());
        // A bus that is only read from here may be in a directory of another user.
        if is_full(&error) {
            checks.add(&what, Finding::Fault(fault))?;
        }
    }
    check_space(folder, checks)
}

/// Notes a disk that is nearly full. `directory` may not exist yet.
pub(super) fn check_space(directory: &Path, checks: &mut Checks<'_>) -> Result<(), Failure> {
    let Some((folder, free)) = free(directory) else { return Ok(()) };
    if free >= LOW {
        return Ok(());
    }
    let text = format!("{} free, less than {}", shown(free), shown(LOW));
    checks.add(&format!("disk of {}", folder.display()), Finding::Note(text))
}

/// The free bytes for this user where the directory is, or will be; `None` where the system does not say.
fn free(directory: &Path) -> Option<(PathBuf, u64)> {
    let above = directory.ancestors().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    let folder = above.into_iter().find(|above| above.is_dir())?;
    let found = rustix::fs::statvfs(folder).ok()?;
    Some((folder.to_owned(), found.f_bavail.saturating_mul(found.f_frsize)))
}

fn shown(bytes: u64) -> String {
    Unit::Bytes.short(bytes as f64)
}

fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".tallybus-doctor-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let written = file.write_all(&PROBED).and_then(|()| file.sync_all());
    fs::remove_file(&path)?;
    written
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_that_of_the_nearest_directory_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, free) = free(&dir.path().join("not/yet")).unwrap();
        assert_eq!(folder, dir.path());
        assert!(free > 0);
        probe(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
