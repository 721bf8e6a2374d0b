use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{Committed, NewRecord, OffsetRange, StreamId, TopicOptions};
use tallybus_schemas::Series;
use tallybus_sdk::filter::FilterScope;
use tallybus_sdk::testkit::{FakeBackend, Step};
use tallybus_sdk::{BatchLimits, Foreign, ForeignKind, StartAt};
use tallybus_worker::{Outcome, Worker, WorkerError, WorkerHandle, WorkerOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;

const TOPIC: &str = "t";
const WINDOW: i64 = 1_000_000_000;
/// The first window of a world's events: a moment of 2023.
const BEGIN: i64 = 1_700_000_000 * WINDOW;
const PARTITIONS: u32 = 2;

/// A bus in a file, and backends in memory.
struct World {
    runtime: Runtime,
    _dir: TempDir,
    bus: Arc<EmbeddedBus>,
}

/// A worker on its own thread.
struct Working {
    handle: WorkerHandle,
    thread: JoinHandle<Result<Outcome, WorkerError>>,
}

impl Working {
    fn stop(self) {
        self.handle.stop();
        self.thread.join().unwrap().unwrap();
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bus = Arc::new(EmbeddedBus::open(&dir.path().join("bus.db")).unwrap());
        bus.create_topic(TOPIC, &TopicOptions::new(PARTITIONS)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, _dir: dir, bus }
    }

    fn send(&self, topic: &str, payloads: &[Payload<'_>]) {
        let mut publisher = self.bus.publisher().unwrap();
        for (token, (partition, key, payload, headers)) in (0..).zip(payloads) {
            let record = NewRecord { topic, partition: Some(*partition), key: *key, payload, headers };
            publisher.publish(record, token).unwrap();
        }
        let mut deliveries = Vec::new();
        while deliveries.len() < payloads.len() {
            publisher.poll(Duration::from_millis(20), &mut deliveries);
        }
        assert!(deliveries.iter().all(|delivery| delivery.outcome.is_ok()));
    }

    /// One message: this many events of `hits`, one in each window from a moment of 2023 on.
    fn publish(&self, partition: u32, route: &str, events: i64) {
        let event = |second: i64| {
            let time = BEGIN + second * WINDOW;
            format!(r#"{{"ts":{time},"name":"hits","value":2,"tags":{{"route":"{route}"}}}}"#)
        };
        let events: Vec<String> = (0..events).map(event).collect();
        self.send(TOPIC, &[(partition, None, events.join("\n").into_bytes(), &[])]);
    }

    fn sink(&self, name: &str, backend: &Arc<FakeBackend>) -> AuditedSink {
        AuditedSink::fake(name, TOPIC, backend)
    }

    fn work(&self, sink: &AuditedSink, until_caught_up: bool) -> Working {
        self.bus.create_topic(&sink.dead_letter_topic, &TopicOptions::new(1)).unwrap();
        let options = WorkerOptions {
            sink: sink.name.clone(),
            group: sink.group.clone(),
            topics: sink.topics.clone(),
            dead_letter_topic: sink.dead_letter_topic.clone(),
            limits: BatchLimits { max_events: 20, max_delay: Duration::from_millis(5), ..BatchLimits::default() },
            shape: sink.shape.clone(),
            start_at: StartAt::Oldest,
            accept_gaps: Vec::new(),
            progress_topic: "progress".to_owned(),
            drain: Duration::from_millis(300),
            until_caught_up,
            replays: None,
        };
        let worker = Worker::new(self.bus.clone(), sink.sink.clone(), self.runtime.handle().clone(), options).unwrap();
        Working { handle: worker.handle(), thread: std::thread::spawn(move || worker.run()) }
    }

    fn catch_up(&self, sink: &AuditedSink) {
        self.work(sink, true).thread.join().unwrap().unwrap();
    }

    fn audit(&self, sinks: &[AuditedSink]) -> AuditReport {
        self.audit_in(sinks, 0)
    }

    /// In windows of this length.
    fn audit_in(&self, sinks: &[AuditedSink], window: i64) -> AuditReport {
        let observer = self.bus.observer().unwrap();
        let audit = Audit { window, ..self.question(sinks, observer.as_ref()) };
        run(&audit, &mut |_, _| {}).unwrap()
    }

    fn question<'a>(&'a self, sinks: &'a [AuditedSink], observer: &'a dyn Observer) -> Audit<'a> {
        Audit {
            bus: self.bus.as_ref(),
            observer,
            topic: TOPIC,
            encodings: const { &BTreeMap::new() },
            sinks,
            range: TimeRange::default(),
            window: 0,
            part: None,
            details: 20,
            now: 0,
            stall_timeout: Duration::from_secs(10),
            runtime: self.runtime.handle(),
        }
    }
}

/// Partition, key, bytes and headers.
type Payload<'a> = (u32, Option<&'a [u8]>, Vec<u8>, &'a [(&'a str, &'a [u8])]);

fn findings(report: &AuditReport, sink: usize) -> &SinkFindings {
    report.sinks[sink].outcome.as_ref().unwrap()
}

#[test]
fn dead_letters_are_not_missing() {
    let world = World::new();
    let backend = FakeBackend::new();
    backend.refuse(|series| series.tag("route") == Some("/bad"));
    let sink = world.sink("a", &backend);
    world.publish(0, "/good", 3);
    world.publish(1, "/bad", 3);
    world.send(TOPIC, &[(1, None, b"garbage".to_vec(), &[])]);
    world.catch_up(&sink);
    assert_eq!(backend.total(), 6);

    let sinks = [sink];
    let report = world.audit(&sinks);
    let found = findings(&report, 0);
    assert!(report.equal(), "{found:?}");
    assert_eq!((report.bus_total, report.undecodable), (12, 1));
    assert_eq!((found.expected, found.total, found.dead_total, found.dead_letters), (6, 6, 6, 4));

    // The same dead letters once more, as after a crash: they count once.
    let mut dead_letters = Vec::new();
    let mut reader = world.bus.reader().unwrap();
    tallybus_bus::read_range(reader.as_mut(), "tallybus.dead.a", &[(0, 0..4)], Duration::from_secs(5), &mut |record| {
        dead_letters.push((
            record.key.unwrap().to_vec(),
            record.payload.to_vec(),
            tallybus_bus::read_headers(record.headers),
        ));
    })
    .unwrap();
    for (key, payload, headers) in &dead_letters {
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        world.send("tallybus.dead.a", &[(0, Some(key.as_slice()), payload.clone(), &headers)]);
    }
    let again = world.audit(&sinks);
    assert_eq!((findings(&again, 0).dead_letters, findings(&again, 0).dead_total), (4, 6));
    assert!(again.equal());
}

#[test]
fn an_audit_of_a_part_compares_the_series_that_the_filter_selects_and_no_others() {
    let world = World::new();
    let backend = FakeBackend::new();
    backend.refuse(|series| series.tag("route") == Some("/bad"));
    let sinks = [world.sink("a", &backend)];
    world.publish(0, "/good", 3);
    world.publish(1, "/bad", 3);
    world.publish(1, "/lost", 2);
    world.catch_up(&sinks[0]);
    backend.tamper(|rows| rows.retain(|(series, _), _| series.tag("route") != Some("/lost")));
    let of = |expression: &str| {
        let filter = Filter::compile(expression, FilterScope::Series, 0).unwrap();
        let part = Part { expression: expression.to_owned(), filter };
        let observer = world.bus.observer().unwrap();
        let audit = Audit { part: Some(&part), ..world.question(&sinks, observer.as_ref()) };
        run(&audit, &mut |_, _| {}).unwrap()
    };
    assert!(!world.audit(&sinks).equal());
    let good = of("route == \"/good\"");
    let found = findings(&good, 0);
    assert!(good.equal() && found.wrong_dead_letters.is_empty(), "{found:?}");
    assert_eq!((found.expected, found.total, found.dead_letters, found.dead_total), (6, 6, 0, 0));
    assert_eq!((found.series, found.compared, good.part.as_deref()), (1, 1, Some("route == \"/good\"")));
    let bad = of("route == \"/bad\"");
    let found = findings(&bad, 0);
    assert!(bad.equal(), "{found:?}");
    assert_eq!((found.total, found.dead_letters, found.dead_total), (0, 3, 6));
    let lost = of("route == \"/lost\"");
    let found = findings(&lost, 0);
    assert!(!lost.equal());
    assert_eq!((found.missing, found.extra, found.differences.len()), (4, 0, 1));
    assert!(found.differences[0].place.as_ref().is_some_and(|place| !place.offsets.is_empty()), "{found:?}");
    // What only the backend holds is selected alike.
    assert_eq!(findings(&of("name ~ \"other*\""), 0).compared, 0);
    assert_eq!(findings(&of("route != \"/good\""), 0).missing, 4);
}

#[test]
fn what_is_sealed_may_be_in_the_backend_or_not() {
    let world = World::new();
    let backend = FakeBackend::new();
    let sinks = [world.sink("a", &backend)];
    world.publish(0, "/a", 3);
    // The backend stores the batch and its answer never arrives: sealed, written, not settled.
    backend.decide(|_| Some(Step::TakeAndLoseTheAnswer));
    let worker = world.work(&sinks[0], false);
    let until = Instant::now() + Duration::from_secs(10);
    while backend.total() < 6 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    worker.stop();
    assert_eq!(backend.total(), 6);
    let report = world.audit(&sinks);
    let found = findings(&report, 0);
    assert!(found.equal(), "{found:?}");
    assert_eq!((found.expected, found.total, found.behind), (0, 6, 1));
}

#[test]
fn a_backend_that_cannot_be_read_hides_no_other() {
    let world = World::new();
    let (away, there) = (FakeBackend::new(), FakeBackend::new());
    let sinks = [world.sink("away", &away), world.sink("there", &there)];
    world.publish(0, "/a", 1);
    world.catch_up(&sinks[1]);
    away.set_away(true);
    let report = world.audit(&sinks);
    assert!(!report.equal());
    assert!(report.sinks[0].outcome.is_err());
    assert!(findings(&report, 1).equal() && findings(&report, 1).total == 2);
}

#[test]
fn an_audit_beside_a_busy_worker_reports_no_difference() {
    let world = World::new();
    let backend = FakeBackend::new();
    backend.set_pause(Duration::from_millis(2));
    let sinks = [world.sink("a", &backend)];
    let worker = world.work(&sinks[0], false);
    std::thread::scope(|scope| {
        let world = &world;
        let publishing = scope.spawn(move || {
            for round in 0..150 {
                world.publish(round % PARTITIONS, &format!("/{}", round % 7), 10);
            }
        });
        let mut between = 0;
        while !publishing.is_finished() {
            let report = world.audit(&sinks);
            let found = findings(&report, 0);
            // The first may come before the worker has committed anything.
            assert!(
                found.equal() || found.begun == Begun::Never && (found.missing, found.extra) == (0, 0),
                "{found:?}"
            );
            between += usize::from(found.total > 0 && found.behind > 0);
        }
        assert!(between > 0, "no audit fell between two batches");
    });
    let until = Instant::now() + Duration::from_secs(20);
    while backend.total() < 3_000 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    worker.stop();
    let report = world.audit(&sinks);
    let found = findings(&report, 0);
    assert_eq!((report.bus_total, found.total, found.missing, found.extra), (3_000, 3_000, 0, 0));
}

/// An observer of a bus on which much changes between two requests.
struct Busy<'a> {
    observer: Box<dyn Observer>,
    meanwhile: &'a (dyn Fn() + Sync),
}

