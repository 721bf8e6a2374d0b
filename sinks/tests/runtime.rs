//! Workers over a real (embedded) bus against a scripted backend: whatever it answers and whoever comes and goes, every
//! event is written once, is a dead letter, or is still on the bus.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{Bus, Commit, GroupOptions, NewRecord, Notice, Progress, StartAt};
use tallybus_sinks::fake::{FakeBackend, FakeSink, Step};
use tallybus_sinks::runtime::{
    BatchLimits, LaneState, Outcome, SealNote, StopHandle, Worker, WorkerError, WorkerOptions,
};
use tallybus_sinks::{Answer, Rejection, Shape};

const TOPIC: &str = "counters";
const DEAD: &str = "tallybus.dead.fake";

/// A bus, a backend, and the threads for workers.
struct Stage {
    dir: tempfile::TempDir,
    backend: Arc<FakeBackend>,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn new(partitions: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let stage = Self { dir, backend: FakeBackend::new(), runtime };
        let bus = stage.bus();
        bus.create_topic(TOPIC, partitions).unwrap();
        bus.create_topic(DEAD, 1).unwrap();
        stage
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("bus.db")
    }

    fn bus(&self) -> EmbeddedBus {
        EmbeddedBus::open(&self.path()).unwrap()
    }

    fn options(&self) -> WorkerOptions {
        WorkerOptions {
            sink: "fake".to_owned(),
            group: "tallybus.fake".to_owned(),
            topics: vec![TOPIC.to_owned()],
            dead_topic: DEAD.to_owned(),
            limits: BatchLimits { max_events: 20, max_bytes: 1 << 20, max_delay: Duration::from_millis(20) },
            shape: Shape::everything(),
            start_at: StartAt::Oldest,
            accept_gaps: Vec::new(),
            drain: Duration::from_secs(5),
            until_caught_up: false,
        }
    }

    fn try_worker(&self, options: WorkerOptions) -> Result<Worker, WorkerError> {
        let sink = Arc::new(FakeSink::new(self.backend.clone(), options.shape.window));
        Worker::new(Arc::new(self.bus()), sink, self.runtime.handle().clone(), options)
    }

    fn start(&self, options: WorkerOptions) -> Running {
        let worker = self.try_worker(options).unwrap();
        let handle = worker.handle();
        Running { handle, thread: std::thread::spawn(move || worker.run()) }
    }

    fn catch_up(&self, options: WorkerOptions) -> Outcome {
        self.start(WorkerOptions { until_caught_up: true, ..options }).end().unwrap()
    }

    fn publish(&self, records: &[(u32, String)]) {
        let bus = self.bus();
        let mut publisher = bus.publisher().unwrap();
        for (token, (partition, payload)) in records.iter().enumerate() {
            let payload = payload.as_bytes();
            let record = NewRecord { topic: TOPIC, partition: Some(*partition), key: None, payload, headers: &[] };
            publisher.publish(record, token as u64).unwrap();
        }
        let mut deliveries = Vec::new();
        while deliveries.len() < records.len() {
            publisher.poll(Duration::from_secs(1), &mut deliveries);
        }
        assert!(deliveries.iter().all(|delivery| delivery.outcome.is_ok()));
    }

    /// Keys and payloads of the dead letters.
    fn dead_letters(&self) -> Vec<(String, String)> {
        let mut letters = Vec::new();
        let mut reader = self.bus().reader().unwrap();
        reader.assign(DEAD, &[(0, 0)]).unwrap();
        loop {
            let progress = reader.poll(Duration::from_secs(2), &mut |record| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                letters.push((text(record.key.unwrap()), text(record.payload)));
                ControlFlow::Continue(())
            });
            if !matches!(progress.unwrap(), Progress::Records) {
                return letters;
            }
        }
    }

    fn committed_offset(&self) -> Option<u64> {
        self.bus().committed("tallybus.fake", TOPIC).unwrap()[0].as_ref().map(|held| held.offset)
    }

    fn assert_sound(&self) {
        assert_eq!(self.backend.violations(), [""; 0]);
    }

    /// Commits for the group as an operator or another program would.
    fn commit(&self, offset: u64, metadata: &str) {
        let mut member = self.bus().subscriber("tallybus.fake", &[TOPIC.to_owned()], &GroupOptions::default()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some(Notice::Assigned(assigned)) = member.poll(Duration::from_millis(50), 1, &mut |_| {}).unwrap() {
                member.start(&[]).unwrap();
                let commit = Commit { at: assigned[0].at.clone(), offset, metadata: metadata.to_owned() };
                let answers = member.commit_now(&[commit], Duration::from_secs(5));
                assert!(answers[0].1.is_ok());
                member.leave();
                return;
            }
        }
        panic!("nothing was assigned");
    }
}

