//! The builder against a simple model of a batch.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tallybus_bus::NoHeaders;
use tallybus_schemas::{ENCODING_HEADER, Series, decode_all};
use tallybus_sdk::Rejection;
use tallybus_sdk::replayed::{self, Seen};

use super::*;
use crate::records::RecordSource;

const SECOND: i64 = 1_000_000_000;
const NOW: i64 = 1_700_000_000 * SECOND;
const MOST: u64 = i64::MAX as u64;

fn shape(window: i64) -> Shape {
    Shape { window, ..Shape::everything() }
}

fn builder(shape: &Shape) -> BatchBuilder {
    BatchBuilder::new("t".into(), 3, 0, shape.selector().unwrap())
}

fn add(builder: &mut BatchBuilder, offset: u64, payload: &str) {
    let payload = payload.as_bytes();
    let record = Record {
        topic: "t",
        partition: 3,
        offset,
        time_ms: 5,
        key: None,
        payload,
        is_tombstone: false,
        unreadable: None,
        headers: &NoHeaders,
    };
    builder.add(&record, Content::Events(record, 1));
}

/// The events of a message by index; `None` inside for a line that cannot be decoded, outside for a message that is refused
/// as a whole.
fn events_of(message: &str) -> Option<Vec<Option<Event>>> {
    let decode = |text: &str| decode_all(None, text.as_bytes(), 5_000_000).ok();
    if let Some(events) = decode(message) {
        return Some(events.into_iter().map(Some).collect());
    }
    let lines: Vec<_> = message.lines().filter(|line| !line.starts_with('[')).map(decode).collect();
    let any = lines.iter().any(Option::is_some);
    any.then(|| {
        lines.into_iter().flat_map(|line| line.map_or(vec![None], |all| all.into_iter().map(Some).collect())).collect()
    })
}

/// The model of a batch: all events of these messages, series and points in the order of their first events.
fn model(shape: &Shape, first: u64, messages: &[String]) -> (Batch, Vec<(u64, Option<u32>)>) {
    let selector = shape.selector().unwrap();
    let mut series: Vec<Series> = Vec::new();
    let mut points: Vec<Point> = Vec::new();
    let mut dead_letters = Vec::new();
    for (offset, message) in (first..).zip(messages) {
        let Some(events) = events_of(message) else {
            dead_letters.push((offset, None));
            continue;
        };
        for (index, event) in (0..).zip(events) {
            let Some(event) = event else {
                dead_letters.push((offset, Some(index)));
                continue;
            };
            if !selector.takes(event.series.name()) {
                continue;
            }
            let tags: Vec<(&str, &str)> = event.series.tags().iter().map(|(key, value)| (&**key, &**value)).collect();
            let mut shaped = Vec::new();
            selector.shape_tags(&tags, &mut shaped);
            let shaped = Series::from_sorted(event.series.name(), &shaped);
            let number = series.iter().position(|known| *known == shaped).unwrap_or_else(|| {
                series.push(shaped);
                series.len() - 1
            });
            let number = u32::try_from(number).unwrap();
            let time = selector.window_start(event.time);
            let at = Coordinate { partition: 3, offset, index };
            let fresh = Point { series: number, time, value: event.value, events: 1, first: at };
            let is_same = |point: &&mut Point| shape.window != 0 && (point.series, point.time) == (number, time);
            match points.iter_mut().find(is_same) {
                _ if event.value > MOST => dead_letters.push((offset, Some(index))),
                Some(point) if point.value + event.value > MOST => dead_letters.push((offset, Some(index))),
                Some(point) => {
                    point.value += event.value;
                    point.events += 1;
                }
                None => points.push(fresh),
            }
        }
    }
    let batch = Batch {
        id: BatchId { topic: "t".into(), partition: 3, first, end: first + messages.len() as u64 },
        topic_index: 0,
        series: Arc::new(series.iter().collect()),
        points,
        window: shape.window,
        part: String::new(),
        stream: None,
        recovered: false,
    };
    (batch, dead_letters)
}

