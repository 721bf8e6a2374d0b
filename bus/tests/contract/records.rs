use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tallybus_bus::{
    BusError, NewRecord, OffsetRange, Placed, Progress, PublishError, Publisher, Reader, TopicPartition, read_range,
};

use super::{PATIENCE, Seen, Subject, publish_all, publish_numbers, read_all};

fn plain<'a>(topic: &'a str, partition: u32, payload: &'a [u8]) -> NewRecord<'a> {
    NewRecord { topic, partition: Some(partition), key: None, payload, headers: &[] }
}

pub fn every_record_is_answered_exactly_once(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("answered", 4);
    let mut publisher = bus.publisher().unwrap();
    assert_eq!(publisher.in_flight(), 0);
    let payloads: Vec<String> = (0..5_000).map(|number| number.to_string()).collect();
    let records: Vec<NewRecord<'_>> = payloads
        .iter()
        .map(|payload| NewRecord {
            topic: &topic,
            partition: None,
            key: None,
            payload: payload.as_bytes(),
            headers: &[],
        })
        .collect();
    // Asserts one answer for each token.
    let places = publish_all(&mut *publisher, &records);
    assert_eq!(publisher.in_flight(), 0);
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len(), "two records at one place");

    let there: BTreeMap<(u32, u64), String> = read_all(&*bus, &topic)
        .into_iter()
        .map(|seen| ((seen.partition, seen.offset), seen.text().to_owned()))
        .collect();
    assert_eq!(there.len(), payloads.len());
    for (place, payload) in places.iter().zip(&payloads) {
        assert_eq!(&there[place], payload);
    }
}

pub fn partitions_keep_their_order_when_interleaved(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("order", 3);
    let payloads: Vec<String> = (0..3_000).map(|number| number.to_string()).collect();
    let records: Vec<NewRecord<'_>> =
        (0u32..).zip(&payloads).map(|(number, payload)| plain(&topic, number * 7 % 3, payload.as_bytes())).collect();
    let places = publish_all(&mut *bus.publisher().unwrap(), &records);
    for (record, (partition, _)) in records.iter().zip(&places) {
        assert_eq!(record.partition, Some(*partition));
    }
    let mut next: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let seen = read_all(&*bus, &topic);
    assert_eq!(seen.len(), 3_000);
    for record in &seen {
        let number: u64 = record.text().parse().unwrap();
        let (offset, least) = next.entry(record.partition).or_default();
        assert_eq!(record.offset, *offset);
        assert!(number >= *least, "{number} came after {least} in partition {}", record.partition);
        (*offset, *least) = (record.offset + 1, number + 1);
    }
}

pub fn a_key_always_goes_to_the_same_partition(subject: &dyn Subject) {
    let topic = subject.topic("keys", 5);
    let keys: Vec<String> = (0..60).map(|number| format!("series-{number}")).collect();
    let records: Vec<NewRecord<'_>> = keys
        .iter()
        .map(|key| NewRecord { topic: &topic, partition: None, key: Some(key.as_bytes()), payload: b"", headers: &[] })
        .collect();
    let partitions =
        |places: Vec<(u32, u64)>| -> Vec<u32> { places.into_iter().map(|(partition, _)| partition).collect() };
    let first = partitions(publish_all(&mut *subject.bus().publisher().unwrap(), &records));
    let again = partitions(publish_all(&mut *subject.bus().publisher().unwrap(), &records));
    assert_eq!(first, again);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 5, "60 keys use all of 5 partitions");
}

pub fn records_come_back_as_written(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("written", 1);
    let every_byte: Vec<u8> = (0..=255).collect();
    let headers: [(&str, &[u8]); 4] =
        [("encoding", b"json"), ("none", b""), ("encoding", b"again"), ("höhe", &every_byte)];
    let records = [
        NewRecord { topic: &topic, partition: None, key: Some(b"k\0\xff"), payload: &every_byte, headers: &headers },
        NewRecord { topic: &topic, partition: None, key: None, payload: b"", headers: &[] },
        NewRecord { topic: &topic, partition: Some(0), key: Some(b"k"), payload: b"{}", headers: &headers[..1] },
    ];
    let before = subject.wall_ms();
    publish_all(&mut *bus.publisher().unwrap(), &records);
    let after = subject.wall_ms();

    let seen = read_all(&*bus, &topic);
    assert_eq!(seen.len(), 3);
    for (record, seen) in records.iter().zip(&seen) {
        assert_eq!(seen.key.as_deref(), record.key);
        assert_eq!(seen.payload, record.payload);
        let headers: Vec<(String, Vec<u8>)> =
            record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        assert_eq!(seen.headers, headers);
        assert!((before..=after).contains(&seen.time_ms), "{before} <= {} <= {after}", seen.time_ms);
    }
    let mut reader = bus.reader().unwrap();
    read_range(&mut *reader, &topic, &[(0, 0..1)], PATIENCE, &mut |record| {
        assert_eq!(record.topic, topic);
        assert_eq!(record.headers.get("encoding"), Some(b"json".as_slice()), "the first of that name");
        assert_eq!(record.headers.get("absent"), None);
    })
    .unwrap();
}

