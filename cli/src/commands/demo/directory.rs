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

    /// What the worker of a sink logs.
    pub(super) fn log(&self, sink: &str) -> PathBuf {
        self.path.join(format!("{sink}.log"))
    }

    /// The bytes of the files that a sink has written: those of a database, or of a directory.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn size(&self, sink: &str) -> std::io::Result<u64> {
        let mut size = 0;
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == sink || name.starts_with(&format!("{sink}.db")) {
                size += size_of(&entry.path())?;
            }
        }
        Ok(size)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The bytes of a file, or of all files in a directory.
fn size_of(path: &Path) -> std::io::Result<u64> {
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut size = 0;
    for entry in std::fs::read_dir(path)? {
        size += size_of(&entry?.path())?;
    }
    Ok(size)
}

/// The settings of a demo. Its paths are relative to their file, so that the directory can be moved and read elsewhere.
const SETTINGS: &str = r#"# Created by `tallybus demo`. Every command accepts it with --config. Paths are relative to this file.

[bus]
kind = "embedded"              # one file, no broker; "kafka" takes: brokers = "127.0.0.1:9092"
path = "bus.db"
partitions = 4

[sinks.sqlite]                 # its consumer group is tallybus.sqlite
kind = "sqlite"
path = "sqlite.db"
window = "1s"
batch = { max_delay = "250ms" }

[sinks.parquet]                # another kind of backend: files. Elsewhere it halts: they are known by their path
kind = "parquet"
path = "parquet"
create = true
window = "1s"
batch = { max_delay = "1s" }   # fewer and larger files, a second later

[sinks.sqlite-1m]              # SQLite again, with a longer window and without a tag
kind = "sqlite"
path = "sqlite-1m.db"
window = "1m"
batch = { max_delay = "250ms" }
select = { drop_tags = ["region"] }
"#;

/// The sinks of the settings above, and what they are.
const SINKS: [(&str, &str); 3] = [
    ("sqlite", "SQLite, windows of 1 s"),
    ("parquet", "Parquet files, windows of 1 s"),
    ("sqlite-1m", "SQLite, windows of 1 m, without a tag"),
];

/// What a sink of the demo is; its name, if the demo does not know it.
pub(super) fn what(sink: &str) -> &str {
    SINKS.iter().find(|(name, _)| *name == sink).map_or(sink, |(_, what)| *what)
}

/// Removes the files of a demo, and nothing else.
fn clean(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_of_sink = |sink: &str| name.starts_with(&format!("{sink}.db")) || name == format!("{sink}.log");
        let made = name == "tallybus.toml"
            || name == "report.html"
            || name.starts_with("bus.db")
            || SINKS.iter().any(|(sink, _)| is_of_sink(sink));
        let kind = entry.file_type()?;
        if made && kind.is_file() {
            std::fs::remove_file(entry.path())?;
        }
        if name == "parquet" && kind.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
