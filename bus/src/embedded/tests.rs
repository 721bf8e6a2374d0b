use std::ops::ControlFlow;
use std::time::Instant;

use rusqlite::Connection;

use super::file::row_number;
use super::*;
use crate::{
    Commit, CommitError, Delivery, Expected, GroupEvent, NewRecord, OffsetRange, Placed, PublishError, TopicPartition,
};

fn open(directory: &tempfile::TempDir) -> EmbeddedBus {
    EmbeddedBus::open(&directory.path().join("bus.db")).unwrap()
}

fn say(path: &Path) -> String {
    EmbeddedBus::open(path).unwrap_err().to_string()
}

#[test]
fn a_path_that_cannot_be_a_bus_is_refused_with_the_next_step() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);

    let said = say(&at("missing/bus.db"));
    assert!(said.contains("missing does not exist: create it"), "{said}");
    let said = say(directory.path());
    assert!(said.contains("is a directory: name a file in it"), "{said}");

    let said = say(Path::new("/proc/bus.db"));
    assert!(
        said.contains("/proc/bus.db cannot be opened: give this user write permission on the file and its directory"),
        "{said}"
    );

    std::fs::write(at("text"), "not a database, but long enough to be looked at as one".repeat(50)).unwrap();
    let said = say(&at("text"));
    assert!(said.contains("text is not a Tallybus bus"), "{said}");
    assert!(said.contains("choose another `path`"), "{said}");

    let other = Connection::open(at("other.db")).unwrap();
    other.execute_batch("CREATE TABLE mine(a); INSERT INTO mine VALUES(1)").unwrap();
    let said = say(&at("other.db"));
    assert!(said.contains("other.db is a database, but not a Tallybus bus"), "{said}");
    let kept: i64 = other.query_row("SELECT a FROM mine", [], |row| row.get(0)).unwrap();
    let mode: String = other.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!((kept, mode.as_str()), (1, "delete"), "a file that is not ours is left as it was");
}

#[test]
fn a_bus_that_is_opened_only_to_look_is_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus.db");
    let address = crate::BusAddress::parse(&format!("embedded:{}", path.display())).unwrap();
    let refused = || address.open_existing().map(drop).unwrap_err();
    assert!(matches!(refused(), BusError::NoBus(_)) && !path.exists());
    std::fs::write(&path, "").unwrap();
    assert!(matches!(refused(), BusError::NoBus(_)));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    assert!(!refused().is_transient());
    drop(address.open().unwrap());
    let found = address.open_existing().unwrap();
    assert_eq!(found.observer().unwrap().partitions(&["t"]).unwrap(), [None]);
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus.db");
    drop(EmbeddedBus::open(&path).unwrap());
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version=2").unwrap();
    let said = say(&path);
    assert!(said.contains("newer Tallybus (file version 2, this one knows 1): upgrade"), "{said}");
}

#[test]
fn a_locked_file_is_reported_and_the_records_wait() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory);
    bus.create_topic("t", &TopicOptions::new(1)).unwrap();
    let mut publisher = bus.publisher().unwrap();
    let record = NewRecord { topic: "t", partition: None, key: None, payload: b"x", headers: &[] };
    publisher.publish(record, 7).unwrap();

    let hog = Connection::open(directory.path().join("bus.db")).unwrap();
    hog.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut deliveries = Vec::new();
    let began = Instant::now();
    publisher.poll(Duration::from_millis(150), &mut deliveries);
    assert!(deliveries.is_empty());
    assert!(began.elapsed() < Duration::from_secs(2), "a wait keeps to its timeout");
    assert_eq!(publisher.in_flight(), 1);
    let refused = lock(&bus.conn).write(Duration::from_millis(50), "trying", |_| Ok(())).unwrap_err();
    assert!(matches!(&refused, BusError::Unavailable(why) if why.contains("is locked while trying")), "{refused}");

    hog.execute_batch("COMMIT").unwrap();
    publisher.poll(Duration::from_secs(5), &mut deliveries);
    assert_eq!(deliveries.len(), 1);
    assert!(matches!(
        deliveries[0],
        crate::Delivery { token: 7, outcome: Ok(Placed { partition: 0, offset: Some(0), .. }) }
    ));
    assert_eq!(bus.observer().unwrap().offsets_of("t").unwrap(), [OffsetRange { first: 0, end: 1 }]);
}

