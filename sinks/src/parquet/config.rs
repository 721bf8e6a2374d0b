//! The settings of a Parquet sink.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tallybus_sdk::config::ConfigTable;
use tallybus_sdk::{BuildSink, Setting, ShadowName};

use super::ParquetSink;
use crate::shared::aws::{ACCESS_KEY_ID, Aws, AwsSettings, ENDPOINT, PROFILE, REGION, SECRET_ACCESS_KEY, StoreUrl};

/// The settings, checked.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) place: StoreUrl,
    /// Whether a missing directory is created.
    pub(super) create: bool,
    /// The timeout of one file.
    pub(super) timeout: Duration,
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting { key: "path", default: None, help: "a directory of this machine, or \"s3://bucket/prefix\"" },
    Setting { key: "create", default: Some("false"), help: "creates the directory when it is missing; never a bucket" },
    Setting { key: "timeout", default: Some("30s"), help: "how long one file may take" },
    REGION,
    ENDPOINT,
    PROFILE,
    ACCESS_KEY_ID,
    SECRET_ACCESS_KEY,
];

pub(super) fn parse(section: &mut ConfigTable<'_>) -> Option<BuildSink> {
    let path = section.required_string("path");
    let place = path.and_then(|path| match StoreUrl::parse(&path) {
        Ok(place) => Some(place),
        Err(reason) => {
            section.problem("path", reason);
            None
        }
    });
    let create = section.or("create", ConfigTable::bool, false);
    let timeout = section.or("timeout", ConfigTable::positive_duration, Duration::from_secs(30));
    let aws = AwsSettings::parse(section);
    if matches!(place, Some(StoreUrl::Folder(_))) {
        for setting in [REGION, ENDPOINT, PROFILE, ACCESS_KEY_ID, SECRET_ACCESS_KEY] {
            if section.has(setting.key) {
                section.problem(setting.key, "belongs to a path in S3");
            }
        }
    }
    if section.has_problems() {
        return None;
    }
    let (place, create, timeout, aws) = (place?, create?, timeout?, aws?);
    Some(Box::new(move |_context| {
        let config = Config { place: place.clone(), create, timeout };
        Ok(Arc::new(ParquetSink::new(config, Aws::new(aws.clone(), timeout))))
    }))
}

/// A directory or prefix beside the sink's own, and not in it: whoever reads the sink's files reads none of these.
pub(super) fn shadow(settings: &mut Map<String, Value>, name: &ShadowName) -> Result<(), String> {
    let path = settings.get("path").and_then(Value::as_str).ok_or("`path` names no directory")?;
    let beside = match StoreUrl::parse(path)? {
        StoreUrl::Folder(folder) => {
            // A link's target, or the name behind `..`, has another place beside it.
            let folder = tallybus_sdk::canonical_path(&folder);
            let parent = folder.parent().ok_or("nothing can be created beside the root directory")?;
            parent.join(name.as_str()).to_str().ok_or("the path of the directory is not UTF-8")?.to_owned()
        }
        StoreUrl::S3 { bucket, prefix } => {
            let above = prefix.rsplit_once('/').map(|(above, _)| above.to_owned()).unwrap_or_default();
            let prefix = if above.is_empty() { name.to_string() } else { format!("{above}/{name}") };
            StoreUrl::S3 { bucket, prefix }.to_string()
        }
    };
    settings.insert("path".to_owned(), Value::from(beside));
    settings.insert("create".to_owned(), Value::from(true));
    Ok(())
}

/// Whether the place is one that [`shadow`] names.
pub(super) fn is_shadow(place: &StoreUrl) -> bool {
    match place {
        StoreUrl::Folder(folder) => folder.file_name().and_then(|name| name.to_str()).is_some_and(ShadowName::is),
        StoreUrl::S3 { prefix, .. } => prefix.rsplit('/').next().is_some_and(ShadowName::is),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tallybus_sdk::config::read_for_test;

    use super::*;

    fn read(table: Value) -> (bool, String) {
        let (built, problems) = read_for_test(&table, parse);
        (built.is_some(), problems.join("\n"))
    }

    #[test]
    fn the_least_that_is_needed_is_enough() {
        assert_eq!(read(json!({"path": "/var/lib/counts"})), (true, String::new()));
        assert_eq!(read(json!({"path": "s3://bucket/a/b", "region": "eu-west-1"})), (true, String::new()));
    }

    #[test]
    fn problems_name_the_next_step() {
        for (table, expected) in [
            (json!({}), "path: missing required setting"),
            (json!({"path": "gs://b"}), "path: expected a directory, or s3://bucket/prefix"),
            (json!({"path": "s3://"}), "found no bucket"),
            (json!({"path": "x", "create": "perhaps"}), "create: expected true or false"),
            (json!({"path": "x", "timeout": "0s"}), "timeout: must be greater than zero"),
            (json!({"path": "x", "region": "r"}), "region: belongs to a path in S3"),
            (json!({"path": "s3://b", "access_key_id": "k"}), "secret_access_key: is missing"),
            (json!({"pth": "x"}), "unknown key `pth`, did you mean `path`?"),
        ] {
            let (built, problems) = read(table);
            assert!(!built && problems.contains(expected), "{expected} is not in\n{problems}");
        }
    }
}
