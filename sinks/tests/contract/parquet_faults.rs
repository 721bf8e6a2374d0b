//! What only files can do to a sink.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::batches::{
    Expected, Maker, SECOND, START, check_halts, halts, recovered, series, settle_all, write,
};
use tallybus_sdk::{Batch, Sink, TimeRange, WriteOutcome};
use tallybus_tests::{FaultProxy, Mode};

use crate::subjects::build;

fn sink(settings: Value) -> Arc<dyn Sink> {
    build("parquet", settings, SECOND, &["tallybus.counters"])
}

fn one(value: u64) -> Batch {
    Maker::new(SECOND, 0).batch(&[(series("a", &[("k", "v")]), START, value)])
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Another batch of the same offsets is another topic's: nothing is written over, whoever asks.
async fn other_content_halts(settings: &Value) {
    let first = one(1);
    settle_all(&*sink(settings.clone()), &first).await;
    for _ in 0..2 {
        let anew = sink(settings.clone());
        assert!(halts(&write(&*anew, &one(2)).await, "the topic was recreated"));
        assert!(halts(&write(&*anew, &one(2)).await, "the topic was recreated"));
        // Sealed before the worker halted and restarted: the halt stays one.
        assert!(halts(&write(&*anew, &recovered(&one(2))).await, "the topic was recreated"));
    }
    settle_all(&*sink(settings.clone()), &recovered(&one(1))).await;
    Expected::of([&first]).check(&*sink(settings.clone()), SECOND).await;
}

/// A version without the topic's incarnation in its file names wrote a batch, and was stopped before it settled.
#[tokio::test]
async fn a_batch_that_an_earlier_version_wrote_is_not_written_again_under_its_new_name() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("counts");
    let settings = json!({"path": folder, "create": true});
    let earlier = sink(settings.clone());
    earlier.admin().unwrap().prepare().await.unwrap();
    settle_all(&*earlier, &one(1)).await;
    let before = files(&folder);
    let named = |batch: Batch| Batch { stream: Some("kafka:cluster:id".parse().unwrap()), ..batch };
    settle_all(&*sink(settings.clone()), &recovered(&named(one(1)))).await;
    assert_eq!(files(&folder), before);
    assert!(halts(&write(&*sink(settings.clone()), &recovered(&named(one(2)))).await, "the topic was recreated"));
    assert_eq!(files(&folder), before);
}

#[tokio::test]
async fn a_directory_as_operators_find_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new/counts");
    let settings = json!({"path": folder});
    assert!(check_halts(&sink(settings.clone()).check().await, "`create = true`"));
    assert!(halts(&write(&*sink(settings.clone()), &one(1)).await, "does not exist"));
    let creating = sink(json!({"path": folder, "create": true}));
    creating.check().await.unwrap();
    assert_eq!(creating.totals(TimeRange::default()).await.unwrap(), []);
    assert!(!folder.exists(), "looking makes nothing");
    creating.prepare().await.unwrap();
    other_content_halts(&settings).await;

    let name = "tallybus.counters-0-00000000000000000000-00000000000000000001.parquet";
    assert_eq!(files(&folder), [folder.join("date=2023-11-14").join(name)]);
    // Begun by a process that was killed, and somebody else's: neither is counted, or seen by `*.parquet`.
    let begun = folder.join("date=2023-11-14").join(format!("{name}#1"));
    std::fs::write(&begun, &std::fs::read(&files(&folder)[0]).unwrap()[..99]).unwrap();
    std::fs::write(folder.join("date=2023-11-14/notes.txt"), "mine").unwrap();
    std::fs::create_dir(folder.join("mine")).unwrap();
    std::fs::write(folder.join("mine/part-0.parquet"), "mine").unwrap();
    let reader = sink(settings.clone());
    Expected::of([&one(1)]).check(&*reader, SECOND).await;
    assert_eq!(reader.usage().iter().map(|usage| usage.what).collect::<Vec<_>>(), ["files", "bytes"]);
    // One that has our name and is damaged is told, not left out.
    std::fs::write(folder.join("date=2023-11-14").join(name), "PAR1 and no more").unwrap();
    let damaged = reader.totals(TimeRange::default()).await.map(|_| ());
    assert!(check_halts(&damaged, &format!("{name} cannot be read")), "{damaged:?}");
}

