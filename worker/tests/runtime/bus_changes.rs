//! Changes on the bus while a worker runs: records are deleted, or the group's offset is reset.

use std::time::Duration;

use rusqlite::Connection;
use tallybus_bus::Bus;
use tallybus_worker::{PartitionState, WorkerOptions};

use crate::fixture::{Fixture, Running, events, sum, until};

/// Changes the bus's file, as another program would.
fn change(fixture: &Fixture, statements: &str) {
    let sql = Connection::open(fixture.path()).unwrap();
    sql.busy_timeout(Duration::from_secs(10)).unwrap();
    sql.execute_batch(&format!("BEGIN IMMEDIATE; {statements}; COMMIT")).unwrap();
}

/// Why the only partition is stopped.
fn stopped(worker: &Running) -> Option<String> {
    match worker.handle.status().partitions.get("counters/0").map(|partition| partition.state.clone()) {
        Some(PartitionState::Stopped { reason, .. }) => Some(reason),
        _ => None,
    }
}

#[test]
fn records_deleted_before_they_were_read_stop_the_partition_and_are_named() {
    let fixture = Fixture::new(1);
    fixture.backend.set_away(true);
    // Many more than a worker buffers while its backend is unavailable.
    fixture.publish(&events(0..2_000, 1));
    let worker = fixture.start(fixture.options());
    until("a write is tried", || worker.handle.status().last_error.is_some());
    change(
        &fixture,
        "DELETE FROM records WHERE id < (1 << 40) + 1900; UPDATE partitions SET first = 1900 WHERE id = 1",
    );
    fixture.backend.set_away(false);
    until("the partition stops", || stopped(&worker).is_some());
    let settled = fixture.committed_offset().unwrap();
    let gap = format!("counters/0/{settled}-1900");
    let reason = stopped(&worker).unwrap();
    assert!((1..1_900).contains(&settled), "{settled}");
    assert!(reason.contains(&format!("accept_gaps = [\"{gap}\"]")), "{reason}");
    assert_eq!(fixture.backend.total(), sum(settled), "what was read is written, and nothing is skipped");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(stopped(&worker).as_ref(), Some(&reason), "it does not continue by itself");
    worker.stop();

    fixture.catch_up(WorkerOptions { accept_gaps: vec![gap], ..fixture.options() });
    assert_eq!(fixture.backend.total(), sum(settled) + sum(2_000) - sum(1_900));
    fixture.assert_sound();
}

#[test]
fn an_offset_that_is_reset_under_a_running_worker_is_not_overwritten() {
    let fixture = Fixture::new(1);
    fixture.publish(&events(0..100, 1));
    let worker = fixture.start(fixture.options());
    until("everything is settled", || fixture.committed_offset() == Some(100));
    change(&fixture, "UPDATE commits SET next = 40, metadata = ''");
    fixture.publish(&events(100..200, 1));
    until("the partition stops", || stopped(&worker).is_some());
    let reason = stopped(&worker).unwrap();
    assert!(
        reason.contains("was changed by another program") && reason.contains("run `tallybus group reset`"),
        "{reason}"
    );
    worker.stop();
    assert_eq!(fixture.committed_offset(), Some(40));
    // Another worker finds an offset that no worker and no operator has committed, and does not start there.
    let worker = fixture.start(fixture.options());
    until("the partition stops again", || stopped(&worker).is_some());
    let reason = stopped(&worker).unwrap();
    assert!(reason.contains("another program has set the group's offset to 40"), "{reason}");
    worker.stop();
    assert_eq!(fixture.backend.total(), sum(100), "nothing is written that could not be sealed");
}

#[test]
fn a_topic_that_is_recreated_under_a_running_worker_stops_it_before_anything_is_sealed() {
    let fixture = Fixture::new(1);
    fixture.publish(&events(0..100, 1));
    let worker = fixture.start(fixture.options());
    until("everything is settled", || fixture.committed_offset() == Some(100));
    change(&fixture, "UPDATE topics SET stream = 'ffffffffffffffffffffffffffffffff'");
    fixture.publish(&events(100..200, 1));
    until("the partition stops", || stopped(&worker).is_some());
    let reason = stopped(&worker).unwrap();
    assert!(reason.contains("topic counters was recreated: it is embedded:ffff"), "{reason}");
    worker.stop();
    let assert_unchanged = || {
        assert_eq!(fixture.committed_offset(), Some(100));
        assert_eq!(fixture.backend.total(), sum(100), "nothing of the new topic is written under the old one's name");
    };
    assert_unchanged();
    // It stays stopped after a restart.
    let worker = fixture.start(fixture.options());
    until("the partition stops again", || stopped(&worker).is_some());
    assert_eq!(stopped(&worker).unwrap(), reason);
    worker.stop();
    assert_unchanged();
}

#[test]
fn offsets_of_a_version_without_stream_ids_are_adopted() {
    let fixture = Fixture::new(1);
    fixture.publish(&events(0..100, 1));
    fixture.commit(40, r#"{"v":1,"ends":[60],"shape":{"window":1000000000}}"#);
    fixture.catch_up(fixture.options());
    assert_eq!(fixture.backend.total(), sum(100) - sum(40));
    let writes = fixture.backend.writes();
    assert_eq!((writes[0].id.first, writes[0].id.end, writes[0].recovered), (40, 60, true));
    let held = fixture.bus().observer().unwrap().committed_by("tallybus.fake", "counters").unwrap().remove(0).unwrap();
    let stream = fixture.bus().observer().unwrap().stream_id_of("counters").unwrap();
    assert_eq!(tallybus_sdk::SealMetadata::parse(held.offset, &held.metadata).unwrap().stream, Some(stream));
}
