//! Backends that are wrong, each as it was found in the field.

use tallybus_bus::TopicPartition;
use tallybus_sdk::Claim;

use super::*;

/// Four messages of one series, `route`, in windows 0 to 3 and one of another: all written.
pub(super) fn settled() -> (World, Arc<FakeBackend>, [AuditedSink; 1]) {
    let world = World::new();
    let backend = FakeBackend::new();
    let sinks = [world.sink("a", &backend)];
    world.publish(0, "/a", 4);
    world.publish(1, "/b", 4);
    world.catch_up(&sinks[0]);
    (world, backend, sinks)
}

pub(super) fn row(route: &str, window: i64) -> (Series, i64) {
    (Series::from_sorted("hits", &[("route", route)]), BEGIN + window * WINDOW)
}

pub(super) fn verdicts(report: &AuditReport) -> Vec<Verdict> {
    report.sinks[0].verdicts(&Demands::default())
}

#[test]
fn case_33_b1a_windows_that_cancel_are_found() {
    let (world, backend, sinks) = settled();
    assert_eq!(verdicts(&world.audit(&sinks)), [Verdict::Equal]);
    backend.tamper(|rows| {
        *rows.get_mut(&row("/a", 1)).unwrap() += 1;
        *rows.get_mut(&row("/a", 2)).unwrap() -= 1;
    });
    let report = world.audit(&sinks);
    let found = findings(&report, 0);
    assert_eq!((found.missing, found.extra, found.differing_windows, found.differing_series), (1, 1, 2, 1));
    assert_eq!((found.expected, found.total), (16, 16));
    assert_eq!(verdicts(&report), [Verdict::Misplaced]);
    let place = found.differences[0].place.as_ref().unwrap();
    assert_eq!((place.window_start, place.expected, place.total), (BEGIN + WINDOW, 2, 3));
    let offsets = OffsetSpan { topic: TOPIC.to_owned(), partition: 0, first: 0, end: 1 };
    assert_eq!(place.offsets, [offsets]);
}

#[test]
fn the_place_of_a_difference_counts_what_is_settled_and_names_what_is_sealed() {
    let (world, backend, sinks) = settled();
    // The answer never arrives: sealed, written, not settled.
    world.publish(0, "/a", 4);
    backend.decide(|_| Some(Step::TakeAndLoseTheAnswer));
    let worker = world.work(&sinks[0], false);
    let until = Instant::now() + Duration::from_secs(10);
    while backend.total() < 24 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    worker.stop();
    // This one is not sealed.
    world.publish(0, "/a", 4);
    backend.tamper(|rows| *rows.get_mut(&row("/a", 1)).unwrap() += 100);
    let report = world.audit(&sinks);
    let found = findings(&report, 0);
    assert_eq!((found.missing, found.extra, found.behind, found.differing_windows), (0, 100, 2, 1));
    let place = found.differences[0].place.as_ref().unwrap();
    assert_eq!((place.window_start, place.window, place.expected, place.total), (BEGIN + WINDOW, WINDOW, 2, 104));
    assert_eq!(place.offsets, [OffsetSpan { topic: TOPIC.to_owned(), partition: 0, first: 0, end: 2 }]);
}

#[test]
fn case_33_b1b_a_series_that_was_moved_in_time_is_found() {
    let (world, backend, sinks) = settled();
    backend.tamper(|rows| {
        let moved: Vec<u64> = (0..4).map(|window| rows.remove(&row("/a", window)).unwrap()).collect();
        rows.extend((100..).zip(moved).map(|(window, value)| (row("/a", window), value)));
    });
    let report = world.audit(&sinks);
    let found = findings(&report, 0);
    assert_eq!((found.missing, found.extra, found.differing_windows), (8, 8, 8));
    assert_eq!(verdicts(&report), [Verdict::Misplaced]);
}

