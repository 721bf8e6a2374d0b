use std::path::Path;

use proptest::prelude::*;
use serde_json::json;
use tallybus_schemas::{Coordinate, Series};
use tallybus_sdk::config::read_for_test;
use tallybus_sdk::{BatchId, Holdings, Point, Rejection, SeriesTable};

use super::*;
use crate::shared::json_tags::{series_of, tags_to_json};

const MOST: u64 = i64::MAX as u64;

fn sink(path: &Path, create: bool) -> SqliteSink {
    SqliteSink::new(Config { path: path.to_owned(), create }, 1_000_000_000)
}

fn batch(partition: u32, first: u64, values: &[u64]) -> Batch {
    let point = |(index, &value): (usize, &u64)| Point {
        series: u32::try_from(index % 2).unwrap(),
        time: 0,
        value,
        events: 1,
        first: Coordinate { partition, offset: first + index as u64, index: 0 },
    };
    Batch {
        id: BatchId { topic: "t".into(), partition, first, end: first + values.len() as u64 },
        topic_index: 0,
        series: Arc::new(SeriesTable::from_iter([
            Series::from_sorted("even", &[]),
            Series::from_sorted("odd \"q\"", &[("a\\", "é\""), ("b", "x,y=z")]),
        ])),
        points: values.iter().enumerate().map(point).collect(),
        window: 1_000_000_000,
        part: String::new(),
        stream: None,
        recovered: false,
    }
}

fn recovered(batch: &Batch) -> Batch {
    Batch { recovered: true, ..batch.clone() }
}

async fn write(sink: &SqliteSink, batch: &Batch) -> WriteOutcome {
    sink.write(batch, &sink.encode(batch)).await
}

async fn all(sink: &SqliteSink) -> Result<Holdings, SinkError> {
    let read_back: &dyn ReadBack = sink;
    read_back.collect(&WindowsQuery::default()).await
}

/// The sum of each series, in order.
async fn all_totals(sink: &SqliteSink) -> Result<Vec<u128>, SinkError> {
    Ok(all(sink).await?.totals().into_values().collect())
}

async fn total(sink: &SqliteSink) -> u128 {
    all_totals(sink).await.unwrap().iter().sum()
}

fn halts(answer: &WriteOutcome, because: &str) -> bool {
    matches!(answer, WriteOutcome::Halt { reason } if reason.contains(because))
}

#[tokio::test]
async fn operators_can_read_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counters.db");
    let sink = sink(&path, true);
    sink.check().await.unwrap();
    assert!(!path.exists(), "looking makes nothing");
    assert!(self::sink(&dir.path().join("no/such.db"), true).check().await.is_err());
    sink.prepare().await.unwrap();
    let mut batch = batch(0, 0, &[5, 7]);
    batch.points[1].time = 1_700_000_000_123_000_000;
    assert_eq!(write(&sink, &batch).await, WriteOutcome::Done);
    let connection = Connection::open(&path).unwrap();
    let read = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(read("SELECT time FROM readable WHERE tags != '{}'"), "2023-11-14 22:13:20.123");
    assert_eq!(
        read("SELECT name || ' ' || total || ' ' || first_window FROM counts WHERE tags = '{}'"),
        "even 5 1970-01-01 00:00:00"
    );
    assert_eq!(read("SELECT tags ->> 'b' FROM counters WHERE value = 7"), "x,y=z");
    assert_eq!(read("PRAGMA journal_mode"), "wal");
    assert_eq!(read("PRAGMA integrity_check"), "ok");
}

