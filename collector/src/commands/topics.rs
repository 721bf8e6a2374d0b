//! The topics that commands, tasks and the status of instances are on.

use std::sync::Arc;
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Record, TopicOptions};
use tallybus_control::{HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, Key, Signed};

/// For how long commands, tasks and answers are kept where this crate creates their topics: as long as a command may live.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);

/// Their names; a namespace, unless it is empty, comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topics {
    /// What instances say of themselves.
    pub(crate) control: Arc<str>,
    /// Commands and answers.
    pub(crate) commands: Arc<str>,
    namespace: String,
}

impl Topics {
    pub(crate) fn of(namespace: &str) -> Self {
        let within = |name: &str| if namespace.is_empty() { name.into() } else { format!("{namespace}.{name}").into() };
        Self {
            control: within("tallybus.control"),
            commands: within("tallybus.commands"),
            namespace: namespace.to_owned(),
        }
    }

    /// The topic of a service's tasks, and the consumer group that does them.
    pub(crate) fn tasks(&self, service: &str) -> Arc<str> {
        let name = format!("tallybus.tasks.{service}");
        if self.namespace.is_empty() { name.into() } else { format!("{}.{name}", self.namespace).into() }
    }
}

/// How the topic of commands is created: as workers create it.
pub(crate) fn commands_options() -> TopicOptions {
    TopicOptions::new(1).kept_for(KEPT_FOR)
}

/// How the topic of the status of instances is created: as workers create it.
pub(crate) fn control_options() -> TopicOptions {
    TopicOptions::new(1).compacted()
}

/// How the topic of a service's tasks is created.
pub(crate) fn tasks_options(partitions: u32) -> TopicOptions {
    TopicOptions::new(partitions).kept_for(KEPT_FOR)
}

/// Makes sure that a topic exists, however many partitions it has.
///
/// # Errors
/// It does not exist, and is not to be created or could not be.
pub(crate) fn ensure(bus: &dyn Bus, topic: &str, create: Option<TopicOptions>) -> Result<(), BusError> {
    if bus.observer()?.partitions_of(topic)?.is_some() {
        return Ok(());
    }
    let Some(options) = create else { return Err(BusError::NoTopic(topic.to_owned())) };
    match bus.create_topic(topic, &options) {
        Ok(_) | Err(BusError::PartitionCount { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The headers of a signed record, as text; `None` without a signature.
pub(crate) fn signed_of<'a>(record: &Record<'a>) -> Option<Signed<'a>> {
    let header = |name| record.headers.get(name).and_then(|value| std::str::from_utf8(value).ok());
    let timestamp = header(HEADER_TIMESTAMP)?.parse().ok()?;
    Some(Signed { id: header(HEADER_ID)?, timestamp, signature: header(HEADER_SIGNATURE)? })
}

/// The headers that sign a command; none without a key.
pub(crate) fn headers_of(key: Option<&Key>, id: &str, issued_ms: i64, payload: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let Some(key) = key else { return Vec::new() };
    let timestamp = issued_ms.div_euclid(1_000);
    vec![
        (HEADER_ID, id.as_bytes().to_vec()),
        (HEADER_TIMESTAMP, timestamp.to_string().into_bytes()),
        (HEADER_SIGNATURE, key.sign(id, timestamp, payload).into_bytes()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_comes_before_every_name() {
        let (plain, stage) = (Topics::of(""), Topics::of("stage"));
        assert_eq!((&*plain.control, &*plain.commands), ("tallybus.control", "tallybus.commands"));
        assert_eq!(&*plain.tasks("orders"), "tallybus.tasks.orders");
        assert_eq!((&*stage.control, &*stage.commands), ("stage.tallybus.control", "stage.tallybus.commands"));
        assert_eq!(&*stage.tasks("orders"), "stage.tallybus.tasks.orders");
    }
}
