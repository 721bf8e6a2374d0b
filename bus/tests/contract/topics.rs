use std::collections::BTreeMap;
use std::time::Duration;

use tallybus_bus::{BusError, Committed, OffsetRange, StreamId, TopicOptions, TopicPartition};

use super::member::{Member, commit};
use super::{Subject, publish_numbers, read_all};

pub fn a_topic_is_created_once_and_then_checked(subject: &dyn Subject) {
    let (bus, other) = (subject.bus(), subject.bus());
    let topic = subject.unique("created");
    assert_eq!(bus.observer().unwrap().partitions_of(&topic).unwrap(), None);
    assert!(bus.create_topic(&topic, &TopicOptions::new(3)).unwrap());
    assert!(!bus.create_topic(&topic, &TopicOptions::new(3)).unwrap());
    assert!(!other.create_topic(&topic, &TopicOptions::new(3)).unwrap());
    assert_eq!(other.observer().unwrap().partitions_of(&topic).unwrap(), Some(3));
    assert_eq!(bus.publisher().unwrap().partitions(&topic).unwrap(), Some(3));
    match other.create_topic(&topic, &TopicOptions::new(4)) {
        Err(BusError::PartitionCount { topic: named, wanted: 4, actual: 3 }) => assert_eq!(named, topic),
        answer => panic!("{answer:?}"),
    }
    assert_eq!(bus.observer().unwrap().partitions_of(&topic).unwrap(), Some(3));
}

pub fn a_topic_that_does_not_exist_is_reported_as_such(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.unique("missing");
    assert_eq!(bus.observer().unwrap().partitions_of(&topic).unwrap(), None);
    assert_eq!(bus.publisher().unwrap().partitions(&topic).unwrap(), None);
    assert!(matches!(bus.observer().unwrap().offsets_of(&topic), Err(BusError::NoTopic(named)) if named == topic));
    assert!(matches!(bus.observer().unwrap().offsets_at_time(&topic, 0), Err(BusError::NoTopic(_))));
    assert_eq!(bus.observer().unwrap().partitions_of(&topic).unwrap(), None, "asking must not create it");
}

pub fn offsets_tell_what_each_partition_holds(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("offsets", 3);
    let empty = OffsetRange { first: 0, end: 0 };
    assert_eq!(bus.observer().unwrap().offsets_of(&topic).unwrap(), [empty; 3]);
    publish_numbers(&*bus, &topic, 1, 0, 5);
    publish_numbers(&*bus, &topic, 2, 0, 2);
    let held = [empty, OffsetRange { first: 0, end: 5 }, OffsetRange { first: 0, end: 2 }];
    assert_eq!(bus.observer().unwrap().offsets_of(&topic).unwrap(), held);
    assert_eq!(subject.bus().observer().unwrap().offsets_of(&topic).unwrap(), held);
}

pub fn offsets_at_find_the_first_record_of_a_time(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("times", 2);
    for number in 0..4 {
        publish_numbers(&*bus, &topic, 0, number, 1);
        // The next record has a later time.
        let written = read_all(&*bus, &topic).last().map(|record| record.time_ms).unwrap();
        while subject.wall_ms() <= written {
            subject.pass(Duration::from_millis(1));
        }
    }
    let records = read_all(&*bus, &topic);
    assert_eq!(records.len(), 4);
    for record in &records {
        assert_eq!(bus.observer().unwrap().offsets_at_time(&topic, record.time_ms).unwrap(), [record.offset, 0]);
        assert_eq!(
            bus.observer().unwrap().offsets_at_time(&topic, record.time_ms + 1).unwrap(),
            [record.offset + 1, 0]
        );
    }
    assert_eq!(bus.observer().unwrap().offsets_at_time(&topic, 0).unwrap(), [0, 0]);
    assert_eq!(bus.observer().unwrap().offsets_at_time(&topic, records[3].time_ms + 1_000_000).unwrap(), [4, 0]);
}

pub fn a_stream_id_stays_while_the_topic_lives_and_changes_when_it_is_recreated(subject: &dyn Subject) {
    let bus = subject.bus();
    let (topic, neighbour) = (subject.topic("stream", 2), subject.topic("stream-neighbour", 1));
    let id = bus.observer().unwrap().stream_id_of(&topic).unwrap();
    assert_ne!(bus.observer().unwrap().stream_id_of(&neighbour).unwrap(), id);
    publish_numbers(&*bus, &topic, 1, 0, 5);
    for bus in [&bus, &subject.bus()] {
        assert_eq!(bus.observer().unwrap().stream_id_of(&topic).unwrap(), id);
    }
    assert_eq!(id.to_string().parse::<StreamId>().as_ref(), Ok(&id));

    subject.delete_topic(&topic);
    match bus.observer().unwrap().stream_id_of(&topic) {
        Err(BusError::NoTopic(named)) => assert_eq!(named, topic),
        other => panic!("{other:?}"),
    }
    assert_eq!(bus.observer().unwrap().partitions_of(&topic).unwrap(), None, "asking must not create it");
    assert!(bus.create_topic(&topic, &TopicOptions::new(2)).unwrap());
    let recreated = bus.observer().unwrap().stream_id_of(&topic).unwrap();
    assert_ne!(recreated, id);
    assert_eq!(subject.bus().observer().unwrap().stream_id_of(&topic).unwrap(), recreated);
}

