//! Native batches: what an error says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test stops at the first surprise"
)]

mod support;

use prost::Message;
use support::bodies::decode;
use support::event;
use support::model::Batch;
use tallybus_schemas::{Encoding, Origin, Receiver, Series, decode_all};

const END: i64 = 1_000;

fn batch() -> Batch {
    let origin = Origin {
        producer: [3; 16],
        sequence: 1,
        interval_start: 0,
        interval_end: END,
        partition_total: 3,
        emitted_total: 3,
    };
    let events = [event("n", &[("a", "1"), ("b", "2")], 1, END), event("m", &[], 2, END - 1)];
    Batch::plain(&origin, &events)
}

/// The field and the reason of the error that a change to a good batch brings about.
fn refused(change: impl FnOnce(&mut Batch)) -> (String, String) {
    let mut batch = batch();
    assert!(decode(None, &batch.encode_to_vec()).is_ok());
    change(&mut batch);
    let error = decode(Some(Encoding::Native), &batch.encode_to_vec()).unwrap_err();
    assert_eq!(error.encoding, "native");
    (error.field, error.reason)
}

fn pair(field: &str, reason: &str) -> (String, String) {
    (field.to_owned(), reason.to_owned())
}

#[test]
fn headers() {
    assert_eq!(refused(|batch| batch.version = 0), pair("version", "is missing"));
    assert_eq!(
        refused(|batch| batch.version = 2),
        pair("version", "version 2 is newer than version 1, the latest that this program reads: upgrade it")
    );
    assert_eq!(refused(|batch| batch.producer.clear()), pair("producer", "is missing"));
    assert_eq!(
        refused(|batch| {
            batch.producer.pop();
        }),
        pair("producer", "must have 16 bytes")
    );
    assert_eq!(refused(|batch| batch.interval_end = -1), pair("interval_end", "must not be negative"));
    assert_eq!(refused(|batch| batch.interval_start = i64::MIN), pair("interval_start", "must not be negative"));
}

#[test]
fn columns_that_do_not_fit_together() {
    assert_eq!(
        refused(|batch| {
            batch.event_value.pop();
        }),
        pair("event_series", "2 entries for 1 values")
    );
    assert_eq!(
        refused(|batch| {
            batch.event_time.pop();
        }),
        pair("event_time", "1 entries for 2 values")
    );
    assert_eq!(refused(|batch| batch.event_series[1] = 2), pair("event_series[1]", "there is no series 2, only 2"));
    assert_eq!(
        refused(|batch| {
            batch.event_series.clear();
            batch.event_value.push(1);
            batch.event_time.push(0);
        }),
        pair("event_value", "3 values for 2 series, and no event_series to assign them")
    );
    assert_eq!(
        refused(|batch| {
            batch.series_tag_counts.pop();
        }),
        pair("series_tag_counts", "1 entries for 2 series")
    );
    assert_eq!(
        refused(|batch| batch.series_tag_counts[1] = 1),
        pair("series_tags", "fewer entries than series_tag_counts says")
    );
    assert_eq!(
        refused(|batch| batch.series_tag_counts[0] = 1),
        pair("series_tags", "more entries than series_tag_counts says")
    );
    assert_eq!(
        refused(|batch| batch.series_tag_counts[0] = u32::MAX),
        pair("series_tag_counts[0]", "more than 64 tags")
    );
    assert_eq!(refused(|batch| batch.series_tags[3] = 9), pair("series_tags[3]", "there is no string 9, only 6"));
    assert_eq!(refused(|batch| batch.series_name[1] = 6), pair("series_name[1]", "there is no string 6, only 6"));
    assert_eq!(refused(|batch| batch.common_tags = vec![0]), pair("common_tags", "a key without a value"));
    assert_eq!(refused(|batch| batch.common_tags = vec![0, 7]), pair("common_tags[1]", "there is no string 7, only 6"));
}

#[test]
fn events_that_are_none() {
    assert_eq!(refused(|batch| batch.event_value[1] = 0), pair("event_value[1]", "must be greater than 0"));
    for distance in [-END - 1, i64::MIN, i64::MAX] {
        assert_eq!(refused(|batch| batch.event_time[1] = distance).0, "event_time[1]");
    }
}

