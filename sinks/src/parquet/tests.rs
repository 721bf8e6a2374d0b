use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tallybus_schemas::{Coordinate, Series};
use tallybus_sdk::{Batch, BatchId, Encoded, Point};

use super::encode::{Files, SCHEMA, day_bounds, day_of, encode, file_with, folder, is_name, name};
use super::read;

const DAY: i64 = 86_400 * 1_000_000_000;

fn batch(series: Vec<Series>, points: &[(u32, i64, u64)]) -> Batch {
    let point = |(index, &(series, time, value)): (usize, &(u32, i64, u64))| {
        let first = Coordinate { partition: 0, offset: index as u64, index: 0 };
        Point { series, time, value, events: 1, first }
    };
    Batch {
        id: BatchId { topic: "t".into(), partition: 0, first: 0, end: 9 },
        topic_index: 0,
        series: Arc::new(series.into_iter().collect()),
        points: points.iter().enumerate().map(point).collect(),
        window: 1,
        part: String::new(),
        stream: None,
        recovered: false,
    }
}

fn files(encoded: &Encoded) -> Vec<(i32, Bytes)> {
    let files = encoded.as_value::<Files>();
    files.iter().flat_map(|files| &files.0).map(|file| (file.day, file.content.clone())).collect()
}

fn rows(file: Bytes) -> Vec<(i64, Series, u64)> {
    let mut rows = Vec::new();
    let each = |row: read::Row| rows.push((row.time, (*row.series.unwrap()).clone(), row.value.unsigned_abs()));
    read::rows(file, each).unwrap();
    rows
}

#[test]
fn days_have_files_of_their_own() {
    let series = vec![Series::from_sorted("a", &[]), Series::from_sorted("b", &[("k", "v"), ("l", "w")])];
    let batch = batch(series.clone(), &[(0, DAY - 1, 1), (1, DAY, 2), (0, 0, 3), (0, i64::MAX, i64::MAX as u64)]);
    let encoded = encode(&batch);
    let files: BTreeMap<String, Bytes> = files(&encoded).into_iter().map(|(day, file)| (folder(day), file)).collect();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["date=1970-01-01", "date=1970-01-02", "date=2262-04-11"]);
    assert_eq!(rows(files["date=1970-01-01"].clone()), [(DAY - 1, series[0].clone(), 1), (0, series[0].clone(), 3)]);
    assert_eq!(rows(files["date=1970-01-02"].clone()), [(DAY, series[1].clone(), 2)]);
    assert_eq!(rows(files["date=2262-04-11"].clone())[0].2, i64::MAX as u64);
}

/// As another version of the library that writes Parquet may do.
#[test]
fn files_with_the_same_rows_are_the_same_whatever_their_bytes() {
    let series = vec![Series::from_sorted("a", &[]), Series::from_sorted("b", &[("k", "v"), ("l", "w")])];
    let schema = Arc::new(parquet::schema::parser::parse_message_type(SCHEMA).unwrap());
    let plain = parquet::file::properties::WriterProperties::builder().set_dictionary_enabled(false).build();
    let plain = Arc::new(plain);
    let rewritten = |batch: &Batch| Bytes::from(file_with(batch, &[0, 1], &schema, &plain).unwrap());
    let written = |batch: &Batch| files(&encode(batch))[0].1.clone();
    let one = batch(series.clone(), &[(0, 5, 1), (1, 6, 2)]);
    assert_ne!(written(&one), rewritten(&one));
    assert!(read::same_rows(&written(&one), &rewritten(&one)).unwrap());
    for other in [[(0, 5, 1), (1, 6, 3)], [(0, 5, 1), (1, 7, 2)], [(0, 5, 1), (0, 6, 2)], [(1, 6, 2), (0, 5, 1)]] {
        assert!(!read::same_rows(&written(&one), &written(&batch(series.clone(), &other))).unwrap(), "{other:?}");
    }
    assert!(!read::same_rows(&written(&one), &written(&batch(series, &[(0, 5, 1)]))).unwrap());
    assert!(read::same_rows(&written(&one), &Bytes::from_static(b"PAR1 and no more")).is_err());
}

