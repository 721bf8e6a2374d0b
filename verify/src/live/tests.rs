use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{Bus, BusError, Committed, Observer, OffsetRange, StreamId, TopicOptions, TopicPartition};
use tallybus_sdk::progress::PartitionProgress;
use tallybus_sdk::{SealMetadata, Shape};

use super::look::SinkLook;
use super::*;
use crate::heartbeats::SILENT_AFTER;

fn watched(sinks: &[&str]) -> Watched {
    let sink = |name: &&str| WatchedSink {
        name: (*name).to_owned(),
        kind: Some("sqlite".to_owned()),
        group: format!("tallybus.{name}"),
        topics: vec!["counters".to_owned()],
        dead_letter_topic: format!("tallybus.dead.{name}"),
        replay_topic: format!("tallybus.replay.{name}"),
    };
    Watched { topic: "counters".to_owned(), sinks: sinks.iter().map(sink).collect() }
}

fn partition(number: u32, settled: Option<u64>, end: u64) -> PartitionProgress {
    let metadata = |offset: u64| {
        let ends = if offset < end { vec![end] } else { vec![] };
        let stream = "kafka:cluster:topic".parse().unwrap();
        SealMetadata::new(stream, ends, &Shape::everything()).to_metadata().unwrap()
    };
    let committed = settled.map(|offset| Committed { offset, metadata: metadata(offset) });
    let (at, range) = (TopicPartition::new("counters", number), OffsetRange { first: 0, end });
    PartitionProgress::of("g", at, committed.as_ref(), range).unwrap()
}

/// A sink's name, and the settled offset and the end of each of its partitions.
type SinkAt<'a> = (&'a str, &'a [(Option<u64>, u64)]);

