//! What only a real broker can go through: killed, frozen, away; and what strangers may write to it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tallybus_bus::kafka::KafkaBus;
use tallybus_bus::{
    Bus, BusError, Commit, CommitError, Committed, Expected, GroupEvent, GroupOptions, NewRecord, Placed, PublishError,
    Publisher, Subscriber, TopicOptions, TopicPartition, read_headers, read_range,
};
use tallybus_tests::{KafkaServer, Rng};

const PATIENCE: Duration = Duration::from_secs(60);

/// One broker, and one case at a time: each may kill it.
fn broker() -> Option<MutexGuard<'static, KafkaServer>> {
    static BROKER: OnceLock<Option<Mutex<KafkaServer>>> = OnceLock::new();
    let broker = BROKER.get_or_init(|| Some(Mutex::new(tallybus_tests::kafka()?))).as_ref()?;
    let mut broker = broker.lock().unwrap_or_else(PoisonError::into_inner);
    if broker.pid().is_none() {
        broker.restart().unwrap();
    }
    broker.thaw();
    Some(broker)
}

fn bus(broker: &KafkaServer) -> KafkaBus {
    KafkaBus::new(&broker.bootstrap(), &BTreeMap::new()).unwrap()
}

fn record<'a>(topic: &'a str, partition: u32, payload: &'a [u8]) -> NewRecord<'a> {
    NewRecord { topic, partition: Some(partition), key: None, payload, headers: &[] }
}

fn options() -> GroupOptions {
    GroupOptions::default().with_session_timeout(Duration::from_secs(6))
}

/// A broker that has just started answers that it is not the coordinator of a group, which ended the process of an observer.
#[test]
fn an_observer_that_asks_for_commits_all_the_time_outlives_a_restart_of_the_broker() {
    let Some(mut broker) = broker() else { return };
    let topic = "asked-over-a-restart";
    let bus = bus(&broker);
    bus.create_topic(topic, &TopicOptions::new(2)).unwrap();
    let groups: Vec<String> = (0..64).map(|number| format!("asked-{number}")).collect();
    let of: Vec<(&str, &str)> = groups.iter().map(|group| (group.as_str(), topic)).collect();
    let known = bus.observer().unwrap().groups().unwrap();
    let observer = bus.observer().unwrap();
    let until = |wanted: bool| {
        let begun = Instant::now();
        while observer.committed(&of).is_ok() != wanted {
            assert!(begun.elapsed() < PATIENCE, "answers: {wanted}");
        }
    };
    until(true);
    broker.kill();
    until(false);
    broker.restart().unwrap();
    until(true);
    let found = observer.committed(&of).unwrap();
    assert!(found.len() == 64 && found.iter().all(|partitions| *partitions == [None, None]), "{found:?}");
    assert_eq!(bus.observer().unwrap().groups().unwrap(), known, "no group was made");
}

fn settle(publisher: &mut dyn Publisher, fates: &mut BTreeMap<u64, Result<Placed, String>>) {
    let mut deliveries = Vec::new();
    publisher.poll(Duration::from_millis(50), &mut deliveries);
    for delivery in deliveries {
        let fate = delivery.outcome.map_err(|error| error.to_string());
        assert!(fates.insert(delivery.token, fate).is_none(), "token {} was answered twice", delivery.token);
    }
}

/// Polls and starts everything from its beginning or commit until `done`.
fn drive(
    member: &mut dyn Subscriber,
    seen: &mut Vec<(u32, u64, String)>,
    mut done: impl FnMut(&[(u32, u64, String)], Option<&GroupEvent>) -> bool,
) {
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "waited in vain after {} records", seen.len());
        let polled = member.poll(Duration::from_millis(50), 500, &mut |record| {
            seen.push((record.partition, record.offset, String::from_utf8_lossy(record.payload).into_owned()));
            ControlFlow::Continue(())
        });
        let event = match polled {
            Ok(event) => event,
            Err(BusError::Unavailable(_)) => None,
            Err(error) => panic!("{error}"),
        };
        match &event {
            Some(GroupEvent::Assigned(assignments)) => {
                let start = |committed: &Option<Committed>| committed.as_ref().map_or(0, |committed| committed.offset);
                let starts: Vec<_> =
                    assignments.iter().map(|given| (given.at.clone(), start(&given.committed))).collect();
                member.start(&starts).unwrap();
            }
            Some(GroupEvent::Revoked(partitions) | GroupEvent::Lost(partitions)) => member.release(partitions).unwrap(),
            _ => {}
        }
        if done(seen, event.as_ref()) {
            return;
        }
    }
}

