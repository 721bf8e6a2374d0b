use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Marks a directory as a demo's, which may be recreated.
const MARK: &str = ".tallybus-demo";

/// The directory of a demo's files.
pub(super) struct Directory {
    path: PathBuf,
    /// Kept locked, so that a second demo cannot remove the files of this one.
    _mark: File,
}

impl Directory {
    /// Recreates the directory; one that is not a demo's is left unchanged.
    pub(super) fn make(path: &Path) -> Result<Self, Failure> {
        let failed = |what: &str, error: std::io::Error| {
            Failure::could_not_look(format!("--dir: cannot {what} {}: {error}", path.display()))
        };
        if path.exists() {
            let mut entries = std::fs::read_dir(path).map_err(|error| failed("read", error))?;
            let is_empty = entries.next().is_none();
            if !is_empty && !path.join(MARK).is_file() {
                return Err(Failure::could_not_look(format!(
                    "--dir: {} contains other files; use a new or an empty directory",
                    path.display()
                )));
            }
        }
        // One that is made in a place that does not exist is most likely misspelt.
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty() && !above.is_dir()) {
            return Err(Failure::could_not_look(format!(
                "--dir: the directory {} does not exist; create it first, or name another",
                above.display()
            )));
        }
        if !path.is_dir() {
            std::fs::create_dir(path).map_err(|error| failed("make", error))?;
        }
        let path = path.canonicalize().map_err(|error| failed("find", error))?;
        let mark = File::options().write(true).create(true).truncate(false).open(path.join(MARK));
        let mark = mark.map_err(|error| failed("write into", error))?;
        match mark.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::could_not_look(format!(
                    "--dir: another demo is running in {}; wait for it, or use another directory",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", error)),
        }
        clean(&path).map_err(|error| failed("clean", error))?;
        let directory = Self { path, _mark: mark };
        let text = "Created by `tallybus demo`, which recreates this directory.\n";
        std::fs::write(directory.path.join(MARK), text)
            .and_then(|()| std::fs::write(directory.settings(), SETTINGS))
            .map_err(|error| failed("write into", error))?;
        Ok(directory)
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.path.join("tallybus.toml")
    }

    pub(super) fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    pub(super) fn database(&self, sink: &str) -> PathBuf {
        self.path.join(format!("{sink}.db"))
    }
}

/// The settings of a demo. Its paths are relative to their file, so that the directory can be moved.
const SETTINGS: &str = r#"# Created by `tallybus demo`. Every command accepts it with --config. Paths are relative to this file.

[bus]
kind = "embedded"              # one file, no broker; "kafka" takes: brokers = "127.0.0.1:9092"
path = "bus.db"
partitions = 4

[sinks.per-second]             # its consumer group is tallybus.per-second
kind = "sqlite"
path = "per-second.db"
window = "1s"
batch = { max_delay = "250ms" }

[sinks.per-minute]             # another worker, another database, other settings
kind = "sqlite"
path = "per-minute.db"
window = "1m"
batch = { max_delay = "250ms" }
select = { drop_tags = ["instance"] }
"#;

/// Removes the files of a demo, and nothing else.
fn clean(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let made = name == "tallybus.toml"
            || name == "report.html"
            || ["bus.db", "per-second.db", "per-minute.db"].iter().any(|database| name.starts_with(database));
        if made && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
