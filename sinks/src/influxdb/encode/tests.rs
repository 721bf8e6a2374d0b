use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use flate2::read::GzDecoder;
use proptest::prelude::*;
use tallybus_schemas::{Coordinate, Series};
use tallybus_sdk::BatchId;

use super::*;

mod oracle;

const SECOND: i64 = 1_000_000_000;

fn body(encoded: &Encoded) -> &[u8] {
    if encoded.is_nothing() { &[] } else { encoded.as_bytes().unwrap() }
}

fn batch(window: i64, first: u64, series: &[(&str, &[(&str, &str)])], points: &[(u32, i64, u64, u64)]) -> Batch {
    let point = |&(series, time, value, offset): &(u32, i64, u64, u64)| {
        let first = Coordinate { partition: 3, offset, index: 0 };
        Point { series, time, value, events: 1, first }
    };
    let end = points.iter().map(|point| point.3 + 1).max().unwrap_or(first + 1);
    Batch {
        id: BatchId { topic: "t".into(), partition: 3, first, end },
        topic_index: 0,
        series: Arc::new(series.iter().map(|(name, tags)| Series::from_sorted(name, tags)).collect()),
        points: points.iter().map(point).collect(),
        window,
        part: String::new(),
        stream: None,
        recovered: false,
    }
}

fn identity(window: i64) -> Identity {
    Identity::new(window, 1, 64).unwrap()
}

fn text(batch: &Batch) -> (String, Vec<Rejection>) {
    let encoded = encode(batch, &identity(batch.window), false);
    (String::from_utf8(body(&encoded).to_vec()).unwrap(), encoded.rejected)
}

/// What InfluxDB would hold: one value for each series and time, the last one written.
fn store(backend: &mut BTreeMap<(String, i64), u64>, batch: &Batch) {
    let (text, _) = text(batch);
    for line in text.lines() {
        let (rest, time) = line.rsplit_once(' ').unwrap();
        let (key, value) = rest.rsplit_once(" value=").unwrap();
        let value = value.strip_suffix('i').unwrap().parse().unwrap();
        backend.insert((key.to_owned(), time.parse().unwrap()), value);
    }
}

#[test]
fn a_line_for_each_point_at_the_slot_of_the_batch() {
    let batch = batch(
        SECOND,
        1_000,
        &[("http.requests", &[("route", "/v1 a"), ("status", "200")]), ("up", &[])],
        &[(0, 5 * SECOND, 17, 1_000), (1, 5 * SECOND, 1, 1_001), (0, 6 * SECOND, 2, 1_002)],
    );
    let (text, rejected) = text(&batch);
    assert_eq!(
        text,
        "http.requests,route=/v1\\ a,status=200 value=17i 5000064003\n\
         up value=1i 5000064003\n\
         http.requests,route=/v1\\ a,status=200 value=2i 6000064003\n"
    );
    assert_eq!(rejected, []);
}

#[test]
fn gzip_holds_the_same_text_and_is_the_same_every_time() {
    let points: Vec<_> = (0..500).map(|n| (n % 2, i64::from(n) * SECOND, 1, u64::from(n))).collect();
    let batch = batch(SECOND, 0, &[("a", &[]), ("b", &[("k", "v")])], &points);
    let packed = encode(&batch, &identity(SECOND), true);
    assert_eq!(packed, encode(&batch.clone(), &identity(SECOND), true));
    let mut unpacked = String::new();
    GzDecoder::new(body(&packed)).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, text(&batch).0);
    assert!(body(&packed).len() * 4 < unpacked.len());
}

#[test]
fn what_cannot_be_expressed_is_rejected_and_the_rest_is_not() {
    let batch = batch(
        SECOND,
        0,
        &[("_internal", &[]), ("a", &[("time", "1")]), ("b", &[("k", "v\\")]), ("c", &[("_value", "1")]), ("ok", &[])],
        &[
            (0, 0, 1, 0),
            (1, 0, 1, 1),
            (4, 0, 9, 2),
            (2, 0, 1, 3),
            (3, 0, 1, 4),
            (4, i64::MAX - 2, 1, 5),
            (0, SECOND, 1, 6),
        ],
    );
    let (text, rejected) = text(&batch);
    assert_eq!(text, "ok value=9i 3\n");
    let points: Vec<usize> = rejected.iter().map(|rejection| rejection.point).collect();
    assert_eq!(points, [0, 1, 3, 4, 5, 6]);
    assert!(rejected[0].reason.contains("underscore"), "{}", rejected[0].reason);
    assert!(rejected[1].reason.starts_with("tags.time: "), "{}", rejected[1].reason);
    assert!(rejected[2].reason.contains("backslash"), "{}", rejected[2].reason);
    assert!(rejected[4].reason.contains("2262"), "{}", rejected[4].reason);
}

