//! What only ClickHouse can do to a sink.

use serde_json::json;
use tallybus_sdk::testkit::contract::Backend as _;
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::batches::{
    Expected, Maker, SECOND, START, check_halts, halts, recovered, series, settle, settle_all, write,
};
use tallybus_sdk::{Batch, TimeRange, WriteOutcome};
use tallybus_tests::Mode;

use crate::subjects::clickhouse::{ClickHouse, ClickHouseCase, exception};

const DAY: i64 = 86_400 * SECOND;

/// One server for all of them: each has a case of its own.
#[test]
fn clickhouse_faults() {
    let Some(clickhouse) = ClickHouse::new() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        beyond_the_window(&clickhouse.case()).await;
        halves_and_wholes(&clickhouse.case()).await;
        partitions_half_written(&clickhouse.case()).await;
        views_count_once(&clickhouse.case()).await;
        tables_that_are_not_right(&clickhouse.case()).await;
        rows_as_operators_see_them(&clickhouse.case()).await;
        what_the_server_says(&clickhouse.case()).await;
    });
}

/// The server has forgotten the token: the rows themselves tell.
async fn beyond_the_window(case: &ClickHouseCase) {
    case.run(&format!(
        "ALTER TABLE `{}`.counters MODIFY SETTING non_replicated_deduplication_window = 1",
        case.database
    ));
    let sink = case.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let batches: Vec<Batch> = (0..5).map(|n| maker.batch(&[(series("a", &[]), START + n * SECOND, 1 << n)])).collect();
    for batch in &batches {
        settle_all(&*sink, batch).await;
    }
    for batch in &batches {
        settle_all(&*case.sink(SECOND), &recovered(batch)).await;
    }
    // The same process, which lost the answer and tries again much later.
    case.proxy.set(Mode::ApplyThenCut);
    let last = maker.batch(&[(series("a", &[]), START, 1_000)]);
    assert!(matches!(write(&*sink, &last).await, WriteOutcome::Retry { .. }));
    case.proxy.set(Mode::Pass);
    let other = Maker::new(SECOND, 1).batch(&[(series("a", &[]), START, 7)]);
    settle_all(&*sink, &other).await;
    settle_all(&*sink, &last).await;
    Expected::of(batches.iter().chain([&last, &other])).check(&*sink, SECOND).await;
}

/// Halves are in when the worker dies, and then the constraint that led to them is gone, or comes too late.
async fn halves_and_wholes(case: &ClickHouseCase) {
    let database = &case.database;
    let sink = case.sink(SECOND);
    let bad = series("bad", &[]);
    let mut maker = Maker::new(SECOND, 0);
    let events: Vec<_> = (0..8).map(|n| (series("good", &[("n", &n.to_string())]), START, 1 << n)).collect();
    let mut with_bad = events.clone();
    with_bad.push((bad.clone(), START, 1_000));
    let batch = maker.batch(&with_bad);
    case.refuse(&bad, START).await;
    assert!(matches!(write(&*sink, &batch).await, WriteOutcome::Split { .. }));
    let (left, right) = batch.split().unwrap();
    settle_all(&*sink, &left).await;
    case.run(&format!("ALTER TABLE `{database}`.counters DROP CONSTRAINT refused"));
    let successor = case.sink(SECOND);
    let again = recovered(&batch);
    assert!(matches!(write(&*successor, &again).await, WriteOutcome::Split { .. }), "never whole beside a half");
    assert_eq!(settle(&*successor, &again).await, []);
    assert_eq!(settle(&*case.sink(SECOND), &again).await, []);
    assert!(right.part == "1");
    // In whole, its answer lost, and refused from now on.
    let whole = maker.batch(&[(bad.clone(), START, 5), (series("good", &[]), START, 6)]);
    settle_all(&*successor, &whole).await;
    case.refuse(&bad, START).await;
    settle_all(&*case.sink(SECOND), &recovered(&whole)).await;
    Expected::of([&batch, &whole]).check(&*sink, SECOND).await;
}

