//! The settings of a SQLite sink.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use tallybus_sdk::config::ConfigTable;
use tallybus_sdk::{BuildSink, Setting, ShadowName};

use super::SqliteSink;

/// The settings, checked.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) path: PathBuf,
    pub(super) create: bool,
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting { key: "path", default: None, help: "the database file; on a local disk, not on a network share" },
    Setting { key: "create", default: Some("true"), help: "creates the file when it is missing" },
];

pub(super) fn parse(section: &mut ConfigTable<'_>) -> Option<BuildSink> {
    let path = section.required_string("path").map(PathBuf::from);
    let create = section.or("create", ConfigTable::bool, true);
    let (path, create) = (path?, create?);
    if path.to_string_lossy().starts_with(":memory:") {
        section.problem("path", "a database in memory is gone with the worker; name a file");
        return None;
    }
    Some(Box::new(move |context| {
        let config = Config { path: path.clone(), create };
        Ok(Arc::new(SqliteSink::new(config, context.window)))
    }))
}

/// A file beside the sink's own.
pub(super) fn shadow(settings: &mut Map<String, Value>, name: &ShadowName) -> Result<(), String> {
    let path = settings.get("path").and_then(Value::as_str).ok_or("`path` names no file")?;
    let beside = Path::new(path).with_file_name(format!("{name}.{EXTENSION}"));
    let beside = beside.to_str().ok_or("`path` names no file")?;
    settings.insert("path".to_owned(), Value::from(beside));
    settings.insert("create".to_owned(), Value::from(true));
    Ok(())
}

/// Whether the file is one that [`shadow`] names.
pub(super) fn is_shadow(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.is_some_and(ShadowName::is) && path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// Of the file of a shadow destination.
const EXTENSION: &str = "db";