#[test]
fn records_are_stored_once_through_a_killed_broker() {
    let Some(mut broker) = broker() else { return };
    let bus = bus(&broker);
    bus.create_topic("killed-broker", &TopicOptions::new(2)).unwrap();
    let mut publisher = bus.publisher().unwrap();
    let mut fates = BTreeMap::new();
    let mut refusals = 0;
    let mut member = bus.subscriber("killed-broker-group", &["killed-broker".to_owned()], &options()).unwrap();
    let mut seen = Vec::new();
    drive(&mut *member, &mut seen, |_, event| matches!(event, Some(GroupEvent::Assigned(_))));
    for token in 0..6_000u64 {
        if token == 2_000 {
            broker.kill();
        }
        if token == 4_000 {
            broker.restart().unwrap();
        }
        let payload = token.to_string();
        let to = record("killed-broker", (token % 2).try_into().unwrap(), payload.as_bytes());
        while let Err(error) = publisher.publish(to, token) {
            assert!(error.is_transient(), "{error}");
            refusals += 1;
            settle(&mut *publisher, &mut fates);
            assert!(refusals < 1_000, "{error}");
        }
        if token % 100 == 0 {
            settle(&mut *publisher, &mut fates);
        }
    }
    let until = Instant::now() + PATIENCE;
    while publisher.in_flight() > 0 {
        settle(&mut *publisher, &mut fates);
        assert!(Instant::now() < until, "{} records have no fate", publisher.in_flight());
    }
    assert_eq!(fates.len(), 6_000);
    assert!(fates.values().all(Result::is_ok), "nothing is given up through an outage");
    // The member that was there before has them all, each once.
    drive(&mut *member, &mut seen, |seen, _| {
        seen.iter().map(|(_, _, text)| text.clone()).collect::<BTreeSet<_>>().len() == 6_000
    });
    let places: BTreeSet<(u32, u64)> = seen.iter().map(|(partition, offset, _)| (*partition, *offset)).collect();
    assert_eq!(places.len(), 6_000, "stored more than once");
    for (token, fate) in &fates {
        let placed = fate.clone().unwrap();
        // The broker had it already, and did not tell where.
        let Some(offset) = placed.offset else { continue };
        let partition = placed.partition;
        let text = token.to_string();
        assert!(seen.contains(&(partition, offset, text)), "token {token} is not where it was said to be");
        if *token == 200 {
            break;
        }
    }
    member.leave();
}

#[test]
fn a_commit_to_a_frozen_broker_is_unanswered_in_time_and_read_back_truly() {
    let Some(broker) = broker() else { return };
    let bus = bus(&broker);
    bus.create_topic("frozen", &TopicOptions::new(1)).unwrap();
    let at = TopicPartition::new("frozen", 0);
    let mut member = bus.subscriber("frozen-group", &["frozen".to_owned()], &options()).unwrap();
    drive(&mut *member, &mut Vec::new(), |_, event| matches!(event, Some(GroupEvent::End { .. })));
    let commit = |offset, metadata: &str| Commit {
        at: at.clone(),
        offset,
        metadata: metadata.to_owned(),
        expected: Expected::Anything,
    };
    let answers = member.state().compare_and_set_now(&[commit(0, "before")], PATIENCE);
    assert!(matches!(answers[..], [(_, Ok(()))]), "{answers:?}");

    broker.freeze();
    let began = Instant::now();
    let answers = member.state().compare_and_set_now(&[commit(1, "during")], Duration::from_secs(1));
    let took = began.elapsed();
    assert!(matches!(answers[..], [(_, Err(CommitError::Unanswered(_)))]), "{answers:?}");
    assert!((Duration::from_millis(900)..Duration::from_secs(2)).contains(&took), "{took:?}");
    // Its fate is open, so that neither a newer one nor an answer is given.
    let answers = member.state().compare_and_set_now(&[commit(2, "after")], Duration::from_millis(300));
    assert!(matches!(answers[..], [(_, Err(CommitError::Unanswered(_)))]), "{answers:?}");
    assert!(matches!(member.state().compare_and_set(&[commit(2, "after")]), Err(BusError::Unavailable(_))));
    let polled = member.poll(Duration::from_millis(100), 10, &mut |_| panic!("nothing was published"));
    assert!(matches!(polled, Ok(None)), "{polled:?}");
    broker.thaw();

    let until = Instant::now() + PATIENCE;
    let found = loop {
        match member.state().get(std::slice::from_ref(&at)) {
            Ok(found) => break found,
            Err(error) => assert!(error.is_transient() && Instant::now() < until, "{error}"),
        }
    };
    // The frozen broker had the request in its socket; the one that was refused here was never sent.
    assert_eq!(found, [Some(Committed { offset: 1, metadata: "during".to_owned() })]);
    assert_eq!(bus.observer().unwrap().committed_by("frozen-group", "frozen").unwrap(), found);
    member.leave();
}

