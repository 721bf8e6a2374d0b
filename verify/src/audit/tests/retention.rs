//! A bus whose oldest records were deleted, before the audit or during it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tallybus_schemas::{NativeEncoder, Origin};

use super::cases::{forge_at, settled, verdicts};
use super::*;

/// An observer that finds the records of a partition gone below the offset that `first` returns.
struct Trimmed<'a> {
    observer: Box<dyn Observer>,
    first: &'a (dyn Fn(&str, u32) -> u64 + Sync),
}

impl Observer for Trimmed<'_> {
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError> {
        self.observer.partitions(topics)
    }

    fn offsets(&self, topics: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError> {
        let mut offsets = self.observer.offsets(topics)?;
        for (topic, ranges) in topics.iter().zip(&mut offsets) {
            for (partition, range) in (0..).zip(ranges) {
                range.first = (self.first)(topic, partition);
            }
        }
        Ok(offsets)
    }

    fn offsets_at(&self, topics: &[&str], time_ms: i64) -> Result<Vec<Vec<u64>>, BusError> {
        self.observer.offsets_at(topics, time_ms)
    }

    fn committed(&self, of: &[(&str, &str)]) -> Result<Vec<Vec<Option<Committed>>>, BusError> {
        self.observer.committed(of)
    }

    fn stream_ids(&self, topics: &[&str]) -> Result<Vec<StreamId>, BusError> {
        self.observer.stream_ids(topics)
    }
}

impl World {
    /// Audits a bus trimmed so, from this time on.
    fn audit_trimmed(
        &self,
        sinks: &[AuditedSink],
        from: Option<i64>,
        first: &(dyn Fn(&str, u32) -> u64 + Sync),
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<AuditReport, AuditError> {
        let observer = Trimmed { observer: self.bus.observer().unwrap(), first };
        let range = TimeRange { from, to: None };
        run(&Audit { range, ..self.question(sinks, &observer) }, progress)
    }

    /// When the bus took a record of partition 1: nanoseconds since the Unix epoch.
    pub(super) fn time_of(&self, offset: u64) -> i64 {
        let mut time_ms = 0;
        let mut reader = self.bus.reader().unwrap();
        let span = [(1, offset..offset + 1)];
        tallybus_bus::read_range(reader.as_mut(), TOPIC, &span, Duration::from_secs(5), &mut |record| {
            time_ms = record.time_ms;
        })
        .unwrap();
        time_ms * 1_000_000
    }
}

/// Nothing is gone.
fn whole(_: &str, _: u32) -> u64 {
    0
}

/// The first record of partition 1 is gone.
fn without_one(topic: &str, partition: u32) -> u64 {
    u64::from(topic == TOPIC && partition == 1)
}

#[test]
fn a_topic_that_has_lost_its_oldest_records_cannot_be_compared_without_a_start() {
    let (world, _backend, sinks) = settled();
    world.publish(1, "/b", 1);
    let error = world.audit_trimmed(&sinks, None, &without_one, &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, AuditError::Gone { topic, partition: 1, first: 1 } if topic == TOPIC), "{error}");
}

#[test]
fn records_that_are_deleted_while_they_are_read_end_an_audit_without_a_start_only() {
    let (world, _backend, sinks) = settled();
    let trimmed = AtomicBool::new(false);
    let first = |topic: &str, partition| if trimmed.load(SeqCst) { without_one(topic, partition) } else { 0 };
    let mut trim = |_, _| trimmed.store(true, SeqCst);
    let error = world.audit_trimmed(&sinks, None, &first, &mut trim).unwrap_err();
    assert!(matches!(&error, AuditError::Gone { topic, partition: 1, first: 1 } if topic == TOPIC), "{error}");
    trimmed.store(false, SeqCst);
    assert!(world.audit_trimmed(&sinks, Some(0), &first, &mut trim).unwrap().equal());
}

#[test]
fn a_start_must_not_be_before_the_oldest_record_that_is_left() {
    let (world, _backend, sinks) = settled();
    world.publish(1, "/b", 1);
    let oldest = world.time_of(1);
    let audit = |from| world.audit_trimmed(&sinks, Some(from), &without_one, &mut |_, _| {});
    assert!(audit(oldest).unwrap().equal());
    let error = audit(oldest - 1).unwrap_err();
    assert!(matches!(&error, AuditError::BeginsLater { partition: 1, time, .. } if *time == oldest), "{error}");
    // Of a partition that has lost nothing, any record may be newer.
    assert!(world.audit_trimmed(&sinks, Some(0), &whole, &mut |_, _| {}).is_ok());
}

#[test]
fn an_error_names_a_time_as_people_read_it() {
    let error = AuditError::BeginsLater { topic: "t".to_owned(), partition: 3, time: BEGIN };
    assert_eq!(error.to_string(), "t/3 has lost messages up to 2023-11-14T22:13:20Z: use a later --from");
}

#[test]
fn records_that_were_deleted_before_the_sink_wrote_them_are_lost() {
    let (world, _backend, sinks) = settled();
    world.publish(1, "/b", 1);
    world.publish(1, "/b", 1);
    // The group has settled offset 0 alone.
    let first = |topic: &str, partition| 2 * without_one(topic, partition);
    let lost = OffsetSpan { topic: TOPIC.to_owned(), partition: 1, first: 1, end: 2 };
    let error = world.audit_trimmed(&sinks, None, &first, &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, AuditError::Lost { sink, span } if sink == "a" && *span == lost), "{error}");
    let report = world.audit_trimmed(&sinks, Some(world.time_of(2)), &first, &mut |_, _| {}).unwrap();
    assert_eq!(findings(&report, 0).gone_unwritten, [lost]);
    assert_eq!(verdicts(&report), [Verdict::Lost, Verdict::Behind]);
}

