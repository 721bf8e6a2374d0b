//! The settings of a SQLite sink.

use std::path::PathBuf;
use std::sync::Arc;

use tallybus_sdk::config::ConfigTable;
use tallybus_sdk::{BuildSink, Setting};

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
    Some(Box::new(move |_context| {
        let config = Config { path: path.clone(), create };
        Ok(Arc::new(SqliteSink::new(config)))
    }))
}
