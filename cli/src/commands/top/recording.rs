//! Recordings: a JSON object a line, as `--json` prints them.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use tallybus_verify::live::{PICTURE_VERSION, Tick};

use crate::failure::Failure;

/// A file that is recorded to.
pub(super) struct Recorder {
    path: PathBuf,
    file: File,
}

impl Recorder {
    /// Creates the file.
    ///
    /// # Errors
    /// It exists already, or cannot be created.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let created = OpenOptions::new().write(true).create_new(true).open(path);
        let file = created.map_err(|error| Failure::failed(format!("cannot record to {}: {error}", path.display())))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn add(&mut self, tick: &Tick) -> Result<(), Failure> {
        let line = format!("{}\n", line(tick)?);
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|error| Failure::failed(format!("cannot record to {}: {error}", self.path.display())))
    }
}

/// A step as one line of JSON.
///
/// # Errors
/// It cannot be written as JSON.
pub(in crate::commands) fn line(tick: &Tick) -> Result<String, Failure> {
    serde_json::to_string(tick).map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))
}

/// Reads a recording.
///
/// # Errors
/// The file cannot be read, holds nothing, or has a line that is not of this version; the line is named. A last line without an
/// end is left out: the recording was cut off in it.
pub(super) fn read(path: &Path) -> Result<Vec<Tick>, Failure> {
    let shown = path.display();
    let cannot = |error: std::io::Error| Failure::could_not_look(format!("cannot read the recording {shown}: {error}"));
    let mut file = BufReader::new(File::open(path).map_err(cannot)?);
    let mut ticks = Vec::new();
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        if file.read_line(&mut line).map_err(cannot)? == 0 || !line.ends_with('\n') {
            break;
        }
        let tick = parse(&line).map_err(|reason| Failure::could_not_look(format!("{shown}:{number}: {reason}")))?;
        ticks.push(tick);
    }
    if ticks.is_empty() {
        return Err(Failure::could_not_look(format!("the recording {shown} holds no picture")));
    }
    Ok(ticks)
}

fn parse(line: &str) -> Result<Tick, String> {
    let value: serde_json::Value = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
    match value["version"].as_u64() {
        Some(version) if version == u64::from(PICTURE_VERSION) => {}
        Some(version) => return Err(format!("version {version}; this program reads version {PICTURE_VERSION}")),
        None => return Err("not a recording of `tallybus top`: `version` is missing".to_owned()),
    }
    serde_json::from_value(value).map_err(|_| "not a recording of `tallybus top`: a key is missing".to_owned())
}