#[test]
fn records_that_the_sink_wrote_during_the_audit_and_before_they_were_deleted_are_not_lost() {
    let (world, _backend, sinks) = settled();
    world.publish(1, "/b", 1);
    world.publish(1, "/b", 1);
    let written = AtomicBool::new(false);
    // The dead letters are read after the group's progress.
    let first = |topic: &str, partition| {
        if topic == sinks[0].dead_letter_topic && !written.swap(true, SeqCst) {
            world.catch_up(&sinks[0]);
        }
        if written.load(SeqCst) { 2 * without_one(topic, partition) } else { 0 }
    };
    let report = world.audit_trimmed(&sinks, Some(world.time_of(2)), &first, &mut |_, _| {}).unwrap();
    assert!(written.load(SeqCst));
    assert_eq!(findings(&report, 0).gone_unwritten, []);
}

#[test]
fn a_dead_letter_of_a_deleted_record_is_not_wrong_and_one_of_the_oldest_that_is_left_may_be() {
    for (offset, wrong) in [("0", 0), ("1", 1)] {
        let (world, _backend, sinks) = settled();
        world.publish(1, "/b", 1);
        world.catch_up(&sinks[0]);
        forge_at(&world, (offset, "9"), 2, 1);
        let from = Some(world.time_of(1));
        let report = world.audit_trimmed(&sinks, from, &without_one, &mut |_, _| {}).unwrap();
        let found = findings(&report, 0);
        assert_eq!((found.dead_letters, found.wrong_dead_letter_count), (1, wrong), "{offset}");
    }
}

#[test]
fn dead_letters_and_replayed_ones_that_were_deleted_are_noted() {
    let world = World::new();
    let backend = FakeBackend::new();
    backend.refuse(|_| true);
    let sinks = [world.sink("a", &backend)];
    world.publish(1, "/bad", 4);
    world.catch_up(&sinks[0]);
    world.replay(&sinks[0], 0..2);
    let notes = |gone: Option<&str>| {
        let first = |topic: &str, _| u64::from(Some(topic) == gone);
        let report = world.audit_trimmed(&sinks, None, &first, &mut |_, _| {}).unwrap();
        findings(&report, 0).notes.clone()
    };
    assert_eq!(notes(None), [""; 0]);
    let noted = notes(Some(&sinks[0].replay_topic));
    assert!(noted.len() == 1 && noted[0].starts_with("tallybus.replay.a has lost its oldest records"), "{noted:?}");
    let noted = notes(Some(&sinks[0].dead_letter_topic));
    assert!(noted.len() == 1 && noted[0].starts_with("dead letters were deleted by retention"), "{noted:?}");
}

#[test]
fn a_producers_first_message_need_not_be_there_where_the_partition_has_lost_records() {
    let world = World::new();
    let mut encoder = NativeEncoder::new(&[]);
    for sequence in [1, 2] {
        encoder.push("hits", &[], 5);
        let origin = Origin {
            producer: [7; 16],
            sequence,
            interval_start: 0,
            interval_end: 0,
            partition_total: 5 * sequence,
            emitted_total: 5 * sequence,
        };
        let message = encoder.finish(&origin);
        // The first one is not on the bus.
        if sequence == 2 {
            world.send(TOPIC, &[(1, None, b"other".to_vec(), &[]), (1, None, message, &[])]);
        }
    }
    let faults = |from, first: &(dyn Fn(&str, u32) -> u64 + Sync)| {
        let report = world.audit_trimmed(&[], from, first, &mut |_, _| {}).unwrap();
        (report.producers.producers, report.producers.fault_count, report.undecodable)
    };
    assert_eq!(faults(None, &whole), (1, 1, 1));
    assert_eq!(faults(Some(world.time_of(1)), &without_one), (1, 0, 0));
}

#[test]
fn the_bus_is_counted_event_by_event_and_line_by_line() {
    let world = World::new();
    world.publish(0, "/a", 3);
    let good = format!(r#"{{"ts":{BEGIN},"name":"hits","value":4}}"#);
    world.send(
        TOPIC,
        &[(1, None, format!("{good}\n{{\"value\":1}}\n{good}").into_bytes(), &[]), (1, None, b"garbage".to_vec(), &[])],
    );
    let report = world.audit(&[]);
    assert_eq!((report.bus_events, report.bus_total, report.undecodable), (5, 14, 2));
    let late = world.audit_trimmed(&[], Some(BEGIN + WINDOW), &whole, &mut |_, _| {}).unwrap();
    assert_eq!((late.bus_events, late.bus_total), (2, 4));
}

#[test]
fn progress_is_reported_every_thousand_records_and_at_the_end() {
    let world = World::new();
    let record = format!(r#"{{"ts":{BEGIN},"name":"hits","value":1}}"#).into_bytes();
    let records: Vec<Payload<'_>> = (0..2_001).map(|_| (0, None, record.clone(), &[][..])).collect();
    world.send(TOPIC, &records);
    let mut calls = Vec::new();
    world.audit_trimmed(&[], None, &whole, &mut |read, all| calls.push((read, all))).unwrap();
    assert_eq!(calls, [(1_000, 2_001), (2_000, 2_001), (2_001, 2_001)]);
}