pub fn a_member_is_assigned_a_stream_and_learns_of_another(subject: &dyn Subject) {
    let bus = subject.bus();
    let (one, two) = (subject.topic("streams-one", 1), subject.topic("streams-two", 1));
    let ids = bus.observer().unwrap().stream_ids(&[&one, &two]).unwrap();
    let mut member = Member::join(subject, &subject.unique("group"), &[&one, &two]);
    member.until("its partitions", |member| member.owned.len() == 2);
    for assignment in &member.assigned {
        assert_eq!(assignment.stream, ids[usize::from(*assignment.at.topic == *two)], "{}", assignment.at);
    }
    member.subscriber.query_streams().unwrap();
    member.until("the answer", |member| member.streams.len() == 1);
    let answer = |one_is: &StreamId| {
        BTreeMap::from([(one.as_str().into(), one_is.clone()), (two.as_str().into(), ids[1].clone())])
    };
    assert_eq!(member.streams[0], answer(&ids[0]));

    subject.delete_topic(&one);
    member.subscriber.query_streams().unwrap();
    member.until("the answer after the deletion", |member| member.streams.len() == 2);
    assert_eq!(member.streams[1], BTreeMap::from([(two.as_str().into(), ids[1].clone())]));
    assert!(bus.create_topic(&one, &TopicOptions::new(1)).unwrap());
    let recreated = bus.observer().unwrap().stream_id_of(&one).unwrap();
    assert_ne!(recreated, ids[0]);
    member.subscriber.query_streams().unwrap();
    member.until("the answer after the recreation", |member| member.streams.len() == 3);
    assert_eq!(member.streams[2], answer(&recreated));
}

pub fn an_observer_answers_about_several_topics_and_what_has_changed(subject: &dyn Subject) {
    let bus = subject.bus();
    let (one, two, missing) = (subject.topic("seen-one", 2), subject.topic("seen-two", 1), subject.unique("unseen"));
    let (group, other) = (subject.unique("group"), subject.unique("group"));
    let observer = bus.observer().unwrap();
    let range = |end| OffsetRange { first: 0, end };
    assert_eq!(observer.offsets(&[&one, &two]).unwrap(), [vec![range(0); 2], vec![range(0)]]);
    let commits = [(group.as_str(), two.as_str()), (&other, &one), (&group, &one)];
    assert_eq!(observer.committed(&commits).unwrap(), [vec![None], vec![None; 2], vec![None; 2]]);

    publish_numbers(&*bus, &one, 1, 0, 5);
    publish_numbers(&*bus, &two, 0, 0, 2);
    let mut member = Member::join(subject, &group, &[&one]);
    member.until("its partitions", |member| member.owned.len() == 2);
    member.commit_now(&[commit(&TopicPartition::new(&one, 1), 3, "three")]);
    let three = Committed { offset: 3, metadata: "three".to_owned() };
    assert_eq!(observer.committed(&commits).unwrap(), [vec![None], vec![None; 2], vec![None, Some(three)]]);
    assert_eq!(observer.offsets(&[&two, &one]).unwrap(), [vec![range(2)], vec![range(0), range(5)]]);
    assert_eq!(observer.offsets_at(&[&two, &one], 0).unwrap(), [vec![0], vec![0, 0]]);

    // Who has committed is listed, and a group that was only asked about is not made by that.
    let groups = observer.groups().unwrap();
    assert!(groups.contains(&group) && !groups.contains(&other), "{groups:?}");
    assert_eq!(observer.partitions(&[]).unwrap(), []);
    assert_eq!(observer.committed(&[]).unwrap(), [[]; 0]);

    // One that is missing is an error, not a topic without partitions.
    assert_eq!(observer.partitions(&[&missing, &one]).unwrap(), [None, Some(2)]);
    let errors = [
        observer.offsets(&[&one, &missing]).unwrap_err(),
        observer.offsets_at(&[&one, &missing], 0).unwrap_err(),
        observer.committed(&[(&group, &one), (&group, &missing)]).unwrap_err(),
        observer.stream_ids(&[&one, &missing]).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, BusError::NoTopic(named) if *named == missing), "{error}");
    }
    assert!(bus.create_topic(&missing, &TopicOptions::new(1)).unwrap());
    assert_eq!(observer.offsets_of(&missing).unwrap(), [range(0)]);
    let ids = observer.stream_ids(&[&two, &one]).unwrap();
    assert_eq!(ids, [observer.stream_id_of(&two).unwrap(), observer.stream_id_of(&one).unwrap()]);
}