#[test]
fn series_that_are_none() {
    let string = |batch: &Batch, text: &str| batch.strings.iter().position(|string| string == text).unwrap();
    let rename = |from: &'static str, to: &'static str| {
        move |batch: &mut Batch| {
            let at = string(batch, from);
            batch.strings[at] = to.to_owned();
        }
    };
    assert_eq!(refused(rename("b", "a")), pair("series[0].tags.a", "the tag is given twice (in series \"n\")"));
    assert_eq!(refused(rename("m", "")), pair("series[1].name", "must not be empty (in series \"\")"));
    assert_eq!(refused(rename("b", "")), pair("series[0].tags", "a tag key is empty (in series \"n\")"));
    assert_eq!(refused(rename("1", "a\nb")), pair("strings[4]", "control characters are not allowed"));
    assert_eq!(refused(|batch| batch.common_tags = vec![1, 1, 1, 2]), pair("common_tags.b", "the tag is given twice"));
    // 63 common tags and 2 of its own are one too many for the first series only.
    let (field, reason) = refused(|batch| {
        for key in 0..63 {
            let pair = [batch.string(&format!("k{key}")), batch.string("v")];
            batch.common_tags.extend(pair);
        }
    });
    assert_eq!((field.as_str(), reason.as_str()), ("series[0].tags", "more than 64 tags (in series \"n\")"));
}

#[test]
fn a_series_own_tag_wins() {
    let mut batch = batch();
    let at = |text: &str| batch.strings.iter().position(|string| string == text).unwrap() as u32;
    batch.common_tags = vec![at("b"), at("n"), at("1"), at("m"), at("a"), at("a")];
    let events = decode(None, &batch.encode_to_vec()).unwrap();
    let expected = [
        event("n", &[("1", "m"), ("a", "1"), ("b", "2")], 1, END),
        event("m", &[("1", "m"), ("a", "a"), ("b", "n")], 2, END - 1),
    ];
    assert_eq!(events, expected);
}

#[test]
fn each_used_series_is_announced_once_and_others_never() {
    #[derive(Default)]
    struct Log(Vec<String>);
    impl Receiver for Log {
        fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32 {
            self.0.push(format!("series {}", Series::from_sorted(name, tags)));
            // Handles are the receiver's own: these are neither dense nor distinct from the decoder's marks.
            if name == "n" { 1 } else { 0 }
        }
        fn event(&mut self, series: u32, value: u64, time: i64) {
            self.0.push(format!("event {series} {value} {time}"));
        }
        fn origin(&mut self, origin: &Origin) {
            self.0.push(format!("origin {}", origin.sequence));
        }
    }
    let mut batch = batch();
    let unused = batch.string("unused");
    batch.series_name.insert(1, unused);
    batch.series_tag_counts.insert(1, 0);
    batch.event_series = vec![2, 0, 0, 2];
    batch.event_value = vec![5, 6, 7, 8];
    batch.event_time.clear();
    let mut log = Log::default();
    let count = tallybus_schemas::Decoder::new().decode(None, &batch.encode_to_vec(), 0, &mut log).unwrap();
    assert_eq!(count, 4);
    let expected = [
        "origin 1",
        "series n{a=\"1\",b=\"2\"}",
        "series m",
        "event 0 5 1000",
        "event 1 6 1000",
        "event 1 7 1000",
        "event 0 8 1000",
    ];
    assert_eq!(log.0, expected);
}

#[test]
fn wire_types_are_checked() {
    for (bytes, field) in [
        (b"\x0a\x00".as_slice(), "version"),
        (b"\x10\x01", "producer"),
        (b"\x1a\x00", "sequence"),
        (b"\x25\0\0\0\0", "interval_start"),
        (b"\x40\x01", "strings"),
        (b"\x4d\0\0\0\0", "common_tags"),
        (b"\x71\0\0\0\0\0\0\0\0", "event_value"),
    ] {
        let error = decode(Some(Encoding::Native), bytes).unwrap_err();
        assert_eq!(error.field, field);
        assert_eq!(error.position, 1);
        assert_eq!(error.reason, "the field has another wire type than in batch.proto");
    }
    for (bytes, position, reason) in [
        (b"\x08\x01\x13".as_slice(), 2, "protobuf groups are not supported"),
        (b"\x08\x01\x00", 2, "unknown field number"),
        (b"\x08\x01\x52\x05\xff\xff\xff\xff\x1f", 4, "the number has more than 32 bits"),
        (b"\x08\x01\x52\x02\x01\xff", 5, "the message ends too early"),
        (b"\x08\x01\x72\x0b\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 4, "a varint has more than 64 bits"),
    ] {
        let error = decode(Some(Encoding::Native), bytes).unwrap_err();
        assert_eq!((error.position, error.reason.as_str()), (position, reason));
    }
}

#[test]
fn a_protobuf_message_of_another_kind_is_no_batch_without_events() {
    let foreign = b"\x08\x01\x12\x10ABCDEFGHIJKLMNOP\x82\x01\x05hello";
    let error = decode_all(None, foreign, 0).unwrap_err();
    assert_eq!((error.field.as_str(), error.encoding), ("sequence", "native"));
    let with_sequence = b"\x08\x01\x12\x10ABCDEFGHIJKLMNOP\x18\x05\x82\x01\x05hello";
    let error = decode_all(None, with_sequence, 0).unwrap_err();
    assert!(error.reason.contains("unknown fields and no event"), "{error}");
}