#[test]
fn a_revoked_partition_is_not_released_over_an_open_commit() {
    let Some(broker) = broker() else { return };
    let bus = bus(&broker);
    bus.create_topic("open-commit", &TopicOptions::new(1)).unwrap();
    let at = TopicPartition::new("open-commit", 0);
    let mut member = bus.subscriber("open-commit-group", &["open-commit".to_owned()], &options()).unwrap();
    drive(&mut *member, &mut Vec::new(), |_, event| matches!(event, Some(GroupEvent::Assigned(_))));
    // A commit is started and the partition given up at once: the answer comes before the release is through.
    member
        .state()
        .compare_and_set(&[Commit {
            at: at.clone(),
            offset: 7,
            metadata: "sealed".to_owned(),
            expected: Expected::Anything,
        }])
        .unwrap();
    member.release(std::slice::from_ref(&at)).unwrap();
    let committed = bus.observer().unwrap().committed_by("open-commit-group", "open-commit").unwrap();
    assert_eq!(committed, [Some(Committed { offset: 7, metadata: "sealed".to_owned() })]);
    let answered = member.poll(Duration::from_secs(1), 10, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(&answered, Some(GroupEvent::Committed(answers)) if answers[0].1.is_ok()), "{answered:?}");
    member.leave();
}

#[test]
fn leaving_and_dropping_do_not_wait_for_a_frozen_broker() {
    let Some(broker) = broker() else { return };
    let bus = bus(&broker);
    bus.create_topic("goodbye", &TopicOptions::new(1)).unwrap();
    let mut member = bus.subscriber("goodbye-group", &["goodbye".to_owned()], &options()).unwrap();
    drive(&mut *member, &mut Vec::new(), |_, event| matches!(event, Some(GroupEvent::Assigned(_))));
    let mut publisher = bus.publisher().unwrap();
    assert_eq!(publisher.partitions("goodbye").unwrap(), Some(1));
    broker.freeze();
    for token in 0..100 {
        publisher.publish(record("goodbye", 0, b"x"), token).unwrap();
    }
    let mut deliveries = Vec::new();
    publisher.poll(Duration::from_millis(200), &mut deliveries);
    assert!(deliveries.is_empty() && publisher.in_flight() == 100);
    let began = Instant::now();
    drop(publisher);
    let dropped = began.elapsed();
    member.leave();
    let left = began.elapsed() - dropped;
    broker.thaw();
    assert!(dropped < Duration::from_secs(3), "dropping the publisher took {dropped:?}");
    assert!(left < Duration::from_secs(10), "leaving took {left:?}");
}

#[test]
fn a_bus_that_is_away_is_reported_as_such() {
    let away = KafkaBus::new("127.0.0.1:9", &BTreeMap::new()).unwrap();
    let mut publisher = away.publisher().unwrap();
    let began = Instant::now();
    let answer = publisher.partitions("t");
    assert!(matches!(answer, Err(BusError::Unavailable(_))), "a topic may exist on a bus that is away: {answer:?}");
    assert!(matches!(publisher.publish(record("t", 0, b"x"), 1), Err(BusError::Unavailable(_))));
    assert!(began.elapsed() < Duration::from_secs(4));
    let mut member = away.subscriber("g", &["t".to_owned()], &options()).unwrap();
    match member.poll(Duration::from_millis(500), 1, &mut |_| ControlFlow::Continue(())) {
        Ok(None) | Err(BusError::Unavailable(_)) => {}
        other => panic!("{other:?}"),
    }
    let error = away.observer().unwrap().partitions_of("t").unwrap_err();
    assert!(matches!(&error, BusError::Unavailable(text) if text.contains("127.0.0.1:9")), "{error}");
    member.leave();
}