#[tokio::test]
async fn a_batch_over_midnight_is_whole_again_after_a_crash_between_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let settings = json!({"path": dir.path()});
    let midnight = START - START.rem_euclid(86_400 * SECOND);
    let events: Vec<_> = (-3..3)
        .map(|n| {
            (series("a", if n % 2 == 0 { &[("k", "v"), ("l", "é")] } else { &[] }), midnight + n * SECOND, 1 << (n + 3))
        })
        .collect();
    let batch = Maker::new(SECOND, 0).batch(&events);
    settle_all(&*sink(settings.clone()), &batch).await;
    let both = files(dir.path());
    assert_eq!(both.len(), 2);
    let bytes: Vec<Vec<u8>> = both.iter().map(|path| std::fs::read(path).unwrap()).collect();
    for lost in &both {
        std::fs::remove_file(lost).unwrap();
        settle_all(&*sink(settings.clone()), &recovered(&batch)).await;
        let again: Vec<Vec<u8>> = both.iter().map(|path| std::fs::read(path).unwrap()).collect();
        assert_eq!(again, bytes, "the same bytes under the same names");
    }
    Expected::of([&batch]).check(&*sink(settings), SECOND).await;
}

#[test]
fn s3_says_no() {
    let Some(server) = tallybus_tests::s3() else { return };
    server.create_bucket("counts").unwrap();
    let proxy = FaultProxy::start(&server.url()).unwrap();
    let settings = |path: &str| {
        json!({
            "path": path, "endpoint": proxy.url(), "region": "eu-west-1", "access_key_id": "tests",
            "secret_access_key": "a secret"
        })
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let good = settings("s3://counts/a b");
        other_content_halts(&good).await;
        let key = "a b/date=2023-11-14/tallybus.counters-0-00000000000000000000-00000000000000000001.parquet";
        assert!(server.object("counts", key).unwrap().starts_with(b"PAR1"));
        let missing = sink(settings("s3://none"));
        let check = missing.check().await;
        assert!(check_halts(&check, "create the bucket"), "{check:?}");
        assert!(halts(&write(&*missing, &one(1)).await, "create the bucket"));
        let later = Maker::new(SECOND, 1).batch(&[(series("a", &[]), START, 1)]);
        let answer = |status, code: &str| Mode::Answer {
            status,
            headers: vec![("Content-Type".to_owned(), "application/xml".to_owned())],
            body: format!("<Error><Code>{code}</Code><Message>told</Message></Error>"),
        };
        for (status, code, waits) in [
            (301, "PermanentRedirect", false),
            (400, "AuthorizationHeaderMalformed", false),
            (400, "ExpiredToken", false),
            (403, "AccessDenied", false),
            (403, "SignatureDoesNotMatch", false),
            (409, "ConditionalRequestConflict", true),
            (500, "InternalError", true),
            (503, "SlowDown", true),
        ] {
            proxy.set(answer(status, code));
            let answer = write(&*sink(good.clone()), &later).await;
            match &answer {
                WriteOutcome::Retry { .. } => assert!(waits, "{code}: {answer:?}"),
                WriteOutcome::Halt { .. } => assert!(!waits, "{code}: {answer:?}"),
                _ => panic!("{code}: {answer:?}"),
            }
        }
        proxy.set(Mode::Pass);
        settle_all(&*sink(good), &later).await;
    });
}

/// ClickHouse's engine knows nothing of this library, and reads the files by its own.
#[test]
fn another_reader_finds_the_same() {
    let Some(clickhouse) = crate::subjects::servers::clickhouse() else { return };
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(json!({"path": dir.path()}));
    let midnight = START - START.rem_euclid(86_400 * SECOND);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for partition in 0..3 {
            let tags: &[(&str, &str)] = if partition == 0 { &[] } else { &[("k", "it's \"é\""), ("l", "2")] };
            let events: Vec<_> = (-500..500).map(|n| (series("a", tags), midnight + n * SECOND + 7, 3)).collect();
            settle_all(&*sink, &Maker::new(0, partition).batch(&events)).await;
        }
    });
    let files = format!("file('{}/**/*.parquet', Parquet)", dir.path().display());
    let found = clickhouse.query(&format!(
        "SELECT date, mapKeys(tags), tags['k'] = 'it\\'s \"é\"' AS is_same, sum(value), count(), uniqExact(partition) FROM {files} \
         WHERE toDate(time) = date AND toUnixTimestamp64Micro(time) * 1000 + 7 = time_ns GROUP BY ALL ORDER BY ALL"
    ));
    let expected = "2023-11-13\t[]\t0\t1500\t500\t1\n2023-11-13\t['k','l']\t1\t3000\t1000\t2\n\
                    2023-11-14\t[]\t0\t1500\t500\t1\n2023-11-14\t['k','l']\t1\t3000\t1000\t2\n";
    assert_eq!(found.unwrap(), expected);
}
