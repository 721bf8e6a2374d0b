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

/// A recording that was read.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) ticks: Vec<Tick>,
    /// Which lines are left out because they are not whole, in one line; `None` where all are.
    pub(super) left_out: Option<String>,
}

/// Why a line is no step.
enum Refused {
    /// It is no JSON, as where the file was cut: lines beside it count.
    Cut(String),
    /// It is something else than this program reads.
    Other(String),
}

/// Reads a recording. Lines that are not whole, where the file was cut, are left out.
///
/// # Errors
/// The file cannot be read, no line is whole, or one is not of this version or no look; that one is named.
pub(super) fn read(path: &Path) -> Result<Recording, Failure> {
    let shown = path.display();
    let cannot = |error: std::io::Error| Failure::could_not_look(format!("cannot read the recording {shown}: {error}"));
    let mut file = BufReader::new(File::open(path).map_err(cannot)?);
    let (mut ticks, mut cut) = (Vec::new(), Vec::new());
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(cannot)? == 0 {
            break;
        }
        match parse(&line) {
            Ok(tick) => ticks.push(tick),
            Err(Refused::Cut(reason)) => cut.push((number, reason)),
            Err(Refused::Other(reason)) => {
                return Err(Failure::could_not_look(format!("{shown}:{number}: {reason}")));
            }
        }
    }
    let left_out = match &cut[..] {
        [] => None,
        [(number, reason), others @ ..] => {
            let more = if others.is_empty() { String::new() } else { format!(", and {} more", others.len()) };
            Some(format!("left out of the recording, because it is not whole: line {number}{more} ({reason})"))
        }
    };
    match (ticks.is_empty(), &cut[..]) {
        (true, []) => Err(Failure::could_not_look(format!("the recording {shown} holds no picture"))),
        (true, [(number, reason), ..]) => Err(Failure::could_not_look(format!("{shown}:{number}: {reason}"))),
        (false, _) => Ok(Recording { ticks, left_out }),
    }
}

fn parse(line: &[u8]) -> Result<Tick, Refused> {
    let other = |reason: &str| Refused::Other(format!("not a recording of `tallybus top`: {reason}"));
    let value: serde_json::Value =
        serde_json::from_slice(line).map_err(|error| Refused::Cut(format!("not JSON: {error}")))?;
    match value["version"].as_u64() {
        Some(version) if version == u64::from(PICTURE_VERSION) => {}
        Some(version) => {
            return Err(Refused::Other(format!("version {version}; this program reads version {PICTURE_VERSION}")));
        }
        None => return Err(other("`version` is missing")),
    }
    serde_json::from_value(value).map_err(|_| other("a key is missing, or its value is not one of this version"))
}
