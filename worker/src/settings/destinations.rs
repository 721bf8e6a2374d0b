//! Sinks of one settings file that would write to one place.

use tallybus_bus::{StreamId, TopicPartition};
use tallybus_sdk::Claim;

use super::SinkSettings;

/// For each pair of sinks that write to the same destination and are not kept apart there: which, where, and what to do.
/// Connects to nothing. A sink that cannot be created is left out: its worker reports that.
pub fn shared_destinations(sinks: &[SinkSettings]) -> Vec<String> {
    let mut known: Vec<(&SinkSettings, String)> = Vec::new();
    let mut found = Vec::new();
    for settings in sinks {
        let Ok(sink) = settings.make() else { continue };
        let Some(destination) = sink.destination() else { continue };
        let keeps_tags_apart = sink.claims().is_some_and(|claims| claims.keeps_tags_apart());
        for (other, _) in known.iter().filter(|(_, place)| *place == destination) {
            let (ours, theirs) = (any_claim(settings), any_claim(other));
            let held: Vec<Claim> = theirs.into_iter().collect();
            if ours.is_some_and(|ours| ours.conflict(&held, keeps_tags_apart).is_none()) {
                continue;
            }
            let tags = match keeps_tags_apart {
                true => ", or add a tag with a different value to each (`select.tags`)",
                false => "",
            };
            found.push(format!(
                "sinks {} and {} both write to {destination}, and would overwrite or double each other's counts: give one \
                 of them another destination{tags}",
                other.name, settings.name
            ));
        }
        known.push((settings, destination));
    }
    found
}

/// A claim of the sink, whatever its topic.
fn any_claim(settings: &SinkSettings) -> Option<Claim> {
    let stream: StreamId = "any:stream".parse().ok()?;
    let topic = settings.topics.first()?;
    Some(Claim::new(&settings.group(), &TopicPartition::new(topic, 0), &stream, &settings.shape.tags))
}