/// The client's own limit is a case of the contract; here the client would send it.
#[test]
fn a_record_that_only_the_broker_finds_too_large_is_answered_as_such_and_the_next_goes_on() {
    let Some(broker) = broker() else { return };
    let properties = BTreeMap::from([("message.max.bytes".to_owned(), "5000000".to_owned())]);
    let bus = KafkaBus::new(&broker.bootstrap(), &properties).unwrap();
    bus.create_topic("large-and-small", &TopicOptions::new(1)).unwrap();
    let mut publisher = bus.publisher().unwrap();
    // No compression makes these fit.
    let mut rng = Rng::new(1);
    let large: Vec<u8> = (0..3_000_000).map(|_| rng.number().to_le_bytes()[7]).collect();
    publisher.publish(record("large-and-small", 0, &large), 1).unwrap();
    let mut deliveries = Vec::new();
    let until = Instant::now() + PATIENCE;
    while publisher.in_flight() > 0 {
        publisher.poll(Duration::from_millis(50), &mut deliveries);
        assert!(Instant::now() < until, "the record has no fate");
    }
    assert!(matches!(deliveries[0].outcome, Err(PublishError::TooLarge { limit: None })), "{deliveries:?}");
    publisher.publish(record("large-and-small", 0, b"small"), 2).unwrap();
    let mut fates = BTreeMap::new();
    while publisher.in_flight() > 0 {
        settle(&mut *publisher, &mut fates);
    }
    assert_eq!(fates, BTreeMap::from([(2, Ok(Placed::new(0, Some(0))))]));
}

