use std::sync::Arc;
use std::time::SystemTime;

use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{Delivery, NewRecord, PublishError, Publisher, TopicOptions};
use tallybus_sdk::clock::{Clock as _, ManualClock};

use super::*;

const TOPIC: &str = "progress";

/// A bus in a file, and what one worker notes there.
struct World {
    _dir: tempfile::TempDir,
    bus: EmbeddedBus,
    clock: Arc<ManualClock>,
    publisher: DeadLetterPublisher,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(&dir.path().join("bus.db")).unwrap();
        let publisher = DeadLetterPublisher::new("a", "dead", bus.publisher().unwrap());
        Self { _dir: dir, bus, clock: Arc::new(ManualClock::at(SystemTime::UNIX_EPOCH)), publisher }
    }

    fn create_topic(&self) {
        self.bus.create_topic(TOPIC, &TopicOptions::new(1).kept()).unwrap();
    }

    fn notes(&self, group: &str) -> ProgressNotes {
        let failures =
            FailureLog::new("a", "noting progress", Arc::clone(&self.clock) as Arc<dyn tallybus_sdk::clock::Clock>);
        ProgressNotes::new(TOPIC, group, self.clock.now(), failures)
    }

    /// Waits until what was published is on the bus, or refused.
    fn flush(&mut self) {
        while self.publisher.is_sending() {
            self.publisher.poll(self.clock.now());
        }
    }

    fn note(&mut self, notes: &mut ProgressNotes, committed: &[(TopicPartition, StreamId, u64)]) {
        notes.note(self.clock.now(), committed.iter().cloned(), &mut self.publisher);
        self.flush();
    }

    /// Key and offset of each note on the bus.
    fn records(&self) -> Vec<(String, u64)> {
        let mut records = Vec::new();
        let observer = self.bus.observer().unwrap();
        read_topic(&self.bus, observer.as_ref(), TOPIC, STALL_TIMEOUT, &mut |record| {
            let note: Note = serde_json::from_slice(record.payload).unwrap();
            records.push((String::from_utf8(record.key.unwrap().to_vec()).unwrap(), note.offset));
        })
        .unwrap();
        records
    }
}

/// Accepts what the bus does not take, and says so with the delivery.
struct Refusing(Vec<u64>);

impl Publisher for Refusing {
    fn publish(&mut self, _record: NewRecord<'_>, token: u64) -> Result<(), BusError> {
        self.0.push(token);
        Ok(())
    }

    fn poll(&mut self, _timeout: Duration, deliveries: &mut Vec<Delivery>) {
        let refused = || Err(PublishError::Refused("the disk is full".to_owned()));
        deliveries.extend(self.0.drain(..).map(|token| Delivery { token, outcome: refused() }));
    }

    fn in_flight(&self) -> usize {
        self.0.len()
    }

    fn partitions(&mut self, _topic: &str) -> Result<Option<u32>, BusError> {
        Ok(Some(1))
    }
}

fn at(topic: &str, partition: u32, stream: &str, offset: u64) -> (TopicPartition, StreamId, u64) {
    (TopicPartition::new(topic, partition), stream.parse().unwrap(), offset)
}

#[test]
fn the_last_note_of_each_partition_of_the_group_is_read_in_order() {
    let mut world = World::new();
    assert_eq!(read_notes(&world.bus, TOPIC, "g").unwrap(), [], "the topic does not exist");
    world.create_topic();
    let mut groups = [world.notes("g"), world.notes("h")];
    for (group, committed) in [
        (0, at("u", 0, "sim:2", 5)),
        (0, at("t", 1, "sim:1", 7)),
        (0, at("t", 0, "sim:1", 8)),
        (0, at("t", 1, "sim:1", 9)),
        (1, at("t", 1, "sim:1", 1_000)),
    ] {
        groups[group].note_now([committed].into_iter(), &mut world.publisher);
        world.flush();
    }
    world.publisher.publish_note(TOPIC, "g|t|1", b"no note").unwrap();
    world.flush();
    let found = read_notes(&world.bus, TOPIC, "g").unwrap();
    let found: Vec<_> = found.iter().map(|note| (note.at().to_string(), note.stream.as_str(), note.offset)).collect();
    let expected = [("t/0", "sim:1", 8), ("t/1", "sim:1", 9), ("u/0", "sim:2", 5)];
    assert_eq!(found, expected.map(|(at, stream, offset)| (at.to_owned(), stream, offset)));
}

