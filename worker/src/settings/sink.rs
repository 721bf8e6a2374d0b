use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tallybus_sdk::config::{ConfigTable, list, nearest};
use tallybus_sdk::{
    BatchLimits, BuildSink, Kind, SealMetadata, Setting, Shape, Sink, SinkContext, SinkError, StartAt,
    USUAL_METADATA_BYTES,
};

use super::bus::check_topic;
use super::{BusSettings, bus_file, names};
use crate::WorkerOptions;

/// How long a stop waits for sealed batches.
const DRAIN: Duration = Duration::from_secs(20);

/// The settings that every sink has, whatever its kind. A test compares them with the keys that are read.
pub const COMMON_SETTINGS: &[Setting] = &[
    Setting { key: "kind", default: None, help: "which backend; `tallybus sinks` lists them" },
    Setting {
        key: "topics",
        default: None,
        help: "the topics that its events come from, in order; the bus's own topic when omitted",
    },
    Setting {
        key: "window",
        default: Some("1s"),
        help: "the length of the window that one point sums; \"0s\": each event is its own point",
    },
    Setting { key: "batch.max_events", default: Some("5000"), help: "a batch with this many events is full" },
    Setting {
        key: "batch.max_bytes",
        default: Some("4 MiB"),
        help: "a batch with this many bytes of messages is full",
    },
    Setting { key: "batch.max_delay", default: Some("1s"), help: "a batch of this age is full" },
    Setting { key: "select.names", default: None, help: "only counters whose name matches one of these globs" },
    Setting {
        key: "select.drop_tags",
        default: None,
        help: "tags to remove; series that are then the same are merged",
    },
    Setting { key: "select.tags", default: None, help: "tags to add; existing values are overwritten" },
    Setting {
        key: "start_at",
        default: Some("oldest"),
        help: "\"oldest\" or \"newest\": where to start in a partition that was never read",
    },
    Setting { key: "accept_gaps", default: None, help: "lost offset ranges to skip, as topic/partition/first-end" },
];

/// A table `[sinks.<name>]`.
pub struct SinkSettings {
    /// The table's name.
    pub name: String,
    /// The namespace of the bus's table, which its group and topics are in; usually empty.
    pub namespace: String,
    /// The kind of backend.
    pub kind: &'static Kind,
    /// Creates the sink.
    pub build: BuildSink,
    /// The topics that its events come from, in order.
    pub topics: Vec<String>,
    /// When a batch is full.
    pub limits: BatchLimits,
    /// How events become points; [`Shape::sink`] is empty here, the sink itself supplies it.
    pub shape: Shape,
    /// Where to start in a partition for which the group never committed.
    pub start_at: StartAt,
    /// Offset ranges deleted by retention that the operator accepts as lost: `topic/partition/first-end`.
    pub accept_gaps: Vec<String>,
}

impl SinkSettings {
    /// The consumer group.
    pub fn group(&self) -> String {
        names::group(&self.namespace, &self.name)
    }

    /// The topic of its dead letters.
    pub fn dead_letter_topic(&self) -> String {
        names::dead_letter_topic(&self.namespace, &self.name)
    }

    /// The topic of dead letters to be replayed.
    pub fn replay_topic(&self) -> String {
        names::replay_topic(&self.namespace, &self.name)
    }

    /// The consumer group of the workers that write replayed dead letters. No sink's own group has such a name.
    pub fn replay_group(&self) -> String {
        names::replay_group(&self.namespace, &self.name)
    }

    /// Creates the sink.
    ///
    /// # Errors
    /// The sink cannot be created, independently of the state of its backend.
    pub fn make(&self) -> Result<Arc<dyn Sink>, SinkError> {
        (self.build)(&SinkContext { name: self.name.clone(), topics: self.topics.clone(), window: self.shape.window })
    }

    /// The options of its worker, which runs until it is stopped.
    pub fn worker_options(&self) -> WorkerOptions {
        WorkerOptions {
            sink: self.name.clone(),
            group: self.group(),
            topics: self.topics.clone(),
            dead_letter_topic: self.dead_letter_topic(),
            limits: self.limits,
            shape: self.shape.clone(),
            start_at: self.start_at,
            accept_gaps: self.accept_gaps.clone(),
            progress_topic: names::progress_topic(&self.namespace),
            drain: DRAIN,
            until_caught_up: false,
            replays: None,
        }
    }

    /// The options of the worker that writes replayed dead letters, which runs until all chosen ones are written.
    pub fn replay_options(&self) -> WorkerOptions {
        WorkerOptions {
            group: self.replay_group(),
            topics: vec![self.replay_topic()],
            start_at: StartAt::Oldest,
            accept_gaps: Vec::new(),
            until_caught_up: true,
            replays: Some(u32::try_from(self.topics.len()).unwrap_or(u32::MAX)),
            ..self.worker_options()
        }
    }

