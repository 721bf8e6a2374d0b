//! The topics of the workers, created and checked before they start.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use tallybus_bus::{Bus, BusError, TopicOptions};
use tallybus_sdk::clock::Clock;

use crate::settings::{BusSettings, SinkSettings, names};
use crate::supervisor::Stop;

/// Interval between attempts to reach an unavailable bus.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How soon a stop is noticed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What is done about a bus that refuses access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRefusal {
    /// It is an error.
    Fail,
    /// It is asked again until it grants access: an operator may add the right while the process runs.
    Wait,
}

/// Creates missing topics and checks that the bus keeps what is counted; waits for an unavailable bus until `stop` is set.
/// Returns whether the topics exist. A stop does not wait for a call to the bus: its thread is left behind.
///
/// # Errors
/// An error that waiting does not resolve; among them a topic of counters that is compacted.
pub fn prepare_topics(
    bus: &Arc<dyn Bus>,
    settings: &BusSettings,
    sinks: &[&SinkSettings],
    clock: &Arc<dyn Clock>,
    stop: &Stop,
    on_refusal: OnRefusal,
) -> Result<bool, BusError> {
    let counters = TopicOptions::new(settings.partitions);
    let mut topics: Vec<(String, TopicOptions, bool)> =
        vec![(settings.topic.clone(), counters, settings.partitions_given)];
    for sink in sinks {
        topics.extend(sink.topics.iter().map(|topic| (topic.clone(), counters, false)));
        topics.push((sink.dead_letter_topic(), TopicOptions::new(1), false));
    }
    let mut counted: Vec<String> = sinks.iter().flat_map(|sink| &sink.topics).cloned().collect();
    counted.sort();
    counted.dedup();
    let notes = names::progress_topic(&settings.namespace);
    let (answer, answered) = channel();
    let (bus, clock, own_stop) = (Arc::clone(bus), Arc::clone(clock), stop.clone());
    let prepare = move || {
        // A caller that was stopped waits for no answer.
        let stop = || own_stop.is_asked();
        let waiting = Waiting { bus: bus.as_ref(), clock: clock.as_ref(), stop: &stop, on_refusal };
        let prepare = || {
            Ok(waiting.prepare_each(&topics)? && waiting.check_retention(&counted)? && waiting.prepare_notes(&notes)?)
        };
        let prepared = prepare();
        let _stopped = answer.send(prepared);
    };
    let named = thread::Builder::new().name("topics".to_owned());
    named.spawn(prepare).map_err(|error| BusError::Unavailable(format!("no thread for its topics: {error}")))?;
    loop {
        match answered.recv_timeout(LOOK_AGAIN) {
            Ok(outcome) => return outcome,
            Err(RecvTimeoutError::Timeout) if stop.is_asked() => return Ok(false),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(BusError::Fatal("the thread that creates its topics panicked".to_owned()));
            }
        }
    }
}

/// Asks the bus until it answers, or a stop.
struct Waiting<'a> {
    bus: &'a dyn Bus,
    clock: &'a dyn Clock,
    stop: &'a dyn Fn() -> bool,
    on_refusal: OnRefusal,
}

