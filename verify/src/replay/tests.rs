use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{Committed, NewRecord, Observer, OffsetRange, StreamId, TopicOptions};
use tallybus_schemas::Series;
use tallybus_sdk::testkit::UNOPENED;
use tallybus_sdk::{Kind, TimeRange};
use tallybus_worker::settings::Settings;
use tempfile::TempDir;

use super::*;

fn dead_letter(key: &str, reason: &str, event: Option<(&str, i64)>) -> DeadLetterEntry {
    let event = event.map(|(name, time)| Event { series: Series::from_sorted(name, &[]), value: 3, time });
    DeadLetterEntry {
        key: key.to_owned(),
        topic: "t".to_owned(),
        record_key: String::new(),
        partition: 0,
        offset: 0,
        index: event.as_ref().map(|_| 0),
        events: 1,
        batch: "t/0/0-5".to_owned(),
        reason: reason.to_owned(),
        encoding: None,
        time_ms: 7,
        bytes: 9,
        cut_from: None,
        event,
        replays: 0,
        origin: None,
        state: State::Dead,
    }
}

fn taken<'l>(dead_letters: &'l [DeadLetterEntry], filter: &Filter) -> Vec<&'l str> {
    dead_letters
        .iter()
        .filter(|dead_letter| filter.takes(dead_letter))
        .map(|dead_letter| dead_letter.key.as_str())
        .collect()
}

#[test]
fn a_filter_takes_what_all_of_its_parts_take() {
    let dead_letters = [
        dead_letter("t/0/0/0", "over 2^63", Some(("http.requests", 1_000))),
        dead_letter("t/0/1/0", "field type conflict [x]", Some(("up", 2_000))),
        dead_letter("t/0/2", "line 3: bad", None),
    ];
    let all = Filter::default();
    assert_eq!(taken(&dead_letters, &all), ["t/0/0/0", "t/0/1/0", "t/0/2"]);
    let reason = |text: &str| Filter { reason: Some(Pattern::parse(text).unwrap()), ..Filter::default() };
    assert_eq!(taken(&dead_letters, &reason("2^63")), ["t/0/0/0"]);
    assert_eq!(taken(&dead_letters, &reason("line*")), ["t/0/2"]);
    assert_eq!(taken(&dead_letters, &reason("*conflict*")), ["t/0/1/0"]);
    assert_eq!(taken(&dead_letters, &reason("conflict*")), [""; 0], "a glob matches all of the reason");
    assert!(Pattern::parse("a[").is_err());
    let name = Filter { name: Some(globset::Glob::new("http.*").unwrap().compile_matcher()), ..Filter::default() };
    assert_eq!(taken(&dead_letters, &name), ["t/0/0/0"]);
    // An undecodable record has the time of the record: 7 ms.
    let range = |from, to| Filter { range: TimeRange { from, to }, ..Filter::default() };
    assert_eq!(taken(&dead_letters, &range(Some(2_000), None)), ["t/0/1/0", "t/0/2"]);
    assert_eq!(taken(&dead_letters, &range(Some(2_000), Some(7_000_000))), ["t/0/1/0"]);
    let key = Filter { keys: vec!["t/0/2".to_owned()], ..reason("line") };
    assert_eq!(taken(&dead_letters, &key), ["t/0/2"]);
}

#[test]
fn a_plan_leaves_out_what_may_not_be_chosen_and_says_why() {
    let with = |state: State, replays: u32| DeadLetterEntry { state, replays, ..dead_letter("k", "r", Some(("a", 1))) };
    let cut = |index: Option<u32>| DeadLetterEntry {
        index,
        events: u32::from(index.is_some()),
        cut_from: Some(9),
        ..dead_letter("k", "r", None)
    };
    let dead_letters = DeadLetterIndex {
        dead_letters: vec![
            with(State::Dead, 0),
            with(State::Dead, 1),
            with(State::Dead, MOST_REPLAYS),
            with(State::Unsettled, 0),
            with(State::Chosen, 0),
            with(State::Replayed, 2),
            with(State::RefusedAgain("x".to_owned()), 0),
            cut(None),
            cut(Some(0)),
        ],
        ..DeadLetterIndex::default()
    };
    let plan = |choice: Choice| {
        let plan = dead_letters.plan(&choice);
        (plan.chosen.len(), plan.skipped)
    };
    let skipped = Skipped { chosen_before: 3, refused_again: 1, too_often: 1, unsettled: 1, cut: 1 };
    assert_eq!(plan(Choice::default()), (2, skipped));
    assert_eq!(plan(Choice { limit: Some(1), ..Choice::default() }), (1, skipped));
    assert_eq!(plan(Choice { again: true, ..Choice::default() }), (3, Skipped { refused_again: 0, ..skipped }));
    let forced = Skipped { refused_again: 0, too_often: 0, ..skipped };
    assert_eq!(plan(Choice { force: true, ..Choice::default() }), (4, forced));
}