struct Running {
    handle: StopHandle,
    thread: JoinHandle<Result<Outcome, WorkerError>>,
}

impl Running {
    fn stop(self) -> Outcome {
        self.handle.stop();
        self.end().unwrap()
    }

    fn end(self) -> Result<Outcome, WorkerError> {
        self.thread.join().unwrap()
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn event(number: u64) -> String {
    format!(r#"{{"name":"n{}","value":{},"ts":{}}}"#, number % 7, number + 1, number * 1_000_000)
}

fn events(numbers: std::ops::Range<u64>, partitions: u64) -> Vec<(u32, String)> {
    numbers.map(|number| (u32::try_from(number % partitions).unwrap(), event(number))).collect()
}

fn sum(count: u64) -> u64 {
    count * (count + 1) / 2
}

#[test]
fn whatever_the_backend_answers_every_event_is_written_or_a_dead_letter() {
    let stage = Stage::new(3);
    let mut records = events(0..3_000, 3);
    for place in (0..records.len()).step_by(100) {
        records[place].1 = format!("garbage {place}");
    }
    stage.publish(&records);
    let (mut dice, mut taken) = (42_u64, HashSet::new());
    stage.backend.decide(move |batch| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let reason = || "by the script".to_owned();
        Some(match (dice >> 33) % 12 {
            0 | 1 => Step::Answer(Answer::Retry { after: Some(Duration::from_millis(1)), reason: reason() }),
            2 => {
                taken.insert(batch.key());
                Step::TakeAndLoseTheAnswer
            }
            // A backend splits only what it has not taken.
            3 if batch.part.len() < 3 && !taken.contains(&batch.key()) => {
                Step::Answer(Answer::Split { reason: reason() })
            }
            4 if !taken.contains(&batch.key()) => {
                Step::Answer(Answer::Rejected(vec![Rejection { point: 0, reason: reason() }]))
            }
            _ => Step::Take,
        })
    });
    let outcome = stage.catch_up(stage.options());
    stage.assert_sound();
    assert!(outcome.drained && outcome.status.retries > 0 && outcome.status.dead_letters > 30, "{:?}", outcome.status);
    assert_eq!(outcome.status.events, 3_000 - 30);

    let letters = stage.dead_letters();
    let keys: BTreeSet<&String> = letters.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), letters.len(), "no crash, so no letter stands twice");
    let garbage: Vec<_> = letters.iter().filter(|(_, payload)| payload.starts_with("garbage")).collect();
    assert_eq!(garbage.len(), 30);
    for (key, payload) in garbage {
        let place: usize = payload[8..].parse().unwrap();
        assert_eq!(*key, format!("{TOPIC}/{}/{}", place % 3, place / 3), "the coordinate names the record");
    }
    let value = |payload: &str| serde_json::from_str::<serde_json::Value>(payload).unwrap()["value"].as_u64().unwrap();
    let rejected: u64 =
        letters.iter().filter(|(_, payload)| payload.starts_with('{')).map(|(_, payload)| value(payload)).sum();
    let lost_as_garbage: u64 = (0..3_000).step_by(100).map(|place| place + 1).sum();
    assert_eq!(stage.backend.total() + rejected + lost_as_garbage, sum(3_000));
}