/// A look after so many seconds.
fn look(seconds: u64, sinks: &[SinkAt<'_>]) -> Look {
    let mut topics = BTreeMap::new();
    let mut looks = BTreeMap::new();
    for (name, partitions) in sinks {
        let ends = partitions.iter().map(|(_, end)| OffsetRange { first: 0, end: *end }).collect();
        topics.insert("counters".to_owned(), Some(ends));
        let partitions = (0..).zip(*partitions).map(|(number, (settled, end))| partition(number, *settled, *end));
        looks.insert((*name).to_owned(), SinkLook { partitions: partitions.collect(), ..SinkLook::default() });
    }
    Look { at: Duration::from_secs(seconds), time_ms: 1_000, topics, sinks: looks }
}

fn picture_after(looks: Vec<Look>, names: &[&str], reports: Option<&[WorkerReport]>) -> Picture {
    let mut history = History::default();
    looks.into_iter().for_each(|look| history.add(look));
    history.picture(&watched(names), "a bus", reports).unwrap()
}

fn report(age: u64) -> WorkerReport {
    WorkerReport {
        worker: "host:7".to_owned(),
        sink: "a".to_owned(),
        age: Duration::from_secs(age),
        retries: 3,
        last_error: None,
        rest: None,
        halts: Vec::new(),
        partitions: BTreeMap::new(),
    }
}

#[test]
fn one_look_knows_lags_and_no_rates() {
    let picture = picture_after(vec![look(1, &[("a", &[(Some(3), 10), (Some(5), 5)])])], &["a"], None);
    let sink = &picture.sinks[0];
    assert_eq!((sink.lag_messages, sink.sealed_batches, sink.state), (Some(7), Some(1), SinkState::Measuring));
    assert_eq!((sink.arriving_per_second, sink.settled_per_second, sink.lag_seconds), (None, None, None));
    assert_eq!((sink.workers, sink.retries, sink.catch_up), (None, None, CatchUp::Unknown));
    assert_eq!(picture.topics.len(), 3);
    let counters = picture.topics.iter().find(|topic| topic.role == TopicRole::Counters).unwrap();
    assert_eq!((counters.partitions, counters.messages, counters.arriving_per_second), (Some(2), Some(15), None));
    let letters = picture.topics.iter().find(|topic| topic.name == "tallybus.dead.a").unwrap();
    assert_eq!((letters.partitions, letters.messages), (None, None));
}

#[test]
fn two_looks_know_rates_and_the_time_to_catch_up() {
    let looks = vec![look(0, &[("a", &[(Some(0), 1_000)])]), look(2, &[("a", &[(Some(300), 1_100)])])];
    let sink = &picture_after(looks, &["a"], None).sinks[0];
    assert_eq!((sink.arriving_per_second, sink.settled_per_second), (Some(50.0), Some(150.0)));
    assert_eq!((sink.lag_messages, sink.catch_up), (Some(800), CatchUp::WithinSeconds(8.0)));
    assert_eq!(sink.state, SinkState::CatchingUp);
}

#[test]
fn sinks_are_sorted_worst_first_and_each_says_why() {
    let looks = |seconds: u64| {
        let at = |rate: u64| seconds * rate;
        look(
            seconds,
            &[
                ("caught-up", &[(Some(1_000 + at(10)), 1_000 + at(10))]),
                ("falling", &[(Some(at(5)), 1_000 + at(10))]),
                ("keeping", &[(Some(980 + at(10)), 1_000 + at(10))]),
                ("never", &[(None, 1_000 + at(10))]),
                ("stalled", &[(Some(4), 1_000 + at(10))]),
            ],
        )
    };
    let names = ["caught-up", "falling", "keeping", "never", "stalled"];
    let picture = picture_after((0..=12).map(looks).collect(), &names, None);
    let states: Vec<(&str, SinkState)> = picture.sinks.iter().map(|sink| (sink.name.as_str(), sink.state)).collect();
    assert_eq!(
        states,
        [
            ("stalled", SinkState::Stalled),
            ("never", SinkState::NotStarted),
            ("falling", SinkState::FallingBehind),
            ("keeping", SinkState::KeepingUp),
            ("caught-up", SinkState::CaughtUp),
        ]
    );
    assert_eq!(picture.sinks[0].why, "nothing settled for 12 s: waiting for the backend");
    assert_eq!(picture.sinks[2].catch_up, CatchUp::Never);
}

#[test]
fn a_sink_that_was_idle_for_long_is_not_stalled_by_its_next_message() {
    let mut looks: Vec<Look> = (0..60).map(|second| look(second, &[("a", &[(Some(5), 5)])])).collect();
    looks.push(look(60, &[("a", &[(Some(5), 6)])]));
    looks.push(look(61, &[("a", &[(Some(5), 6)])]));
    let sink = &picture_after(looks, &["a"], None).sinks[0];
    assert_eq!((sink.state, sink.why.as_str()), (SinkState::Measuring, "nothing settled for 1 s"));
}

#[test]
fn a_figure_that_is_unknown_of_one_partition_is_unknown_of_the_sink() {
    // The second partition's group went back, as after a reset.
    let looks =
        vec![look(0, &[("a", &[(Some(0), 10), (Some(9), 10)])]), look(1, &[("a", &[(Some(5), 20), (Some(0), 10)])])];
    let sink = &picture_after(looks, &["a"], None).sinks[0];
    assert_eq!(
        (sink.arriving_per_second, sink.settled_per_second, sink.catch_up),
        (Some(10.0), None, CatchUp::Unknown)
    );
    // The topic was recreated: its end fell.
    let looks = vec![look(0, &[("a", &[(Some(5), 10)])]), look(1, &[("a", &[(None, 2)])])];
    let sink = &picture_after(looks, &["a"], None).sinks[0];
    assert_eq!((sink.arriving_per_second, sink.settled_per_second), (None, None));
    let mut missing = look(0, &[("a", &[(Some(0), 10)])]);
    missing.sinks.get_mut("a").unwrap().missing.push("other".to_owned());
    let sink = &picture_after(vec![missing], &["a"], None).sinks[0];
    assert_eq!((sink.lag_messages, sink.state), (None, SinkState::NoTopic));
}

#[test]
fn a_group_with_commits_of_another_program_is_unreadable_and_has_no_lag() {
    let mut foreign = look(0, &[("a", &[(Some(0), 10)])]);
    foreign.sinks.get_mut("a").unwrap().foreign = Some("group g, t/0: not from tallybus".to_owned());
    let sink = &picture_after(vec![foreign], &["a"], None).sinks[0];
    assert_eq!((sink.state, sink.lag_messages), (SinkState::Unreadable, None));
    assert_eq!(sink.why, "group g, t/0: not from tallybus");
}

#[test]
fn workers_say_why_and_how_old_the_lag_is() {
    let looks = || vec![look(0, &[("a", &[(Some(3), 10), (Some(5), 5)])])];
    let of = |reports: &[WorkerReport]| picture_after(looks(), &["a"], Some(reports)).sinks.remove(0);
    let halted = WorkerReport { halts: vec!["t/0: gone".to_owned(), "t/1: gone".to_owned()], ..report(1) };
    let sink = of(&[halted.clone(), report(2)]);
    assert_eq!((sink.state, sink.why.as_str()), (SinkState::Halted, "t/0: gone (and 1 more)"));
    assert_eq!((sink.workers, sink.retries, sink.lag_seconds), (Some(2), Some(6), None));
    // What a worker said long ago is not so any more.
    let sink = of(&[WorkerReport { age: SILENT_AFTER + Duration::from_millis(1), ..halted }]);
    assert_eq!((sink.state, sink.workers), (SinkState::Measuring, Some(0)));
    let drained = WorkerReport { rest: Some((true, "drained by ada@desk: disk".to_owned())), ..report(1) };
    let sink = of(std::slice::from_ref(&drained));
    assert_eq!((sink.state, sink.why.as_str()), (SinkState::Drained, "drained by ada@desk: disk"));
    let sink = of(&[drained, report(2)]);
    assert_eq!(sink.state, SinkState::Measuring);
    assert!(sink.why.ends_with("drained by ada@desk: disk"), "{}", sink.why);
    let retrying = WorkerReport { last_error: Some("429 for 14 s".to_owned()), ..report(1) };
    assert_eq!(of(&[retrying]).why, "429 for 14 s");
    let old = PartitionReport { oldest_seconds: Some(14.5), halted: None };
    let knows = WorkerReport { partitions: [(("counters".to_owned(), 0), old)].into(), ..report(1) };
    let sink = of(&[knows]);
    assert_eq!(sink.lag_seconds, Some(14.5));
    let worker = |number| sink.partitions.iter().find(|of| of.partition == number).unwrap().worker.as_deref();
    assert_eq!((worker(0), worker(1)), (Some("host:7"), None));
}

#[test]
fn a_stalled_sink_names_its_silent_worker() {
    let looks: Vec<Look> = (0..12).map(|second| look(second, &[("a", &[(Some(5), 9)])])).collect();
    let why = |reports: &[WorkerReport]| picture_after(looks.clone(), &["a"], Some(reports)).sinks.remove(0).why;
    assert_eq!(why(&[report(30)]), "nothing settled for 11 s; worker host:7 silent for 30 s");
    assert_eq!(why(&[]), "nothing settled for 11 s; no worker says that it runs");
    assert_eq!(why(&[report(1)]), "nothing settled for 11 s: waiting for the backend");
}

#[test]
fn a_picture_is_read_again_from_json_as_it_was() {
    let looks = vec![look(0, &[("a", &[(Some(0), 1_000)])]), look(2, &[("a", &[(Some(300), 1_100)])])];
    let picture = picture_after(looks, &["a"], Some(&[report(1)]));
    let text = serde_json::to_string(&picture).unwrap();
    assert_eq!(serde_json::from_str::<Picture>(&text).unwrap(), picture);
    assert!(
        text.contains(r#""state":"catching_up""#) && text.contains(r#""catch_up":{"within_seconds":8.0}"#),
        "{text}"
    );
}

/// Counts the questions.
struct Counting<'o>(&'o dyn Observer, AtomicU32);

impl Counting<'_> {
    fn count<T>(&self, answer: T) -> T {
        self.1.fetch_add(1, Ordering::Relaxed);
        answer
    }
}

