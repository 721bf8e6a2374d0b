use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use tallybus_schemas::{Coordinate, Series};

use super::super::backend::Step;
use super::*;
use crate::clock::ManualClock;
use crate::{BatchId, Point, Rejection, TimeRange};

fn batch(partition: u32, first: u64, values: &[u64]) -> Batch {
    let point = |(index, &value): (usize, &u64)| Point {
        series: 0,
        time: 0,
        value,
        events: 1,
        first: Coordinate { partition, offset: first + index as u64, index: 0 },
    };
    Batch {
        id: BatchId { topic: "t".into(), partition, first, end: first + values.len() as u64 },
        topic_index: 0,
        series: Arc::new([Series::from_sorted("n", &[("k", "v")])].iter().collect()),
        points: values.iter().enumerate().map(point).collect(),
        window: 0,
        part: String::new(),
        stream: None,
        recovered: false,
    }
}

async fn write(sink: &FakeSink, batch: &Batch) -> WriteOutcome {
    sink.write(batch, &sink.encode(batch)).await
}

#[tokio::test]
async fn a_batch_counts_once_however_often_it_comes() {
    let backend = FakeBackend::new();
    let (one, two) = (FakeSink::new(backend.clone()), FakeSink::new(backend.clone()));
    backend.script([Step::TakeAndLoseTheAnswer]);
    assert!(matches!(write(&one, &batch(0, 0, &[1, 2])).await, WriteOutcome::Retry { .. }));
    assert_eq!(write(&two, &batch(0, 0, &[1, 2])).await, WriteOutcome::Done);
    assert_eq!(write(&one, &batch(0, 2, &[4])).await, WriteOutcome::Done);
    assert_eq!(backend.total(), 7);
    assert_eq!(backend.writes().len(), 3);
    assert_eq!(backend.violations(), [""; 0]);
}

#[tokio::test]
async fn the_backend_follows_its_script() {
    let backend = FakeBackend::new();
    let sink = FakeSink::new(backend.clone());
    let halt = WriteOutcome::Halt { reason: "no".to_owned() };
    let rejected = vec![Rejection { point: 1, reason: "bad".to_owned() }];
    backend.script([Step::WriteOutcome(halt.clone()), Step::WriteOutcome(WriteOutcome::Rejected(rejected.clone()))]);
    let first = batch(0, 0, &[1, 2]);
    assert_eq!(write(&sink, &first).await, halt);
    assert_eq!(backend.total(), 0);
    assert_eq!(write(&sink, &first).await, WriteOutcome::Rejected(rejected.clone()));
    assert_eq!(
        write(&sink, &first).await,
        WriteOutcome::Rejected(rejected),
        "the answer to a batch that is in stays the same"
    );
    assert_eq!(backend.total(), 1);
    backend.set_away(true);
    assert!(sink.check().await.is_err());
    assert!(matches!(write(&sink, &first).await, WriteOutcome::Retry { .. }));
    backend.set_away(false);
    backend.set_locked(Some("wrong password"));
    assert!(matches!(write(&sink, &first).await, WriteOutcome::Halt { .. }));
    backend.set_locked(None);
    backend.refuse(|series| series.name() == "n");
    assert!(matches!(write(&sink, &batch(0, 2, &[1, 1])).await, WriteOutcome::Rejected(all) if all.len() == 2));
    backend.decide(|batch| {
        (batch.id.partition == 9).then(|| Step::WriteOutcome(WriteOutcome::Split { reason: "big".to_owned() }))
    });
    assert!(matches!(write(&sink, &batch(9, 0, &[1])).await, WriteOutcome::Split { .. }));
}

#[tokio::test]
async fn broken_promises_are_noticed() {
    let backend = FakeBackend::new();
    let sink = FakeSink::new(backend.clone());
    write(&sink, &batch(0, 0, &[1, 2])).await;
    write(&sink, &batch(0, 0, &[1, 3])).await;
    assert!(backend.violations()[0].contains("different content"));
    write(&sink, &batch(0, 1, &[1, 1])).await;
    assert!(backend.violations()[1].contains("overlaps"));
    write(&sink, &Batch { part: "0".to_owned(), ..batch(0, 0, &[1]) }).await;
    assert!(backend.violations().iter().any(|violation| violation.contains("overlaps") || violation.contains("part")));
    let before = backend.violations().len();
    backend.set_pause(Duration::from_millis(50));
    let (left, right) = (batch(1, 0, &[1]), batch(1, 1, &[1]));
    tokio::join!(write(&sink, &left), write(&sink, &right));
    assert_eq!(backend.violations().len(), before + 1);
    assert!(backend.violations()[before].contains("is being written"));
}