#[test]
fn what_changed_is_noted_at_intervals_under_the_key_of_its_partition() {
    let mut world = World::new();
    world.create_topic();
    let mut notes = world.notes("g");
    world.note(&mut notes, &[at("t", 0, "sim:1", 1)]);
    assert_eq!(world.records(), [], "not before the first interval has passed");
    world.clock.advance(EVERY);
    world.note(&mut notes, &[at("t", 0, "sim:1", 2), at("t", 1, "sim:1", 2)]);
    let mut expected = vec![("g|t|0".to_owned(), 2), ("g|t|1".to_owned(), 2)];
    assert_eq!(world.records(), expected);
    world.clock.advance(EVERY - Duration::from_nanos(1));
    world.note(&mut notes, &[at("t", 0, "sim:1", 3)]);
    assert_eq!(world.records(), expected, "not before the next one");
    world.clock.advance(Duration::from_nanos(1));
    // Its offset; nothing; its topic's incarnation.
    for (committed, is_noted) in
        [(at("t", 0, "sim:1", 4), true), (at("t", 0, "sim:1", 4), false), (at("t", 0, "sim:2", 4), true)]
    {
        if is_noted {
            expected.push(("g|t|0".to_owned(), 4));
        }
        world.note(&mut notes, &[committed]);
        assert_eq!(world.records(), expected);
        world.clock.advance(EVERY);
    }
}

#[test]
fn a_note_that_was_not_published_is_noted_again_at_the_next_interval() {
    let mut world = World::new();
    let mut notes = world.notes("g");
    let committed = [at("t", 0, "sim:1", 2)];
    world.clock.advance(EVERY);
    world.note(&mut notes, &committed);
    assert!(notes.failures.last_error().is_some_and(|reason| reason.contains(TOPIC)), "the topic does not exist");
    world.create_topic();

    // The delivery of one that was accepted is seen at the interval after it.
    let publisher =
        std::mem::replace(&mut world.publisher, DeadLetterPublisher::new("a", "dead", Box::new(Refusing(vec![]))));
    world.clock.advance(EVERY);
    world.note(&mut notes, &committed);
    assert_eq!(notes.failures.last_error(), None);
    world.clock.advance(EVERY);
    world.note(&mut notes, &[]);
    assert!(notes.failures.last_error().is_some_and(|reason| reason.contains("the disk is full")));

    world.publisher = publisher;
    world.clock.advance(EVERY);
    world.note(&mut notes, &committed);
    assert_eq!(world.records(), [("g|t|0".to_owned(), 2)]);
    assert_eq!(notes.failures.last_error(), None);
}

#[test]
fn notes_that_fail_while_the_bus_does_not_answer_are_no_failure_of_their_own_and_are_published_again() {
    let mut world = World::new();
    world.create_topic();
    let mut notes = world.notes("g");
    let committed = [at("t", 0, "sim:1", 2)];
    let bus =
        std::mem::replace(&mut world.publisher, DeadLetterPublisher::new("a", "dead", Box::new(Refusing(Vec::new()))));
    world.clock.advance(EVERY);
    world.note(&mut notes, &committed);
    notes.put_off(world.clock.now(), &mut world.publisher);
    world.publisher = bus;
    world.note(&mut notes, &committed);
    assert_eq!(
        (notes.failures.last_error(), world.records()),
        (None, Vec::new()),
        "not before the interval has passed"
    );
    world.clock.advance(EVERY);
    world.note(&mut notes, &committed);
    assert_eq!((notes.failures.last_error(), world.records()), (None, vec![("g|t|0".to_owned(), 2)]));
}
