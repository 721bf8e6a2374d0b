use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::bus::check_topic;
use super::section::{list, nearest};
use super::{BusSettings, Section};
use crate::runtime::{BatchLimits, SealNote, StartAt, WorkerOptions};
use crate::{BuildSink, Kind, Shape, Sink, SinkContext, SinkError};

/// How long a stop waits for what is sealed.
const DRAIN: Duration = Duration::from_secs(20);

/// A table `[sinks.<name>]`.
pub struct SinkSettings {
    /// The table's name.
    pub name: String,
    /// Which backend.
    pub kind: &'static Kind,
    /// Makes the sink.
    pub build: BuildSink,
    /// Where its events come from, in order.
    pub topics: Vec<String>,
    /// When a batch is full.
    pub limits: BatchLimits,
    /// What a batch holds; [`Shape::sink`] is empty here, the sink itself knows it.
    pub shape: Shape,
    /// Where a partition starts that the group never committed.
    pub start_at: StartAt,
    /// Ranges that retention took and that the operator gives up: `topic/partition/first-end`.
    pub accept_gaps: Vec<String>,
}

impl SinkSettings {
    /// The consumer group.
    pub fn group(&self) -> String {
        format!("tallybus.{}", self.name)
    }

    /// Where its dead letters go.
    pub fn dead_topic(&self) -> String {
        format!("tallybus.dead.{}", self.name)
    }

    /// Makes the sink.
    ///
    /// # Errors
    /// The sink cannot even be made, whatever its backend does.
    pub fn make(&self) -> Result<Arc<dyn Sink>, SinkError> {
        (self.build)(&SinkContext { name: self.name.clone(), topics: self.topics.clone(), window: self.shape.window })
    }

    /// How its worker works: until it is stopped.
    pub fn worker_options(&self) -> WorkerOptions {
        WorkerOptions {
            sink: self.name.clone(),
            group: self.group(),
            topics: self.topics.clone(),
            dead_topic: self.dead_topic(),
            limits: self.limits,
            shape: self.shape.clone(),
            start_at: self.start_at,
            accept_gaps: self.accept_gaps.clone(),
            drain: DRAIN,
            until_caught_up: false,
        }
    }

    /// Reads a table; `None` when a problem was kept.
    pub(super) fn read(
        name: &str,
        mut section: Section<'_>,
        kinds: &'static [Kind],
        bus: Option<&BusSettings>,
    ) -> Option<Self> {
        if !is_sink_name(name) {
            section.problem(
                "",
                "a sink's name is made of a-z, 0-9, _ and -, because its group and topic are named after it",
            );
        }
        let kind = read_kind(&mut section, kinds);
        let topics = read_topics(&mut section, bus);
        let limits = read_limits(&mut section);
        let shape = read_shape(&mut section, &topics, bus);
        let start_at = match section.choice("start_at", &["oldest", "newest"]) {
            Some("newest") => StartAt::Newest,
            _ => StartAt::Oldest,
        };
        let accept_gaps = read_gaps(&mut section);
        let build = kind.and_then(|kind| (kind.parse)(&mut section));
        let sound = !section.has_problems();
        if kind.is_some() {
            // Without its kind nobody knows which keys the table may hold.
            section.finish();
        }
        let settings =
            Self { name: name.to_owned(), kind: kind?, build: build?, topics, limits, shape, start_at, accept_gaps };
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

/// Whether groups and topics can be named after it.
fn is_sink_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= 100 && name.chars().all(legal)
}

fn read_kind(section: &mut Section<'_>, kinds: &'static [Kind]) -> Option<&'static Kind> {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let Some(name) = section.string("kind") else {
        if !section.has("kind") {
            section.problem("kind", format!("is missing; known are {}", list(&names)));
        }
        return None;
    };
    let found = kinds.iter().find(|kind| kind.name == name);
    if found.is_none() {
        let hint = nearest(&name, names.iter().copied()).map(|near| format!(", did you mean `{near}`?"));
        section
            .problem("kind", format!("unknown kind `{name}`, known are {}{}", list(&names), hint.unwrap_or_default()));
    }
    found
}

fn read_topics(section: &mut Section<'_>, bus: Option<&BusSettings>) -> Vec<String> {
    let own = bus.map(|bus| bus.topic.clone());
    let Some(topics) = section.strings("topics") else { return own.into_iter().collect() };
    if topics.is_empty() {
        section.problem("topics", "is empty; leave it out for the bus's own topic");
    }
    for (index, topic) in topics.iter().enumerate() {
        if let Err(reason) = check_topic(topic) {
            section.problem("topics", reason);
        }
        if topics[..index].contains(topic) {
            section.problem("topics", format!("{topic:?} stands there twice"));
        }
    }
    topics
}

fn read_limits(section: &mut Section<'_>) -> BatchLimits {
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

fn read_shape(section: &mut Section<'_>, topics: &[String], bus: Option<&BusSettings>) -> Shape {
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
    if !SealNote::fits(&shape) {
        section.problem(
            "select",
            "is too long to stand in the commit metadata (4,096 bytes): use fewer or shorter patterns",
        );
    }
    shape
}

fn check_tags(select: &mut Section<'_>, tags: &BTreeMap<String, String>) {
    for (key, value) in tags {
        if key.is_empty() || value.is_empty() {
            select.problem("tags", format!("the tag {key:?} = {value:?} is empty; a tag has a key and a value"));
        }
    }
}

/// A sink's batches have one shape whatever topic they come from, so its topics share one encoding or are all recognised.
fn common_encoding(section: &mut Section<'_>, topics: &[String], bus: &BusSettings) -> Option<String> {
    let encodings: Vec<_> = topics.iter().map(|topic| bus.encodings.get(topic)).collect();
    let first = *encodings.first()?;
    if encodings.iter().any(|encoding| *encoding != first) {
        section.problem("topics", "these topics have different encodings in [bus.encodings]: give each its own sink");
        return None;
    }
    first.cloned()
}

fn read_gaps(section: &mut Section<'_>) -> Vec<String> {
    let gaps = section.strings("accept_gaps").unwrap_or_default();
    for gap in &gaps {
        if !is_gap(gap) {
            section.problem("accept_gaps", format!("{gap:?} is not of the form topic/partition/first-end"));
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
