//! The topics and consumer groups that are named after a sink; `docs/settings.md` lists them. A namespace, unless it is empty,
//! comes first: deployments that share a bus then share no group and no topic of these.

/// The consumer group of a sink's workers.
pub fn group(namespace: &str, sink: &str) -> String {
    within(namespace, format!("tallybus.{sink}"))
}

/// The topic of a sink's dead letters.
pub fn dead_letter_topic(namespace: &str, sink: &str) -> String {
    within(namespace, format!("tallybus.dead.{sink}"))
}

/// The topic of the dead letters that are sent back to a sink.
pub fn replay_topic(namespace: &str, sink: &str) -> String {
    within(namespace, format!("tallybus.replay.{sink}"))
}

/// Whether a topic holds dead letters of a sink, in any namespace. A sink that took its events from one would make dead letters of dead letters
/// for ever.
pub fn is_own(topic: &str) -> bool {
    let is_of = |start: &String| topic.starts_with(start) || topic.contains(&format!(".{start}"));
    [dead_letter_topic("", ""), replay_topic("", "")].iter().any(is_of)
}

/// The consumer group that writes the replayed dead letters. No sink's own group has such a name, because a sink's name
/// has no dot.
pub fn replay_group(namespace: &str, sink: &str) -> String {
    format!("{}{REPLAY}", group(namespace, sink))
}

/// The topic on which workers note how far their groups have come, where the bus may forget groups.
pub fn progress_topic(namespace: &str) -> String {
    within(namespace, "tallybus.progress".to_owned())
}

/// The topic on which worker processes publish their status, and operators what sinks and workers shall be doing.
pub fn control_topic(namespace: &str) -> String {
    within(namespace, "tallybus.control".to_owned())
}

/// The topic of the commands to workers and services, and of their answers.
pub fn commands_topic(namespace: &str) -> String {
    within(namespace, "tallybus.commands".to_owned())
}

const REPLAY: &str = ".replay";

/// The sink's own group, of the group that writes its replayed dead letters.
pub(crate) fn group_of_replay_group(group: &str) -> &str {
    group.strip_suffix(REPLAY).unwrap_or(group)
}

fn within(namespace: &str, name: String) -> String {
    if namespace.is_empty() { name } else { format!("{namespace}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_comes_before_every_name() {
        assert_eq!(group("", "influx"), "tallybus.influx");
        assert_eq!(group("stage", "influx"), "stage.tallybus.influx");
        assert_eq!(dead_letter_topic("stage", "influx"), "stage.tallybus.dead.influx");
        assert_eq!(replay_topic("", "influx"), "tallybus.replay.influx");
        assert_eq!(control_topic("stage"), "stage.tallybus.control");
        assert_eq!(commands_topic("stage"), "stage.tallybus.commands");
        assert!(
            is_own("stage.tallybus.dead.influx") && is_own("tallybus.replay.influx") && !is_own("tallybus.counters")
        );
        assert_eq!(replay_group("stage", "influx"), "stage.tallybus.influx.replay");
        assert_eq!(group_of_replay_group("stage.tallybus.influx.replay"), "stage.tallybus.influx");
    }
}