#[tokio::test]
async fn a_file_that_is_ahead_of_the_bus_halts_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    assert_eq!(write(&sink(&path, true), &batch(0, 0, &[1, 2, 3])).await, WriteOutcome::Done);
    let anew = sink(&path, true);
    for fresh in [batch(0, 0, &[1, 2, 3]), batch(0, 0, &[9]), batch(0, 1, &[9, 9])] {
        // The first answer must not make the second one milder.
        for _ in 0..3 {
            assert!(halts(&write(&anew, &fresh).await, "the topic was recreated"), "{fresh:?}");
        }
    }
    assert!(halts(&write(&anew, &batch(0, 2, &[1, 1])).await, "inside batch t/0/2-4"));
    assert!(halts(&write(&anew, &recovered(&batch(0, 2, &[1, 1]))).await, "inside batch"));
    assert_eq!(total(&anew).await, 6);
    assert_eq!(write(&anew, &batch(0, 3, &[4])).await, WriteOutcome::Done);
    assert_eq!(write(&anew, &batch(0, 100, &[5])).await, WriteOutcome::Done, "a gap is none of the ledger's business");
    assert_eq!(total(&anew).await, 15);
}

#[tokio::test]
async fn what_this_process_wrote_or_found_sealed_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let (one, two) = (sink(&path, true), sink(&path, true));
    let first = batch(0, 0, &[1, 2, 3]);
    for _ in 0..3 {
        assert_eq!(write(&one, &first).await, WriteOutcome::Done);
    }
    assert_eq!(write(&two, &recovered(&first)).await, WriteOutcome::Done);
    assert_eq!(write(&one, &batch(0, 3, &[4])).await, WriteOutcome::Done);
    assert_eq!(write(&two, &recovered(&first)).await, WriteOutcome::Done, "an older sealed batch of several");
    assert_eq!(total(&one).await, 10);
}

#[tokio::test]
async fn a_file_that_loses_batches_under_the_worker_halts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counts.db");
    let sink = sink(&path, true);
    let (first, second) = (batch(0, 0, &[1, 2]), batch(0, 2, &[4]));
    assert_eq!(write(&sink, &first).await, WriteOutcome::Done);
    // A backup is restored into the open file, as SQLite's own backup does.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("UPDATE ledger SET next_offset = 1; DELETE FROM counters").unwrap();
    for _ in 0..2 {
        assert!(halts(&write(&sink, &second).await, "was further before: it was restored from a backup"));
    }
    assert_eq!(total(&sink).await, 0);
    other.execute_batch("UPDATE ledger SET next_offset = 2").unwrap();
    assert_eq!(write(&sink, &second).await, WriteOutcome::Done);
}

#[tokio::test]
async fn a_file_that_loses_batches_between_a_workers_look_and_its_first_write_halts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counts.db");
    assert_eq!(write(&sink(&path, true), &batch(0, 0, &[1, 2])).await, WriteOutcome::Done);
    // Another worker takes the partition over: it finds the ledger where the group says that it is.
    let next = sink(&path, true);
    assert_eq!(next.ledger_end("t", 0).await.unwrap().map(|end| end.offset), Some(2));
    Connection::open(&path).unwrap().execute_batch("UPDATE ledger SET next_offset = 1; DELETE FROM counters").unwrap();
    assert!(halts(&write(&next, &batch(0, 2, &[4])).await, "was further before: it was restored from a backup"));
    assert_eq!(total(&next).await, 0);
}

#[tokio::test]
async fn a_sum_over_64_bits_is_rejected_the_same_way_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let one = sink(&path, true);
    assert_eq!(write(&one, &batch(0, 0, &[MOST, 1])).await, WriteOutcome::Done);
    let over = batch(0, 2, &[1, 1]);
    let answer = write(&one, &over).await;
    assert!(
        matches!(&answer, WriteOutcome::Rejected(points) if points.len() == 1 && points[0].point == 0),
        "{answer:?}"
    );
    assert_eq!(write(&one, &over).await, answer);
    drop(one);
    let two = sink(&path, true);
    assert_eq!(write(&two, &recovered(&over)).await, answer);
    assert_eq!(write(&two, &recovered(&batch(0, 0, &[MOST, 1]))).await, WriteOutcome::Done);
    let totals = all_totals(&two).await.unwrap();
    assert_eq!(totals, [MOST.into(), 2]);
    // Sums over several windows may pass 2^63.
    let mut later = batch(0, 4, &[MOST, 1]);
    later.points[0].time = 1_000_000_000;
    assert_eq!(write(&two, &later).await, WriteOutcome::Done);
    assert_eq!(all_totals(&two).await.unwrap()[0], 2 * u128::from(MOST));
    assert_eq!(
        write(&two, &batch(0, 6, &[u64::MAX])).await,
        WriteOutcome::Rejected(vec![Rejection { point: 0, reason: reason(&answer) }])
    );
}

