//! Against a real Kafka: every count arrives once, though the topic comes late and the broker freezes and dies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tallybus::{Connection, count};
use tallybus_bus::kafka::KafkaBus;
use tallybus_bus::{Bus, TopicOptions, read_range};
use tallybus_schemas::{Decoder, Encoding, Events};

const TOPIC: &str = "collector.counts";
const WAIT: Duration = Duration::from_secs(60);

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_topic_that_comes_late_and_a_broker_that_freezes_and_dies() {
    let Some(mut kafka) = tallybus_tests::kafka() else { return };
    let bus = KafkaBus::new(&kafka.bootstrap(), &BTreeMap::new()).unwrap();
    let guard = tallybus::builder()
        .service("test")
        .topic(TOPIC)
        .flush_interval(Duration::from_millis(50))
        .use_existing_topic()
        .start(Connection::from_bus(Box::new(bus.clone())))
        .unwrap();
    let stop = AtomicBool::new(false);
    let counted: u64 = thread::scope(|scope| {
        // Also when an assertion fails: the scope waits for its threads.
        let _stopping = SetOnDrop(&stop);
        let count_until_stopped = |thread: u64| {
            let stop = &stop;
            move || {
                let mut counted = 0;
                while !stop.load(Ordering::Relaxed) {
                    for number in 0..500u64 {
                        count!("kafka.counts", thread = thread, number = number);
                        counted += 1;
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                counted
            }
        };
        let threads: Vec<_> = (0..2).map(|thread| scope.spawn(count_until_stopped(thread))).collect();
        assert!(!guard.flush(Duration::from_secs(1)), "nobody has created the topic");
        assert!(bus.create_topic(TOPIC, &TopicOptions::new(4)).unwrap());
        assert!(guard.flush(WAIT));
        kafka.freeze();
        assert!(!guard.flush(Duration::from_secs(3)), "the broker is frozen, and counting goes on");
        kafka.thaw();
        assert!(guard.flush(WAIT));
        kafka.kill();
        assert!(!guard.flush(Duration::from_secs(60)), "the bus is away for a minute, and counting goes on");
        kafka.restart().unwrap();
        assert!(guard.flush(WAIT));
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let report = guard.shutdown(WAIT);
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.emitted, counted);

    let ranges: Vec<_> = (0..)
        .zip(bus.observer().unwrap().offsets_of(TOPIC).unwrap())
        .map(|(partition, range)| (partition, range.first..range.end))
        .collect();
    let (mut arrived, mut sequences, mut decoder) = (0, BTreeMap::new(), Decoder::new());
    read_range(&mut *bus.reader().unwrap(), TOPIC, &ranges, WAIT, &mut |record| {
        let mut events = Events::new();
        decoder.decode(Some(Encoding::Native), record.payload, 0, &mut events).unwrap();
        arrived += events.iter().map(|(_, value, _)| value).sum::<u64>();
        let sequence = sequences.entry(record.partition).or_insert(0);
        *sequence += 1;
        assert_eq!(events.last_origin().unwrap().sequence, *sequence, "partition {}", record.partition);
    })
    .unwrap();
    assert_eq!(arrived, counted);
    assert_eq!(sequences.len(), 4, "every partition has its share");
}
