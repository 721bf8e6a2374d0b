use std::io::Read as _;
use std::sync::Arc;

use tallybus_schemas::{Coordinate, Series};
use tallybus_sdk::BatchId;

use super::*;

fn tables(columns: &[&str]) -> Tables {
    Tables {
        schema: "s".to_owned(),
        table: "t".to_owned(),
        columns: columns.iter().map(|key| (*key).to_owned()).collect(),
    }
}

fn batch(series: &[Series], points: &[(u32, i64, u64)]) -> Batch {
    let point = |(index, &(series, time, value)): (usize, &(u32, i64, u64))| {
        let first = Coordinate { partition: 3, offset: 10 + index as u64, index: 0 };
        Point { series, time, value, events: 1, first }
    };
    Batch {
        id: BatchId { topic: "t'c".into(), partition: 3, first: 10, end: 10 + points.len() as u64 },
        topic_index: 0,
        series: Arc::new(series.iter().collect()),
        points: points.iter().enumerate().map(point).collect(),
        window: 1_000_000_000,
        part: String::new(),
        stream: None,
        recovered: false,
    }
}

fn parts(encoded: &Encoded) -> Vec<String> {
    let texts = encoded.as_many().unwrap().iter().map(|text| String::from_utf8(text.to_vec()));
    texts.map(Result::unwrap).collect()
}

#[test]
fn rows_read_as_operators_expect() {
    let series = [
        Series::from_sorted("http.requests", &[("route", "/v1"), ("status", "200")]),
        Series::from_sorted("it's", &[("q", "a\"b")]),
    ];
    let batch = batch(&series, &[(0, 1_700_000_000_000_000_000, 5), (1, 1_700_000_000_000_000_007, 1)]);
    let found = parts(&statements(&batch, &tables(&["route"])));
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0],
        "INSERT INTO \"s\".\"t\" (window_start, nanos, name, \"route\", tags, value, topic, partition_id, first_offset) VALUES \
         ('2023-11-14 22:13:20',0,'http.requests','/v1',JSON_PARSE('{\"status\":\"200\"}'),5,'t''c',3,10),\
         ('2023-11-14 22:13:20',7,'it''s',NULL,JSON_PARSE(REPLACE('{\"q\":\"a~\"b\"}','~',CHR(92))),1,'t''c',3,10)"
    );
}

#[test]
fn statements_are_filled_to_the_limit_and_no_further() {
    let series = [Series::from_sorted(&"n".repeat(400), &[("k", &"v".repeat(500))])];
    let points: Vec<(u32, i64, u64)> = (0..3_450).map(|n| (0, n * 1_000_000_000, 1)).collect();
    let whole = batch(&series, &points);
    let inserts = parts(&statements(&whole, &tables(&[])));
    assert!(inserts.len() + FRAME <= MAX_STATEMENTS);
    let row = inserts.last().unwrap().len().max(1_000);
    for (at, statement) in inserts.iter().enumerate() {
        assert!(statement.len() <= MAX_STATEMENT);
        assert!(at + 1 == inserts.len() || statement.len() > MAX_STATEMENT - row, "room for another row was left");
    }
    // The largest that fits, and one row more.
    let fits = |count: usize| !statements(&batch(&series, &points[..count]), &tables(&[])).is_nothing();
    let mut most = 3_450;
    assert!(fits(most));
    let more: Vec<(u32, i64, u64)> = (0..4_000).map(|n| (0, n * 1_000_000_000, 1)).collect();
    while !statements(&batch(&series, &more[..most + 1]), &tables(&[])).is_nothing() {
        most += 1;
    }
    let found = parts(&statements(&batch(&series, &more[..most]), &tables(&[])));
    assert_eq!(found.len() + FRAME, MAX_STATEMENTS);
    let over = batch(&series, &more[..most + 1]);
    let (left, right) = over.split().unwrap();
    for half in [left, right] {
        assert!(!statements(&half, &tables(&[])).is_nothing());
    }
}

#[test]
fn what_redshift_cannot_hold_is_rejected_and_the_rest_is_not() {
    let long = "é".repeat(600);
    let tags: Vec<(String, String)> = (10..74).map(|n| (format!("k{n}"), "x".repeat(1_024))).collect();
    let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let series = [
        Series::from_sorted("fine", &[]),
        Series::from_sorted("nul\0", &[]),
        Series::from_sorted("n", &[("k", "\u{ffff}")]),
        Series::from_sorted(&long, &[]),
        Series::from_sorted("n", &[("route", &long)]),
        Series::from_sorted("huge", &tags),
    ];
    let mut points: Vec<(u32, i64, u64)> = (0..6).map(|n| (n, 0, 1)).collect();
    points.push((0, 0, u64::MAX));
    let batch = batch(&series, &points);
    for encode in [statements, object] {
        let encoded = encode(&batch, &tables(&["route"]));
        let rejected: Vec<usize> = encoded.rejected.iter().map(|rejection| rejection.point).collect();
        assert_eq!(rejected, [1, 2, 3, 4, 5, 6]);
        assert!(encoded.rejected.iter().all(|rejection| !rejection.reason.is_empty()));
        assert!(!encoded.is_nothing());
        assert_eq!(encode(&batch, &tables(&["route"])), encoded, "the same bytes every time");
    }
}

#[test]
fn an_object_is_lines_of_json() {
    let series = [Series::from_sorted("a\\b", &[("Route", "/v1"), ("k", "\"")])];
    let batch = batch(&series, &[(0, 1_700_000_000_123_456_789, 5), (0, 0, 6)]);
    let encoded = object(&batch, &tables(&["Route"]));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&encoded.as_bytes().unwrap()[..]).read_to_string(&mut text).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        lines[0],
        serde_json::json!({"window_start": "2023-11-14 22:13:20.123456", "nanos": 789, "name": "a\\b", "route": "/v1",
            "tags": {"k": "\""}, "value": 5, "topic": "t'c", "partition_id": 3, "first_offset": 10})
    );
}