impl Observer for Counting<'_> {
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError> {
        self.count(self.0.partitions(topics))
    }
    fn offsets(&self, topics: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError> {
        self.count(self.0.offsets(topics))
    }
    fn offsets_at(&self, topics: &[&str], time_ms: i64) -> Result<Vec<Vec<u64>>, BusError> {
        self.count(self.0.offsets_at(topics, time_ms))
    }
    fn committed(&self, of: &[(&str, &str)]) -> Result<Vec<Vec<Option<Committed>>>, BusError> {
        self.count(self.0.committed(of))
    }
    fn stream_ids(&self, topics: &[&str]) -> Result<Vec<StreamId>, BusError> {
        self.count(self.0.stream_ids(topics))
    }
}

#[test]
fn a_look_asks_three_questions_however_many_sinks_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let bus = EmbeddedBus::open(&folder.path().join("bus.db")).unwrap();
    bus.create_topic("counters", &TopicOptions::new(4)).unwrap();
    bus.create_topic("tallybus.dead.s1", &TopicOptions::new(1)).unwrap();
    let observer = bus.observer().unwrap();
    for count in [0, 1, 100] {
        let names: Vec<String> = (0..count).map(|number| format!("s{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let counting = Counting(observer.as_ref(), AtomicU32::new(0));
        let look = Look::read(&counting, &watched(&names), || (Duration::ZERO, 0)).unwrap();
        assert_eq!(counting.1.into_inner(), if count == 0 { 2 } else { 3 });
        assert_eq!(look.sinks.len(), count);
        assert!(look.sinks.values().all(|sink| sink.partitions.len() == 4 && sink.missing.is_empty()));
        assert_eq!(look.topics.len(), 1 + 2 * count);
    }
}

#[test]
fn a_topic_that_does_not_exist_is_said_and_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let bus = EmbeddedBus::open(&folder.path().join("bus.db")).unwrap();
    let look = Look::read(bus.observer().unwrap().as_ref(), &watched(&["a"]), || (Duration::ZERO, 0)).unwrap();
    let sink = &picture_after(vec![look], &["a"], None).sinks[0];
    assert_eq!((sink.state, sink.lag_messages), (SinkState::NoTopic, None));
    assert_eq!(sink.why, "topic counters does not exist yet");
}