fn check(shape: &Shape, builder: &mut BatchBuilder, first: u64, messages: &[String]) -> Result<(), TestCaseError> {
    for (offset, message) in (first..).zip(messages) {
        add(builder, offset, message);
    }
    prop_assert_eq!(builder.bytes(), messages.iter().map(String::len).sum::<usize>());
    let memory = builder.memory();
    let closed = builder.close(first, first + messages.len() as u64, None, false);
    prop_assert_eq!(closed.memory, memory);
    let payloads: usize = closed.dead_letters.iter().map(DeadLetter::memory).sum();
    let points = closed.batch.points.len() * size_of::<Point>();
    prop_assert_eq!(memory, points + closed.batch.series.memory() + payloads);
    let (batch, dead_letters) = model(shape, first, messages);
    prop_assert_eq!(&*closed.batch, &batch);
    let found: Vec<_> = closed.dead_letters.iter().map(|dead_letter| (dead_letter.offset, dead_letter.index)).collect();
    prop_assert_eq!(found, dead_letters);
    let decoded = messages.iter().filter_map(|text| events_of(text)).flatten().flatten();
    prop_assert_eq!(closed.events, decoded.count() as u64);
    Ok(())
}

/// One event, in one of many encodings of the same series; sometimes no event at all.
fn event() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "http.x", "a,k=v"]);
    let tags = prop::sample::select(vec![
        "",
        r#","tags":{}"#,
        r#","tags":{"k":"v"}"#,
        r#","tags":{ "k": "v" }"#,
        r#","tags":{"j":"1","k":"v"}"#,
        r#","tags":{"k":"v","j":"1"}"#,
        r#","tags":{"k":"\u0076","j":""}"#,
    ]);
    let value = prop_oneof![9 => 1_u64..1_000, 1 => Just(MOST), 1 => Just(MOST + 1), 1 => Just(0)];
    let time = prop_oneof![0_i64..3, NOW..NOW + 3 * SECOND];
    (name, tags, value, time)
        .prop_map(|(name, tags, value, time)| format!(r#"{{"name":"{name}","ts":{time},"value":{value}{tags}}}"#))
}

fn message() -> impl Strategy<Value = String> {
    let several = || prop::collection::vec(event(), 1..4);
    prop_oneof![
        6 => event(),
        2 => several().prop_map(|events| format!("[{}]", events.join(","))),
        1 => several().prop_map(|events| format!("[{},oops]", events.join(","))),
        1 => (several(), several()).prop_map(|(a, b)| format!("{}\noops\n{}", a.join("\n"), b.join("\n"))),
        1 => prop::sample::select(vec!["a,k=v value=3i 7", "a,k=v,j=1 value=4i 8\nb value=1i", "b value=2i", "", "a value", "b value=1i\na value=1.5 3\na,k=v value=2i"])
            .prop_map(str::to_owned),
    ]
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let window = prop::sample::select(vec![0, 1, SECOND]);
    let names = prop::sample::select(vec![vec![], vec!["http.*".to_owned(), "b".to_owned()]]);
    let drop_tags = prop::sample::select(vec![vec![], vec!["j".to_owned()]]);
    let tags = prop::sample::select(vec![BTreeMap::new(), BTreeMap::from([("j".to_owned(), "2".to_owned())])]);
    (window, names, drop_tags, tags).prop_map(|(window, names, drop_tags, tags)| Shape {
        names,
        drop_tags,
        tags,
        ..shape(window)
    })
}

proptest! {
    /// Whatever came before, and however it was encoded: a batch depends on its records alone.
    #[test]
    fn a_batch_follows_from_its_records_alone(
        shape in any_shape(),
        batches in prop::collection::vec(prop::collection::vec(message(), 0..25), 1..5),
        discarded in prop::collection::vec(message(), 0..10),
    ) {
        let mut builder = builder(&shape);
        let mut first = 100;
        for messages in &batches {
            for (offset, message) in (first..).zip(&discarded) {
                add(&mut builder, offset, message);
            }
            builder.discard();
            prop_assert!(builder.is_empty());
            check(&shape, &mut builder, first, messages)?;
            first += messages.len() as u64;
        }
    }
}

#[test]
fn a_message_that_fails_in_the_middle_leaves_nothing() {
    for window in [0, SECOND] {
        let mut builder = builder(&shape(window));
        add(&mut builder, 0, r#"{"name":"kept","value":1}"#);
        let huge = MOST + 1;
        add(
            &mut builder,
            1,
            &format!(r#"[{{"name":"gone","value":7}},{{"name":"gone","value":{huge}}},{{"name":1}}]"#),
        );
        assert_eq!(builder.events(), 2, "one event, one dead letter");
        add(&mut builder, 2, r#"{"name":"next","value":2}"#);
        add(&mut builder, 3, r#"{"name":"gone","value":4}"#);
        let closed = builder.close(0, 4, None, false);
        let series: Vec<String> = closed.batch.series.iter().map(|series| series.to_string()).collect();
        assert_eq!(series, ["kept", "next", "gone"]);
        assert_eq!(closed.batch.points.iter().map(|point| point.value).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!((closed.events, closed.dead_letters.len()), (3, 1));
    }
}

#[test]
fn another_shape_forgets_what_the_old_one_left_out() {
    let narrow = Shape { names: vec!["x".to_owned()], ..shape(0) };
    let mut builder = builder(&narrow);
    let message = r#"{"name":"a","value":1}"#;
    for offset in 0..3 {
        add(&mut builder, offset, message);
    }
    let closed = builder.close(0, 3, None, true);
    assert_eq!((closed.batch.points.len(), closed.events), (0, 3));
    builder.reshape(&shape(0)).unwrap();
    add(&mut builder, 3, message);
    assert_eq!(builder.close(3, 4, None, false).batch.points.len(), 1);
}

#[test]
fn many_series_cost_memory_only_while_they_are_there() {
    let mut builder = builder(&shape(0));
    for offset in 0..30_000 {
        add(&mut builder, offset, &format!(r#"{{"name":"n{offset}","value":1}}"#));
    }
    let closed = builder.close(0, 30_000, None, false);
    assert_eq!(closed.batch.series.len(), 30_000);
    let last = closed.batch.points.len() - 1;
    let rejection = Rejection { point: last, reason: "no".to_owned() };
    let dead_letter = DeadLetter::of_point(&closed.batch, &rejection).unwrap();
    assert!(String::from_utf8(dead_letter.payload).unwrap().contains(r#""name":"n29999""#));
    for first in 30_000..30_002 {
        add(&mut builder, first, r#"{"name":"n","value":1}"#);
        assert_eq!(builder.close(first, first + 1, None, false).batch.series.len(), 1);
    }
    add(&mut builder, 30_002, r#"{"name":"n","value":1}"#);
    assert!(builder.open.points.capacity() < 100, "the room of the outlier is given back");
}

fn record(payload: &[u8]) -> Record<'_> {
    Record {
        topic: "t",
        partition: 3,
        offset: 7,
        time_ms: 5,
        key: None,
        payload,
        is_tombstone: false,
        unreadable: None,
        headers: &NoHeaders,
    }
}

/// What becomes of one record: its events, and its dead letters.
fn fate(shape: &Shape, record: Record<'_>) -> (u64, Vec<DeadLetter>) {
    let mut builder = builder(shape);
    let content = RecordSource::Events.content(&record);
    builder.add(&record, content);
    let closed = builder.close(7, 8, None, false);
    (closed.events, closed.dead_letters)
}

#[test]
fn one_bad_line_of_a_thousand_is_one_dead_letter_with_its_text_and_index() {
    let lines: Vec<String> = (0..1_000).map(|line| format!("hits,line={line} value=1i")).collect();
    let message = lines.join("\n").replace("line=500 value=1i", "line=500 value=1.5");
    let (events, dead_letters) = fate(&shape(SECOND), record(message.as_bytes()));
    assert_eq!((events, dead_letters.len()), (999, 1));
    let dead_letter = &dead_letters[0];
    assert_eq!((dead_letter.key().as_str(), dead_letter.kind()), ("t/3/7/500", "undecodable"));
    assert_eq!(dead_letter.payload, b"hits,line=500 value=1.5");
    assert_eq!(dead_letter.encoding.as_deref(), Some("influx"));
    assert!(dead_letter.reason.starts_with("influx: line 501 fields.value at byte"), "{}", dead_letter.reason);
}

#[test]
fn a_tombstone_is_passed_and_an_empty_value_is_a_dead_letter() {
    let empty = record(b"");
    assert_eq!(fate(&shape(0), Record { is_tombstone: true, ..empty }), (0, Vec::new()));
    let (events, dead_letters) = fate(&shape(0), empty);
    assert_eq!((events, dead_letters.len()), (0, 1));
}

#[test]
fn an_event_without_a_time_in_a_record_without_one_is_a_dead_letter() {
    for payload in [&b"{\"name\":\"hits\"}"[..], b"hits value=1i"] {
        let (events, dead_letters) = fate(&shape(0), Record { time_ms: -1, ..record(payload) });
        assert_eq!((events, dead_letters.len()), (0, 1));
        assert!(dead_letters[0].reason.contains("and neither has the record"), "{}", dead_letters[0].reason);
    }
    assert_eq!(fate(&shape(0), Record { time_ms: -1, ..record(b"hits value=1i 5") }).0, 1);
}

#[test]
fn a_header_of_encoding_that_is_not_utf8_is_named() {
    let headers = vec![(ENCODING_HEADER.to_owned(), b"js\xffon".to_vec())];
    let (events, dead_letters) = fate(&shape(0), Record { headers: &headers, ..record(b"{\"name\":\"hits\"}") });
    assert_eq!((events, dead_letters.len()), (0, 1));
    assert_eq!(dead_letters[0].reason, "the header `tallybus-encoding` is not UTF-8");
}

#[test]
fn a_declared_unit_of_time_is_part_of_the_shape() {
    let payload = b"{\"name\":\"hits\",\"ts\":1700000000}";
    let (events, dead_letters) = fate(&shape(0), record(payload));
    assert_eq!(events, 0);
    assert!(dead_letters[0].reason.contains("looks like seconds"), "{}", dead_letters[0].reason);
    let declared = Shape { encoding: Some("s".to_owned()), ..shape(0) };
    assert_eq!(fate(&declared, record(payload)), (1, Vec::new()));
}

#[test]
fn a_protobuf_message_of_another_kind_is_a_dead_letter() {
    let foreign = b"\x08\x01\x12\x10ABCDEFGHIJKLMNOP\x82\x01\x05hello";
    let (events, dead_letters) = fate(&shape(0), record(foreign));
    assert_eq!((events, dead_letters.len()), (0, 1));
    assert!(dead_letters[0].reason.contains("protobuf message of another kind"), "{}", dead_letters[0].reason);
}

/// A record of a dead-letter topic.
struct Again {
    key: String,
    payload: String,
    headers: Vec<(String, Vec<u8>)>,
}

fn again(number: u8, sums: u32) -> Again {
    use tallybus_sdk::dead_letter::*;
    let is_event = sums > 0;
    let mut headers = vec![(SINK_HEADER, "s".to_owned()), (TOPIC_HEADER, "t".to_owned())];
    headers.extend([(PARTITION_HEADER, "1".to_owned()), (OFFSET_HEADER, number.to_string())]);
    headers.extend([(EVENTS_HEADER, sums.to_string()), (TIME_HEADER, "77".to_owned())]);
    if is_event {
        headers.extend([(INDEX_HEADER, "0".to_owned()), (ENCODING_HEADER, "json".to_owned())]);
    }
    let (key, payload) = match is_event {
        true => (format!("t/1/{number}/0"), format!(r#"{{"ts":5,"name":"a","value":{number}}}"#)),
        false => (format!("t/1/{number}"), format!("b value={number}i")),
    };
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect();
    Again { key, payload, headers }
}

fn record_of(dead_letter: &Again, offset: u64) -> Record<'_> {
    let (key, payload) = (Some(dead_letter.key.as_bytes()), dead_letter.payload.as_bytes());
    Record {
        topic: "again",
        partition: 0,
        offset,
        time_ms: 5,
        key,
        payload,
        is_tombstone: false,
        unreadable: None,
        headers: &dead_letter.headers,
    }
}

fn add_again(builder: &mut BatchBuilder, source: &mut RecordSource, dead_letter: &Again, offset: u64) {
    let record = record_of(dead_letter, offset);
    let content = source.content(&record);
    builder.add(&record, content);
}

#[test]
fn a_dead_letter_is_read_as_its_original_and_counts_the_events_that_it_sums() {
    let dead_letters = [again(3, 10), again(4, 0), again(5, 1), again(4, 0), again(3, 10)];
    let mut builder = BatchBuilder::new("again".into(), 0, 1, shape(SECOND).selector().unwrap());
    let mut source = RecordSource::DeadLetters(Seen::new());
    for (offset, dead_letter) in (0..).zip(&dead_letters) {
        add_again(&mut builder, &mut source, dead_letter, offset);
    }
    let closed = builder.close(0, 5, None, false);
    assert_eq!((closed.events, closed.dead_letters.len(), closed.batch.topic_index), (12, 0, 1));
    let points: Vec<_> =
        closed.batch.points.iter().map(|point| (point.value, point.events, point.first.offset)).collect();
    assert_eq!(points, [(8, 11, 0), (4, 1, 1)], "twice is once");
    // Without a time of its own, an event has that of its original record.
    let mut builder = BatchBuilder::new("again".into(), 0, 1, shape(0).selector().unwrap());
    add_again(&mut builder, &mut RecordSource::DeadLetters(Seen::new()), &dead_letters[1], 0);
    assert_eq!(builder.close(0, 1, None, false).batch.points[0].time, 77_000_000);
}

#[test]
fn what_is_no_dead_letter_or_was_truncated_is_refused_with_its_own_time() {
    let mut cut = again(4, 0);
    cut.headers.push((tallybus_sdk::dead_letter::CUT_HEADER.to_owned(), b"999".to_vec()));
    let stranger = Again { key: "x".to_owned(), payload: r#"{"name":"a"}"#.to_owned(), headers: Vec::new() };
    let mut broken = again(5, 0);
    broken.payload = "garbage".to_owned();
    let mut builder = BatchBuilder::new("again".into(), 0, 1, shape(SECOND).selector().unwrap());
    let mut source = RecordSource::DeadLetters(Seen::new());
    for (offset, dead_letter) in (0..).zip([&cut, &stranger, &broken]) {
        add_again(&mut builder, &mut source, dead_letter, offset);
    }
    let closed = builder.close(0, 3, None, false);
    assert_eq!((closed.events, closed.batch.points.len()), (0, 0));
    let keys: Vec<_> = closed.dead_letters.iter().map(|dead_letter| (dead_letter.key(), dead_letter.time_ms)).collect();
    assert_eq!(keys, [("again/0/0".to_owned(), 5), ("again/0/1".to_owned(), 5), ("again/0/2".to_owned(), 77)]);
}

proptest! {
    /// Wherever a worker begins, its batches of a replay topic are the same as those of a worker that began at offset
    /// 0, for the same offsets; and all of them together have each dead letter once.
    #[test]
    fn what_a_dead_letter_counts_follows_from_the_topic_alone(
        numbers in prop::collection::vec((1_u8..12, 0_u32..3), 1..60),
        ends in prop::collection::btree_set(1_usize..60, 0..6),
        from in 0_usize..6,
    ) {
        let dead_letters: Vec<Again> = numbers.iter().map(|&(number, sums)| again(number, sums)).collect();
        let mut ends: Vec<usize> = ends.into_iter().filter(|end| *end < dead_letters.len()).collect();
        ends.push(dead_letters.len());
        let build = |from: usize| {
            let first = if from == 0 { 0 } else { ends[from - 1] };
            let mut seen = Seen::new();
            for (offset, dead_letter) in (0..).zip(&dead_letters[..first]) {
                replayed::is_first(&mut seen, &record_of(dead_letter, offset));
            }
            let selector = shape(SECOND).selector().unwrap();
            let mut builder = BatchBuilder::new("again".into(), 0, 1, selector);
            let mut source = RecordSource::DeadLetters(seen);
            let mut first = first;
            let mut batches = Vec::new();
            for &end in &ends[from..] {
                for (offset, dead_letter) in dead_letters.iter().enumerate().take(end).skip(first) {
                    add_again(&mut builder, &mut source, dead_letter, offset as u64);
                }
                batches.push(builder.close(first as u64, end as u64, None, false).batch);
                first = end;
            }
            batches
        };
        let whole = build(0);
        let from = from % ends.len();
        prop_assert_eq!(&build(from)[..], &whole[from..]);
        let mut keys = BTreeMap::new();
        for (dead_letter, (number, _)) in dead_letters.iter().zip(&numbers) {
            keys.insert(dead_letter.key.as_str(), u128::from(*number));
        }
        prop_assert_eq!(whole.iter().map(|batch| batch.total()).sum::<u128>(), keys.values().sum::<u128>());
    }

    /// The selection of a series, applied again to its own result, changes nothing: a dead letter is written as it was
    /// refused.
    #[test]
    fn a_selection_of_what_was_selected_changes_nothing(
        tags in prop::collection::btree_map("[a-e]", "[x-z]", 0..5),
        drop_tags in prop::collection::vec("[a-g]", 0..4),
        added in prop::collection::btree_map("[a-g]", "[v-x]", 0..4),
        names in prop::collection::vec(prop::sample::select(vec!["h*", "hits", "*"]), 0..3),
        window in prop::sample::select(vec![0, SECOND, 60 * SECOND]),
        time in 0_i64..i64::MAX / 2,
    ) {
        let names = names.into_iter().map(str::to_owned).collect();
        let selector = Shape { window, names, drop_tags, tags: added, ..Shape::everything() }.selector().unwrap();
        let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        selector.shape_tags(&tags, &mut once);
        selector.shape_tags(&once, &mut twice);
        prop_assert_eq!(&once, &twice);
        prop_assert!(selector.takes("hits"));
        prop_assert_eq!(selector.window_start(selector.window_start(time)), selector.window_start(time));
    }
}
