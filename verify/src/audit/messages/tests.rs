use tallybus_bus::NoHeaders;

use super::*;

fn messages() -> Messages {
    Messages::new(&BTreeMap::new()).unwrap()
}

fn record(payload: &[u8]) -> Record<'_> {
    Record {
        topic: "t",
        partition: 0,
        offset: 0,
        time_ms: 0,
        key: None,
        payload,
        is_tombstone: false,
        unreadable: None,
        headers: &NoHeaders,
    }
}

fn line(name: &str, value: u64) -> String {
    format!(r#"{{"ts":5,"name":"{name}","value":{value},"tags":{{"k":"v"}}}}"#)
}

#[test]
fn lines_that_cannot_be_decoded_are_refused_with_their_index_and_the_others_are_rows() {
    let mut messages = messages();
    let payload = [line("a", 1), r#"{"ts":5,"value":2}"#.to_owned(), line("b", 3)].join("\n");
    messages.decode(&record(payload.as_bytes())).unwrap();
    let rows: Vec<_> = messages.rows().iter().map(|row| (row.index, row.value, row.time)).collect();
    assert_eq!(rows, [(0, 1, 5), (2, 3, 5)]);
    let refused: Vec<_> = messages.refused().iter().map(|line| (line.index, line.reason.is_empty())).collect();
    assert_eq!(refused, [(1, false)]);
    assert!(messages.origin().is_none());
    // Nothing of it is in the next message.
    messages.decode(&record(line("a", 7).as_bytes())).unwrap();
    let rows: Vec<_> = messages.rows().iter().map(|row| (row.index, row.value)).collect();
    assert_eq!((rows, messages.refused().len()), (vec![(0, 7)], 0));
}

#[test]
fn a_record_that_cannot_be_decoded_has_no_rows_and_a_tombstone_is_an_empty_message() {
    let mut messages = messages();
    messages.decode(&record(line("a", 1).as_bytes())).unwrap();
    assert!(messages.decode(&record(b"garbage")).is_err());
    assert_eq!((messages.rows().len(), messages.refused().len()), (0, 0));
    messages.decode(&Record { is_tombstone: true, ..record(b"garbage") }).unwrap();
    assert!(messages.rows().is_empty());
}

#[test]
fn the_settings_say_how_a_topic_is_read_and_an_unknown_encoding_is_an_error() {
    let reading = |text: &str| Messages::new(&BTreeMap::from([("t".to_owned(), text.to_owned())]));
    assert!(reading("no encoding").is_err());
    let mut messages = reading("influx").unwrap();
    messages.decode(&record(b"hits,k=v value=3i 5")).unwrap();
    assert_eq!(messages.series(messages.rows()[0].series).name(), "hits");
    let other = Record { topic: "u", ..record(b"") };
    assert!(messages.decode(&Record { payload: line("a", 1).as_bytes(), ..other }).is_ok());
}

#[test]
fn a_series_keeps_its_number_until_more_than_the_limit_are_forgotten() {
    let mut messages = messages();
    let number = |messages: &mut Messages, name: &str| {
        messages.decode(&record(line(name, 1).as_bytes())).unwrap();
        messages.rows()[0].series
    };
    let names = ["a", "b", "a", "c", "b"];
    assert_eq!(names.map(|name| number(&mut messages, name)), [0, 1, 0, 2, 1]);
    assert_eq!(messages.series(2).name(), "c");
    assert!(!messages.forget_series(3));
    assert_eq!(number(&mut messages, "c"), 2);
    assert!(messages.forget_series(2));
    assert!(messages.rows().is_empty());
    assert_eq!(number(&mut messages, "c"), 0);
}

#[test]
fn two_series_are_the_same_when_name_and_every_tag_are() {
    let tags = [("k", "v"), ("l", "w")];
    let series = Series::from_sorted("a", &tags);
    assert!(is_same(&series, "a", &tags));
    for (name, tags) in [
        ("b", &tags[..]),
        ("a", &tags[..1]),
        ("a", &[("k", "v"), ("l", "x")]),
        ("a", &[("k", "v"), ("m", "w")]),
        ("a", &[("k", "v"), ("l", "w"), ("m", "x")]),
    ] {
        assert!(!is_same(&series, name, tags), "{name} {tags:?}");
        assert_ne!(hash("a", &[("k", "v"), ("l", "w")]), hash(name, tags), "{name} {tags:?}");
    }
}