#[test]
fn records_withdrawn_from_a_locked_file_are_refused_with_the_reason_and_never_written() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory);
    bus.create_topic("t", &TopicOptions::new(1)).unwrap();
    let mut publisher = bus.publisher().unwrap();
    let lock = rusqlite::Connection::open(directory.path().join("bus.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    publisher.publish(NewRecord { topic: "t", partition: Some(0), key: None, payload: b"x", headers: &[] }, 7).unwrap();
    let mut deliveries = Vec::new();
    publisher.poll(Duration::from_millis(50), &mut deliveries);
    assert!(deliveries.is_empty(), "{deliveries:?}");
    publisher.withdraw(&mut deliveries);
    lock.execute_batch("ROLLBACK").unwrap();
    let [Delivery { token: 7, outcome: Err(PublishError::Refused(reason)) }] = &deliveries[..] else {
        panic!("{deliveries:?}")
    };
    assert!(reason.contains("is locked while publishing"), "{reason}");
    publisher.poll(Duration::from_millis(50), &mut deliveries);
    assert_eq!((deliveries.len(), publisher.in_flight()), (1, 0), "a withdrawn record was written");
}

#[test]
fn a_full_queue_and_a_record_too_long_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory);
    bus.create_topic("t", &TopicOptions::new(2)).unwrap();
    let mut publisher = bus.publisher().unwrap();
    let payload = vec![1u8; 16 << 20];
    let record = NewRecord { topic: "t", partition: Some(1), key: None, payload: &payload, headers: &[] };
    for token in 0..3 {
        publisher.publish(record, token).unwrap();
    }
    assert!(matches!(publisher.publish(record, 3), Err(BusError::Unavailable(_))));
    publisher.publish(NewRecord { key: Some(b"k"), ..record }, 4).unwrap();
    publisher.publish(NewRecord { partition: Some(2), payload: b"", ..record }, 5).unwrap();
    assert_eq!(publisher.in_flight(), 5);

    let mut deliveries = Vec::new();
    while publisher.in_flight() > 0 {
        publisher.poll(Duration::from_secs(5), &mut deliveries);
    }
    let (made, refused): (Vec<_>, Vec<_>) = deliveries.iter().partition(|delivery| delivery.outcome.is_ok());
    assert_eq!(made.iter().map(|delivery| delivery.token).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(refused.iter().map(|delivery| delivery.token).collect::<Vec<_>>(), [4, 5]);
    publisher.publish(record, 6).unwrap();
}

#[test]
fn a_removed_file_is_noticed_by_publisher_and_reader() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory);
    bus.create_topic("t", &TopicOptions::new(1)).unwrap();
    let mut publisher = bus.publisher().unwrap();
    let mut reader = bus.reader().unwrap();
    reader.assign("t", &[(0, 0)]).unwrap();
    std::fs::remove_file(directory.path().join("bus.db")).unwrap();

    publisher.publish(NewRecord { topic: "t", partition: None, key: None, payload: b"x", headers: &[] }, 1).unwrap();
    let mut deliveries = Vec::new();
    publisher.poll(Duration::from_millis(60), &mut deliveries);
    assert!(deliveries.is_empty(), "a record in a removed file is not acknowledged");
    let until = Instant::now() + Duration::from_secs(5);
    let said = loop {
        match reader.poll(Duration::from_millis(300), &mut |_| std::ops::ControlFlow::Continue(())) {
            Err(error) => break error.to_string(),
            Ok(_) => assert!(Instant::now() < until, "the removal was not noticed"),
        }
    };
    assert!(said.contains("was removed or replaced while it is open: restart this process"), "{said}");
    assert!(bus.publisher().is_err());
}

