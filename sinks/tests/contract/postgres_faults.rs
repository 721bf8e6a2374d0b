//! What only PostgreSQL can do to a sink.

use std::time::Instant;

use serde_json::json;
use tallybus_sdk::testkit::contract::Backend as _;
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::batches::{
    Expected, Maker, SECOND, START, check_halts, halts, recovered, series, settle, settle_all, write,
};
use tallybus_sdk::{Batch, SinkError, TimeRange, WriteOutcome};
use tallybus_tests::TcpMode;

use crate::subjects::postgres::{Postgres, PostgresCase};

fn in_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work);
}

fn retries(answer: &WriteOutcome, because: &str) -> bool {
    matches!(answer, WriteOutcome::Retry { reason, .. } if reason.contains(because))
}

fn one(from: u64, value: u64) -> Batch {
    Maker::new(SECOND, 0).from(from).batch(&[(series("a", &[]), START, value)])
}

/// One server for all of them: each has a case of its own.
#[test]
fn postgres_faults() {
    let Some(postgres) = Postgres::new() else { return };
    in_runtime(async {
        ahead_of_the_bus(&postgres.case()).await;
        rows_as_operators_see_them(&postgres.case()).await;
        tables_that_are_not_right(&postgres.case()).await;
        made_by_many_at_once(&postgres).await;
        lost_and_held_connections(&postgres.case()).await;
        many_refused(&postgres.case()).await;
        encrypted(&postgres.case()).await;
    });
}

async fn ahead_of_the_bus(case: &PostgresCase) {
    let first = Maker::new(SECOND, 0).batch(&[(series("a", &[]), START, 1), (series("b", &[]), START, 2)]);
    settle_all(&*case.sink(SECOND), &first).await;
    let anew = case.sink(SECOND);
    for fresh in [first.clone(), one(0, 9)] {
        for _ in 0..2 {
            assert!(halts(&write(&*anew, &fresh).await, "the topic was recreated"), "{fresh:?}");
        }
    }
    let inside = Batch { id: tallybus_sdk::BatchId { end: 5, ..one(1, 1).id }, ..one(1, 1) };
    assert!(halts(&write(&*anew, &inside).await, "is at offset 2"));
    assert!(halts(&write(&*anew, &recovered(&inside)).await, "inside batch"));
    let (half, _) = first.split().unwrap();
    assert!(halts(&write(&*anew, &half).await, "is a part"));
    let gap = one(100, 5);
    settle_all(&*anew, &gap).await;
    // A zombie's late try of an old batch that it had begun.
    settle_all(&*anew, &recovered(&first)).await;
    Expected::of([&first, &gap]).check(&*anew, SECOND).await;
}

async fn rows_as_operators_see_them(case: &PostgresCase) {
    let sink = case.sink(0);
    let most = i64::MAX as u64;
    let batch = Maker::new(0, 3).from(7).batch(&[
        (series("a", &[("k", "it's \"v\"")]), 1_700_000_000_123_456_789, 5),
        (series("a", &[]), i64::MAX, most),
        (series("a", &[]), 0, most),
        (series("a", &[]), 1, most),
    ]);
    settle_all(&*sink, &batch).await;
    let read = |what: &str| {
        case.administer(&format!("SET timezone = 'UTC'; SELECT {what} FROM \"{}\".counters", case.name)).unwrap()
    };
    assert_eq!(
        read(
            "concat_ws('|', min(time), min(time_ns), min(tags ->> 'k'), min(partition), min(first_offset)) || min(topic)"
        ),
        "1970-01-01 00:00:00+00|0|it's \"v\"|3|7tallybus.counters"
    );
    assert_eq!(read("max(time)"), "2262-04-11 23:47:16.854775+00");
    assert_eq!(
        read("min(time || '|' || time_ns) FILTER (WHERE value = 5)"),
        "2023-11-14 22:13:20.123456+00|1700000000123456789"
    );
    let held = sink.holdings(TimeRange::default()).await.unwrap();
    assert_eq!(held.totals().into_values().max(), Some(3 * u128::from(most)));
    assert!(sink.usage().iter().any(|usage| usage.what == "rows" && usage.amount == 4.0));
}