#[test]
fn what_no_column_holds_is_rejected_or_halts() {
    let batch = batch(vec![Series::from_sorted("a", &[])], &[(0, 0, u64::MAX), (0, 0, 5)]);
    let encoded = encode(&batch);
    assert_eq!(encoded.rejected.iter().map(|rejection| rejection.point).collect::<Vec<_>>(), [0]);
    assert_eq!(rows(files(&encoded)[0].1.clone()).len(), 1);
    let far = Batch { id: BatchId { end: u64::MAX, ..batch.id.clone() }, ..batch };
    assert!(encode(&far).is_nothing());
}

#[test]
fn an_empty_batch_has_no_file() {
    assert_eq!(encode(&batch(Vec::new(), &[])), Encoded::default());
}

/// The bytes of a file are part of the promise only within a version; what is read from them is so for ever.
#[test]
fn names_are_distinguished_from_others() {
    let id = BatchId { topic: "a-1.b_c".into(), partition: 7, first: 5, end: 1 << 40 };
    assert_eq!(name(&id, None), "a-1.b_c-7-00000000000000000005-00000001099511627776.parquet");
    assert!(is_name(&name(&id, None)));
    for (stream, expected) in [
        ("kafka:cluster:x-Y_9", "a-1.b_c@x-Y_9-7-00000000000000000005-00000001099511627776.parquet"),
        ("kafka:a/b", "a-1.b_c@a_b-7-00000000000000000005-00000001099511627776.parquet"),
    ] {
        let found = name(&id, Some(&stream.parse().unwrap()));
        assert_eq!(found, expected);
        assert!(is_name(&found));
    }
    for other in [
        "part-00000.parquet",
        "a-7-5-6.parquet",
        "-7-00000000000000000005-00000001099511627776.parquet",
        "a-x-00000000000000000005-00000001099511627776.parquet",
        "a-7-00000000000000000005-00000001099511627776.parquet#1",
        "",
    ] {
        assert!(!is_name(other), "{other}");
    }
}

#[test]
fn days_and_folders() {
    for (day, expected) in
        [(0, "date=1970-01-01"), (-1, "date=1969-12-31"), (19_675, "date=2023-11-14"), (20_782, "date=2026-11-25")]
    {
        assert_eq!(folder(day), expected);
    }
    for day in -200_000..200_000 {
        assert_eq!(day_of(&folder(day)), Some(i64::from(day)));
    }
    for other in ["date=", "date=2026", "2026-11-25", "date=2026-11-x"] {
        assert_eq!(day_of(other), None, "{other}");
    }
    assert_eq!(day_bounds(1), (DAY, 2 * DAY));
    assert_eq!(day_bounds(106_751).1, i64::MAX);
}

proptest! {
    #[test]
    fn every_row_comes_back(
        series in prop::collection::vec(("\\PC{1,9}", prop::collection::btree_map("\\PC{1,9}", "\\PC{1,9}", 0..5)), 1..8),
        points in prop::collection::vec((0_u32..8, 0..3 * DAY, 1_u64..1 << 63), 0..60),
    ) {
        let series: Vec<Series> = series
            .iter()
            .map(|(name, tags)| {
                let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                Series::from_sorted(name, &tags)
            })
            .collect();
        let count = u32::try_from(series.len()).unwrap();
        let points: Vec<_> = points.into_iter().map(|(number, time, value)| (number % count, time, value)).collect();
        let batch = batch(series.clone(), &points);
        let encoded = encode(&batch);
        prop_assert_eq!(&encoded, &encode(&batch));
        let mut expected: Vec<_> =
            points.iter().map(|(number, time, value)| (*time, series[*number as usize].clone(), *value)).collect();
        // Days in order, rows of a day as they came.
        expected.sort_by_key(|(time, ..)| time / DAY);
        let found: Vec<_> = files(&encoded).into_iter().flat_map(|(_, file)| rows(file)).collect();
        prop_assert_eq!(found, expected);
    }
}