/// An observer that cannot read the groups' offsets of one topic.
struct Forgetful {
    observer: Box<dyn Observer>,
    topic: &'static str,
}

impl Observer for Forgetful {
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError> {
        self.observer.partitions(topics)
    }
    fn offsets(&self, topics: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError> {
        self.observer.offsets(topics)
    }
    fn offsets_at(&self, topics: &[&str], time_ms: i64) -> Result<Vec<Vec<u64>>, BusError> {
        self.observer.offsets_at(topics, time_ms)
    }
    fn committed(&self, of: &[(&str, &str)]) -> Result<Vec<Vec<Option<Committed>>>, BusError> {
        if of.iter().any(|(_, topic)| *topic == self.topic) {
            return Err(BusError::Unavailable("the coordinator does not answer".to_owned()));
        }
        self.observer.committed(of)
    }
    fn stream_ids(&self, topics: &[&str]) -> Result<Vec<StreamId>, BusError> {
        self.observer.stream_ids(topics)
    }
}

static KINDS: &[Kind] = &[UNOPENED];

/// A bus with one dead letter of sink `a`, which came from offset 7 of partition 0 of `topic`.
fn bus_with_a_dead_letter(dir: &TempDir, topic: &str) -> EmbeddedBus {
    let bus = EmbeddedBus::open(&dir.path().join("bus.db")).unwrap();
    bus.create_topic("tallybus.dead.a", &TopicOptions::new(1)).unwrap();
    let headers: [(&str, &[u8]); 6] = [
        ("tallybus-sink", b"a"),
        ("tallybus-topic", topic.as_bytes()),
        ("tallybus-partition", b"0"),
        ("tallybus-offset", b"7"),
        ("tallybus-events", b"0"),
        ("tallybus-time", b"1"),
    ];
    let key = format!("{topic}/0/7");
    let record = NewRecord {
        topic: "tallybus.dead.a",
        partition: Some(0),
        key: Some(key.as_bytes()),
        payload: b"not an event",
        headers: &headers,
    };
    let mut publisher = bus.publisher().unwrap();
    publisher.publish(record, 0).unwrap();
    while publisher.in_flight() > 0 {
        publisher.poll(Duration::from_millis(20), &mut Vec::new());
    }
    bus
}

fn settings() -> Settings {
    let value = serde_json::json!({
        "bus": { "kind": "embedded", "path": "unused.db" },
        "sinks": { "a": { "kind": "unopened", "topics": ["t", "deleted"] } },
    });
    Settings::from_value(&value, KINDS).unwrap()
}

fn state(bus: &dyn Bus, observer: &dyn Observer) -> Result<State, BusError> {
    let dead_letters = read(bus, observer, &settings().sinks[0], Duration::from_secs(5), &mut |_, _| {})?;
    Ok(dead_letters.dead_letters[0].state.clone())
}

#[test]
fn dead_letters_cannot_be_read_while_the_bus_does_not_say_what_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let bus = bus_with_a_dead_letter(&dir, "t");
    bus.create_topic("t", &TopicOptions::new(1)).unwrap();
    let observer = bus.observer().unwrap();
    assert_eq!(state(&bus, observer.as_ref()).unwrap(), State::Unsettled, "nothing is committed");
    let found = state(&bus, &Forgetful { observer, topic: "t" });
    assert!(matches!(&found, Err(BusError::Unavailable(reason)) if reason.contains("coordinator")), "{found:?}");
}

#[test]
fn a_dead_letter_of_a_topic_that_was_deleted_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let bus = bus_with_a_dead_letter(&dir, "deleted");
    assert_eq!(state(&bus, bus.observer().unwrap().as_ref()).unwrap(), State::Dead);
}