pub fn a_record_of_a_megabyte_comes_back(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("large", 1);
    // Kafka's default limit counts the record's frame too.
    let payload: Vec<u8> = (0u32..999_000).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let records = [plain(&topic, 0, &payload), plain(&topic, 0, b"small")];
    publish_all(&mut *bus.publisher().unwrap(), &records);
    let seen = read_all(&*bus, &topic);
    assert_eq!(seen.len(), 2);
    assert!(seen[0].payload == payload, "the payload changed on its way");
    assert_eq!(seen[1].payload, b"small");
}

pub fn a_record_larger_than_the_bus_takes_is_answered_as_too_large(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("too-large", 1);
    let mut publisher = bus.publisher().unwrap();
    let payload = vec![7; 17 << 20];
    publisher.publish(plain(&topic, 0, &payload), 1).unwrap();
    publisher.publish(plain(&topic, 0, b"small"), 2).unwrap();
    assert_eq!(publisher.in_flight(), 2);
    let mut deliveries = Vec::new();
    let until = Instant::now() + PATIENCE;
    while publisher.in_flight() > 0 {
        publisher.poll(Duration::from_millis(100), &mut deliveries);
        assert!(Instant::now() < until, "{deliveries:?}");
    }
    deliveries.sort_by_key(|delivery| delivery.token);
    assert_eq!(deliveries.len(), 2, "{deliveries:?}");
    let Err(PublishError::TooLarge { limit }) = deliveries[0].outcome else { panic!("{deliveries:?}") };
    let limit =
        usize::try_from(limit.expect("both buses know the limit of a record that they do not even send")).unwrap();
    assert!(limit < payload.len());
    assert!(deliveries[1].outcome.is_ok(), "the next record goes on: {deliveries:?}");

    // The limit is the limit: with room for what the bus adds to it, a record is taken.
    publish_all(&mut *publisher, &[plain(&topic, 0, &payload[..limit - 1_024])]);
    let lengths: Vec<usize> = read_all(&*bus, &topic).iter().map(|seen| seen.payload.len()).collect();
    assert_eq!(lengths, [5, limit - 1_024]);
}

/// What became of one record: an error of `publish`, or of its delivery.
fn fate(publisher: &mut dyn Publisher, record: NewRecord<'_>) -> Result<Placed, String> {
    publisher.publish(record, 99).map_err(|error| error.to_string())?;
    let mut deliveries = Vec::new();
    let until = Instant::now() + PATIENCE;
    while deliveries.is_empty() {
        publisher.poll(Duration::from_millis(100), &mut deliveries);
        assert!(Instant::now() < until, "the record was never answered");
    }
    assert_eq!(deliveries.len(), 1);
    assert_eq!(deliveries[0].token, 99);
    deliveries.remove(0).outcome.map_err(|error| error.to_string())
}

pub fn a_topic_or_partition_that_does_not_exist_takes_nothing(subject: &dyn Subject) {
    let bus = subject.bus();
    let (missing, topic) = (subject.unique("missing"), subject.topic("narrow", 2));
    let mut publisher = bus.publisher().unwrap();
    fate(&mut *publisher, plain(&topic, 2, b"x")).unwrap_err();
    // A bus may go on hoping for a topic to appear, but takes the record for nothing meanwhile.
    if publisher.publish(plain(&missing, 0, b"x"), 1).is_ok() {
        let mut deliveries = Vec::new();
        publisher.poll(Duration::from_millis(500), &mut deliveries);
        assert!(deliveries.iter().all(|delivery| delivery.outcome.is_err()), "{deliveries:?}");
    }
    assert_eq!(bus.observer().unwrap().partitions_of(&missing).unwrap(), None, "publishing must not create it");
    let mut fresh = bus.publisher().unwrap();
    assert_eq!(fate(&mut *fresh, plain(&topic, 1, b"y")), Ok(Placed::new(1, Some(0))));
}

pub fn a_range_is_read_exactly(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("range", 3);
    for partition in 0..3 {
        publish_numbers(&*bus, &topic, partition, 0, 2_500);
    }
    let mut reader = subject.bus().reader().unwrap();
    let mut read = |ranges: &[(u32, std::ops::Range<u64>)]| {
        let mut got: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        read_range(&mut *reader, &topic, ranges, PATIENCE, &mut |record| {
            let seen = Seen::of(record);
            assert_eq!(seen.text(), seen.offset.to_string());
            got.entry(seen.partition).or_default().push(seen.offset);
        })
        .unwrap();
        got
    };
    let offsets = |range: std::ops::Range<u64>| range.collect::<Vec<u64>>();

    assert_eq!(read(&[(1, 100..101)]), BTreeMap::from([(1, vec![100])]));
    assert_eq!(read(&[(0, 0..2_500)]), BTreeMap::from([(0, offsets(0..2_500))]));
    assert_eq!(read(&[(2, 7..7)]), BTreeMap::new());
    assert_eq!(read(&[]), BTreeMap::new());
    // Ranges of several lengths at once; a range that ends long before its partition does not hold the others up.
    let all = read(&[(0, 0..3), (1, 1_000..2_500), (2, 2_499..2_500)]);
    assert_eq!(all, BTreeMap::from([(0, offsets(0..3)), (1, offsets(1_000..2_500)), (2, vec![2_499])]));
    // The same reader goes back.
    assert_eq!(read(&[(1, 0..10)]), BTreeMap::from([(1, offsets(0..10))]));
}

