//! How long the brokers keep records and the offsets of groups.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::admin::{PATIENCE, wait_for};
use super::config::Settings;
use super::lookup::{Asking, Lookup};
use super::state::Connection;
use crate::{BusError, Retention};

/// The retention of topics, which must exist.
pub(super) fn of_topics(settings: &Settings, topics: &[&str]) -> Result<Vec<Retention>, BusError> {
    let wanted: Vec<ResourceSpecifier<'_>> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let found = describe(settings, &wanted, "reading the retention of topics")?;
    found.iter().map(retention).collect()
}

/// After how long without a member and a commit the brokers forget a group's offsets.
pub(super) fn of_groups(settings: &Settings, lookup: &Lookup) -> Result<Duration, BusError> {
    let doing = "reading how long the brokers keep offsets";
    let broker = lookup.any_broker(PATIENCE)?;
    let found = describe(settings, &[ResourceSpecifier::Broker(broker)], doing)?;
    // To a client that may not see them, a broker reports no properties, and no error either.
    if found.first().is_some_and(|broker| broker.entries.is_empty()) {
        return Err(BusError::Access(format!(
            "{doing}: broker {broker} reports no properties without DescribeConfigs on the cluster"
        )));
    }
    let minutes = found.first().map(|broker| number(broker, "offsets.retention.minutes")).transpose()?.flatten();
    let minutes = minutes.ok_or_else(|| BusError::Fatal(format!("{doing}: broker {broker} did not report it")))?;
    Ok(Duration::from_secs(minutes.saturating_mul(60)))
}

fn describe(
    settings: &Settings,
    wanted: &[ResourceSpecifier<'_>],
    doing: &str,
) -> Result<Vec<ConfigResource>, BusError> {
    let connection = Arc::new(Connection::new("admin"));
    let admin: AdminClient<Asking> = settings
        .admin()
        .create_with_context(Asking(Arc::clone(&connection)))
        .map_err(|error| BusError::Settings(error.to_string()))?;
    let failed = |code: RDKafkaErrorCode| connection.failed(doing, &KafkaError::Global(code));
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let found = wait_for(admin.describe_configs(wanted, &options)).map_err(|error| match error {
        KafkaError::AdminOp(code) => failed(code),
        other => connection.failed(doing, &other),
    })?;
    if found.len() != wanted.len() {
        return Err(BusError::Fatal(format!("{doing}: {} answers for {} questions", found.len(), wanted.len())));
    }
    found.into_iter().map(|resource| resource.map_err(failed)).collect()
}

fn retention(topic: &ConfigResource) -> Result<Retention, BusError> {
    let policy = topic.get("cleanup.policy").and_then(|entry| entry.value.as_deref());
    let policy = policy.ok_or_else(|| BusError::Fatal(format!("{:?} has no cleanup.policy", topic.specifier)))?;
    let has = |word: &str| policy.split(',').any(|part| part.trim() == word);
    if !has("delete") {
        return Ok(Retention { compacts: has("compact"), ..Retention::default() });
    }
    let time = number(topic, "retention.ms")?.map(Duration::from_millis);
    Ok(Retention { compacts: has("compact"), time, bytes: number(topic, "retention.bytes")? })
}

/// A property that is a number; `None` for a negative one, which means that there is no limit.
fn number(of: &ConfigResource, name: &str) -> Result<Option<u64>, BusError> {
    let value = of.get(name).and_then(|entry| entry.value.as_deref()).and_then(|text| text.parse::<i64>().ok());
    let value = value.ok_or_else(|| BusError::Fatal(format!("{:?} has no number for {name}", of.specifier)))?;
    Ok(u64::try_from(value).ok())
}