/// The server took a block of two partitions and died between them.
async fn partitions_half_written(case: &ClickHouseCase) {
    let database = &case.database;
    let plain = case.with(&json!({"table": "by day"})).ddl().unwrap();
    case.run(&plain.replace("ORDER BY (name, time)", "PARTITION BY toDate(time) ORDER BY (name, time)"));
    let make = || case.with(&json!({"table": "by day"}));
    let batch = Maker::new(SECOND, 0).batch(&[(series("a", &[]), START, 1), (series("a", &[]), START + DAY, 2)]);
    case.run(&format!(
        "INSERT INTO `{database}`.`by day` SETTINGS insert_deduplication_token = '{}' FORMAT JSONEachRow \
         {{\"time\":\"{}.000000000\",\"name\":\"a\",\"value\":1,\"topic\":\"tallybus.counters\",\"end_offset\":2}}",
        batch.key(),
        START / SECOND
    ));
    let sink = make();
    sink.check().await.unwrap();
    let total = |totals: Vec<tallybus_sdk::testkit::contract::ask::SeriesTotal>| {
        totals.iter().map(|total| total.total).sum::<u64>()
    };
    assert_eq!(total(sink.totals(TimeRange::default()).await.unwrap()), 1);
    settle_all(&*sink, &recovered(&batch)).await;
    settle_all(&*make(), &recovered(&batch)).await;
    // More partitions than ClickHouse lets one insert have by default.
    let many: Vec<_> = (0..150).map(|n| (series("b", &[]), START + n * DAY, 1)).collect();
    let wide = Maker::new(SECOND, 1).batch(&many);
    settle_all(&*sink, &wide).await;
    settle_all(&*make(), &recovered(&wide)).await;
    Expected::of([&batch, &wide]).check(&*sink, SECOND).await;
}

/// A materialized view sees each batch once too.
async fn views_count_once(case: &ClickHouseCase) {
    let database = &case.database;
    case.run(&format!(
        "CREATE TABLE `{database}`.hourly (hour DateTime, name String, value UInt64) ENGINE = SummingMergeTree ORDER BY (name, \
         hour) SETTINGS non_replicated_deduplication_window = 1000;\n\
         CREATE MATERIALIZED VIEW `{database}`.to_hourly TO `{database}`.hourly AS SELECT toStartOfHour(time) AS hour, name, \
         value FROM `{database}`.counters"
    ));
    let sink = case.sink(SECOND);
    let batch = Maker::new(SECOND, 0).batch(&[(series("a", &[]), START, 3), (series("a", &[]), START + SECOND, 4)]);
    for _ in 0..2 {
        case.proxy.set(Mode::ApplyThenCut);
        assert!(matches!(write(&*sink, &batch).await, WriteOutcome::Retry { .. }));
        case.proxy.set(Mode::Pass);
        // Two that do not know of each other.
        settle_all(&*case.sink(SECOND), &batch).await;
    }
    assert_eq!(case.run(&format!("SELECT sum(value) FROM `{database}`.hourly")), "7\n");
    Expected::of([&batch]).check(&*sink, SECOND).await;
}