#[test]
fn names_that_the_engine_would_change_are_rejected() {
    for (name, is_fine) in [
        ("a\\b", true),
        ("\\\\a", true),
        ("a b,c=d\"e", true),
        ("a\\ b", false),
        ("a\\,b", false),
        ("a\\=b", false),
        ("a\\\"b", false),
        ("a\\\\ b", false),
    ] {
        let batch = batch(SECOND, 0, &[(name, &[("k\\ \\=", "v\\,\\\"")])], &[(0, 0, 1, 0)]);
        assert_eq!(text(&batch).1.is_empty(), is_fine, "{name}");
    }
}

#[test]
fn a_partition_without_a_slot_range_encodes_to_nothing() {
    let mut batch = batch(SECOND, 0, &[("a", &[])], &[(0, 0, 1, 0)]);
    batch.id.partition = 64;
    assert_eq!(encode(&batch, &identity(SECOND), true), Encoded::default());
}

#[test]
fn without_window_each_event_is_a_point_in_its_millisecond() {
    let events = [(0, 7_000_123, 1, 10), (0, 7_000_123, 2, 11), (1, 7_999_999, 4, 11), (0, 8_000_000, 8, 12)];
    let batch = batch(0, 10, &[("a", &[]), ("b", &[])], &events);
    let (text, rejected) = text(&batch);
    let at = |milli: i64, offset: i64| milli * 1_000_000 + offset * 64 + 3;
    let expected = format!(
        "a value=1i {}\na value=2i {}\nb value=4i {}\na value=8i {}\n",
        at(7, 10),
        at(7, 11),
        at(7, 11),
        at(8, 12)
    );
    assert_eq!(text, expected);
    assert_eq!(rejected, []);
}

#[test]
fn events_of_one_message_series_and_millisecond_are_summed() {
    let batch = batch(0, 0, &[("a", &[])], &[(0, 5, 1, 0), (0, 6, 2, 0), (0, 5, 4, 1)]);
    assert_eq!(text(&batch).0, "a value=3i 3\na value=4i 67\n");
}

#[test]
fn a_sum_that_no_field_can_hold_is_rejected() {
    let most = u64::try_from(i64::MAX).unwrap();
    let batch = batch(0, 0, &[("a", &[])], &[(0, 5, most, 0), (0, 6, 1, 0), (0, 5, 1, 1)]);
    let (text, rejected) = text(&batch);
    assert_eq!(text, format!("a value={most}i 3\na value=1i 67\n"));
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].point, 1);
}

#[test]
fn a_million_events_of_one_nanosecond_all_count() {
    // What a bulk load with one timestamp looks like: more messages than a millisecond has places.
    let mut backend = BTreeMap::new();
    for first in (0..1_000_000).step_by(5_000) {
        let points: Vec<_> = (first..first + 5_000).map(|offset| (0, 42 * SECOND, 1, offset)).collect();
        store(&mut backend, &batch(0, first, &[("a", &[])], &points));
    }
    assert_eq!(backend.values().sum::<u64>(), 1_000_000);
    assert_eq!(backend.len(), 200);
}

proptest! {
    /// Batches of any length, parted in any way, written in any order and more than once: what a backend that overwrites
    /// holds in the end is every count once.
    #[test]
    fn totals_survive_overwriting(
        window in prop_oneof![Just(0), Just(SECOND), Just(60 * SECOND)],
        lengths in prop::collection::vec(1_usize..60, 1..12),
        events in prop::collection::vec((0_u32..3, 0_i64..4, 0_i64..3, 1_u64..1_000, 0_u64..2), 1..600),
        splits in any::<u16>(),
    ) {
        let series: &[(&str, &[(&str, &str)])] = &[("a", &[]), ("a", &[("k", "v")]), ("b", &[])];
        let (mut backend, mut expected) = (BTreeMap::new(), BTreeMap::new());
        let mut events = events.into_iter();
        let mut offset = 0;
        let mut batches = Vec::new();
        for length in lengths {
            let first = offset;
            let mut points: Vec<(u32, i64, u64, u64)> = Vec::new();
            for (series, second, fraction, value, step) in events.by_ref().take(length) {
                offset += step;
                let time = second * 400_000 + fraction * SECOND;
                let time = if window == 0 { time } else { time - time % window };
                *expected.entry(series).or_insert(0_u64) += value;
                match points.iter_mut().find(|point| window != 0 && point.0 == series && point.1 == time) {
                    Some(point) => point.2 += value,
                    None => points.push((series, time, value, offset)),
                }
            }
            offset += 1;
            batches.push(batch(window, first, series, &points));
        }
        for (index, batch) in batches.iter().enumerate() {
            store(&mut backend, batch);
            if splits >> (index % 16) & 1 == 1 && let Some((left, right)) = batch.split() {
                store(&mut backend, &right);
                store(&mut backend, &left);
            }
        }
        store(&mut backend, &batches[0]);
        let names = ["a", "a,k=v", "b"];
        let mut held = BTreeMap::new();
        for ((key, _), value) in &backend {
            let series = u32::try_from(names.iter().position(|name| name == key).unwrap()).unwrap();
            *held.entry(series).or_insert(0_u64) += value;
        }
        prop_assert_eq!(held, expected);
    }
}