async fn tables_that_are_not_right(case: &PostgresCase) {
    let name = &case.name;
    let strict = |table: &str| case.with(&json!({"create": false, "table": table}));
    let missing = strict("none");
    assert!(check_halts(&missing.check().await, "tallybus sink ddl"));
    assert!(halts(&write(&*missing, &one(0, 1)).await, "create = true"));
    assert!(missing.totals(TimeRange::default()).await.is_err());
    // What is printed can be run, and is then right.
    case.administer(&strict("by hand").ddl().unwrap().replace("CREATE SCHEMA IF NOT EXISTS", "-- "));
    assert!(check_halts(&strict("by hand").check().await, "has no right to INSERT"));
    assert!(halts(&write(&*strict("by hand"), &one(0, 1)).await, "grant the role what it needs"));
    case.administer(&format!("GRANT ALL ON ALL TABLES IN SCHEMA \"{name}\" TO \"{name}\""));
    strict("by hand").check().await.unwrap();
    settle_all(&*strict("by hand"), &one(0, 1)).await;

    case.administer(&format!("ALTER TABLE \"{name}\".counters ALTER COLUMN value TYPE int"));
    let sink = case.sink(SECOND);
    assert!(check_halts(&sink.check().await, "column value of"));
    case.administer(&format!("ALTER TABLE \"{name}\".counters DROP COLUMN value"));
    assert!(check_halts(&sink.check().await, "has no column value"));
    assert!(halts(&write(&*sink, &one(0, 1)).await, "42703"));
    // `fix` makes what is missing, and leaves what is wrong to who made it so.
    assert!(sink.fix().await.is_err());
    case.administer(&format!("DROP TABLE \"{name}\".counters"));
    case.with(&json!({"create": false})).fix().await.unwrap();
    sink.check().await.unwrap();
    // A row that every point would break is nobody's bad point.
    case.administer(&format!("ALTER TABLE \"{name}\".counters ADD COLUMN mine int NOT NULL"));
    assert!(halts(&write(&*sink, &one(0, 1)).await, "23502"));
    case.administer(&format!("ALTER TABLE \"{name}\".counters DROP COLUMN mine"));
    settle_all(&*sink, &one(0, 1)).await;
    assert!(check_halts(&case.with(&json!({"database": "none"})).check().await, "create the database"));
}