/// Polls until the reader tells an end; answers which, and how many records came before.
fn until_end(reader: &mut dyn Reader) -> (u32, u64) {
    let mut count = 0;
    let until = Instant::now() + PATIENCE;
    loop {
        let progress = reader.poll(Duration::from_millis(100), &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        });
        if let Progress::End(partition) = progress.unwrap() {
            return (partition, count);
        }
        assert!(Instant::now() < until, "no end after {count} records");
    }
}

pub fn a_reader_gets_the_end_once_until_more_comes(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("ends", 2);
    publish_numbers(&*bus, &topic, 0, 0, 10);
    let mut reader = subject.bus().reader().unwrap();
    reader.assign(&topic, &[(0, 0), (1, 0)]).unwrap();
    let (first, second) = (until_end(&mut *reader), until_end(&mut *reader));
    assert_eq!(BTreeSet::from([first.0, second.0]), BTreeSet::from([0, 1]));
    assert_eq!(first.1 + second.1, 10);
    let quiet = reader.poll(Duration::from_millis(700), &mut |_| panic!("nothing was published")).unwrap();
    assert_eq!(quiet, Progress::Idle);

    publish_numbers(&*bus, &topic, 1, 0, 4);
    assert_eq!(until_end(&mut *reader), (1, 4));
}

pub fn a_reader_goes_on_where_it_broke_off(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("breaks", 1);
    publish_numbers(&*bus, &topic, 0, 0, 100);
    let mut reader = bus.reader().unwrap();
    reader.assign(&topic, &[(0, 5)]).unwrap();
    let mut got = Vec::new();
    let until = Instant::now() + PATIENCE;
    while got.len() < 95 {
        let mut now = 0;
        reader
            .poll(Duration::from_millis(100), &mut |record| {
                got.push(record.offset);
                now += 1;
                if now == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert!(now <= 10, "records came after the break");
        assert!(Instant::now() < until);
    }
    assert_eq!(got, (5..100).collect::<Vec<u64>>());
}

pub fn a_reader_is_noticed_by_no_group(subject: &dyn Subject) {
    let bus = subject.bus();
    let (topic, group) = (subject.topic("unnoticed", 2), subject.unique("group"));
    publish_numbers(&*bus, &topic, 0, 0, 20);
    let mut member = super::member::Member::join(subject, &group, &[&topic]);
    member.until("all records", |member| member.records.len() == 20 && member.owned.len() == 2);
    let events = member.events;
    assert_eq!(read_all(&*subject.bus(), &topic).len(), 20);
    assert_eq!(read_all(&*subject.bus(), &topic).len(), 20);
    member.run_for(Duration::from_millis(300));
    assert_eq!(member.events, events, "a reader must not move partitions");
    assert_eq!(bus.observer().unwrap().committed_by(&group, &topic).unwrap(), [None, None]);
}

/// Polls until an error comes; answers the offsets handed over before, and the error.
fn until_error(reader: &mut dyn Reader) -> (Vec<u64>, BusError) {
    let mut offsets = Vec::new();
    let until = Instant::now() + PATIENCE;
    loop {
        let polled = reader.poll(Duration::from_millis(100), &mut |record| {
            offsets.push(record.offset);
            ControlFlow::Continue(())
        });
        match polled {
            Err(error) => return (offsets, error),
            Ok(_) => assert!(Instant::now() < until, "no error after offsets {offsets:?}"),
        }
    }
}

pub fn a_reader_started_at_a_deleted_offset_gets_the_deleted_offsets(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("reader-gone", 2);
    publish_numbers(&*bus, &topic, 1, 0, 10);
    subject.trim(&topic, 1, 4);
    assert_eq!(bus.observer().unwrap().offsets_of(&topic).unwrap()[1], OffsetRange { first: 4, end: 10 });
    let mut reader = bus.reader().unwrap();
    for (start, first) in [(2, 4), (9, 10)] {
        if first == 10 {
            subject.trim(&topic, 1, 10);
        }
        reader.assign(&topic, &[(0, 0), (1, start)]).unwrap();
        let (offsets, error) = until_error(&mut *reader);
        assert_eq!(offsets, [0; 0], "nothing may be skipped");
        match error {
            BusError::Gone { at, wanted, first: kept } => {
                assert_eq!((at, wanted, kept), (TopicPartition::new(&topic, 1), start, first));
            }
            other => panic!("{other}"),
        }
    }
    publish_numbers(&*bus, &topic, 1, 10, 3);
    reader.assign(&topic, &[(1, 10)]).unwrap();
    assert_eq!(until_end(&mut *reader), (1, 3));
}
