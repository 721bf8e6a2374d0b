use tallybus_bus::{OffsetRange, read_topic};

use super::super::Quiet;
use super::*;

fn bus(dir: &Path, name: &str) -> EmbeddedBus {
    EmbeddedBus::open(&dir.join(name)).unwrap()
}

fn record(partition: u32, time_ms: i64, payload: &str) -> ImportedRecord {
    let headers = vec![("tallybus-encoding".to_owned(), b"json".to_vec()), ("x".to_owned(), vec![0, 255])];
    ImportedRecord { partition, time_ms, key: Some(b"k".to_vec()), headers, payload: payload.as_bytes().to_vec() }
}

/// Ten records in each of two partitions, one in a second; the third of each has no time of its own.
fn source(dir: &Path) -> EmbeddedBus {
    let source = bus(dir, "source.db");
    source.create_topic("t", &TopicOptions::new(2)).unwrap();
    for second in 0..10 {
        let time_ms = 1_700_000_000_000 + second * 1_000;
        let own = if second == 2 { String::new() } else { format!(r#","ts":{}"#, time_ms * 1_000_000) };
        let event = |route: &str| format!(r#"{{"name":"hits","value":3,"tags":{{"route":"{route}"}}{own}}}"#);
        let two = format!("[{},{}]", event("/a"), event("/b"));
        source.import("t", vec![record(0, time_ms, &event("/a")), record(1, time_ms, &two)]).unwrap();
    }
    source
}

fn offsets(spans: &[Span]) -> Vec<(u64, u64)> {
    spans.iter().map(|span| (span.first, span.end)).collect()
}

fn find(source: &EmbeddedBus, chosen: &Chosen) -> Result<Vec<Span>, CompareError> {
    let observer = source.observer().unwrap();
    spans(source, observer.as_ref(), &["t".to_owned()], &BTreeMap::new(), chosen)
}

#[test]
fn without_a_range_everything_up_to_the_present_end_is_chosen_and_with_one_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path());
    assert_eq!(offsets(&find(&source, &Chosen::default()).unwrap()), [(0, 10), (0, 10)]);
    let at = |second: i64| Some((1_700_000_000 + second) * 1_000_000_000);
    let within = |from, to| Chosen { range: TimeRange { from, to }, last_events: None };
    assert_eq!(offsets(&find(&source, &within(at(3), at(7))).unwrap()), [(3, 7), (3, 7)]);
    let just_after = at(3).map(|time| time + 1);
    assert_eq!(offsets(&find(&source, &within(just_after, None)).unwrap()), [(4, 10), (4, 10)]);
    let error = find(&source, &within(at(100), None)).unwrap_err().to_string();
    assert_eq!(error, "nothing to compare with: t has no records in the chosen range");
}

#[test]
fn the_last_events_are_those_of_the_newest_records() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path());
    let last = |events| find(&source, &Chosen { last_events: Some(events), ..Chosen::default() }).unwrap();
    // Each second has three events: two in partition 1, one in partition 0.
    assert_eq!(offsets(&last(6)), [(8, 10), (8, 10)]);
    assert_eq!(offsets(&last(1)), [(10, 10), (9, 10)]);
    assert_eq!(offsets(&last(1_000)), [(0, 10), (0, 10)]);
}

#[test]
fn a_copy_has_the_same_records_in_the_same_partitions_with_their_times() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path());
    let spans = find(&source, &Chosen { last_events: Some(24), ..Chosen::default() }).unwrap();
    assert_eq!(offsets(&spans), [(2, 10), (2, 10)]);
    let target = bus(dir.path(), "copy.db");
    let observer = source.observer().unwrap();
    let copied = copy(&source, observer.as_ref(), &spans, &BTreeMap::new(), &target, dir.path(), &mut Quiet).unwrap();
    let workload = &copied.workload;
    assert_eq!(
        (workload.messages, workload.events, workload.series.clone(), workload.total),
        (16, 24, Known::Is(2), Total(72))
    );
    assert_eq!(workload.oldest, Known::Is("2023-11-14T22:13:22Z".to_owned()));
    assert_eq!((copied.names, copied.tombstones), (BTreeMap::from([("hits".to_owned(), 24)]), 0));

    let all = |bus: &EmbeddedBus, first: u64| {
        let mut records = Vec::new();
        let observer = bus.observer().unwrap();
        let ranges = read_topic(bus, observer.as_ref(), "t", STALL_TIMEOUT, &mut |record| {
            if record.offset >= first {
                let key = record.key.map(<[u8]>::to_vec);
                let at = (record.partition, record.offset - first);
                records.push((at, record.time_ms, key, read_headers(record.headers), record.payload.to_vec()));
            }
        });
        records.sort();
        (records, ranges.unwrap())
    };
    let (copies, ranges) = all(&target, 0);
    assert_eq!(copies, all(&source, 2).0);
    assert_eq!(ranges, [OffsetRange { first: 0, end: 8 }; 2]);
}

#[test]
fn a_copy_that_does_not_fit_is_refused_with_what_it_needs() {
    let left = Left { records: 1_000, copied: 10, bytes: 10_000 };
    assert_eq!(needed(&left), 1_000 * (1_000 * FILE_FACTOR + FILE_BYTES_PER_RECORD) + SPARE);
    assert_eq!(needed(&Left { records: u64::MAX, ..left }), u64::MAX);
    let dir = tempfile::tempdir().unwrap();
    let target = bus(dir.path(), "copy.db");
    target.create_topic("t", &TopicOptions::new(1)).unwrap();
    let mut importing =
        Importing { target: &target, topic: "t", dir: dir.path(), waiting: Vec::new(), bytes: 0, failure: None };
    let error = importing.write(&Left { records: 1 << 50, copied: 1, bytes: 1_000 }).unwrap_err().to_string();
    assert!(error.contains("bytes free: choose another directory with --dir"), "{error}");
}
