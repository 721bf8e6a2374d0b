//! The sinks that a command applies to.

use tallybus_verify::live::WatchedSink;
use tallybus_worker::settings::{Settings, SinkSettings};

use crate::failure::Failure;

/// The sinks of these names, or all of them.
pub(crate) fn select<'s>(settings: &'s Settings, names: &[String]) -> Result<Vec<&'s SinkSettings>, Failure> {
    if names.is_empty() {
        return Ok(settings.sinks.iter().collect());
    }
    let mut chosen: Vec<&SinkSettings> = Vec::new();
    for name in names {
        let sink = select_one(settings, name)?;
        if !chosen.iter().any(|other| other.name == sink.name) {
            chosen.push(sink);
        }
    }
    Ok(chosen)
}

/// The sink of this name.
pub(crate) fn select_one<'s>(settings: &'s Settings, name: &str) -> Result<&'s SinkSettings, Failure> {
    settings.sink(name).ok_or_else(|| {
        let known: Vec<&str> = settings.sinks.iter().map(|sink| sink.name.as_str()).collect();
        let known = if known.is_empty() {
            "no sinks are configured".to_owned()
        } else {
            format!("configured sinks: {}", known.join(", "))
        };
        Failure::could_not_look(format!("no sink {name:?} in the settings; {known}"))
    })
}

/// The groups and topics of a sink.
pub(crate) fn watched(sink: &SinkSettings) -> WatchedSink {
    WatchedSink {
        name: sink.name.clone(),
        kind: Some(sink.kind.name.to_owned()),
        group: sink.group(),
        topics: sink.topics.clone(),
        dead_letter_topic: sink.dead_letter_topic(),
        replay_topic: sink.replay_topic(),
    }
}
