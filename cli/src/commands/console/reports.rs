//! Reports in a directory: what `tallybus audit --json` and `tallybus compare run --json` have written there.

use std::cmp::Reverse;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;
use tallybus_verify::compare::{CompareResult, RESULT_KIND};

/// The most files that are looked at, the newest first.
pub(super) const MOST_FILES: usize = 200;
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// What a file holds.
#[derive(Debug)]
pub(super) enum Report {
    Audit(Value),
    Comparison(Box<CompareResult>),
}

/// A file of the directory that holds a report.
#[derive(Debug)]
pub(super) struct Found {
    /// The file's name.
    pub(super) name: String,
    /// When it was made, as it says itself: RFC 3339.
    pub(super) time: String,
    pub(super) report: Report,
}

/// Reports, the newest first, and what could not be read.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) found: Vec<Found>,
    /// Files that are no report, with the reason.
    pub(super) unreadable: Vec<(String, String)>,
    /// Files that were not looked at because there are too many.
    pub(super) left_out: usize,
}

/// Lists the reports of the directory.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn list(directory: &Path) -> Result<Listed, String> {
    let mut files = files(directory)?;
    let mut listed = Listed { left_out: files.len().saturating_sub(MOST_FILES), ..Listed::default() };
    files.truncate(MOST_FILES);
    for (name, path, _) in files {
        match read(&path) {
            Ok((time, report)) => listed.found.push(Found { name, time, report }),
            Err(reason) => listed.unreadable.push((name, reason)),
        }
    }
    listed.found.sort_by(|a, b| b.time.cmp(&a.time));
    Ok(listed)
}

/// Reads one report; `None` when the directory has no such file.
///
/// # Errors
/// The directory or the file cannot be read, or the file holds no report.
pub(super) fn find(directory: &Path, name: &str) -> Result<Option<Found>, String> {
    // Only what is listed is read: a name cannot lead out of the directory.
    let Some((name, path, _)) = files(directory)?.into_iter().find(|(file, _, _)| file == name) else {
        return Ok(None);
    };
    let (time, report) = read(&path)?;
    Ok(Some(Found { name, time, report }))
}

/// The JSON files of the directory, the latest written first.
fn files(directory: &Path) -> Result<Vec<(String, PathBuf, SystemTime)>, String> {
    let cannot = |error: std::io::Error| format!("cannot read the directory {}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        // A file that has gone in the meantime, and what is no file, such as a pipe that would never end, are passed over.
        let Ok(about) = std::fs::metadata(&path) else { continue };
        if about.is_file() && name.ends_with(".json") {
            files.push((name, path, about.modified().unwrap_or(SystemTime::UNIX_EPOCH)));
        }
    }
    files.sort_by(|a, b| (Reverse(a.2), &a.0).cmp(&(Reverse(b.2), &b.0)));
    Ok(files)
}

fn read(path: &Path) -> Result<(String, Report), String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("larger than {} MB", MAX_BYTES >> 20));
    }
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("not JSON: {error}"))?;
    if value["kind"] == RESULT_KIND {
        let result = CompareResult::from_json(&text).map_err(|error| error.to_string())?;
        return Ok((result.started.clone(), Report::Comparison(Box::new(result))));
    }
    match (value["time"].as_str(), value["equal"].as_bool(), value["sinks"].as_array()) {
        (Some(time), Some(_), Some(_)) => Ok((time.to_owned(), Report::Audit(value))),
        _ => Err("neither the report of an audit nor the result of a comparison".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_listed_newest_first_and_what_is_none_is_named_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let audit = |time: &str| format!(r#"{{"equal":true,"complete":true,"time":"{time}","sinks":[]}}"#);
        write("old.json", &audit("2026-01-01T00:00:00Z"));
        write("new.json", &audit("2026-01-02T00:00:00Z"));
        write("broken.json", "{");
        write("other.json", "[1]");
        write("notes.txt", "not looked at");
        std::fs::create_dir(directory.path().join("folder.json")).unwrap();
        let result = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bake-off.json")).unwrap();
        write("compare.json", &result);
        let listed = list(directory.path()).unwrap();
        let names: Vec<&str> = listed.found.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names.len(), 3);
        assert!(names.iter().position(|name| *name == "new.json") < names.iter().position(|name| *name == "old.json"));
        let mut unreadable: Vec<&str> = listed.unreadable.iter().map(|(name, _)| name.as_str()).collect();
        unreadable.sort_unstable();
        assert_eq!((unreadable, listed.left_out), (vec!["broken.json", "other.json"], 0));
        let is_comparison = |found: Found| matches!(found.report, Report::Comparison(_));
        assert!(find(directory.path(), "compare.json").unwrap().is_some_and(is_comparison));
        for name in ["../old.json", "gone.json", "folder.json", ""] {
            assert!(find(directory.path(), name).unwrap().is_none(), "{name}");
        }
        assert!(find(directory.path(), "other.json").is_err() && list(&directory.path().join("gone")).is_err());
    }
}