#[tokio::test]
async fn a_pause_on_a_manual_clock_lasts_until_the_clock_has_advanced() {
    let (backend, clock) = (FakeBackend::new(), ManualClock::at(SystemTime::UNIX_EPOCH));
    backend.set_pause(Duration::from_secs(3_600));
    let sink = FakeSink::new(backend.clone()).with_clock(Arc::new(clock.clone()));
    let batch = batch(0, 0, &[1]);
    let mut writing = Box::pin(write(&sink, &batch));
    assert!(poll_once(writing.as_mut()).is_pending());
    clock.advance(Duration::from_secs(3_599));
    assert!(poll_once(writing.as_mut()).is_pending());
    clock.advance(Duration::from_secs(1));
    assert_eq!(poll_once(writing.as_mut()), Poll::Ready(WriteOutcome::Done));
    assert_eq!(backend.total(), 1);
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn it_reads_back_what_it_holds() {
    let sink = FakeSink::new(FakeBackend::new());
    let mut batch = batch(0, 0, &[1, 2, 4]);
    batch.points[1].time = 1_999_999;
    batch.points[2].time = 2_000_000;
    write(&sink, &batch).await;
    let series = batch.series.get(0).to_series();
    let series = Arc::new(series);
    let range = TimeRange { from: Some(1), to: None };
    let read_back = sink.read_back().unwrap();
    let held = read_back.collect(&WindowsQuery::new(range)).await.unwrap();
    let expected = [((series.clone(), 1_999_999), 2), ((series, 2_000_000), 4)];
    assert_eq!(held.windows, expected.into());
}

#[tokio::test]
async fn a_late_request_arrives_when_it_is_delivered_and_counts_once() {
    let backend = FakeBackend::new();
    let sink = FakeSink::new(backend.clone());
    backend.script([Step::TakeLate, Step::Take, Step::TakeLate]);
    let (first, second) = (batch(0, 0, &[1]), batch(0, 1, &[2]));
    assert!(matches!(write(&sink, &first).await, WriteOutcome::Retry { .. }));
    assert_eq!(write(&sink, &first).await, WriteOutcome::Done);
    assert!(matches!(write(&sink, &second).await, WriteOutcome::Retry { .. }));
    assert_eq!(backend.total(), 1);
    backend.deliver_late();
    assert_eq!(backend.total(), 3);
    assert_eq!(backend.total_of(&Series::from_sorted("n", &[("k", "v")])), 3);
    assert_eq!(backend.total_of(&Series::from_sorted("n", &[])), 0);
}

#[tokio::test]
async fn a_backend_goes_back_to_a_backup_and_may_forget_what_it_has_seen() {
    let backend = FakeBackend::new();
    let sink = FakeSink::new(backend.clone());
    assert_eq!(write(&sink, &batch(0, 0, &[1])).await, WriteOutcome::Done);
    let backup = backend.backup();
    assert_eq!(write(&sink, &batch(0, 1, &[2])).await, WriteOutcome::Done);
    sink.add("claim").await.unwrap();
    backend.restore(&backup);
    assert_eq!((backend.total(), backend.ledger_end("t", 0)), (1, 1));
    assert!(sink.entries().await.unwrap().is_empty());
    backend.forget_batches();
    let answer = write(&sink, &batch(0, 1, &[2])).await;
    assert!(matches!(&answer, WriteOutcome::Halt { reason } if reason.contains("was further before")), "{answer:?}");
    let sink = FakeSink::new(backend.clone());
    assert_eq!(write(&sink, &batch(0, 0, &[1])).await, WriteOutcome::Done);
    assert_eq!(backend.total(), 2, "counted twice");
}
