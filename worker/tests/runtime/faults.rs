//! One failing partition, record or sink, and the work that must not stop or get lost because of it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tallybus_bus::{Bus, GroupEvent, GroupOptions};
use tallybus_sdk::testkit::{FakeSink, Step};
use tallybus_sdk::{Batch, DeliveryGuarantee, Encoded, Point, Shape, Sink, SinkError, WriteOutcome};
use tallybus_worker::{PartitionState, Worker, WorkerOptions};

use crate::fixture::{Fixture, Running, TOPIC, event, events, sum, until};

#[test]
fn an_empty_partition_does_not_hide_what_others_have_yet_to_write() {
    let fixture = Fixture::new(2);
    fixture.publish(&[(1, event(0))]);
    // Another member owns everything and revokes nothing, as while a group forms.
    let mut other = fixture.bus().subscriber("tallybus.fake", &[TOPIC.to_owned()], &GroupOptions::default()).unwrap();
    until("the other has the partitions", || {
        matches!(
            other.poll(Duration::from_millis(50), 1, &mut |_| ControlFlow::Continue(())),
            Ok(Some(GroupEvent::Assigned(_)))
        )
    });
    let worker = fixture.start(WorkerOptions { until_caught_up: true, ..fixture.options() });
    worker.turns(5);
    assert!(!worker.thread.is_finished(), "partition 1 is not settled");
    other.leave();
    assert!(worker.end().unwrap().drained);
    assert_eq!(fixture.backend.total(), 1);
}

#[test]
fn what_cannot_be_halved_is_a_dead_letter_as_a_whole() {
    let fixture = Fixture::new(1);
    let line = |name: &str, ts: u64| (0, format!(r#"{{"name":"{name}","ts":{ts},"value":{}}}"#, ts + 1));
    // Three events of one series and millisecond stay together, whatever the backend accepts.
    fixture.publish(&[line("bad", 0), line("good", 1), line("bad", 2), line("bad", 3)]);
    fixture.backend.decide(|batch| {
        let is_bad = |point: &Point| batch.series.get(point.series).name() == "bad";
        let split = WriteOutcome::Split { reason: "a bad one among them".to_owned() };
        batch.points.iter().any(is_bad).then_some(Step::WriteOutcome(split))
    });
    let shape = Shape { window: 0, ..Shape::everything() };
    fixture.catch_up(WorkerOptions { shape, ..fixture.options() });
    assert_eq!(fixture.backend.total(), 2);
    let keys: Vec<String> = fixture.dead_letters().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["counters/0/0/0", "counters/0/2/0", "counters/0/3/0"]);
}

#[test]
fn a_record_too_large_for_the_dead_letters_holds_up_nothing() {
    let fixture = Fixture::new(1);
    // As large as the bus accepts; a dead letter has headers besides.
    let garbage = "x".repeat((16 << 20) - 8);
    let mut records = events(0..30, 1);
    records[10].1.clone_from(&garbage);
    fixture.publish(&records);
    fixture.catch_up(fixture.options());
    assert_eq!(fixture.backend.total(), sum(30) - 11);
    let dead_letters = fixture.dead_letters();
    assert_eq!(dead_letters.len(), 1);
    assert_eq!((dead_letters[0].0.as_str(), dead_letters[0].1.len()), ("counters/0/10", garbage.len() / 2));
}

#[test]
fn a_sink_that_panics_is_reported_and_retried_ever_less_often() {
    let fixture = Fixture::new(1);
    fixture.publish(&events(0..50, 1));
    let panics = Arc::new(AtomicUsize::new(0));
    let count = panics.clone();
    fixture.backend.refuse(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        std::panic::resume_unwind(Box::new("a sink's error"))
    });
    let worker = fixture.start(fixture.options());
    until("the panic is reported", || {
        worker.handle.status().last_error.is_some_and(|failure| failure.contains("panicked"))
    });
    let began = Instant::now();
    let tried = panics.load(Ordering::Relaxed);
    until("three more tries", || panics.load(Ordering::Relaxed) >= tried + 3);
    assert!(began.elapsed() > Duration::from_millis(500), "three tries within {:?}", began.elapsed());
    fixture.backend.refuse(|_| false);
    until("everything written", || fixture.backend.total() == sum(50));
    until("no failure is left", || worker.handle.status().last_error.is_none());
    assert!(worker.stop().drained);
    fixture.assert_sound();
}

#[test]
fn a_failing_partition_stays_reported_while_others_continue() {
    let fixture = Fixture::new(2);
    fixture.publish(&events(0..40, 2));
    let halt = || Step::WriteOutcome(WriteOutcome::Halt { reason: "no place for it".to_owned() });
    fixture.backend.decide(move |batch| (batch.id.partition == 1).then(halt));
    let worker = fixture.start(WorkerOptions { drain: Duration::from_millis(100), ..fixture.options() });
    until("the failure is reported", || worker.handle.status().last_error.is_some());
    for number in 0..20 {
        fixture.publish(&[(0, event(number))]);
        until("it is settled", || fixture.committed_offset() == Some(20 + number + 1));
        let failure = worker.handle.status().last_error;
        assert!(failure.is_some_and(|failure| failure.contains("no place")), "the other's success ended it");
    }
    assert!(!worker.stop().drained);
}

/// Has capacity for partition 0 only.
struct Narrow(FakeSink);

#[async_trait]
impl Sink for Narrow {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        self.0.delivery_guarantee()
    }

    fn has_place(&self, _topic_index: u32, partition: u32) -> Result<(), String> {
        if partition == 0 { Ok(()) } else { Err("there is room for one partition".to_owned()) }
    }

    async fn check(&self) -> Result<(), SinkError> {
        self.0.check().await
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        self.0.write(batch, encoded).await
    }
}

#[test]
fn nothing_is_sealed_of_a_partition_that_has_no_place() {
    let fixture = Fixture::new(2);
    fixture.publish(&events(0..20, 2));
    let options = fixture.options();
    let sink = Arc::new(Narrow(FakeSink::new(fixture.backend.clone())));
    let worker = Worker::new(Arc::new(fixture.bus()), sink, fixture.runtime.handle().clone(), options).unwrap();
    let handle = worker.handle();
    let running = Running { handle, thread: std::thread::spawn(move || worker.run()) };
    until("partition 0 is settled", || fixture.committed_offset() == Some(10));
    until("partition 1 says why", || {
        let partitions = running.handle.status().partitions;
        matches!(partitions.get("counters/1").map(|partition| &partition.state), Some(PartitionState::Stopped { reason: why, .. }) if why.contains("room"))
    });
    running.stop();
    assert_eq!(fixture.bus().observer().unwrap().committed_by("tallybus.fake", TOPIC).unwrap()[1], None);
    // With more capacity everything can be written.
    fixture.catch_up(fixture.options());
    assert_eq!(fixture.backend.total(), sum(20));
}
