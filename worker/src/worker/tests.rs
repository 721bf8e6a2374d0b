//! A worker in virtual time, stepped on the thread of the test, on a bus that fails on command.

mod commits;
mod flow;
mod leaving;
mod ownership;
mod resting;

#[path = "../../../tests/simulation/src/time.rs"]
mod time;

use std::time::SystemTime;

use tallybus_bus::sim::{CommitFault, Offsets, Ownership, SimBus};
use tallybus_bus::{Committed, NewRecord, TopicOptions};
use tallybus_sdk::clock::ManualClock;
use tallybus_sdk::testkit::{FakeBackend, FakeSink, Step};
use tallybus_sdk::{BatchLimits, Shape, WriteOutcome};
use tokio::runtime::{Builder, Runtime};

use self::time::{BusTime, ProcessClock, run_tasks};
use super::*;
use crate::notes::read_notes;
use crate::status::{HaltCause, WorkerStatus};

const TOPIC: &str = "counters";
const GROUP: &str = "tallybus.fake";
const DEAD: &str = "tallybus.dead.fake";
/// More steps than any test needs.
const MOST_STEPS: usize = 20_000;

/// A bus and a backend in one virtual time.
pub(super) struct World {
    time: ManualClock,
    pub(super) bus: SimBus,
    backend: Arc<FakeBackend>,
}

impl World {
    pub(super) fn new(partitions: u32) -> Self {
        let time = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let bus = SimBus::new(Arc::new(BusTime(time.clone())), 1);
        for (topic, partitions) in [(TOPIC, partitions), (DEAD, 1), ("progress", 1)] {
            bus.create_topic(topic, &TopicOptions::new(partitions)).unwrap();
        }
        Self { time, bus, backend: FakeBackend::new() }
    }

    /// So many events of value 1, one a record.
    fn publish(&self, partition: u32, events: u64) {
        for number in 0..events {
            self.send(partition, &format!(r#"{{"name":"hits","ts":{number},"value":1}}"#));
        }
    }

    fn send(&self, partition: u32, payload: &str) {
        let mut publisher = self.bus.publisher().unwrap();
        let payload = payload.as_bytes();
        let record = NewRecord { topic: TOPIC, partition: Some(partition), key: None, payload, headers: &[] };
        publisher.publish(record, 1).unwrap();
        let mut deliveries = Vec::new();
        while deliveries.is_empty() {
            publisher.poll(Duration::ZERO, &mut deliveries);
        }
        assert!(deliveries[0].outcome.is_ok());
    }

    /// Batches of ten events.
    fn options() -> WorkerOptions {
        let limits = BatchLimits { max_events: 10, max_delay: Duration::from_millis(50), ..BatchLimits::default() };
        WorkerOptions {
            dead_letter_topic: DEAD.to_owned(),
            limits,
            drain: Duration::from_secs(10),
            ..WorkerOptions::of_a_test(GROUP, &[TOPIC])
        }
    }

    pub(super) fn start(&self) -> Process {
        self.start_with(Self::options())
    }

    fn start_with(&self, options: WorkerOptions) -> Process {
        self.start_sink(FakeSink::new(Arc::clone(&self.backend)), options)
    }

    fn start_sink(&self, sink: FakeSink, options: WorkerOptions) -> Process {
        let runtime = Arc::new(Builder::new_current_thread().build().unwrap());
        let bus = Arc::new(self.bus.connect());
        let clock = Arc::new(ProcessClock::new(self.time.clone(), &runtime));
        let sink = Arc::new(sink);
        let worker =
            Worker::with_clock(Arc::clone(&bus) as Arc<dyn Bus>, sink, runtime.handle().clone(), options, clock);
        Process { bus, worker: worker.unwrap(), runtime }
    }

    pub(super) fn now(&self) -> std::time::Instant {
        self.time.now()
    }

    pub(super) fn pass(&self, time: Duration) {
        self.time.advance(time);
    }

    /// What the group holds.
    fn held(&self, partition: u32) -> Option<Committed> {
        self.bus.held(GROUP, &at(partition))
    }

    fn offset(&self, partition: u32) -> Option<u64> {
        self.held(partition).map(|held| held.offset)
    }

    fn dead_letters(&self) -> usize {
        self.bus.payloads(&TopicPartition::new(DEAD, 0), 0).len()
    }

    /// The offset that the last note of a partition names.
    fn noted(&self, partition: u32) -> Option<u64> {
        let notes = read_notes(&self.bus, "progress", GROUP).unwrap();
        notes.iter().find(|note| note.at() == at(partition)).map(|note| note.offset)
    }
}

/// A worker's process.
pub(super) struct Process {
    bus: Arc<SimBus>,
    pub(super) worker: Worker,
    runtime: Arc<Runtime>,
}

impl Process {
    /// One iteration of the worker, and a few turns of its tasks.
    fn step(&mut self) {
        run_tasks(&self.runtime, None);
        self.worker.run_once().unwrap();
    }

    fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    #[track_caller]
    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..MOST_STEPS {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("never: {what}; {:?}", self.status());
    }

    fn status(&self) -> WorkerStatus {
        self.worker.handle.status()
    }

    /// Why a partition is stopped.
    fn stopped(&self, partition: u32) -> Option<String> {
        self.worker.membership.stopped().get(&at(partition)).map(|(_, reason)| reason.clone())
    }

    pub(super) fn owns(&self, partition: u32) -> bool {
        self.worker.tasks.iter().any(|task| task.at == at(partition))
    }

    /// The next offset of a partition that it owns.
    fn next(&self, partition: u32) -> u64 {
        self.worker.tasks.iter().find(|task| task.at == at(partition)).map_or(0, PartitionTask::next)
    }

    /// How many batches of a partition are sealed and not settled.
    fn sealed(&self, partition: u32) -> usize {
        self.worker.tasks.iter().find(|task| task.at == at(partition)).map_or(0, PartitionTask::sealed)
    }

    fn finish(self) -> Outcome {
        self.worker.finish()
    }
}

pub(super) fn at(partition: u32) -> TopicPartition {
    TopicPartition::new(TOPIC, partition)
}

/// The backend takes nothing.
fn retry() -> Step {
    Step::WriteOutcome(WriteOutcome::Retry { reason: "busy".to_owned(), after: None })
}