async fn tables_that_are_not_right(case: &ClickHouseCase) {
    let database = &case.database;
    let one = Maker::new(SECOND, 0).batch(&[(series("a", &[]), START, 1)]);
    let strict = |table: &str| case.with(&json!({"create": false, "table": table}));
    let missing = strict("none");
    assert!(check_halts(&missing.check().await, "tallybus sink ddl"));
    assert!(halts(&write(&*missing, &one).await, "create = true"));
    assert!(missing.totals(TimeRange::default()).await.is_err());
    let nowhere = case.with(&json!({"create": false, "database": "no `where"}));
    assert!(check_halts(&nowhere.check().await, "does not exist"));
    assert!(halts(&write(&*nowhere, &one).await, "create = true"));
    for (table, engine, because) in [
        ("a", "Memory", "Memory, which would count a repeated batch again"),
        ("b", "ReplacingMergeTree ORDER BY name", "ReplacingMergeTree, which"),
        ("c", "MergeTree ORDER BY name", "MODIFY SETTING non_replicated_deduplication_window = 10000"),
    ] {
        case.run(&format!("CREATE TABLE `{database}`.{table} AS `{database}`.counters ENGINE = {engine}"));
        let check = strict(table).check().await;
        assert!(check_halts(&check, because), "{check:?}");
        assert!(check_halts(&case.with(&json!({"table": table})).prepare().await, because));
    }
    case.run(&format!("ALTER TABLE `{database}`.c MODIFY SETTING non_replicated_deduplication_window = 10000"));
    strict("c").check().await.unwrap();
    case.run(&format!("ALTER TABLE `{database}`.c MODIFY COLUMN value UInt32"));
    assert!(check_halts(&strict("c").check().await, "column value of"));
    case.run(&format!("ALTER TABLE `{database}`.c DROP COLUMN value"));
    assert!(check_halts(&strict("c").check().await, "has no column value"));
    let answer = write(&*strict("c"), &one).await;
    assert!(halts(&answer, "value"), "{answer:?}");
    // Made by many at once, in a database that is not there.
    let named = format!("{database} `new'");
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let sink = case.with(&json!({"database": named}));
        tasks.push(tokio::spawn(async move {
            assert_eq!(sink.totals(TimeRange::default()).await.unwrap(), []);
            sink.prepare().await
        }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let sink = case.with(&json!({"database": named, "create": false, "gzip": false}));
    sink.check().await.unwrap();
    settle_all(&*sink, &one).await;
    Expected::of([&one]).check(&*sink, SECOND).await;
    case.with(&json!({"create": false, "table": "fixed"})).fix().await.unwrap();
    strict("fixed").check().await.unwrap();
}

async fn rows_as_operators_see_them(case: &ClickHouseCase) {
    let sink = case.sink(0);
    let most = i64::MAX as u64;
    let batch = Maker::new(0, 3).from(7).batch(&[
        (series("a", &[("k", "it's \"v\"\\")]), 1_700_000_000_123_456_789, 5),
        (series("a", &[]), i64::MAX, most),
        (series("a", &[]), 0, most),
        (series("a", &[]), 1, most),
    ]);
    settle_all(&*sink, &batch).await;
    let select = |what: &str, end: &str| case.run(&format!("SELECT {what} FROM `{}`.counters {end}", case.database));
    assert_eq!(
        select("time, tags['k'], value, topic, partition, first_offset, end_offset, part", "WHERE value = 5"),
        "2023-11-14 22:13:20.123456789\tit\\'s \"v\"\\\\\t5\ttallybus.counters\t3\t7\t11\t\n"
    );
    assert_eq!(select("min(time), max(time)", ""), "1970-01-01 00:00:00.000000000\t2262-04-11 23:47:16.854775807\n");
    let held = sink.holdings(TimeRange::default()).await.unwrap();
    assert_eq!(held.totals().into_values().max(), Some(3 * u128::from(i64::MAX.unsigned_abs())));
    assert!(sink.usage().iter().any(|usage| usage.what == "rows" && usage.amount == 4.0));
}

async fn what_the_server_says(case: &ClickHouseCase) {
    let sink = case.sink(SECOND);
    let one = Maker::new(SECOND, 0).batch(&[(series("a", &[]), START, 1)]);
    for (status, code, waits) in
        [(500, 252, true), (500, 242, true), (500, 241, true), (500, 999, true), (403, 497, false), (404, 115, false)]
    {
        case.proxy.set(exception(status, code, "told (NAME)"));
        let answer = write(&*sink, &one).await;
        let (retries, halts) =
            (matches!(answer, WriteOutcome::Retry { .. }), matches!(answer, WriteOutcome::Halt { .. }));
        assert_eq!((retries, halts), (waits, !waits), "{code}: {answer:?}");
    }
    // Something else answers in its place.
    case.proxy.set(Mode::Unavailable { retry_after: Some(3) });
    let answer = write(&*case.sink(SECOND), &one).await;
    assert!(matches!(&answer, WriteOutcome::Retry { after: Some(after), .. } if after.as_secs() == 3), "{answer:?}");
    case.proxy.set(Mode::answer(200, "{}"));
    let check = sink.check().await;
    assert!(check.is_err(), "{check:?}");
    case.proxy.set(Mode::Pass);
    settle_all(&*sink, &one).await;
    Expected::of([&one]).check(&*sink, SECOND).await;
}