#[test]
fn an_offset_that_is_not_there_names_its_partition() {
    let Some(broker) = broker() else { return };
    let bus = bus(&broker);
    bus.create_topic("beyond", &TopicOptions::new(2)).unwrap();
    let mut member = bus.subscriber("beyond-group", &["beyond".to_owned()], &options()).unwrap();
    let until = Instant::now() + PATIENCE;
    let error = loop {
        assert!(Instant::now() < until, "no error came");
        match member.poll(Duration::from_millis(100), 10, &mut |_| ControlFlow::Continue(())) {
            Ok(Some(GroupEvent::Assigned(assignments))) => {
                let starts: Vec<_> = assignments
                    .iter()
                    .map(|given| (given.at.clone(), if given.at.partition == 1 { 500 } else { 0 }))
                    .collect();
                member.start(&starts).unwrap();
            }
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("beyond/1") && error.contains("500"), "{error}");

    let mut reader = bus.reader().unwrap();
    reader.assign("beyond", &[(0, 0), (1, 500)]).unwrap();
    let error = loop {
        assert!(Instant::now() < until, "no error came");
        if let Err(error) = reader.poll(Duration::from_millis(100), &mut |_| ControlFlow::Continue(())) {
            break error.to_string();
        }
    };
    assert!(error.contains("beyond/1") && error.contains("500"), "{error}");
    // It reads on after that.
    reader.assign("beyond", &[(1, 0)]).unwrap();
    assert!(reader.poll(Duration::from_secs(5), &mut |_| ControlFlow::Continue(())).is_ok());
}

#[test]
fn headers_that_are_no_text_stop_nothing() {
    let Some(broker) = broker() else { return };
    let Some(kcat) = tallybus_tests::program("kcat") else { return };
    let bus = bus(&broker);
    bus.create_topic("strange-headers", &TopicOptions::new(1)).unwrap();
    let mut child = Command::new(kcat)
        .args(["-P", "-b", &broker.bootstrap(), "-t", "strange-headers", "-p", "0", "-H"])
        .arg(OsStr::from_bytes(b"na\xffme=val\xfeue"))
        .args(["-H", "plain=text"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"payload").unwrap();
    assert!(child.wait().unwrap().success());
    let mut got = Vec::new();
    let mut reader = bus.reader().unwrap();
    read_range(&mut *reader, "strange-headers", &[(0, 0..1)], PATIENCE, &mut |record| {
        assert_eq!(record.headers.get("plain"), Some(b"text".as_slice()));
        assert_eq!(record.headers.get("absent"), None);
        got.push((record.payload.to_vec(), read_headers(record.headers)));
    })
    .unwrap();
    let headers = vec![("na\u{fffd}me".to_owned(), b"val\xfeue".to_vec()), ("plain".to_owned(), b"text".to_vec())];
    assert_eq!(got, [(b"payload".to_vec(), headers)]);
}

#[test]
fn the_end_is_reported_for_each_of_several_topics() {
    let Some(broker) = broker() else { return };
    let bus = bus(&broker);
    let topics = ["ends-one".to_owned(), "ends-two".to_owned()];
    for topic in &topics {
        bus.create_topic(topic, &TopicOptions::new(1)).unwrap();
        let mut publisher = bus.publisher().unwrap();
        for token in 0..50 {
            publisher.publish(record(topic, 0, b"x"), token).unwrap();
        }
        let mut fates = BTreeMap::new();
        while publisher.in_flight() > 0 {
            settle(&mut *publisher, &mut fates);
        }
    }
    let mut member = bus.subscriber("ends-group", &topics, &options()).unwrap();
    let mut ends = Vec::new();
    let mut seen = Vec::new();
    drive(&mut *member, &mut seen, |seen, event| {
        if let Some(GroupEvent::End { at, .. }) = event {
            ends.push((at.topic.to_string(), seen.len()));
        }
        ends.len() == 2
    });
    let named: BTreeSet<&String> = ends.iter().map(|(topic, _)| topic).collect();
    assert_eq!(named.len(), 2, "{ends:?}");
    assert_eq!(ends[1].1, 100, "an end came before its records");
    assert!(ends[0].1 >= 50, "an end came before its records");
    member.leave();
}

#[test]
fn a_topic_that_comes_later_is_found() {
    let Some(broker) = broker() else { return };
    let bus = bus(&broker);
    let topic = "comes-later".to_owned();
    let mut member = bus.subscriber("later-group", std::slice::from_ref(&topic), &options()).unwrap();
    for _ in 0..10 {
        assert!(matches!(member.poll(Duration::from_millis(50), 1, &mut |_| ControlFlow::Continue(())), Ok(None)));
    }
    bus.create_topic(&topic, &TopicOptions::new(1)).unwrap();
    let began = Instant::now();
    drive(&mut *member, &mut Vec::new(), |_, event| matches!(event, Some(GroupEvent::Assigned(_))));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    member.leave();
}

#[test]
fn a_broker_that_takes_no_short_session_gets_a_longer_one() {
    let Some(broker) = tallybus_tests::kafka_with(&[("group.min.session.timeout.ms", "6000")]) else { return };
    let bus = bus(&broker);
    bus.create_topic("sessions", &TopicOptions::new(1)).unwrap();
    let topics = ["sessions".to_owned()];
    // The second member meets what the first has learned, the third was on its way before.
    let mut members: Vec<_> =
        (0..3).map(|_| bus.subscriber("sessions-group", &topics, &GroupOptions::default()).unwrap()).collect();
    drive(&mut *members[0], &mut Vec::new(), |_, event| matches!(event, Some(GroupEvent::Assigned(_))));
    members.push(bus.subscriber("other-group", &topics, &GroupOptions::default()).unwrap());
    for member in &mut members[1..] {
        for _ in 0..20 {
            let polled = member.poll(Duration::from_millis(50), 10, &mut |_| ControlFlow::Continue(()));
            if matches!(polled.unwrap(), Some(GroupEvent::Assigned(_))) {
                break;
            }
        }
    }

    // What the operator has chosen is not changed behind their back.
    let chosen = BTreeMap::from([("session.timeout.ms".to_owned(), "2000".to_owned())]);
    let bus = KafkaBus::new(&broker.bootstrap(), &chosen).unwrap();
    let mut member = bus.subscriber("chosen-group", &topics, &GroupOptions::default()).unwrap();
    let until = Instant::now() + PATIENCE;
    let refusal = loop {
        match member.poll(Duration::from_millis(50), 10, &mut |_| ControlFlow::Continue(())) {
            Err(error) => break error.to_string(),
            Ok(_) => assert!(Instant::now() < until, "a session of 2 s was taken"),
        }
    };
    assert!(refusal.contains("session.timeout.ms"), "{refusal}");
}
