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
        std::fs::create_dir_all(path).map_err(|error| failed("make", error))?;
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
            .and_then(|()| std::fs::write(directory.settings(), directory.settings_text()))
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

    fn settings_text(&self) -> String {
        let path = |name: &str| {
            let path = self.path.join(name).display().to_string();
            // A quoted TOML string.
            format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
        };
        format!(
            "# Created by `tallybus demo`. Every command accepts it with --config.\n\
             \n\
             [bus]\n\
             kind = \"embedded\"              # one file, no broker; \"kafka\" takes: brokers = \"127.0.0.1:9092\"\n\
             path = {}\n\
             partitions = 4\n\
             \n\
             [sinks.per-second]             # its consumer group is tallybus.per-second\n\
             kind = \"sqlite\"\n\
             path = {}\n\
             window = \"1s\"\n\
             batch = {{ max_delay = \"250ms\" }}\n\
             \n\
             [sinks.per-minute]             # another worker, another database, other settings\n\
             kind = \"sqlite\"\n\
             path = {}\n\
             window = \"1m\"\n\
             batch = {{ max_delay = \"250ms\" }}\n\
             select = {{ drop_tags = [\"instance\"] }}\n",
            path("bus.db"),
            path("per-second.db"),
            path("per-minute.db")
        )
    }
}

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
