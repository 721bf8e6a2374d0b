//! The topics of the workers, created before they start.

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

/// Creates missing topics; waits for an unavailable bus until `stop` is set. Returns whether the topics exist. A stop does
/// not wait for a call to the bus: its thread is left behind.
///
/// # Errors
/// An error that waiting does not resolve.
pub fn prepare_topics(
    bus: &Arc<dyn Bus>,
    settings: &BusSettings,
    sinks: &[&SinkSettings],
    clock: &Arc<dyn Clock>,
    stop: &Stop,
) -> Result<bool, BusError> {
    let counters = TopicOptions::new(settings.partitions);
    let mut topics: Vec<(String, TopicOptions, bool)> =
        vec![(settings.topic.clone(), counters, settings.partitions_given)];
    for sink in sinks {
        topics.extend(sink.topics.iter().map(|topic| (topic.clone(), counters, false)));
        topics.push((sink.dead_letter_topic(), TopicOptions::new(1), false));
    }
    let notes = names::progress_topic(&settings.namespace);
    let (answer, answered) = channel();
    let (bus, clock, own_stop) = (Arc::clone(bus), Arc::clone(clock), stop.clone());
    let prepare = move || {
        // A caller that was stopped waits for no answer.
        let stop = || own_stop.is_asked();
        let prepared = match prepare_each(bus.as_ref(), &topics, clock.as_ref(), &stop) {
            Ok(true) => prepare_notes(bus.as_ref(), &notes, clock.as_ref(), &stop),
            otherwise => otherwise,
        };
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

fn prepare_each(
    bus: &dyn Bus,
    topics: &[(String, TopicOptions, bool)],
    clock: &dyn Clock,
    stop: &dyn Fn() -> bool,
) -> Result<bool, BusError> {
    let mut done: Vec<&str> = Vec::new();
    for (topic, options, exactly) in topics {
        if done.contains(&topic.as_str()) {
            continue;
        }
        done.push(topic);
        if !prepare_topic(bus, topic, options, *exactly, clock, stop)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates the topic of the workers' notes, where the bus may forget groups. Counting does not depend on it.
fn prepare_notes(bus: &dyn Bus, topic: &str, clock: &dyn Clock, stop: &dyn Fn() -> bool) -> Result<bool, BusError> {
    if !bus.forgets_groups() {
        return Ok(true);
    }
    match prepare_topic(bus, topic, &TopicOptions::new(1).compacted(), false, clock, stop) {
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

fn prepare_topic(
    bus: &dyn Bus,
    topic: &str,
    options: &TopicOptions,
    exactly: bool,
    clock: &dyn Clock,
    stop: &dyn Fn() -> bool,
) -> Result<bool, BusError> {
    let mut away = false;
    loop {
        match bus.create_topic(topic, options) {
            Ok(created) => {
                if created {
                    tracing::info!(topic, partitions = options.partitions, "topic created");
                }
                return Ok(true);
            }
            Err(BusError::PartitionCount { .. }) if !exactly => return Ok(true),
            Err(error) if error.is_transient() => {
                if !away {
                    tracing::warn!(bus = bus.describe(), reason = %error, "bus unavailable, waiting for it");
                }
                away = true;
            }
            Err(error) => return Err(error),
        }
        if stop() {
            return Ok(false);
        }
        clock.sleep(ASK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Instant, SystemTime};

    use tallybus_bus::{BusAddress, Committed, GroupOptions, Observer, Publisher, Reader, Subscriber, TopicPartition};
    use tallybus_sdk::clock::ManualClock;

    use super::*;
    use crate::SystemClock;

    /// A bus that does not answer the first requests to create a topic, and nothing else ever.
    struct Away(AtomicU32);

    fn away<T>() -> Result<T, BusError> {
        Err(BusError::Unavailable("for the test".to_owned()))
    }

    impl Bus for Away {
        fn describe(&self) -> String {
            "a bus that is away".to_owned()
        }
        fn create_topic(&self, _topic: &str, _options: &TopicOptions) -> Result<bool, BusError> {
            let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_ok() { away() } else { Ok(true) }
        }
        fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
            away()
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

    #[test]
    fn an_unavailable_bus_is_waited_for_on_the_clock_until_it_answers_or_a_stop() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        assert!(
            prepare_topic(&Away(AtomicU32::new(3_600)), "t", &TopicOptions::new(1), false, &clock, &|| false).unwrap()
        );
        assert_eq!(clock.passed(), ASK_AGAIN * 3_600);
        let stop = || clock.passed() >= ASK_AGAIN * 3_610;
        assert!(
            !prepare_topic(&Away(AtomicU32::new(u32::MAX)), "t", &TopicOptions::new(1), false, &clock, &stop).unwrap()
        );
        assert_eq!(clock.passed(), ASK_AGAIN * 3_610);
    }

    /// A bus whose calls take longer than anyone waits.
    struct Slow;

    impl Bus for Slow {
        fn describe(&self) -> String {
            "a bus that is slow".to_owned()
        }
        fn create_topic(&self, _topic: &str, _options: &TopicOptions) -> Result<bool, BusError> {
            thread::sleep(Duration::from_secs(60));
            away()
        }
        fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
            away()
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

    #[test]
    fn a_stop_does_not_wait_for_a_bus_that_does_not_answer() {
        let (bus, clock): (Arc<dyn Bus>, Arc<dyn Clock>) = (Arc::new(Slow), Arc::new(SystemClock));
        let stop = Stop::default();
        let later = stop.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            later.ask();
        });
        let begun = Instant::now();
        assert!(
            !prepare_topics(
                &bus,
                &BusSettings::new(BusAddress::parse("embedded:none.db").unwrap()),
                &[],
                &clock,
                &stop
            )
            .unwrap()
        );
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