impl Observer for Busy<'_> {
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError> {
        self.observer.partitions(topics)
    }

    fn offsets(&self, topics: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError> {
        let offsets = self.observer.offsets(topics);
        (self.meanwhile)();
        offsets
    }

    fn offsets_at(&self, topics: &[&str], time_ms: i64) -> Result<Vec<Vec<u64>>, BusError> {
        self.observer.offsets_at(topics, time_ms)
    }

    fn committed(&self, of: &[(&str, &str)]) -> Result<Vec<Vec<Option<Committed>>>, BusError> {
        let committed = self.observer.committed(of);
        (self.meanwhile)();
        committed
    }

    fn stream_ids(&self, topics: &[&str]) -> Result<Vec<StreamId>, BusError> {
        self.observer.stream_ids(topics)
    }
}

#[test]
fn a_group_that_goes_on_meanwhile_does_not_stand_past_the_end() {
    let world = World::new();
    let backend = FakeBackend::new();
    let sinks = [world.sink("a", &backend)];
    let meanwhile = || {
        world.publish(0, "/a", 3);
        world.catch_up(&sinks[0]);
    };
    meanwhile();
    let busy = Busy { observer: world.bus.observer().unwrap(), meanwhile: &meanwhile };
    let progress = SinkProgress::read(&busy, &sinks[0]).unwrap();
    assert_eq!(progress.mark(TOPIC, 0).settled, 1);
}