/// Case 14: the view for people, with sums over 2^63, in a new file and in one of an earlier version.
#[tokio::test]
async fn the_view_counts_is_exact_beyond_64_bits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    assert_eq!(write(&sink(&path, true), &batch(0, 0, &[MOST, 1])).await, WriteOutcome::Done);
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "DROP VIEW counts; CREATE VIEW counts AS SELECT name, sum(value) AS total FROM counters GROUP BY name",
        )
        .unwrap();
    let mut later = batch(0, 2, &[MOST, 9_999_999_999]);
    later.points[0].time = 1_000_000_000;
    assert_eq!(write(&sink(&path, true), &later).await, WriteOutcome::Done);
    let mut last = batch(0, 4, &[MOST, 1]);
    last.points[0].time = 2_000_000_000;
    assert_eq!(write(&sink(&path, true), &last).await, WriteOutcome::Done);
    let rows = |sql: &str| -> Vec<(String, String, i64)> {
        let mut select = connection.prepare(sql).unwrap();
        let rows = select.query_map([], |row| {
            let total = match row.get_ref(1).unwrap() {
                rusqlite::types::ValueRef::Integer(total) => total.to_string(),
                other => other.as_str().unwrap().to_owned(),
            };
            Ok((row.get(0)?, total, row.get(2)?))
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    };
    let large = format!("{:>28}", 3 * u128::from(MOST));
    assert_eq!(
        rows("SELECT name, total, windows FROM counts ORDER BY total DESC"),
        [("even".to_owned(), large, 3), ("odd \"q\"".to_owned(), "10000000001".to_owned(), 1)]
    );
    // The largest that is an integer, and one more.
    connection.execute_batch("DELETE FROM counters WHERE window_start > 0").unwrap();
    assert_eq!(rows("SELECT name, total, windows FROM counts")[0].1, MOST.to_string());
    connection.execute("INSERT INTO counters VALUES ('even', '{}', 5, 1)", []).unwrap();
    assert_eq!(rows("SELECT name, total, windows FROM counts")[0].1.trim_start(), (MOST + 1).to_string());
}

fn reason(answer: &WriteOutcome) -> String {
    let WriteOutcome::Rejected(points) = answer else { panic!("{answer:?}") };
    points[0].reason.clone()
}

#[tokio::test]
async fn parts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(&dir.path().join("a.db"), true);
    let (left, _) = batch(0, 0, &[1, 2]).split().unwrap();
    assert!(halts(&write(&sink, &left).await, "t/0/0-2#0 is a part"));
    assert_eq!(total(&sink).await, 0);
}

#[tokio::test]
async fn files_that_are_not_ours_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.db");
    assert!(halts(&write(&sink(&missing, false), &batch(0, 0, &[1])).await, "does not exist"));
    assert!(!missing.exists());
    assert!(matches!(all_totals(&sink(&missing, false)).await, Err(SinkError::Halt(_))));
    assert_eq!(total(&sink(&missing, true)).await, 0);
    assert!(!missing.exists(), "looking creates nothing");

    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE counters (x)").unwrap();
    let before = std::fs::read(&foreign).unwrap();
    assert!(halts(&write(&sink(&foreign, true), &batch(0, 0, &[1])).await, "is not a file of Tallybus"));
    assert!(sink(&foreign, true).check().await.is_err());
    assert_eq!(std::fs::read(&foreign).unwrap(), before);

    let text = dir.path().join("text.db");
    std::fs::write(&text, "this is a text of somebody's, and long enough to have a header of 100 bytes; ".repeat(9))
        .unwrap();
    assert!(halts(&write(&sink(&text, true), &batch(0, 0, &[1])).await, "not a database"));

    let later = dir.path().join("later.db");
    assert_eq!(write(&sink(&later, true), &batch(0, 0, &[1])).await, WriteOutcome::Done);
    Connection::open(&later).unwrap().pragma_update(None, "user_version", 2).unwrap();
    assert!(halts(&write(&sink(&later, true), &batch(0, 1, &[1])).await, "later version"));

    let folder = sink(&dir.path().join("no/such/directory/a.db"), true);
    assert!(halts(&write(&folder, &batch(0, 0, &[1])).await, "a.db"));
}

