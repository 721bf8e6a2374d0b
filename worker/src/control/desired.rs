//! The desired states on the control topic, read from its beginning on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Record};
use tallybus_control::{DesiredStates, Guard, Key, Refusal, is_desired};

use super::topic_reader::{Found, From, Headers, TopicReader};

/// Reads the desired states; skips the heartbeats beside them.
pub struct DesiredReader {
    topic: TopicReader,
    guard: Guard,
    states: DesiredStates,
    is_known: bool,
    refused: BTreeMap<Refusal, u64>,
}

impl DesiredReader {
    /// Takes what one of these keys has signed; without any, what is there.
    pub fn new(bus: Arc<dyn Bus>, topic: &str, keys: Vec<Key>) -> Self {
        Self {
            topic: TopicReader::new(bus, topic, From::Beginning),
            guard: Guard::new(keys),
            states: DesiredStates::default(),
            is_known: false,
            refused: BTreeMap::new(),
        }
    }

    /// Reads what has come, for this time at most. Returns whether everything was read that is there: only then does
    /// [`DesiredReader::states`] show what is wanted. A topic that certainly does not exist holds nothing.
    ///
    /// # Errors
    /// The bus did not answer, or refuses access.
    pub fn read(&mut self, at_most: Duration) -> Result<bool, BusError> {
        let (guard, states, refused) = (&self.guard, &mut self.states, &mut self.refused);
        let mut each = |record: &Record<'_>| {
            if let Some(key) = record.key.filter(|key| is_desired(key))
                && let Err(refusal) = take(guard, states, key, record)
            {
                *refused.entry(refusal).or_default() += 1;
            }
        };
        match self.topic.read(at_most, &mut each)? {
            Found::End => self.is_known = true,
            Found::NoTopic if !self.is_known => self.is_known = true,
            // What was known before stays, and what is on a new topic is newer.
            Found::NoTopic => {}
            Found::More => return Ok(false),
            Found::Restart => {
                self.states.begin_again();
                return Ok(false);
            }
        }
        Ok(self.is_known)
    }

    /// What is wanted, as far as it was read.
    pub fn states(&self) -> &DesiredStates {
        &self.states
    }

    /// Records that were refused since the last call, by reason.
    pub fn take_refused(&mut self) -> BTreeMap<Refusal, u64> {
        std::mem::take(&mut self.refused)
    }
}

fn take(guard: &Guard, states: &mut DesiredStates, key: &[u8], record: &Record<'_>) -> Result<(), Refusal> {
    if record.is_tombstone {
        return states.delete(guard, key);
    }
    if record.unreadable.is_some() {
        return Err(Refusal::Malformed);
    }
    let headers = Headers::of(record);
    states.take(guard, key, record.payload, headers.as_ref().map(Headers::signed), record.offset).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use tallybus_bus::sim::{Offsets, SimBus, Time};
    use tallybus_bus::{NewRecord, TopicOptions};
    use tallybus_control::{Desired, DesiredState, Identity, VERSION, desired_key};
    use tallybus_sdk::clock::{Clock, ManualClock};

    use super::*;

    const TOPIC: &str = "tallybus.control";

    struct BusTime(ManualClock);

    impl Time for BusTime {
        fn now(&self) -> Instant {
            self.0.now()
        }
        fn wall_time(&self) -> SystemTime {
            self.0.wall_time()
        }
        fn pass(&self, wait: Duration) {
            self.0.advance(wait);
        }
    }

    fn publish(bus: &SimBus, key: &[u8], payload: &[u8]) {
        let mut publisher = bus.publisher().unwrap();
        let record = NewRecord { topic: TOPIC, partition: Some(0), key: Some(key), payload, headers: &[] };
        publisher.publish(record, 1).unwrap();
        publisher.poll(Duration::ZERO, &mut Vec::new());
    }

    fn want(bus: &SimBus, target: &str, state: DesiredState) {
        let desired = Desired {
            version: VERSION,
            id: "1".to_owned(),
            issuer: "ada@desk".to_owned(),
            issued_ms: 1,
            target: target.parse().unwrap(),
            state,
            reason: String::new(),
        };
        publish(bus, desired_key(&desired.target).as_bytes(), &serde_json::to_vec(&desired).unwrap());
    }

    fn wanted(reader: &DesiredReader) -> Option<DesiredState> {
        let (sink, kind, id) = ("a".to_owned(), "sqlite".to_owned(), "7f".to_owned());
        reader.states().of(&Identity::Worker { sink, kind, id, name: "w".to_owned() }).map(|desired| desired.state)
    }

    /// Reads until everything was read.
    fn read(reader: &mut DesiredReader) {
        for _ in 0..10 {
            if reader.read(Duration::from_millis(10)).unwrap() {
                return;
            }
        }
        panic!("the topic has no end");
    }

    fn world() -> (SimBus, DesiredReader) {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let bus = SimBus::new(Arc::new(BusTime(clock)), 1);
        let reader = DesiredReader::new(Arc::new(bus.connect()), TOPIC, Vec::new());
        (bus, reader)
    }

    #[test]
    fn a_bus_that_is_away_says_nothing_and_a_topic_that_is_not_there_wants_nothing() {
        let (bus, mut reader) = world();
        bus.set_away(true);
        assert!(reader.read(Duration::from_millis(10)).is_err());
        bus.set_away(false);
        assert!(reader.read(Duration::from_millis(10)).unwrap());
        assert_eq!(wanted(&reader), None);
        bus.create_topic(TOPIC, &TopicOptions::new(1).compacted()).unwrap();
        want(&bus, "all", DesiredState::Drained);
        read(&mut reader);
        assert_eq!(wanted(&reader), Some(DesiredState::Drained), "what is on a topic that is created later is read");
    }

    #[test]
    fn heartbeats_are_skipped_and_what_is_no_desired_state_is_refused_and_counted() {
        let (bus, mut reader) = world();
        bus.create_topic(TOPIC, &TopicOptions::new(1).compacted()).unwrap();
        publish(&bus, b"7f3c", b"a heartbeat");
        want(&bus, "sink/a", DesiredState::Paused);
        publish(&bus, b"desired/all", b"{");
        read(&mut reader);
        assert_eq!(wanted(&reader), Some(DesiredState::Paused));
        assert_eq!(reader.take_refused(), BTreeMap::from([(Refusal::Malformed, 1)]));
        assert!(reader.take_refused().is_empty());
    }

    #[test]
    fn a_topic_that_was_recreated_resumes_no_one() {
        let (bus, mut reader) = world();
        bus.create_topic(TOPIC, &TopicOptions::new(1).compacted()).unwrap();
        want(&bus, "sink/a", DesiredState::Drained);
        read(&mut reader);
        bus.recreate_topic(TOPIC, Offsets::Kept).unwrap();
        read(&mut reader);
        assert_eq!(wanted(&reader), Some(DesiredState::Drained));
    }
}
