//! The topics and consumer groups that are named after a sink; `docs/settings.md` lists them.

/// The consumer group of a sink's workers.
pub fn group(sink: &str) -> String {
    format!("tallybus.{sink}")
}

/// The topic of a sink's dead letters.
pub fn dead_letter_topic(sink: &str) -> String {
    format!("tallybus.dead.{sink}")
}

/// The topic of the dead letters that are sent back to a sink.
pub fn replay_topic(sink: &str) -> String {
    format!("tallybus.replay.{sink}")
}

/// Whether a topic holds dead letters of a sink. A sink that took its events from one would make dead letters of dead letters
/// for ever.
pub fn is_own(topic: &str) -> bool {
    [dead_letter_topic(""), replay_topic("")].iter().any(|prefix| topic.starts_with(prefix))
}

/// The consumer group that writes the replayed dead letters. No sink's own group has such a name, because a sink's name
/// has no dot.
pub fn replay_group(sink: &str) -> String {
    format!("tallybus.{sink}.replay")
}