#[test]
fn workers_come_and_go_and_nothing_is_written_twice() {
    let stage = Stage::new(4);
    stage.backend.set_pause(Duration::from_millis(3));
    let mut workers: Vec<Running> = vec![stage.start(stage.options())];
    for round in 0..10_u64 {
        stage.publish(&events(round * 400..(round + 1) * 400, 4));
        if round % 3 == 2 {
            workers.remove(0).stop();
        } else {
            workers.push(stage.start(stage.options()));
        }
        std::thread::sleep(Duration::from_millis(120));
    }
    until("everything written", || stage.backend.total() == sum(4_000));
    for worker in workers {
        assert!(worker.stop().drained);
    }
    stage.assert_sound();
    assert_eq!(stage.backend.total(), sum(4_000));
    let before = stage.backend.writes().len();
    stage.catch_up(stage.options());
    assert_eq!(stage.backend.writes().len(), before, "everything was settled: nothing is written again");
}

#[test]
fn a_stop_while_answers_are_lost_leaves_sealed_batches_to_the_next_worker() {
    let stage = Stage::new(2);
    stage.publish(&events(0..500, 2));
    stage.backend.decide(|_| Some(Step::TakeAndLoseTheAnswer));
    let worker = stage.start(WorkerOptions { drain: Duration::from_millis(300), ..stage.options() });
    until("a batch is tried", || !stage.backend.writes().is_empty());
    let outcome = worker.stop();
    assert!(!outcome.drained, "what is sealed is not yet acknowledged");
    let committed = stage.bus().committed("tallybus.fake", TOPIC).unwrap();
    let note = |held: &tallybus_bus::Committed| SealNote::parse(held.offset, &held.metadata).unwrap();
    let sealed = committed.iter().flatten().filter(|held| note(held).sealed_end().is_some()).count();
    assert!(sealed > 0, "the group knows what may have been written");

    stage.backend.decide(|_| None);
    // Other limits: had the batches not been sealed, they would be other batches now.
    let limits = BatchLimits { max_events: 33, ..stage.options().limits };
    stage.catch_up(WorkerOptions { limits, ..stage.options() });
    stage.assert_sound();
    assert_eq!(stage.backend.total(), sum(500));
    assert!(stage.backend.writes().iter().any(|write| write.recovered));
}

#[test]
fn a_backend_that_is_away_holds_up_few_batches_and_is_told_of_once() {
    let stage = Stage::new(2);
    stage.publish(&events(0..20_000, 2));
    stage.backend.set_away(true);
    let worker = stage.start(stage.options());
    until("the lanes are full", || {
        let status = worker.handle.status();
        status.lanes.len() == 2 && status.lanes.values().all(|lane| lane.next > 0) && status.trouble.is_some()
    });
    std::thread::sleep(Duration::from_millis(700));
    for (at, lane) in &worker.handle.status().lanes {
        assert_eq!(lane.state, LaneState::Running);
        assert!(lane.next - lane.settled < 5_000, "{at} holds {} records", lane.next - lane.settled);
        assert_eq!(lane.end, 10_000);
    }
    stage.backend.set_away(false);
    until("everything written", || stage.backend.total() == sum(20_000));
    until("no trouble is left", || worker.handle.status().trouble.is_none());
    assert!(worker.stop().drained);
    stage.assert_sound();
}

#[test]
fn a_halt_advances_nothing_and_ends_when_somebody_acts() {
    let stage = Stage::new(1);
    stage.publish(&events(0..100, 1));
    stage.backend.set_locked(Some("the token is not valid"));
    let worker = stage.start(stage.options());
    until("the halt is told", || worker.handle.status().trouble.is_some_and(|trouble| trouble.contains("token")));
    assert_eq!(stage.committed_offset(), Some(0));
    assert_eq!(stage.backend.total(), 0);
    stage.backend.set_locked(None);
    until("everything written", || stage.backend.total() == sum(100));
    assert!(worker.stop().drained);
    stage.assert_sound();
}

#[test]
fn batches_wait_for_their_dead_letters() {
    let stage = Stage::new(1);
    let options = WorkerOptions { dead_topic: "not.there.yet".to_owned(), ..stage.options() };
    let mut records = events(0..60, 1);
    records[30].1 = "garbage".to_owned();
    stage.publish(&records);
    let worker = stage.start(options);
    until("the batches are written", || stage.backend.total() == sum(60) - 31);
    std::thread::sleep(Duration::from_millis(300));
    let offset = stage.committed_offset().unwrap();
    assert!(offset <= 30, "no offset passes a dead letter that is not on the bus: {offset}");
    stage.bus().create_topic("not.there.yet", 1).unwrap();
    until("the letter is published", || stage.committed_offset() == Some(60));
    assert!(worker.stop().drained);
    stage.assert_sound();
}