    /// Reads a table; `None` when a problem was recorded.
    pub(super) fn read(
        name: &str,
        mut section: ConfigTable<'_>,
        kinds: &'static [Kind],
        bus: Option<&BusSettings>,
    ) -> Option<Self> {
        if !is_sink_name(name) {
            section.problem(
                "",
                "a sink's name must consist of a-z, 0-9, _ and -, because its group and topic are named after it",
            );
        }
        let Common { kind, topics, limits, shape, start_at, accept_gaps } = read_common(&mut section, kinds, bus);
        let build = kind.and_then(|kind| (kind.parse)(&mut section));
        if let (Some(kind), Some(bus)) = (kind, bus) {
            bus_file::refuse(&mut section, kind, bus);
        }
        let sound = !section.has_problems();
        if !sound {
            // Settings that a kind does not look at once it has found a problem are not unknown, nor are those of other
            // kinds while the kind itself is.
            let looked_at = kinds.iter().filter(|other| kind.is_none_or(|kind| kind.name == other.name));
            for setting in looked_at.flat_map(|kind| kind.settings) {
                section.allow(&[setting.key.split('.').next().unwrap_or(setting.key)]);
            }
        }
        section.finish();
        let settings = Self {
            name: name.to_owned(),
            namespace: bus.map_or_else(String::new, |bus| bus.namespace.clone()),
            kind: kind?,
            build: build?,
            topics,
            limits,
            shape,
            start_at,
            accept_gaps,
        };
        sound.then_some(settings)
    }
}

impl fmt::Debug for SinkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkSettings")
            .field("name", &self.name)
            .field("kind", &self.kind.name)
            .field("topics", &self.topics)
            .field("limits", &self.limits)
            .field("shape", &self.shape)
            .field("start_at", &self.start_at)
            .field("accept_gaps", &self.accept_gaps)
            .finish_non_exhaustive()
    }
}

/// Reads the settings of [`COMMON_SETTINGS`].
struct Common {
    kind: Option<&'static Kind>,
    topics: Vec<String>,
    limits: BatchLimits,
    shape: Shape,
    start_at: StartAt,
    accept_gaps: Vec<String>,
}

fn read_common(section: &mut ConfigTable<'_>, kinds: &'static [Kind], bus: Option<&BusSettings>) -> Common {
    let kind = read_kind(section, kinds);
    let topics = read_topics(section, bus);
    let limits = read_limits(section);
    let shape = read_shape(section, &topics, bus);
    let start_at = match section.choice("start_at", &["oldest", "newest"]) {
        Some("newest") => StartAt::Newest,
        _ => StartAt::Oldest,
    };
    let accept_gaps = read_gaps(section);
    Common { kind, topics, limits, shape, start_at, accept_gaps }
}

/// Whether groups and topics can be named after the sink.
fn is_sink_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= 100 && name.chars().all(legal)
}

fn read_kind(section: &mut ConfigTable<'_>, kinds: &'static [Kind]) -> Option<&'static Kind> {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let Some(name) = section.string("kind") else {
        if !section.has("kind") {
            section.problem("kind", format!("missing required setting: expected one of {}", list(&names)));
        }
        return None;
    };
    let found = kinds.iter().find(|kind| kind.name == name);
    if found.is_none() {
        let hint = nearest(&name, names.iter().copied()).map(|near| format!(", did you mean `{near}`?"));
        section.problem(
            "kind",
            format!("unknown kind `{name}`, expected one of {}{}", list(&names), hint.unwrap_or_default()),
        );
    }
    found
}

fn read_topics(section: &mut ConfigTable<'_>, bus: Option<&BusSettings>) -> Vec<String> {
    let own = bus.map(|bus| bus.topic.clone());
    let Some(topics) = section.strings("topics") else { return own.into_iter().collect() };
    if topics.is_empty() {
        section.problem("topics", "is empty; omit it to use the bus's own topic");
    }
    for (index, topic) in topics.iter().enumerate() {
        if let Err(reason) = check_topic(topic) {
            section.problem("topics", reason);
        }
        if names::is_own(topic) {
            section.problem(
                "topics",
                format!("{topic:?} holds dead letters; to send them to their sink again, use `tallybus replay run`"),
            );
        }
        if topics[..index].contains(topic) {
            section.problem("topics", format!("{topic:?} is listed twice"));
        }
    }
    topics
}

fn read_limits(section: &mut ConfigTable<'_>) -> BatchLimits {
    let mut limits = BatchLimits::default();
    let Some(mut batch) = section.table("batch") else { return limits };
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    if let Some(events) = batch.integer_within("max_events", 1, 10_000_000) {
        limits.max_events = count(events);
    }
    match batch.bytes("max_bytes") {
        Some(0) => batch.problem("max_bytes", "must be at least 1"),
        Some(bytes) => limits.max_bytes = count(bytes),
        None => {}
    }
    match batch.duration("max_delay") {
        Some(delay) if delay > Duration::from_secs(3_600) => batch.problem("max_delay", "must be at most 1h"),
        Some(delay) => limits.max_delay = delay,
        None => {}
    }
    batch.finish();
    limits
}

