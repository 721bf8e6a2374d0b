use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tallybus_bus::{BusError, OffsetRange};

use super::{Subject, publish_numbers, read_all};

pub fn a_topic_is_created_once_and_then_checked(subject: &dyn Subject) {
    let (bus, other) = (subject.bus(), subject.bus());
    let topic = subject.unique("created");
    assert_eq!(bus.partitions(&topic).unwrap(), None);
    assert!(bus.create_topic(&topic, 3).unwrap());
    assert!(!bus.create_topic(&topic, 3).unwrap());
    assert!(!other.create_topic(&topic, 3).unwrap());
    assert_eq!(other.partitions(&topic).unwrap(), Some(3));
    assert_eq!(bus.publisher().unwrap().partitions(&topic), Some(3));
    match other.create_topic(&topic, 4) {
        Err(BusError::PartitionCount { topic: named, wanted: 4, actual: 3 }) => assert_eq!(named, topic),
        answer => panic!("{answer:?}"),
    }
    assert_eq!(bus.partitions(&topic).unwrap(), Some(3));
}

pub fn a_topic_that_does_not_exist_is_told_as_such(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.unique("missing");
    assert_eq!(bus.partitions(&topic).unwrap(), None);
    assert_eq!(bus.publisher().unwrap().partitions(&topic), None);
    assert!(matches!(bus.offsets(&topic), Err(BusError::NoTopic(named)) if named == topic));
    assert!(matches!(bus.offsets_at(&topic, 0), Err(BusError::NoTopic(_))));
    assert_eq!(bus.partitions(&topic).unwrap(), None, "asking must not create it");
}

pub fn offsets_tell_what_each_partition_holds(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("offsets", 3);
    let empty = OffsetRange { first: 0, end: 0 };
    assert_eq!(bus.offsets(&topic).unwrap(), [empty; 3]);
    publish_numbers(&*bus, &topic, 1, 0, 5);
    publish_numbers(&*bus, &topic, 2, 0, 2);
    let held = [empty, OffsetRange { first: 0, end: 5 }, OffsetRange { first: 0, end: 2 }];
    assert_eq!(bus.offsets(&topic).unwrap(), held);
    assert_eq!(subject.bus().offsets(&topic).unwrap(), held);
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

pub fn offsets_at_find_the_first_record_of_a_time(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("times", 2);
    for number in 0..4 {
        publish_numbers(&*bus, &topic, 0, number, 1);
        // The next record has a later time.
        let written = read_all(&*bus, &topic).last().map(|record| record.time_ms).unwrap();
        while now_ms() <= written {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let records = read_all(&*bus, &topic);
    assert_eq!(records.len(), 4);
    for record in &records {
        assert_eq!(bus.offsets_at(&topic, record.time_ms).unwrap(), [record.offset, 0]);
        assert_eq!(bus.offsets_at(&topic, record.time_ms + 1).unwrap(), [record.offset + 1, 0]);
    }
    assert_eq!(bus.offsets_at(&topic, 0).unwrap(), [0, 0]);
    assert_eq!(bus.offsets_at(&topic, records[3].time_ms + 1_000_000).unwrap(), [4, 0]);
}