impl Waiting<'_> {
    fn prepare_each(&self, topics: &[(String, TopicOptions, bool)]) -> Result<bool, BusError> {
        let mut done: Vec<&str> = Vec::new();
        for (topic, options, exactly) in topics {
            if done.contains(&topic.as_str()) {
                continue;
            }
            done.push(topic);
            if !self.prepare_topic(topic, options, *exactly)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Creates the topic of the workers' notes, where the bus may forget groups. Counting does not depend on it.
    fn prepare_notes(&self, topic: &str) -> Result<bool, BusError> {
        if !self.bus.forgets_groups() {
            return Ok(true);
        }
        let once = Waiting { on_refusal: OnRefusal::Fail, ..*self };
        match once.prepare_topic(topic, &TopicOptions::new(1).compacted(), false) {
            Err(error) => {
                tracing::warn!(
                    topic,
                    %error,
                    "the topic for notes of progress cannot be created: a group that the bus forgets cannot be restored; create \
                     it with one partition and cleanup.policy=compact"
                );
                Ok(true)
            }
            prepared => prepared,
        }
    }

    fn prepare_topic(&self, topic: &str, options: &TopicOptions, exactly: bool) -> Result<bool, BusError> {
        match self.until_available(|| self.bus.create_topic(topic, options)) {
            Ok(Some(created)) => {
                if created {
                    tracing::info!(topic, partitions = options.partitions, "topic created");
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(BusError::PartitionCount { .. }) if !exactly => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Refuses topics of counters from which the bus deletes records that have a later one of the same key.
    fn check_retention(&self, topics: &[String]) -> Result<bool, BusError> {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let once = Waiting { on_refusal: OnRefusal::Fail, ..*self };
        let found = match once.until_available(|| self.bus.observer()?.retention(&topics)) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(false),
            Err(error @ BusError::Access(_)) => {
                tracing::info!(%error, "whether the topics are compacted is not known: this user may not read their settings");
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let compacted = topics.iter().zip(found).find(|(_, retention)| retention.compacts);
        match compacted {
            Some((topic, _)) => Err(BusError::Settings(compacted_topic(topic))),
            None => Ok(true),
        }
    }

    /// Repeats a call until the bus is available; `None` once there is a stop.
    fn until_available<T>(&self, call: impl Fn() -> Result<T, BusError>) -> Result<Option<T>, BusError> {
        let (mut is_away, mut is_refused) = (false, false);
        loop {
            match call() {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) if error.is_transient() => {
                    if !is_away {
                        tracing::warn!(bus = self.bus.describe(), reason = %error, "bus unavailable, waiting for it");
                    }
                    is_away = true;
                }
                Err(error) if error.is_refusal() && self.on_refusal == OnRefusal::Wait => {
                    if !is_refused {
                        tracing::error!(
                            bus = self.bus.describe(),
                            reason = %error,
                            "the bus refuses access, waiting until it is granted (no data lost); `tallybus doctor` names what is \
                             missing, and for whom"
                        );
                    }
                    is_refused = true;
                }
                Err(error) => return Err(error),
            }
            if (self.stop)() {
                return Ok(None);
            }
            self.clock.sleep(ASK_AGAIN);
        }
    }
}

/// Why a topic of counters must not be compacted, and what to do.
pub fn compacted_topic(topic: &str) -> String {
    format!(
        "topic {topic:?} is compacted (its cleanup.policy contains `compact`): the bus deletes counts that have a later record \
         of the same key, written or not. Nothing was read from it. Set its cleanup.policy to `delete`, or name another topic"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Instant, SystemTime};

    use tallybus_bus::{
        BusAddress, Committed, GroupOptions, Observer, OffsetRange, Publisher, Reader, Retention, StreamId, Subscriber,
        TopicPartition,
    };
    use tallybus_sdk::clock::ManualClock;

    use super::*;
    use crate::SystemClock;

    /// A bus that does not answer the first requests to create a topic, each after a while; then its topics are compacted.
    struct FakeBus {
        failures: AtomicU32,
        takes: Duration,
        error: fn() -> BusError,
    }

    impl FakeBus {
        fn away_for(requests: u32) -> Self {
            let error = || BusError::Unavailable("for the test".to_owned());
            Self { failures: AtomicU32::new(requests), takes: Duration::ZERO, error }
        }
    }

    fn away<T>() -> Result<T, BusError> {
        Err(BusError::Unavailable("for the test".to_owned()))
    }

    impl Bus for FakeBus {
        fn describe(&self) -> String {
            "a bus that is away".to_owned()
        }
        fn create_topic(&self, _topic: &str, _options: &TopicOptions) -> Result<bool, BusError> {
            thread::sleep(self.takes);
            let left = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_ok() { Err((self.error)()) } else { Ok(true) }
        }
        fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
            Ok(Box::new(Compacted))
        }
        fn publisher(&self) -> Result<Box<dyn Publisher>, BusError> {
            away()
        }
        fn subscriber(&self, _: &str, _: &[String], _: &GroupOptions) -> Result<Box<dyn Subscriber>, BusError> {
            away()
        }
        fn reset_group(&self, _group: &str, _to: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
            away()
        }
        fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
            away()
        }
    }

    /// Shows one topic, `compacted`, that is.
    struct Compacted;

    impl Observer for Compacted {
        fn partitions(&self, _: &[&str]) -> Result<Vec<Option<u32>>, BusError> {
            away()
        }
        fn offsets(&self, _: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError> {
            away()
        }
        fn offsets_at(&self, _: &[&str], _: i64) -> Result<Vec<Vec<u64>>, BusError> {
            away()
        }
        fn committed(&self, _: &[(&str, &str)]) -> Result<Vec<Vec<Option<Committed>>>, BusError> {
            away()
        }
        fn stream_ids(&self, _: &[&str]) -> Result<Vec<StreamId>, BusError> {
            away()
        }
        fn retention(&self, topics: &[&str]) -> Result<Vec<Retention>, BusError> {
            let of = |topic: &&str| match *topic {
                "hidden" => Err(BusError::Access("for the test".to_owned())),
                topic => Ok(Retention { compacts: topic == "compacted", ..Retention::default() }),
            };
            topics.iter().map(of).collect()
        }
    }

    #[test]
    fn an_unavailable_bus_is_waited_for_on_the_clock_until_it_answers_or_a_stop() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let prepare = |bus: FakeBus, stop: &dyn Fn() -> bool| {
            let waiting = Waiting { bus: &bus, clock: &clock, stop, on_refusal: OnRefusal::Wait };
            waiting.prepare_topic("t", &TopicOptions::new(1), false).unwrap()
        };
        assert!(prepare(FakeBus::away_for(3_600), &|| false));
        assert_eq!(clock.passed(), ASK_AGAIN * 3_600);
        assert!(!prepare(FakeBus::away_for(u32::MAX), &|| clock.passed() >= ASK_AGAIN * 3_610));
        assert_eq!(clock.passed(), ASK_AGAIN * 3_610);
    }

    #[test]
    fn a_bus_that_refuses_access_is_asked_again_where_the_caller_waits_and_is_an_error_otherwise() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let prepare = |on_refusal| {
            let bus = FakeBus { error: || BusError::Access("no right".to_owned()), ..FakeBus::away_for(7) };
            let waiting = Waiting { bus: &bus, clock: &clock, stop: &|| false, on_refusal };
            waiting.prepare_topic("t", &TopicOptions::new(1), false)
        };
        assert!(prepare(OnRefusal::Wait).unwrap());
        assert_eq!(clock.passed(), ASK_AGAIN * 7);
        assert!(matches!(prepare(OnRefusal::Fail), Err(BusError::Access(_))));
    }

    #[test]
    fn a_compacted_topic_of_counters_is_refused_and_one_that_cannot_be_looked_at_is_not() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let check = |topics: &[&str]| {
            let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
            let bus = FakeBus::away_for(0);
            Waiting { bus: &bus, clock: &clock, stop: &|| false, on_refusal: OnRefusal::Wait }.check_retention(&topics)
        };
        assert!(check(&["plain", "other"]).unwrap() && check(&["hidden"]).unwrap());
        let error = check(&["plain", "compacted"]).unwrap_err();
        assert!(
            matches!(&error, BusError::Settings(text) if text.contains(r#"topic "compacted" is compacted"#)),
            "{error}"
        );
    }

    #[test]
    fn a_stop_does_not_wait_for_a_bus_that_does_not_answer() {
        let bus: Arc<dyn Bus> = Arc::new(FakeBus { takes: Duration::from_secs(60), ..FakeBus::away_for(1) });
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let stop = Stop::default();
        let later = stop.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            later.ask();
        });
        let begun = Instant::now();
        let settings = BusSettings::new(BusAddress::parse("embedded:none.db").unwrap());
        assert!(!prepare_topics(&bus, &settings, &[], &clock, &stop, OnRefusal::Wait).unwrap());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
