//! The settings of a DynamoDB sink.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tallybus_sdk::config::ConfigTable;
use tallybus_sdk::{BuildSink, Setting, ShadowName, Sink, SinkContext, SinkError};

use super::encode::{Layout, Mode};
use super::{DynamoSink, keys};
use crate::shared::aws::{ACCESS_KEY_ID, AwsSettings, ENDPOINT, PROFILE, REGION, SECRET_ACCESS_KEY};

/// The settings, checked.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) aws: AwsSettings,
    pub(super) table: String,
    /// Whether a missing table is created.
    pub(super) create: bool,
    pub(super) layout: Layout,
    /// The most requests at once.
    pub(super) concurrency: usize,
    /// The timeout of one request.
    pub(super) timeout: Duration,
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting { key: "table", default: None, help: "the table's name or ARN" },
    Setting {
        key: "mode",
        default: Some("rollup"),
        help: "\"rollup\" (one item for each series and window) or \"raw\" (one item for each event)",
    },
    Setting { key: "create", default: Some("false"), help: "creates the table when it is missing, paid by request" },
    Setting { key: "ttl", default: None, help: "how long after its window an item expires; never when left out" },
    Setting {
        key: "shards",
        default: None,
        help: "the number of partition keys over which a series is spread; 1 in rollup and 8 in raw mode when left out",
    },
    Setting { key: "concurrency", default: Some("64"), help: "the most requests at once, for all partitions together" },
    Setting { key: "timeout", default: Some("10s"), help: "how long one request may take" },
    REGION,
    ENDPOINT,
    PROFILE,
    ACCESS_KEY_ID,
    SECRET_ACCESS_KEY,
];

/// Every query of a series reads each of them.
const MOST_SHARDS: u64 = 256;

pub(super) fn parse(section: &mut ConfigTable<'_>) -> Option<BuildSink> {
    let aws = AwsSettings::parse(section);
    let table = section.required_string("table").filter(|table| is_table(section, table));
    let mode = section.or("mode", |section, key| section.choice(key, &["rollup", "raw"]), "rollup");
    let mode = mode.map(|mode| if mode == "raw" { Mode::Raw } else { Mode::Rollup });
    let create = section.or("create", ConfigTable::bool, false);
    let ttl = section.or("ttl", |section, key| section.positive_duration(key).map(Some), None);
    let by_mode = if mode == Some(Mode::Raw) { 8 } else { 1 };
    let shards = section.or("shards", |section, key| section.integer_within(key, 1, MOST_SHARDS), by_mode);
    let concurrency = section.or("concurrency", |section, key| section.integer_within(key, 1, 1_024), 64);
    let timeout = section.or("timeout", ConfigTable::positive_duration, Duration::from_secs(10));
    let (aws, table, create, timeout) = (aws?, table?, create?, timeout?);
    let layout = Layout { mode: mode?, shards: u32::try_from(shards?).ok()?, ttl: ttl? };
    let concurrency = usize::try_from(concurrency?).ok()?;
    if create && table.starts_with("arn:") {
        section.problem("create", "a table of another account, named by its ARN, is not created from here");
        return None;
    }
    let config = Config { aws, table, create, layout, concurrency, timeout };
    Some(Box::new(move |context| build(&config, context)))
}

fn build(config: &Config, context: &SinkContext) -> Result<Arc<dyn Sink>, SinkError> {
    let dead_letters = format!("tallybus.replay.{}", context.name);
    let topics: Vec<&str> = context.topics.iter().map(String::as_str).chain([dead_letters.as_str()]).collect();
    for (index, topic) in topics.iter().enumerate() {
        let hash = keys::topic_hash(topic);
        if let Some(other) = topics[..index].iter().find(|other| *other != topic && keys::topic_hash(other) == hash) {
            return Err(SinkError::Halt(format!(
                "sink {}: the topics {other} and {topic} have the same hash; give one of them a sink and a table of its own",
                context.name
            )));
        }
    }
    Ok(Arc::new(DynamoSink::new(config.clone(), context.window)))
}

fn is_table(section: &mut ConfigTable<'_>, table: &str) -> bool {
    let is_name = (3..=255).contains(&table.len())
        && table.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    let is_arn = table.starts_with("arn:")
        && table.len() <= 1_024
        && table.contains(":dynamodb:")
        && table.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-:/".contains(&byte));
    if !is_name && !is_arn {
        section.problem("table", "expected 3 to 255 letters, digits, `_`, `-` or `.`, or a table's ARN");
    }
    is_name || is_arn
}

/// A table of the same account and region.
pub(super) fn shadow(settings: &mut Map<String, Value>, name: &ShadowName) -> Result<(), String> {
    let is_arn = settings.get("table").and_then(Value::as_str).is_some_and(|table| table.starts_with("arn:"));
    if is_arn {
        return Err(
            "a table named by its ARN may be another account's, in which none is created: give its name".to_owned()
        );
    }
    name.replace(settings, "table");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tallybus_sdk::config::read_for_test;

    use super::*;

    fn read(table: Value) -> (Option<BuildSink>, Vec<String>) {
        read_for_test(&table, parse)
    }

    fn shape(table: Value) -> String {
        let (built, problems) = read(table);
        assert_eq!(problems, [""; 0]);
        let context = SinkContext { name: "dynamo".to_owned(), topics: vec!["t".to_owned()], window: 1_000_000_000 };
        built.unwrap()(&context).unwrap().layout_fingerprint()
    }

    #[test]
    fn the_least_that_is_needed_is_enough() {
        assert_eq!(shape(json!({"table": "counters"})), "rollup,shards=1");
        assert_eq!(shape(json!({"table": "counters", "mode": "raw"})), "raw,shards=8");
        let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/counters";
        assert_eq!(shape(json!({"table": arn, "shards": 4, "ttl": "90d"})), "rollup,shards=4");
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let (built, problems) = read(json!({
            "table": "a b", "mode": "row", "create": "perhaps", "ttl": "0s", "shards": 0, "concurrency": 5_000,
            "timeout": "soon", "secret_access_key": "s3cret", "tabel": "x"
        }));
        assert!(built.is_none());
        let problems = problems.join("\n");
        for expected in [
            "table: expected 3 to 255 letters",
            "mode: unknown value `row`, expected one of `rollup`, `raw`",
            "create: expected true or false",
            "ttl: must be greater than zero",
            "shards: must be between 1 and 256, not 0",
            "concurrency: must be between 1 and 1024, not 5000",
            "timeout: expected a duration",
            "access_key_id: is missing",
            "tabel: unknown key `tabel`, did you mean `table`?",
        ] {
            assert!(problems.contains(expected), "{expected} is not in\n{problems}");
        }
        assert!(!problems.contains("s3cret"));
        let (built, problems) = read(json!({"table": "arn:aws:dynamodb:r:1:table/t", "create": true}));
        assert!(built.is_none());
        assert!(problems[0].starts_with("create: a table of another account"), "{problems:?}");
    }
}