/// Names, keys and values that line protocol takes as they are, must escape, or cannot hold; and long ones.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-z0-9./é-]{1,20}",
        2 => "[a-c ,=\\\\\"#_]{1,4}",
        1 => prop::sample::select(vec!["", "time", "_field", "_x", "#a", "a\nb", "a\rb", "a\0b", "a\\ b", "_stop", "value"])
            .prop_map(str::to_owned),
        1 => (1_usize..40_000).prop_map(|length| "x".repeat(length)),
        1 => Just(" ".repeat(33_000)),
    ]
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let series = (any_text(), prop::collection::btree_map(any_text(), any_text(), 0..4));
    let most = i64::MAX as u64;
    let value = prop_oneof![8 => 1_u64..100, 1 => Just(most), 1 => most - 100..most];
    // Many of one millisecond, many of their own, some at the end of what can be held.
    let time = prop_oneof![
        3 => 0_i64..3_000_000,
        2 => (0_i64..5_000).prop_map(|milli| 1_700_000_000_000_000_000 + milli * 1_000_000),
        1 => i64::MAX - 3_000_000..i64::MAX,
    ];
    let step = prop_oneof![4 => Just(0_u64), 8 => Just(1), 1 => 2_u64..10, 1 => 7_810_u64..7_817];
    let point = (0_usize..8, time, value, step);
    let windows = prop::sample::select(vec![0, 0, SECOND]);
    let parts = (prop::collection::vec(series, 1..8), prop::collection::vec(point, 0..120), windows, 0_u64..1 << 40);
    parts.prop_map(|(series, points, window, first)| {
        let mut table = tallybus_sdk::SeriesTable::new();
        for (name, tags) in &series {
            table.push(name, &tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>());
        }
        let mut offset = first;
        let points: Vec<_> = points
            .into_iter()
            .map(|(number, time, value, step)| {
                offset += step;
                let time = if window == 0 { time } else { time - time % window };
                (u32::try_from(number % series.len()).unwrap(), time, value, offset)
            })
            .collect();
        Batch { series: Arc::new(table), ..batch(window, first, &[], &points) }
    })
}

proptest! {
    /// The fast way and the plain way give the same bytes and the same rejections, for a batch and for all its parts.
    #[test]
    fn it_writes_what_the_plain_encoder_writes(batch in any_batch()) {
        let identity = identity(batch.window);
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let encoded = encode(&part, &identity, false);
            prop_assert_eq!(&encoded, &oracle::encode(&part, &identity));
            let packed = encode(&part, &identity, true);
            let mut unpacked = Vec::new();
            if !packed.is_nothing() {
                GzDecoder::new(body(&packed)).read_to_end(&mut unpacked).unwrap();
            }
            prop_assert!(unpacked == body(&encoded) && packed.rejected == encoded.rejected);
            if let Some((left, right)) = part.split().filter(|_| part.part.len() < 3) {
                parts.extend([left, right]);
            }
        }
    }
}

#[test]
fn a_large_batch_is_what_the_plain_encoder_writes() {
    let names: Vec<String> = (0..1_000).map(|number| format!("n{number}")).collect();
    let series: Vec<(&str, &[(&str, &str)])> = names.iter().map(|name| (name.as_str(), &[("k", "v")][..])).collect();
    // In one millisecond or in many; more messages than a slot range has places.
    for millis in [1, 17, 30_000] {
        let point = |n: u64| {
            ((n * 7 % 1_000) as u32, 42 * SECOND + (n % millis).cast_signed() * 1_000_000, 1 + n % 9, 5 + n / 2)
        };
        let batch = batch(0, 5, &series, &(0..20_000).map(point).collect::<Vec<_>>());
        assert!(encode(&batch, &identity(0), false) == oracle::encode(&batch, &identity(0)), "{millis}");
    }
}