#[test]
fn selection_merges_series_and_keeps_totals() {
    let stage = Stage::new(1);
    let line = |name: &str, host: u64| format!(r#"{{"name":"{name}","ts":5,"tags":{{"host":"{host}","keep":"k"}}}}"#);
    let name = |number: u64| if number.is_multiple_of(3) { "http.a" } else { "jobs" };
    let records: Vec<_> = (0..300).map(|number| (0, line(name(number), number))).collect();
    stage.publish(&records);
    let mut shape = Shape::everything();
    shape.names = vec!["http.*".to_owned()];
    shape.drop_tags = vec!["host".to_owned()];
    shape.tags = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let outcome = stage.catch_up(WorkerOptions { shape, ..stage.options() });
    let series: BTreeSet<String> = stage.backend.rows().keys().map(|(series, _)| series.to_string()).collect();
    assert_eq!(series.into_iter().collect::<Vec<_>>(), [r#"http.a{env="prod",keep="k"}"#]);
    assert_eq!(stage.backend.total(), 100);
    assert_eq!(outcome.status.events, 300, "what is left out is settled too");
}

#[test]
fn values_that_no_backend_can_hold_are_dead_letters() {
    let stage = Stage::new(1);
    let line = |value: u64| (0, format!(r#"{{"name":"big","ts":5,"value":{value}}}"#));
    let most = i64::MAX.unsigned_abs();
    stage.publish(&[line(u64::MAX), line(most - 1), line(1), line(1), line(most)]);
    stage.catch_up(stage.options());
    assert_eq!(stage.backend.total(), most);
    let keys: Vec<String> = stage.dead_letters().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["counters/0/0/0", "counters/0/3/0", "counters/0/4/0"]);
}

#[test]
fn starting_with_the_newest_is_remembered() {
    let stage = Stage::new(1);
    stage.publish(&events(0..10, 1));
    let options = WorkerOptions { start_at: StartAt::Newest, ..stage.options() };
    stage.catch_up(options.clone());
    assert_eq!(stage.backend.total(), 0);
    stage.publish(&[(0, event(99))]);
    stage.catch_up(options);
    assert_eq!(stage.backend.total(), 100, "what came while no worker ran is not skipped");
}

#[test]
fn a_partition_that_cannot_go_on_says_why() {
    let other_sink = Shape { sink: "slots=64".to_owned(), ..Shape::everything() };
    let cases = [
        (11, String::new(), "was the topic deleted"),
        (3, "someone else's note".to_owned(), "another program"),
        (3, r#"{"v":9,"ends":[]}"#.to_owned(), "newer tallybus"),
        (3, SealNote::new(vec![6], &other_sink).to_metadata(), "start once with the old settings"),
        (3, SealNote::new(vec![2], &Shape::everything()).to_metadata(), "do not follow offset 3"),
    ];
    for (offset, metadata, expected) in cases {
        let stage = Stage::new(1);
        stage.publish(&events(0..10, 1));
        stage.commit(offset, &metadata);
        let running = stage.start(WorkerOptions { until_caught_up: true, ..stage.options() });
        let Err(error) = running.end() else { panic!("{expected}: it went on") };
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(stage.backend.total(), 0);
    }
}

#[test]
fn a_selection_too_long_for_the_metadata_is_refused_at_once() {
    let stage = Stage::new(1);
    let names = (0..500).map(|number| format!("a.rather.long.counter.name.{number}.*")).collect();
    let shape = Shape { names, ..Shape::everything() };
    let refused = stage.try_worker(WorkerOptions { shape, ..stage.options() });
    assert!(matches!(refused, Err(WorkerError::Settings { .. })));
}

#[test]
fn an_empty_topic_is_caught_up_at_once() {
    let stage = Stage::new(2);
    let outcome = stage.catch_up(stage.options());
    assert_eq!((outcome.status.batches, outcome.drained), (0, true));
}