#[tokio::test]
async fn a_file_that_is_replaced_under_the_worker_halts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let worker = sink(&path, true);
    assert_eq!(write(&worker, &batch(0, 0, &[1])).await, WriteOutcome::Done);
    let aside = dir.path().join("aside.db");
    for name in ["", "-wal", "-shm"] {
        let from = dir.path().join(format!("a.db{name}"));
        if from.exists() {
            std::fs::rename(&from, dir.path().join(format!("aside.db{name}"))).unwrap();
        }
    }
    assert!(halts(&write(&worker, &batch(0, 1, &[2])).await, "moved, removed or replaced"));
    assert_eq!(write(&sink(&path, true), &batch(0, 7, &[9])).await, WriteOutcome::Done);
    assert!(halts(&write(&worker, &batch(0, 1, &[2])).await, "moved, removed or replaced"));
    std::fs::rename(&aside, &path).unwrap();
    for name in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(dir.path().join(format!("a.db{name}")));
        let _ = std::fs::rename(dir.path().join(format!("aside.db{name}")), dir.path().join(format!("a.db{name}")));
    }
    assert_eq!(write(&worker, &batch(0, 1, &[2])).await, WriteOutcome::Done);
    assert_eq!(total(&worker).await, 3);
}

#[tokio::test]
async fn another_writers_transaction_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let worker = sink(&path, true);
    worker.prepare().await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = batch(0, 0, &[1]);
    let (answer, ()) = tokio::join!(write(&worker, &first), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        other.execute_batch("COMMIT").unwrap();
    });
    assert_eq!(answer, WriteOutcome::Done);
}

#[test]
fn every_error_is_retried_or_needs_the_operator() {
    let path = Path::new("a.db");
    let fault = |code| file::fault(path, &rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
    for code in [5, 6, 7, 9, 10, 13, 15, 17, 261, 266] {
        assert!(fault(code).is_retry(), "{code}");
    }
    for code in [1, 3, 8, 11, 14, 19, 20, 23, 26, 1032] {
        assert!(matches!(fault(code), Fault::Operator { .. }), "{code}");
    }
}

#[test]
fn settings_name_what_is_missing() {
    let read = |table: serde_json::Value| {
        let (built, problems) = read_for_test(&table, config::parse);
        (built.is_some(), problems.join("\n"))
    };
    assert_eq!(read(json!({"path": "a.db"})), (true, String::new()));
    assert_eq!(read(json!({"path": "a.db", "create": false})), (true, String::new()));
    let (built, problems) = read(json!({"create": "maybe", "pth": 1}));
    assert!(!built);
    for expected in
        ["path: missing required setting", "create: expected true or false", "unknown key `pth`, did you mean `path`?"]
    {
        assert!(problems.contains(expected), "{problems}");
    }
    assert!(!read(json!({"path": ":memory:"})).0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_write_the_same_batches_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let worker = sink(&path, true);
        tasks.push(tokio::spawn(async move {
            for number in 0..25 {
                let batch = recovered(&batch(number % 3, u64::from(number / 3) * 4, &[1, 10, 100, 1_000]));
                loop {
                    match write(&worker, &batch).await {
                        WriteOutcome::Done => break,
                        WriteOutcome::Retry { .. } => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(total(&sink(&path, true)).await, 25 * 1_111);
}

proptest! {
    #[test]
    fn tags_survive_as_json(tags in prop::collection::btree_map("[^\\p{C}]{1,9}", "[^\\p{C}]{1,9}", 0..5)) {
        let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let series = Series::from_sorted("n", &tags);
        prop_assert_eq!(series_of("n", &tags_to_json(tags.into_iter())), Some(series));
    }
}