impl World {
    /// Replays the dead-letter topic; this many of its dead letters are first published to the replay topic.
    fn replay(&self, sink: &AuditedSink, dead_letters: std::ops::Range<u64>) {
        self.bus.create_topic(&sink.replay_topic, &TopicOptions::new(1).kept()).unwrap();
        let mut chosen = Vec::new();
        let mut reader = self.bus.reader().unwrap();
        let stall = Duration::from_secs(5);
        tallybus_bus::read_range(
            reader.as_mut(),
            &sink.dead_letter_topic,
            &[(0, dead_letters)],
            stall,
            &mut |record| {
                let headers = tallybus_bus::read_headers(record.headers);
                chosen.push((record.key.unwrap().to_vec(), record.payload.to_vec(), headers));
            },
        )
        .unwrap();
        for (key, payload, headers) in &chosen {
            let headers: Vec<(&str, &[u8])> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
            self.send(&sink.replay_topic, &[(0, Some(key.as_slice()), payload.clone(), &headers)]);
        }
    }

    fn write_again(&self, sink: &AuditedSink) {
        let options = WorkerOptions {
            sink: sink.name.clone(),
            group: sink.replay_group.clone(),
            topics: vec![sink.replay_topic.clone()],
            dead_letter_topic: sink.dead_letter_topic.clone(),
            limits: BatchLimits { max_delay: Duration::from_millis(5), ..BatchLimits::default() },
            shape: sink.shape.clone(),
            start_at: StartAt::Oldest,
            accept_gaps: Vec::new(),
            progress_topic: "progress".to_owned(),
            drain: Duration::from_millis(300),
            until_caught_up: true,
            replays: Some(1),
        };
        let worker = Worker::new(self.bus.clone(), sink.sink.clone(), self.runtime.handle().clone(), options).unwrap();
        worker.run().unwrap();
    }
}