#[test]
fn an_observer_of_a_file_that_was_replaced_fails_instead_of_answering_from_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory);
    bus.create_topic("t", &TopicOptions::new(1)).unwrap();
    let observer = bus.observer().unwrap();
    assert_eq!(observer.partitions_of("t").unwrap(), Some(1));
    let path = directory.path().join("bus.db");
    std::fs::rename(&path, directory.path().join("old.db")).unwrap();
    EmbeddedBus::open(&path).unwrap();
    let errors = [
        observer.partitions_of("t").unwrap_err(),
        observer.offsets(&["t"]).unwrap_err(),
        observer.groups().unwrap_err(),
        observer.stream_ids(&["t"]).unwrap_err(),
    ];
    assert!(
        errors.iter().all(|error| error.to_string().contains("was removed or replaced while it is open")),
        "{errors:?}"
    );
}

#[test]
fn searching_by_time_is_exact_when_clocks_went_back() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory);
    bus.create_topic("t", &TopicOptions::new(1)).unwrap();
    let mut publisher = bus.publisher().unwrap();
    let mut deliveries = Vec::new();
    for token in 0..7 {
        publisher
            .publish(NewRecord { topic: "t", partition: None, key: None, payload: b"", headers: &[] }, token)
            .unwrap();
    }
    publisher.poll(Duration::from_secs(5), &mut deliveries);
    let times = [10, 30, 20, 30, 25, 50, 40];
    let mut latest = 0;
    for (offset, time) in (0u64..).zip(times) {
        latest = latest.max(time);
        lock(&bus.conn)
            .sql
            .execute(
                "UPDATE records SET time_ms=?2, behind_ms=?3 WHERE id=?1",
                params![row_number(1, offset), time, latest - time],
            )
            .unwrap();
    }
    for wanted in 0..=60 {
        let expected = times.iter().position(|time| *time >= wanted).unwrap_or(times.len());
        assert_eq!(bus.observer().unwrap().offsets_at_time("t", wanted).unwrap(), [expected as u64], "at {wanted}");
    }
}

#[test]
fn a_member_that_does_not_poll_leaves_and_cannot_commit() {
    let directory = tempfile::tempdir().unwrap();
    let bus = EmbeddedBus { max_poll_interval: Duration::from_millis(150), ..open(&directory) };
    bus.create_topic("t", &TopicOptions::new(1)).unwrap();
    let options = GroupOptions { session_timeout: Some(Duration::from_secs(60)), ..GroupOptions::default() };
    let mut idle = bus.subscriber("g", &["t".to_owned()], &options).unwrap();
    let next = |subscriber: &mut Box<dyn Subscriber>| {
        subscriber.poll(Duration::from_millis(5), 10, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    assert!(matches!(next(&mut idle), Some(GroupEvent::Assigned(_))));
    let mut other = bus.subscriber("g", &["t".to_owned()], &options).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while !matches!(next(&mut other), Some(GroupEvent::Assigned(_))) {
        assert!(Instant::now() < until, "the idle member never left");
    }
    let at = TopicPartition::new("t", 0);
    let commit = Commit { at: at.clone(), offset: 1, metadata: String::new(), expected: Expected::Anything };
    let answers = idle.state().compare_and_set_now(std::slice::from_ref(&commit), Duration::from_secs(5));
    assert!(matches!(answers[0].1, Err(CommitError::NotOwner(_))), "{answers:?}");
    assert!(matches!(next(&mut idle), Some(GroupEvent::Lost(lost)) if lost == [at.clone()]));
    idle.release(std::slice::from_ref(&at)).unwrap();
    assert!(other.state().compare_and_set_now(&[commit], Duration::from_secs(5))[0].1.is_ok());
}

#[test]
fn a_group_that_waits_for_a_topic_gets_it_when_it_appears() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory);
    let mut early = bus.subscriber("g", &["t".to_owned()], &GroupOptions::default()).unwrap();
    assert!(early.poll(Duration::from_millis(20), 10, &mut |_| ControlFlow::Continue(())).unwrap().is_none());
    assert!(bus.create_topic("t", &TopicOptions::new(3)).unwrap());
    let event = early.poll(Duration::from_secs(5), 10, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(event, Some(GroupEvent::Assigned(all)) if all.len() == 3));
}

