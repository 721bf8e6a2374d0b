use std::sync::Arc;
use std::time::SystemTime;

use tallybus_sdk::clock::ManualClock;
use tallybus_sdk::testkit::{FakeBackend, FakeSink};

use super::*;

fn claims_of(group: &str) -> SinkClaims {
    SinkClaims::new(Owner { group: group.to_owned(), tags: BTreeMap::new(), layout: None })
}

async fn take(group: &str, sink: &FakeSink, at: &TopicPartition, stream: &StreamId) -> Result<(), SinkError> {
    claims_of(group).take(sink, &ManualClock::at(SystemTime::UNIX_EPOCH), at, stream).await
}

#[tokio::test]
async fn of_two_sinks_that_take_a_destination_at_once_one_gives_way_and_leaves_no_claim() {
    let backend = FakeBackend::new();
    let (first, second) = (FakeSink::new(Arc::clone(&backend)), FakeSink::new(Arc::clone(&backend)));
    let (at, stream) = (TopicPartition::new("t", 0), "sim:1".parse::<StreamId>().unwrap());
    // Between the second one's first look and its own claim, the first one takes the destination.
    let theirs = claims_of("first").owner.claim(&at, &stream).to_entry().unwrap();
    backend.claim_before_the_next(&theirs);
    let error = take("second", &second, &at, &stream).await.unwrap_err();
    assert!(matches!(&error, SinkError::Halt(reason) if reason.contains("group first writes t/0")), "{error:?}");
    assert_eq!(second.claims().unwrap().entries().await.unwrap(), [theirs]);
    take("first", &first, &at, &stream).await.unwrap();
    backend.set_away(true);
    assert!(matches!(take("first", &first, &at, &stream).await, Err(SinkError::Unavailable(_))));
}

#[tokio::test]
async fn the_claims_are_read_once_for_all_partitions_that_begin_together() {
    let (backend, clock) = (FakeBackend::new(), ManualClock::at(SystemTime::UNIX_EPOCH));
    let (sink, claims) = (FakeSink::new(Arc::clone(&backend)), claims_of("g"));
    let stream: StreamId = "sim:1".parse().unwrap();
    for partition in 0..64 {
        assert!(claims.held(&sink, &clock).await.unwrap().is_some());
        claims.take(&sink, &clock, &TopicPartition::new("t", partition), &stream).await.unwrap();
    }
    assert_eq!(backend.claim_reads(), 2, "before the first claim and after it");
    assert_eq!(sink.claims().unwrap().entries().await.unwrap().len(), 64);
    // A sink that comes later is seen at the next reading.
    let theirs = claims_of("h").owner.claim(&TopicPartition::new("t", 0), &stream).to_entry().unwrap();
    sink.claims().unwrap().add(&theirs).await.unwrap();
    clock.advance(READ_AGAIN);
    let error = claims.take(&sink, &clock, &TopicPartition::new("t", 64), &stream).await.unwrap_err();
    assert!(matches!(&error, SinkError::Halt(reason) if reason.contains("group h writes t/0")), "{error:?}");
}

#[tokio::test]
async fn a_backup_that_is_restored_under_a_worker_is_not_marked_again_and_halts() {
    let (backend, clock) = (FakeBackend::new(), ManualClock::at(SystemTime::UNIX_EPOCH));
    let sink = FakeSink::new(Arc::clone(&backend)).without_ledger();
    let stream: StreamId = "sim:1".parse().unwrap();
    let claims = claims_of("g");
    let ours = claims.owner.claim(&TopicPartition::new("t", 0), &stream);
    let every = sink.marks_every().unwrap();
    let mut marking = Marking::of(&sink);
    assert_eq!(marking.mark(&sink, &claims, &clock, &ours, 10).await.unwrap(), Some(10));
    let backup = backend.marks();
    assert_eq!(marking.mark(&sink, &claims, &clock, &ours, 20).await.unwrap(), None, "not due");
    clock.advance(every);
    backend.set_away(true);
    assert_eq!(marking.mark(&sink, &claims, &clock, &ours, 30).await.unwrap(), None, "tried again later");
    backend.set_away(false);
    clock.advance(AFTER_A_FAILURE);
    assert_eq!(marking.mark(&sink, &claims, &clock, &ours, 40).await.unwrap(), Some(40));
    backend.set_marks(backup.clone());
    clock.advance(every);
    for _ in 0..2 {
        let error = marking.mark(&sink, &claims, &clock, &ours, 50).await.unwrap_err();
        assert!(matches!(&error, SinkError::Halt(reason) if reason.contains("up to offset 40 before")), "{error:?}");
    }
    assert_eq!(backend.marks(), backup);
}

#[tokio::test]
async fn a_frozen_worker_that_wakes_does_not_set_the_mark_of_its_successor_back() {
    let (backend, clock) = (FakeBackend::new(), ManualClock::at(SystemTime::UNIX_EPOCH));
    let sink = FakeSink::new(Arc::clone(&backend)).without_ledger();
    let (claims, theirs) = (claims_of("g"), claims_of("g"));
    let ours = claims.owner.claim(&TopicPartition::new("t", 0), &"sim:1".parse::<StreamId>().unwrap());
    let (mut frozen, mut successor) = (Marking::of(&sink), Marking::of(&sink));
    assert_eq!(frozen.mark(&sink, &claims, &clock, &ours, 10).await.unwrap(), Some(10));
    assert_eq!(successor.mark(&sink, &theirs, &clock, &ours, 40).await.unwrap(), Some(40));
    clock.advance(sink.marks_every().unwrap());
    assert_eq!(frozen.mark(&sink, &claims, &clock, &ours, 20).await.unwrap(), None);
    assert_eq!(backend.marks()[0].1, 40);
    assert_eq!(successor.mark(&sink, &theirs, &clock, &ours, 50).await.unwrap(), Some(50));
}

#[tokio::test]
async fn a_destination_that_refuses_marks_is_reported_once_and_tried_again_every_minute() {
    let (backend, clock) = (FakeBackend::new(), ManualClock::at(SystemTime::UNIX_EPOCH));
    let sink = FakeSink::new(Arc::clone(&backend)).without_ledger();
    let claims = claims_of("g");
    let ours = claims.owner.claim(&TopicPartition::new("t", 0), &"sim:1".parse::<StreamId>().unwrap());
    let is_unmarked = || claims.is_unmarked.load(Ordering::Relaxed);
    let mut marking = Marking::of(&sink);
    backend.set_away(true);
    assert_eq!(marking.mark(&sink, &claims, &clock, &ours, 10).await.unwrap(), None);
    assert!(!is_unmarked(), "the batches that it does not take say so");
    backend.set_away(false);
    assert_eq!(marking.mark(&sink, &claims, &clock, &ours, 10).await.unwrap(), None, "not before a minute");
    backend.set_locked(Some("no access"));
    clock.advance(AFTER_A_FAILURE);
    assert_eq!(marking.mark(&sink, &claims, &clock, &ours, 10).await.unwrap(), None, "counts are written all the same");
    assert!(is_unmarked());
    assert!(!claims.is_new_refusal(&SinkError::Halt("no access".to_owned())), "it was reported");
    backend.set_locked(None);
    clock.advance(AFTER_A_FAILURE);
    assert_eq!(marking.mark(&sink, &claims, &clock, &ours, 10).await.unwrap(), Some(10));
    assert!(!is_unmarked());
    assert!(claims.is_new_refusal(&SinkError::Halt("no access".to_owned())));
}