#[test]
fn dead_letters_that_were_replayed_must_be_there_and_only_once() {
    let world = World::new();
    let backend = FakeBackend::new();
    backend.refuse(|series| series.tag("route") == Some("/bad"));
    let sinks = [world.sink("a", &backend)];
    world.publish(0, "/good", 3);
    world.publish(1, "/bad", 4);
    world.catch_up(&sinks[0]);
    let look = || {
        let report = world.audit(&sinks);
        let found = findings(&report, 0);
        (found.equal(), found.expected, found.total, found.dead_total, found.dead_letters, found.replayed)
    };
    assert_eq!(look(), (true, 6, 6, 8, 4, 0));
    // Chosen, but not written: still dead letters. One of them is in the topic twice.
    world.replay(&sinks[0], 0..2);
    world.replay(&sinks[0], 1..2);
    assert_eq!(look(), (true, 6, 6, 8, 4, 0));
    // Refused again: two dead letters were replayed, and two new ones replace them.
    world.write_again(&sinks[0]);
    assert_eq!(look(), (true, 6, 6, 8, 4, 2));
    // Accepted.
    backend.refuse(|_| false);
    world.replay(&sinks[0], 2..6);
    world.write_again(&sinks[0]);
    assert_eq!(look(), (true, 14, 14, 0, 0, 6));
    // A dead letter is written a second time by hand: that is extra.
    let batch = tallybus_sdk::Batch {
        id: tallybus_sdk::BatchId { topic: "elsewhere".into(), partition: 0, first: 0, end: 1 },
        topic_index: 0,
        series: Arc::new([Series::from_sorted("hits", &[("route", "/bad")])].iter().collect()),
        points: vec![tallybus_sdk::Point {
            series: 0,
            time: 0,
            value: 2,
            events: 1,
            first: tallybus_schemas::Coordinate { partition: 0, offset: 0, index: 0 },
        }],
        window: WINDOW,
        part: String::new(),
        stream: None,
        recovered: false,
    };
    let sink = &sinks[0].sink;
    assert_eq!(world.runtime.block_on(sink.write(&batch, &sink.encode(&batch))), tallybus_sdk::WriteOutcome::Done);
    let report = world.audit(&sinks);
    let found = findings(&report, 0);
    assert_eq!((found.missing, found.extra), (0, 2));
    assert!(found.differences[0].place.is_some(), "{found:?}");
}

mod cases;
mod retention;