/// Nanoseconds that this thread has computed.
fn cpu_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn waiting_costs_next_to_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory);
    bus.create_topic("t", &TopicOptions::new(4)).unwrap();
    let mut member = bus.subscriber("g", &["t".to_owned()], &GroupOptions::default()).unwrap();
    while let Some(event) = member.poll(Duration::from_millis(50), 100, &mut |_| ControlFlow::Continue(())).unwrap() {
        if let GroupEvent::Assigned(all) = event {
            let starts: Vec<_> = all.into_iter().map(|one| (one.at, 0)).collect();
            member.start(&starts).unwrap();
        }
    }
    let before = cpu_time();
    assert!(member.poll(Duration::from_secs(1), 100, &mut |_| ControlFlow::Continue(())).unwrap().is_none());
    let spent = Duration::from_nanos(cpu_time() - before);
    println!("one second of waiting took {spent:?}");
    assert!(spent < Duration::from_millis(30), "{spent:?}");
}

#[test]
fn a_record_wakes_a_waiting_reader_of_its_own_process() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory);
    bus.create_topic("t", &TopicOptions::new(1)).unwrap();
    let mut publisher = bus.publisher().unwrap();
    let mut reader = bus.reader().unwrap();
    reader.assign("t", &[(0, 0)]).unwrap();
    assert!(matches!(reader.poll(Duration::from_secs(5), &mut |_| panic!()).unwrap(), crate::Progress::End(0)));
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        let record = NewRecord { topic: "t", partition: None, key: None, payload: b"", headers: &[] };
        publisher.publish(record, 1).unwrap();
        publisher.poll(Duration::from_secs(5), &mut Vec::new());
        Instant::now()
    });
    let mut got = 0;
    let progress = reader.poll(Duration::from_secs(30), &mut |_| {
        got += 1;
        std::ops::ControlFlow::Continue(())
    });
    let came = Instant::now();
    assert!(matches!(progress.unwrap(), crate::Progress::Records));
    assert_eq!(got, 1);
    let late = came.saturating_duration_since(sender.join().unwrap());
    assert!(late < Duration::from_millis(500), "{late:?}");
}

#[test]
fn records_without_a_key_use_all_partitions() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory);
    bus.create_topic("t", &TopicOptions::new(3)).unwrap();
    let mut publisher = bus.publisher().unwrap();
    for token in 0..30 {
        publisher
            .publish(NewRecord { topic: "t", partition: None, key: None, payload: b"", headers: &[] }, token)
            .unwrap();
    }
    publisher.poll(Duration::from_secs(5), &mut Vec::new());
    assert_eq!(bus.observer().unwrap().offsets_of("t").unwrap(), [OffsetRange { first: 0, end: 10 }; 3]);
}

#[test]
fn writers_of_one_process_take_turns() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory);
    bus.create_topic("t", &TopicOptions::new(1)).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        // Writes without a pause, and would always be the first to write again.
        scope.spawn(|| {
            let hog = bus.connect().unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                hog.write(WRITE_WAIT, "hogging", |_| {
                    std::thread::sleep(Duration::from_millis(10));
                    Ok(())
                })
                .unwrap();
            }
        });
        let modest = bus.connect().unwrap();
        let longest = (0..10).map(|_| {
            let began = Instant::now();
            modest.write(WRITE_WAIT, "waiting", |_| Ok(())).unwrap();
            began.elapsed()
        });
        let longest = longest.max().unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        longest
    });
    assert!(longest < Duration::from_millis(500), "{longest:?}");
}

#[test]
fn a_file_of_before_gets_stream_ids_once_and_for_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus.db");
    open(&directory).create_topic("old", &TopicOptions::new(1)).unwrap();
    Connection::open(&path).unwrap().execute_batch("ALTER TABLE topics DROP COLUMN stream").unwrap();

    let bus = open(&directory);
    let id = bus.observer().unwrap().stream_id_of("old").unwrap();
    assert!(id.as_str().starts_with("embedded:"), "{id}");
    assert_eq!(open(&directory).observer().unwrap().stream_id_of("old").unwrap(), id);

    // An earlier version, with the same file open.
    let before = Connection::open(&path).unwrap();
    before.execute("INSERT INTO topics(name) VALUES('new')", []).unwrap();
    let new = bus.observer().unwrap().stream_id_of("new").unwrap();
    assert_ne!(new, id);
    assert_eq!(open(&directory).observer().unwrap().stream_id_of("new").unwrap(), new);
}
