//! A bus, a backend and workers for tests.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{Bus, Commit, Expected, GroupEvent, GroupOptions, NewRecord, Progress, TopicOptions};
use tallybus_sdk::dead_letter::DeadLetterHeaders;
use tallybus_sdk::testkit::{FakeBackend, FakeSink};
use tallybus_sdk::{BatchLimits, SealMetadata, Shape, StartAt};
use tallybus_worker::{Outcome, Worker, WorkerError, WorkerHandle, WorkerOptions};

pub(super) const TOPIC: &str = "counters";
pub(super) const DEAD: &str = "tallybus.dead.fake";

/// A bus, a backend, and the threads for workers.
pub(super) struct Fixture {
    dir: tempfile::TempDir,
    pub(super) backend: Arc<FakeBackend>,
    pub(super) runtime: tokio::runtime::Runtime,
    keeps_ledger: bool,
}

impl Fixture {
    pub(super) fn new(partitions: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let fixture = Self { dir, backend: FakeBackend::new(), runtime, keeps_ledger: true };
        let bus = fixture.bus();
        bus.create_topic(TOPIC, &TopicOptions::new(partitions)).unwrap();
        bus.create_topic(DEAD, &TopicOptions::new(1)).unwrap();
        fixture
    }

    /// With a backend that keeps no ledger.
    pub(super) fn without_ledger(partitions: u32) -> Self {
        Self { keeps_ledger: false, ..Self::new(partitions) }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("bus.db")
    }

    pub(super) fn bus(&self) -> EmbeddedBus {
        EmbeddedBus::open(&self.path()).unwrap()
    }

    pub(super) fn options(&self) -> WorkerOptions {
        WorkerOptions {
            sink: "fake".to_owned(),
            group: "tallybus.fake".to_owned(),
            topics: vec![TOPIC.to_owned()],
            dead_letter_topic: DEAD.to_owned(),
            limits: BatchLimits { max_events: 20, max_bytes: 1 << 20, max_delay: Duration::from_millis(20) },
            shape: Shape::everything(),
            start_at: StartAt::Oldest,
            accept_gaps: Vec::new(),
            progress_topic: "progress".to_owned(),
            drain: Duration::from_secs(5),
            until_caught_up: false,
            replays: None,
        }
    }

    pub(super) fn try_worker(&self, options: WorkerOptions) -> Result<Worker, WorkerError> {
        let sink = FakeSink::new(self.backend.clone());
        let sink = Arc::new(if self.keeps_ledger { sink } else { sink.without_ledger() });
        Worker::new(Arc::new(self.bus()), sink, self.runtime.handle().clone(), options)
    }

    pub(super) fn start(&self, options: WorkerOptions) -> Running {
        let worker = self.try_worker(options).unwrap();
        let handle = worker.handle();
        Running { handle, thread: std::thread::spawn(move || worker.run()) }
    }

    pub(super) fn catch_up(&self, options: WorkerOptions) -> Outcome {
        self.start(WorkerOptions { until_caught_up: true, ..options }).end().unwrap()
    }

    pub(super) fn publish(&self, records: &[(u32, String)]) {
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

    /// Coordinate and payload of each record of the dead-letter topic.
    pub(super) fn dead_letters(&self) -> Vec<(String, String)> {
        let mut dead_letters = Vec::new();
        let mut reader = self.bus().reader().unwrap();
        reader.assign(DEAD, &[(0, 0)]).unwrap();
        loop {
            let progress = reader.poll(Duration::from_secs(2), &mut |record| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let head = DeadLetterHeaders::of(&record).unwrap();
                let (stream, key) = (head.stream.unwrap().rsplit(':').next().unwrap(), text(record.key.unwrap()));
                assert_eq!(key.replacen(&format!("@{stream}"), "", 1), head.coordinate(), "the key names the stream");
                assert_ne!(key, head.coordinate());
                assert_eq!(key, head.key());
                dead_letters.push((head.coordinate(), text(record.payload)));
                ControlFlow::Continue(())
            });
            if !matches!(progress.unwrap(), Progress::Records) {
                return dead_letters;
            }
        }
    }

    pub(super) fn committed_offset(&self) -> Option<u64> {
        self.bus().observer().unwrap().committed_by("tallybus.fake", TOPIC).unwrap()[0].as_ref().map(|held| held.offset)
    }

    pub(super) fn assert_sound(&self) {
        assert_eq!(self.backend.violations(), [""; 0]);
    }

    /// The metadata that seals batches of the topic.
    pub(super) fn seal(&self, ends: Vec<u64>, shape: &Shape) -> String {
        let stream = self.bus().observer().unwrap().stream_id_of(TOPIC).unwrap();
        SealMetadata::new(stream, ends, shape).to_metadata().unwrap()
    }

    /// Commits for the group as an operator or another program would.
    pub(super) fn commit(&self, offset: u64, metadata: &str) {
        let mut member = self.bus().subscriber("tallybus.fake", &[TOPIC.to_owned()], &GroupOptions::default()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some(GroupEvent::Assigned(assigned)) =
                member.poll(Duration::from_millis(50), 1, &mut |_| ControlFlow::Continue(())).unwrap()
            {
                member.start(&[]).unwrap();
                let commit = Commit {
                    at: assigned[0].at.clone(),
                    offset,
                    metadata: metadata.to_owned(),
                    expected: Expected::Anything,
                };
                let answers = member.state().compare_and_set_now(&[commit], Duration::from_secs(5));
                assert!(answers[0].1.is_ok());
                member.leave();
                return;
            }
        }
        panic!("nothing was assigned");
    }
}

pub(super) struct Running {
    pub(super) handle: WorkerHandle,
    pub(super) thread: JoinHandle<Result<Outcome, WorkerError>>,
}

impl Running {
    /// Waits until the worker has completed this many iterations of its loop.
    pub(super) fn turns(&self, count: usize) {
        for _ in 0..count {
            let before = self.handle.status().last_run;
            until("the worker completes an iteration", || self.handle.status().last_run != before);
        }
    }

    pub(super) fn stop(self) -> Outcome {
        self.handle.stop();
        self.end().unwrap()
    }

    pub(super) fn end(self) -> Result<Outcome, WorkerError> {
        self.thread.join().unwrap()
    }
}

pub(super) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn event(number: u64) -> String {
    let time = 1_700_000_000_000_000_000 + number * 1_000_000;
    format!(r#"{{"name":"n{}","value":{},"ts":{time}}}"#, number % 7, number + 1)
}

pub(super) fn events(numbers: std::ops::Range<u64>, partitions: u64) -> Vec<(u32, String)> {
    numbers.map(|number| (u32::try_from(number % partitions).unwrap(), event(number))).collect()
}

pub(super) fn sum(count: u64) -> u64 {
    count * (count + 1) / 2
}
