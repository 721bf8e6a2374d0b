use std::sync::Arc;

use tallybus_sdk::{Shape, Sink, StartAt};
use tallybus_worker::settings::SinkSettings;

/// A sink to compare with.
pub struct AuditedSink {
    /// Its name.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// The topic of its dead letters.
    pub dead_letter_topic: String,
    /// The topic of dead letters to be replayed.
    pub replay_topic: String,
    /// The consumer group that writes replayed dead letters.
    pub replay_group: String,
    /// The topics that its events come from.
    pub topics: Vec<String>,
    /// Its selection and window.
    pub shape: Shape,
    /// Where it started in partitions for which its group had not committed.
    pub start_at: StartAt,
    /// The backend.
    pub sink: Arc<dyn Sink>,
}

impl AuditedSink {
    /// A sink of the settings.
    pub fn of(settings: &SinkSettings, sink: Arc<dyn Sink>) -> Self {
        Self {
            name: settings.name.clone(),
            group: settings.group(),
            dead_letter_topic: settings.dead_letter_topic(),
            replay_topic: settings.replay_topic(),
            replay_group: settings.replay_group(),
            topics: settings.topics.clone(),
            shape: settings.shape.clone(),
            start_at: settings.start_at,
            sink,
        }
    }
}

#[cfg(test)]
impl AuditedSink {
    /// A sink of one topic, which writes to a backend in memory.
    pub(super) fn fake(name: &str, topic: &str, backend: &Arc<tallybus_sdk::testkit::FakeBackend>) -> Self {
        Self {
            name: name.to_owned(),
            group: format!("tallybus.{name}"),
            dead_letter_topic: format!("tallybus.dead.{name}"),
            replay_topic: format!("tallybus.replay.{name}"),
            replay_group: format!("tallybus.{name}.replay"),
            topics: vec![topic.to_owned()],
            shape: Shape::everything(),
            start_at: StartAt::Oldest,
            sink: Arc::new(tallybus_sdk::testkit::FakeSink::new(backend.clone())),
        }
    }
}