async fn made_by_many_at_once(postgres: &Postgres) {
    let case = postgres.case();
    case.administer(&format!("DROP SCHEMA \"{0}\" CASCADE; GRANT CREATE ON DATABASE counters TO \"{0}\"", case.name));
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let sink = case.sink(SECOND);
        tasks.push(tokio::spawn(async move { sink.prepare().await }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    // Several partitions begin at once, each by two workers.
    let mut tasks = Vec::new();
    for n in 0..12 {
        let sink = case.sink(SECOND);
        let batch = recovered(&Maker::new(SECOND, n / 2).batch(&[(series("a", &[]), START, 1)]));
        tasks.push(tokio::spawn(async move { settle_all(&*sink, &batch).await }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let totals = case.sink(SECOND).totals(TimeRange::default()).await.unwrap();
    assert_eq!(totals.iter().map(|total| total.total).collect::<Vec<_>>(), [6]);
}

async fn lost_and_held_connections(case: &PostgresCase) {
    let sink = case.with(&json!({"timeout": "400ms"}));
    let first = one(0, 1);
    settle_all(&*sink, &first).await;
    case.end_connections();
    let second = one(1, 2);
    assert_eq!(settle(&*sink, &second).await, []);
    // Somebody holds the ledger's row: no answer in time, and nothing is left behind on the server.
    let third = one(2, 4);
    case.administer("SELECT 1");
    let holder = case.hold(&format!("SELECT * FROM \"{}\".counters_ledger FOR UPDATE", case.name)).await;
    assert!(retries(&write(&*sink, &third).await, "no answer in time"));
    drop(holder);
    settle_all(&*sink, &third).await;
    // An answer that never comes.
    case.proxy.set(TcpMode::Delay(std::time::Duration::from_secs(2)));
    let fourth = one(3, 8);
    assert!(retries(&write(&*sink, &fourth).await, "in time"));
    case.proxy.set(TcpMode::Pass);
    settle_all(&*case.sink(SECOND), &recovered(&fourth)).await;
    // A server that only reads for now.
    case.administer(&format!("ALTER ROLE \"{}\" SET default_transaction_read_only = on", case.name));
    case.end_connections();
    let fifth = one(4, 16);
    let fresh = case.sink(SECOND);
    assert!(retries(&write(&*fresh, &fifth).await, "25006"));
    assert!(matches!(fresh.check().await, Err(SinkError::Unavailable(_))));
    case.administer(&format!("ALTER ROLE \"{}\" SET default_transaction_read_only = off", case.name));
    case.end_connections();
    settle_all(&*fresh, &recovered(&fifth)).await;
    Expected::of([&first, &second, &third, &fourth, &fifth]).check(&*fresh, SECOND).await;
    // An older dump is restored under the worker.
    case.administer(&format!("UPDATE \"{}\".counters_ledger SET next_offset = 3 WHERE partition = 0", case.name));
    for _ in 0..2 {
        let answer = write(&*fresh, &one(5, 32)).await;
        assert!(
            matches!(&answer, WriteOutcome::Halt { reason } if reason.contains("was further before")),
            "{answer:?}"
        );
    }
}

/// Bad rows are found one by one; the good ones between them are in.
async fn many_refused(case: &PostgresCase) {
    case.administer(&format!("ALTER TABLE \"{}\".counters ADD CONSTRAINT even CHECK (value % 10 <> 0)", case.name));
    let sink = case.sink(SECOND);
    let events: Vec<_> = (1..=2_000).map(|n| (series("a", &[("n", &n.to_string())]), START, n)).collect();
    let batch = Maker::new(SECOND, 0).batch(&events);
    let began = Instant::now();
    let rejected = settle(&*sink, &batch).await;
    println!("200 of 2,000 rows refused: {:?}", began.elapsed());
    assert_eq!(
        rejected.iter().map(|(_, value)| *value).collect::<Vec<_>>(),
        (1..=200).map(|n| n * 10).collect::<Vec<_>>()
    );
    assert_eq!(settle(&*case.sink(SECOND), &recovered(&batch)).await, rejected);
    let total: u64 = sink.totals(TimeRange::default()).await.unwrap().iter().map(|total| total.total).sum();
    assert_eq!(total, 2_001_000 - 201_000);
}

async fn encrypted(case: &PostgresCase) {
    assert!(check_halts(&case.with(&json!({"tls": "require"})).check().await, "does not support TLS"));
    if tallybus_tests::program("openssl").is_none() {
        return;
    }
    case.administer(
        "COPY (SELECT 1) TO PROGRAM 'openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test \
         -addext subjectAltName=IP:127.0.0.1 -keyout server.key -out server.crt 2>/dev/null && chmod 600 server.key'",
    );
    case.administer("ALTER SYSTEM SET ssl = on");
    case.administer("SELECT pg_reload_conf()");
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&*ca, case.administer("SELECT pg_read_file('server.crt')").unwrap()).unwrap();
    let sink = case.with(&json!({"tls": "require"}));
    let mut tries = 0;
    while let Err(error) = sink.check().await {
        tries += 1;
        assert!(tries < 100, "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    settle_all(&*sink, &one(0, 1)).await;
    settle_all(&*case.with(&json!({"tls": "verify", "ca": ca})), &one(1, 1)).await;
    // Nobody has signed it that the system trusts; and it is for another name.
    assert!(check_halts(&case.with(&json!({"tls": "verify"})).check().await, "certificate"));
    let elsewhere = case.with(&json!({"tls": "verify", "ca": ca, "host": "localhost"})).check().await;
    assert!(check_halts(&elsewhere, "certificate"), "{elsewhere:?}");
}
