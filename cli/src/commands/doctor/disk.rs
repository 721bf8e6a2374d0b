//! The disks of this machine that are written to: the bus's file, and the sinks that write files.

use std::path::{Path, PathBuf};

use tallybus_bus::BusAddress;
use tallybus_sdk::folder;

use super::checks::{Checks, Finding};
use crate::charts::Unit;
use crate::failure::Failure;

/// Less free space than this is noted: at a hundred bytes an event, it is full after ten million more.
const LOW: u64 = 1 << 30;

/// Whether the file of an embedded bus can grow. A sink's own check tells that of its directory.
pub(super) fn check_bus(address: &BusAddress, checks: &mut Checks<'_>) -> Result<(), Failure> {
    let Some(file) = address.file() else { return Ok(()) };
    let directory = folder::of_file(file);
    // For another reason is no fault: a bus that is only read from here may be in a directory of another user.
    if let Err(error) = folder::probe(directory)
        && folder::is_full(&error)
    {
        let fault = format!("the bus {} cannot grow: {error}; free some space", file.display());
        checks.add(&format!("disk of {}", directory.display()), Finding::Fault(fault))?;
    }
    check_space(directory, checks)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_that_of_the_nearest_directory_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, free) = free(&dir.path().join("not/yet")).unwrap();
        assert_eq!(folder, dir.path());
        assert!(free > 0);
    }
}