#[test]
fn case_33_b1c_folded_windows_are_found_and_wider_windows_can_be_asked_for() {
    let (world, backend, sinks) = settled();
    backend.tamper(|rows| {
        let sum = (1..4).map(|window| rows.remove(&row("/a", window)).unwrap()).sum::<u64>();
        *rows.get_mut(&row("/a", 0)).unwrap() += sum;
    });
    let report = world.audit(&sinks);
    assert_eq!((findings(&report, 0).missing, findings(&report, 0).extra), (6, 6));
    assert_eq!(verdicts(&report), [Verdict::Misplaced]);
    assert!(world.audit_in(&sinks, 4 * WINDOW).equal());
    assert!(world.audit_in(&sinks, 4 * WINDOW - 1).equal(), "in whole windows of the sink");
    assert!(!world.audit_in(&sinks, 2 * WINDOW).equal());
}

#[test]
fn case_33_b3_the_value_of_a_dead_letter_excuses_nothing_else() {
    let (world, backend, sinks) = settled();
    let huge = format!(r#"{{"ts":{BEGIN},"name":"hits","value":{},"tags":{{"route":"/a"}}}}"#, u64::MAX);
    world.send(TOPIC, &[(0, None, huge.into_bytes(), &[])]);
    world.catch_up(&sinks[0]);
    let report = world.audit(&sinks);
    assert_eq!(verdicts(&report), [Verdict::Equal, Verdict::DeadLetters]);
    assert_eq!(findings(&report, 0).dead_total, u64::MAX.into());
    backend.tamper(|rows| *rows.get_mut(&row("/a", 0)).unwrap() += 500_000);
    let report = world.audit(&sinks);
    assert_eq!((findings(&report, 0).missing, findings(&report, 0).extra), (0, 500_000));
    assert_eq!(verdicts(&report)[0], Verdict::Differs);
}

#[test]
fn case_33_b5_a_sink_that_never_ran_is_not_equal() {
    let world = World::new();
    let backend = FakeBackend::new();
    let sinks = [world.sink("a", &backend)];
    assert!(world.audit(&sinks).equal(), "there is nothing to write yet");
    world.publish(0, "/a", 1);
    let report = world.audit(&sinks);
    assert!(!report.equal());
    assert_eq!(verdicts(&report), [Verdict::NeverRan, Verdict::Behind]);
    assert_eq!(report.severity(&Demands::default()), Severity::Bad);
}

#[test]
fn a_sink_whose_group_was_deleted_or_whose_topic_was_recreated_has_run() {
    for stream in ["sim:1", "sim:other"] {
        let world = World::new();
        let backend = FakeBackend::new();
        let sinks = [world.sink("a", &backend)];
        world.publish(0, "/a", 1);
        let at = TopicPartition::new(TOPIC, 0);
        let claim = Claim::new(&sinks[0].group, &at, &stream.parse().unwrap(), &BTreeMap::new());
        assert_eq!(verdicts(&world.audit(&sinks)), [Verdict::NeverRan, Verdict::Behind]);
        let claims = sinks[0].sink.claims().unwrap();
        world.runtime.block_on(claims.add(&claim.to_entry().unwrap())).unwrap();
        let report = world.audit(&sinks);
        assert!(!report.equal());
        assert_eq!(verdicts(&report), [Verdict::OffsetsGone, Verdict::Behind]);
        assert_eq!(report.severity(&Demands::default()), Severity::Bad);
    }
}

#[test]
fn the_age_of_what_is_behind_is_that_of_the_oldest_message_that_is_not_settled() {
    let (world, _backend, sinks) = settled();
    world.publish(1, "/b", 1);
    let observer = world.bus.observer().unwrap();
    let now = world.time_of(1) + 5 * WINDOW;
    let age = || {
        let report = run(&Audit { now, ..world.question(&sinks, observer.as_ref()) }, &mut |_, _| {}).unwrap();
        (findings(&report, 0).behind, findings(&report, 0).oldest_behind)
    };
    std::thread::sleep(Duration::from_millis(2));
    world.publish(1, "/b", 1);
    assert_eq!(age(), (2, Some(Duration::from_secs(5))));
    world.catch_up(&sinks[0]);
    assert_eq!(age(), (0, None));
}

#[test]
fn case_17_foreign_points_are_named_and_the_rest_is_compared() {
    let (world, backend, sinks) = settled();
    backend.add_foreign(0, Foreign::new(ForeignKind::Negative, "temperature -5"));
    backend.add_foreign(0, Foreign::new(ForeignKind::Tags, "a row").of(3));
    let report = world.audit(&sinks);
    let found = findings(&report, 0);
    assert_eq!((found.missing, found.extra, found.foreign.left_out()), (0, 0, 4));
    assert_eq!(found.foreign.named[0].what, "temperature -5");
    assert_eq!(verdicts(&report), [Verdict::Foreign]);
    // A difference beside it is found too.
    backend.tamper(|rows| *rows.get_mut(&row("/a", 1)).unwrap() -= 1);
    assert_eq!(verdicts(&world.audit(&sinks)), [Verdict::Differs, Verdict::Foreign]);
}

#[test]
fn points_beside_the_start_of_their_window_are_compared_in_it_and_reported() {
    let (world, backend, sinks) = settled();
    backend.tamper(|rows| {
        let value = rows.remove(&row("/a", 1)).unwrap();
        let (series, start) = row("/a", 1);
        rows.insert((series, start + 7), value);
    });
    let report = world.audit(&sinks);
    assert_eq!((findings(&report, 0).missing, findings(&report, 0).extra), (0, 0));
    assert_eq!(verdicts(&report), [Verdict::OffWindow]);
}

#[test]
fn case_14_sums_over_64_bits_are_exact() {
    let world = World::new();
    let backend = FakeBackend::new();
    let sinks = [world.sink("a", &backend)];
    let most = u64::try_from(i64::MAX).unwrap();
    for window in 0..3 {
        let event = format!(r#"{{"ts":{},"name":"cpu.ns","value":{most}}}"#, BEGIN + window * WINDOW);
        world.send(TOPIC, &[(0, None, event.into_bytes(), &[])]);
    }
    world.catch_up(&sinks[0]);
    let report = world.audit(&sinks);
    let found = findings(&report, 0);
    assert_eq!((found.expected, found.total), (3 * u128::from(most), 3 * u128::from(most)));
    assert!(report.equal(), "{found:?}");
    backend.tamper(|rows| rows.retain(|(_, start), _| *start != BEGIN + WINDOW));
    assert_eq!(findings(&world.audit(&sinks), 0).missing, most.into());
}

#[test]
fn an_event_that_is_not_sealed_excuses_nothing() {
    let (world, backend, sinks) = settled();
    world.publish(0, "/a", 1);
    assert_eq!(verdicts(&world.audit(&sinks)), [Verdict::Equal, Verdict::Behind]);
    backend.tamper(|rows| *rows.get_mut(&row("/a", 0)).unwrap() += 2);
    assert_eq!((findings(&world.audit(&sinks), 0).missing, findings(&world.audit(&sinks), 0).extra), (0, 2));
}

#[test]
fn a_dead_letter_of_a_batch_that_is_not_settled_lowers_nothing() {
    let (world, _backend, sinks) = settled();
    world.publish(1, "/b", 1);
    forge_at(&world, ("1", "0"), 2, 1);
    let report = world.audit(&sinks);
    let found = findings(&report, 0);
    assert_eq!((found.expected, found.missing, found.extra), (16, 0, 0));
    assert_eq!((found.taken_after_all, found.dead_total, found.dead_letters), (0, 0, 1));
    assert_eq!(found.wrong_dead_letter_count, 0);
}

/// Publishes a dead letter of the first event of partition 1.
fn forge(world: &World, value: u64, events: u32) {
    forge_at(world, ("0", "0"), value, events);
}

/// At an offset and index of partition 1.
pub(super) fn forge_at(world: &World, (offset, index): (&str, &str), value: u64, events: u32) {
    let payload = format!(r#"{{"ts":{BEGIN},"name":"hits","value":{value},"tags":{{"route":"/b"}}}}"#);
    let events = events.to_string();
    let headers: [(&str, &[u8]); 9] = [
        ("tallybus-kind", b"rejected"),
        ("tallybus-sink", b"a"),
        ("tallybus-topic", TOPIC.as_bytes()),
        ("tallybus-partition", b"1"),
        ("tallybus-offset", offset.as_bytes()),
        ("tallybus-index", index.as_bytes()),
        ("tallybus-events", events.as_bytes()),
        ("tallybus-time", b"0"),
        ("tallybus-reason", b"x"),
    ];
    world.send("tallybus.dead.a", &[(0, None, payload.into_bytes(), &headers)]);
}

#[test]
fn case_34_a_dead_letter_that_is_not_the_event_at_its_coordinate_explains_nothing() {
    for (value, events) in [(8, 1), (8, 4), (2, 2)] {
        let (world, backend, sinks) = settled();
        backend.tamper(|rows| rows.retain(|(series, _), _| series.tag("route") != Some("/b")));
        assert_eq!(findings(&world.audit(&sinks), 0).missing, 8);
        forge(&world, value, events);
        let report = world.audit(&sinks);
        let found = findings(&report, 0);
        assert_eq!((found.missing, found.extra, found.wrong_dead_letter_count), (8, 0, 1), "{value} {events}");
        assert_eq!(verdicts(&report), [Verdict::Differs, Verdict::WrongDeadLetters, Verdict::DeadLetters]);
        let wrong = &found.wrong_dead_letters[0];
        assert_eq!((wrong.topic.as_str(), wrong.partition, wrong.offset, wrong.index), (TOPIC, 1, 0, Some(0)));
    }
    // One that is right explains its own event, and no more.
    let (world, backend, sinks) = settled();
    backend.tamper(|rows| rows.retain(|(series, _), _| series.tag("route") != Some("/b")));
    forge(&world, 2, 1);
    let found = world.audit(&sinks);
    assert_eq!((findings(&found, 0).missing, findings(&found, 0).wrong_dead_letter_count), (6, 0));
}

#[test]
fn a_line_that_could_not_be_decoded_need_not_be_in_the_backend_although_it_can_be_decoded_now() {
    let (world, backend, sinks) = settled();
    forge(&world, 2, 0);
    let found = |report: AuditReport| {
        let found = findings(&report, 0);
        (found.missing, found.extra, found.dead_total, found.taken_after_all)
    };
    assert_eq!(found(world.audit(&sinks)), (0, 0, 2, 2));
    backend.tamper(|rows| rows.retain(|place, _| *place != row("/b", 0)));
    assert_eq!(found(world.audit(&sinks)), (0, 0, 2, 0));
    backend.tamper(|rows| rows.retain(|place, _| *place != row("/b", 1)));
    assert_eq!(found(world.audit(&sinks)), (2, 0, 2, 0));
}

#[test]
fn records_that_cannot_be_checked_as_dead_letters_are_counted() {
    let (world, _backend, sinks) = settled();
    for count in 1..=2 {
        world.send("tallybus.dead.a", &[(0, None, b"garbage".to_vec(), &[])]);
        // A point of nothing that is an event.
        let headers: [(&str, &[u8]); 8] = [
            ("tallybus-kind", b"rejected"),
            ("tallybus-sink", b"a"),
            ("tallybus-topic", TOPIC.as_bytes()),
            ("tallybus-partition", b"1"),
            ("tallybus-offset", b"0"),
            ("tallybus-index", b"0"),
            ("tallybus-events", b"1"),
            ("tallybus-time", b"0"),
        ];
        world.send("tallybus.dead.a", &[(0, None, b"garbage".to_vec(), &headers)]);
        let notes = &findings(&world.audit(&sinks), 0).notes.clone();
        let expected = format!("not dead letters that can be checked, in tallybus.dead.a: {} records", 2 * count);
        assert_eq!(*notes, [expected]);
    }
}

#[test]
fn a_dead_letter_of_another_incarnation_of_the_topic_is_neither_counted_nor_wrong() {
    let (world, _backend, sinks) = settled();
    let payload = format!(r#"{{"ts":{BEGIN},"name":"hits","value":99,"tags":{{"route":"/b"}}}}"#).into_bytes();
    let headers: [(&str, &[u8]); 9] = [
        ("tallybus-kind", b"rejected"),
        ("tallybus-sink", b"a"),
        ("tallybus-topic", TOPIC.as_bytes()),
        ("tallybus-stream", b"embedded:0123456789abcdef0123456789abcdef"),
        ("tallybus-partition", b"1"),
        ("tallybus-offset", b"0"),
        ("tallybus-index", b"0"),
        ("tallybus-events", b"1"),
        ("tallybus-time", b"0"),
    ];
    world.send("tallybus.dead.a", &[(0, None, payload.to_vec(), &headers)]);
    let report = world.audit(&sinks);
    let found = findings(&report, 0);
    assert_eq!((found.dead_letters, found.wrong_dead_letter_count), (0, 0));
    assert_eq!(verdicts(&report), [Verdict::Equal]);
}

/// Another sink's claim on the destination, with the tags that it adds.
fn claim_of_another(world: &World, sink: &AuditedSink, tags: &[(&str, &str)]) {
    let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let stream = world.bus.observer().unwrap().stream_id_of(TOPIC).unwrap();
    let at = tallybus_bus::TopicPartition::new(TOPIC, 0);
    let claim = tallybus_sdk::Claim::new("tallybus.other", &at, &stream, &tags).to_entry().unwrap();
    world.runtime.block_on(sink.sink.claims().unwrap().add(&claim)).unwrap();
}

#[test]
fn a_destination_that_another_sink_has_claimed_is_not_equal_whatever_it_holds() {
    let (world, _backend, sinks) = settled();
    claim_of_another(&world, &sinks[0], &[]);
    let report = world.audit(&sinks);
    assert_eq!(verdicts(&report), [Verdict::OtherSink]);
    assert_eq!(findings(&report, 0).claimed_by.as_deref(), Some("group tallybus.other writes t/0 there"));
    assert!(!report.equal());
}

#[test]
fn series_of_a_sink_that_adds_another_tag_are_left_out_where_the_destination_keeps_them_apart() {
    let (world, backend) = (World::new(), FakeBackend::new());
    backend.keep_tags_apart();
    let mut sink = world.sink("a", &backend);
    sink.shape.tags.insert("env".to_owned(), "prod".to_owned());
    let sinks = [sink];
    world.publish(0, "/a", 4);
    world.catch_up(&sinks[0]);
    assert_eq!(verdicts(&world.audit(&sinks)), [Verdict::Equal]);
    let theirs = Series::from_sorted("hits", &[("env", "stage"), ("route", "/a")]);
    backend.tamper(|rows| {
        rows.insert((theirs.clone(), BEGIN), 70);
    });
    assert_eq!(verdicts(&world.audit(&sinks)), [Verdict::Differs], "nobody has claimed them");
    claim_of_another(&world, &sinks[0], &[("env", "stage")]);
    let report = world.audit(&sinks);
    assert_eq!(verdicts(&report), [Verdict::Equal]);
    assert_eq!((findings(&report, 0).extra, findings(&report, 0).total), (0, 8));
    assert!(findings(&report, 0).notes[0].starts_with("1 window of other sinks"), "{:?}", findings(&report, 0).notes);
    // A tag of the same value does not keep them apart.
    claim_of_another(&world, &sinks[0], &[("env", "prod")]);
    assert_eq!(verdicts(&world.audit(&sinks)), [Verdict::OtherSink]);
}

#[test]
fn the_claims_tell_whether_the_group_has_written_here_and_a_destination_that_is_away_says_nothing() {
    let world = World::new();
    let backend = FakeBackend::new();
    let sink = world.sink("a", &backend);
    let read = || world.runtime.block_on(neighbours::Neighbours::read(&sink));
    assert!(!read().unwrap().has_ours);
    claim_of_another(&world, &sink, &[]);
    assert!(!read().unwrap().has_ours, "another sink's");
    for stream in ["sim:1", "sim:2"] {
        let at = tallybus_bus::TopicPartition::new(TOPIC, 0);
        let claim = tallybus_sdk::Claim::new(&sink.group, &at, &stream.parse().unwrap(), &BTreeMap::new());
        let claims = sink.sink.claims().unwrap();
        world.runtime.block_on(claims.add(&claim.to_entry().unwrap())).unwrap();
        assert!(read().unwrap().has_ours, "{stream}: whatever the incarnation");
    }
    backend.set_away(true);
    assert!(read().is_err());
}