fn read_shape(section: &mut ConfigTable<'_>, topics: &[String], bus: Option<&BusSettings>) -> Shape {
    let mut shape = Shape::everything();
    if let Some(window) = section.duration("window") {
        match i64::try_from(window.as_nanos()) {
            Ok(nanos) if nanos == 0 || nanos >= 1_000_000 => shape.window = nanos,
            Ok(_) => section.problem("window", "must be at least 1ms, or 0s for one point per event"),
            Err(_) => section.problem("window", "is too long"),
        }
    }
    if let Some(mut select) = section.table("select") {
        shape.names = select.strings("names").unwrap_or_default();
        shape.drop_tags = select.strings("drop_tags").unwrap_or_default();
        shape.tags = select.string_map("tags").unwrap_or_default();
        if let Err(reason) = shape.selector() {
            select.problem("names", reason);
            shape.names.clear();
        }
        check_tags(&mut select, &shape.tags);
        select.finish();
    }
    shape.encoding = bus.and_then(|bus| common_encoding(section, topics, bus));
    if !SealMetadata::fits(&shape, USUAL_METADATA_BYTES) {
        section.problem("select", "is too long for the commit metadata (4,096 bytes): use fewer or shorter patterns");
    }
    shape
}

fn check_tags(select: &mut ConfigTable<'_>, tags: &BTreeMap<String, String>) {
    for (key, value) in tags {
        if key.is_empty() || value.is_empty() {
            select.problem("tags", format!("the tag {key:?} = {value:?} is empty; a tag has a key and a value"));
        }
    }
}

/// A sink's batches have one shape whatever topic they come from, so all its topics are read alike.
fn common_encoding(section: &mut ConfigTable<'_>, topics: &[String], bus: &BusSettings) -> Option<String> {
    let encodings: Vec<_> = topics.iter().map(|topic| bus.encodings.get(topic)).collect();
    let first = *encodings.first()?;
    if encodings.iter().any(|encoding| *encoding != first) {
        section.problem("topics", "these topics have different encodings or units of time (`encodings`, `time_units` in [bus]): give each its own sink");
        return None;
    }
    first.cloned()
}

fn read_gaps(section: &mut ConfigTable<'_>) -> Vec<String> {
    let gaps = section.strings("accept_gaps").unwrap_or_default();
    for gap in &gaps {
        if !is_gap(gap) {
            section.problem("accept_gaps", format!("{gap:?} is not in the form topic/partition/first-end"));
        }
    }
    gaps
}

fn is_gap(gap: &str) -> bool {
    let Some((rest, range)) = gap.rsplit_once('/') else { return false };
    let Some((topic, partition)) = rest.rsplit_once('/') else { return false };
    let Some((first, end)) = range.split_once('-') else { return false };
    let (Ok(first), Ok(end)) = (first.parse::<u64>(), end.parse::<u64>()) else { return false };
    check_topic(topic).is_ok() && partition.parse::<u32>().is_ok() && first < end
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use serde_json::{Value, json};
    use tallybus_sdk::config::{parse_bytes, parse_duration};

    use super::*;

    /// Reads a table; returns the problems, and the keys that were read.
    fn read(table: &Value) -> (Vec<String>, BTreeSet<String>, Common) {
        let problems = Rc::new(RefCell::new(Vec::new()));
        let mut section = ConfigTable::root(table.as_object().unwrap(), Rc::clone(&problems));
        let common = read_common(&mut section, &[], None);
        let known = section.known().clone();
        let told = problems.borrow().iter().map(ToString::to_string).collect();
        (told, known, common)
    }

    fn default_of(key: &str) -> &'static str {
        COMMON_SETTINGS.iter().find(|setting| setting.key == key).and_then(|setting| setting.default).unwrap()
    }

    #[test]
    fn the_table_of_common_settings_is_what_is_read() {
        let documented: BTreeSet<String> =
            COMMON_SETTINGS.iter().map(|setting| setting.key.split('.').next().unwrap().to_owned()).collect();
        assert_eq!(read(&json!({})).1, documented);
        // One number of the wrong kind under each key in turn: a key that is never read would be reported as unknown.
        for setting in COMMON_SETTINGS {
            let table = match setting.key.split_once('.') {
                Some((outer, inner)) => json!({ outer: { inner: -1 } }),
                None => json!({ setting.key: -1 }),
            };
            let told = read(&table).0;
            let here = told.iter().find(|problem| problem.starts_with(setting.key));
            assert!(here.is_some_and(|problem| !problem.contains("unknown")), "{}: {told:?}", setting.key);
            assert!(!setting.help.is_empty());
        }
    }

    #[test]
    fn the_table_of_common_settings_has_the_defaults() {
        let common = read(&json!({})).2;
        assert_eq!(default_of("batch.max_events"), common.limits.max_events.to_string());
        assert_eq!(parse_bytes(default_of("batch.max_bytes")).ok(), Some(common.limits.max_bytes as u64));
        assert_eq!(parse_duration(default_of("batch.max_delay")).ok(), Some(common.limits.max_delay));
        let window = parse_duration(default_of("window")).unwrap();
        assert_eq!(i64::try_from(window.as_nanos()).ok(), Some(common.shape.window));
        assert_eq!((default_of("start_at"), common.start_at), ("oldest", StartAt::Oldest));
    }
}
