//! What only Redshift's Data API can do to a sink, with the stand-in that does it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::Backend as _;
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::batches::{
    Expected, Maker, SECOND, START, recovered, series, settle, settle_all, write,
};
use tallybus_sdk::{Batch, Held, Sink, SinkError, TimeRange, WindowsQuery, WriteOutcome};
use tallybus_tests::{FailedToken, RedshiftIsolation};

use crate::redshift_stand_in::execute;
use crate::subjects::redshift::{RedshiftCase, Warehouse};

fn case() -> Option<RedshiftCase> {
    Some(Warehouse::new(false)?.case())
}

fn worker(case: &RedshiftCase) -> Arc<dyn Sink> {
    case.with(&json!({}))
}

fn some_batch(maker: &mut Maker) -> Batch {
    maker.batch(&[(series("a", &[]), START, 1), (series("a", &[("k", "v")]), START, 2), (series("b", &[]), START, 3)])
}

fn statuses(case: &RedshiftCase, from: usize) -> Vec<String> {
    case.redshift.batches()[from..].iter().map(|batch| batch.status.clone()).collect()
}

/// A worker's attempts fail for a reason that passes; whoever comes next finds its own way, whatever a failed token means.
#[tokio::test]
async fn both_readings_of_a_failed_token_are_right() {
    for reading in [FailedToken::GivesBack, FailedToken::RunsAnew] {
        let Some(case) = case() else { return };
        case.redshift.behave(|behaviour| behaviour.failed_token = reading);
        let before = case.redshift.batches().len();
        let batch = some_batch(&mut Maker::new(SECOND, 0));
        let first = worker(&case);
        case.ask(&format!("ALTER TABLE \"{}\".counters RENAME TO away", case.schema));
        for _ in 0..3 {
            let answer = write(&*first, &batch).await;
            assert!(
                matches!(&answer, WriteOutcome::Halt { reason } if reason.contains("does not exist")),
                "{answer:?}"
            );
        }
        assert_eq!(statuses(&case, before), ["FAILED"; 3], "each attempt is one of its own");
        case.ask(&format!("ALTER TABLE \"{}\".away RENAME TO counters", case.schema));
        let second = worker(&case);
        assert_eq!(write(&*second, &recovered(&batch)).await, WriteOutcome::Done, "{reading:?}: in one go");
        assert_eq!(statuses(&case, before), ["FAILED", "FAILED", "FAILED", "FINISHED"]);
        assert_eq!(write(&*first, &batch).await, WriteOutcome::Done);
        Expected::of([&batch]).check(&*second, SECOND).await;
        let tokens: Vec<String> = case.redshift.batches()[before..].iter().map(|batch| batch.token.clone()).collect();
        assert!(tokens.iter().all(|token| token.len() == 64), "{tokens:?}");
    }
}

/// Workers of one sink, or of two that were given one ledger by mistake, write at the same time under every isolation level.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storms_of_1023_pass() {
    for isolation in
        [RedshiftIsolation::Snapshot, RedshiftIsolation::Serializable, RedshiftIsolation::SerializableFromBegin]
    {
        let Some(case) = case() else { return };
        case.redshift.behave(|behaviour| {
            behaviour.isolation = isolation;
            behaviour.committing = Duration::from_millis(10);
        });
        let before = case.redshift.batches().len();
        let mut tasks = Vec::new();
        let mut all = Vec::new();
        for partition in 0..3 {
            let mut maker = Maker::new(SECOND, partition);
            let batches: Vec<Batch> = (0..5).map(|_| some_batch(&mut maker)).collect();
            for _owner in 0..2 {
                let (sink, batches) = (worker(&case), batches.clone());
                tasks.push(tokio::spawn(async move {
                    for batch in &batches {
                        settle_all(&*sink, &recovered(batch)).await;
                    }
                }));
            }
            all.extend(batches);
        }
        for task in tasks {
            task.await.expect("a worker");
        }
        case.redshift.settle();
        let conflicts = case.redshift.batches()[before..].iter().filter(|batch| batch.error.contains("1023")).count();
        match isolation {
            RedshiftIsolation::SerializableFromBegin => assert!(conflicts > 0, "no storm"),
            _ => assert_eq!(conflicts, 0, "{isolation:?}: the lock comes before the snapshot"),
        }
        Expected::of(&all).check(&*worker(&case), SECOND).await;
    }
}

/// The next owner asks for the transaction that is still running, and gets that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_outlives_its_worker() {
    let Some(case) = case() else { return };
    let before = case.redshift.batches().len();
    let batch = some_batch(&mut Maker::new(SECOND, 0));
    case.redshift.behave(|behaviour| behaviour.held = true);
    let (sink, doomed) = (worker(&case), batch.clone());
    let dying = tokio::spawn(async move { write(&*sink, &doomed).await });
    while case.redshift.batches().len() == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    dying.abort();
    let (next, found, asked) = (worker(&case), recovered(&batch), case.proxy.requests());
    let taking_over = tokio::spawn(async move { write(&*next, &found).await });
    // It asks for the transaction, and then what has become of it.
    while case.proxy.requests() < asked + 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!taking_over.is_finished(), "it waits for what runs");
    case.redshift.let_go();
    assert_eq!(taking_over.await.expect("the next owner"), WriteOutcome::Done);
    assert_eq!(statuses(&case, before), ["FINISHED"], "one transaction was asked for by two");
    Expected::of([&batch]).check(&*worker(&case), SECOND).await;
}

/// The same worker asks after a statement that takes longer than it waits in one go, and never makes another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_never_abandoned() {
    let Some(case) = case() else { return };
    let before = case.redshift.batches().len();
    let batch = some_batch(&mut Maker::new(SECOND, 0));
    case.redshift.behave(|behaviour| behaviour.held = true);
    let sink = worker(&case);
    let (one, held) = (Arc::clone(&sink), batch.clone());
    let waiting = tokio::spawn(async move { write(&*one, &held).await });
    while case.redshift.batches().len() == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The Data API cannot be reached for a while.
    case.set_away(true);
    let answer = waiting.await.expect("a write");
    assert!(matches!(&answer, WriteOutcome::Retry { .. }), "{answer:?}");
    case.set_away(false);
    case.redshift.let_go();
    settle_all(&*sink, &batch).await;
    assert_eq!(statuses(&case, before), ["FINISHED"]);
    Expected::of([&batch]).check(&*sink, SECOND).await;
}

/// A transaction that was asked for long ago, under a token that is forgotten, runs after everything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_loses_whenever_it_comes() {
    let Some(case) = case() else { return };
    let mut maker = Maker::new(SECOND, 0);
    let batches: Vec<Batch> = (0..4).map(|_| some_batch(&mut maker)).collect();
    let before = case.redshift.batches().len();
    for (late, batch) in batches.iter().take(3).enumerate() {
        case.redshift.behave(|behaviour| behaviour.held = true);
        let (sink, doomed) = (worker(&case), batch.clone());
        let dying = tokio::spawn(async move { write(&*sink, &doomed).await });
        while case.redshift.batches().len() == before + 2 * late {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        dying.abort();
        case.redshift.behave(|behaviour| behaviour.held = false);
        case.redshift.forget_tokens();
        settle_all(&*worker(&case), &recovered(batch)).await;
    }
    settle_all(&*worker(&case), &batches[3]).await;
    case.redshift.let_go();
    case.redshift.settle();
    let late: Vec<String> = case.redshift.batches()[before..].iter().map(|batch| batch.error.clone()).collect();
    assert_eq!(late.iter().filter(|error| error.contains("NULL value into column next_offset")).count(), 3, "{late:?}");
    Expected::of(&batches).check(&*worker(&case), SECOND).await;
}

#[tokio::test]
async fn what_the_data_api_refuses_for_a_while_is_waited_for() {
    let Some(case) = case() else { return };
    let sink = worker(&case);
    let mut maker = Maker::new(SECOND, 0);
    let (first, second) = (some_batch(&mut maker), some_batch(&mut maker));
    settle_all(&*sink, &first).await;
    let before = case.redshift.batches().len();
    case.redshift.behave(|behaviour| behaviour.statements_exceeded = true);
    for _ in 0..5 {
        let answer = write(&*sink, &second).await;
        assert!(
            matches!(&answer, WriteOutcome::Retry { reason, .. } if reason.contains("ActiveStatements")),
            "{answer:?}"
        );
    }
    assert!(matches!(sink.check().await, Err(SinkError::Unavailable(_))));
    assert_eq!(case.redshift.batches().len(), before);
    case.redshift.behave(|behaviour| behaviour.statements_exceeded = false);
    settle_all(&*sink, &second).await;
    Expected::of([&first, &second]).check(&*sink, SECOND).await;
}

/// Where too many wait already, the state is asked for at a rate within the quotas.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_wait_asks_within_the_quotas() {
    let Some(case) = case() else { return };
    case.redshift.behave(|behaviour| {
        behaviour.waiters = 0;
        behaviour.rates = true;
        behaviour.queued = Duration::from_millis(50);
    });
    let sink = worker(&case);
    let mut tasks = Vec::new();
    for partition in 0..6 {
        let sink = Arc::clone(&sink);
        tasks.push(tokio::spawn(async move {
            let batch = some_batch(&mut Maker::new(SECOND, partition));
            (write(&*sink, &batch).await, batch)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        let (answer, batch) = task.await.expect("a partition");
        assert_eq!(answer, WriteOutcome::Done, "nothing was throttled");
        all.push(batch);
    }
    case.redshift.behave(|behaviour| behaviour.rates = false);
    Expected::of(&all).check(&*sink, SECOND).await;
}

#[tokio::test]
async fn a_batch_too_large_for_one_request_is_halved_by_its_size() {
    let Some(case) = case() else { return };
    let sink = worker(&case);
    let before = case.redshift.batches().len();
    let long = "x".repeat(900);
    let events: Vec<(Series, i64, u64)> =
        (0..6_000_u64).map(|n| (series("a", &[("n", &n.to_string()), ("long", &long)]), START, n + 1)).collect();
    let batch = Maker::new(SECOND, 0).batch(&events);
    assert!(matches!(write(&*sink, &batch).await, WriteOutcome::Split { .. }));
    assert_eq!(case.redshift.batches().len(), before, "it is not even asked for");
    let (left, right) = batch.split().expect("halves");
    assert_eq!(write(&*sink, &left).await, WriteOutcome::Done);
    // A new owner begins with the whole, and finds the left half in.
    let next = worker(&case);
    settle_all(&*next, &recovered(&batch)).await;
    assert_eq!(write(&*next, &recovered(&right)).await, WriteOutcome::Done);
    for found in &case.redshift.batches()[before..] {
        assert!(found.sqls.len() <= 40, "{}", found.sqls.len());
        assert!(found.sqls.iter().all(|sql| sql.len() <= 100_000));
    }
    Expected::of([&batch]).check(&*sink, SECOND).await;
}

/// A row that the table refuses today and would take tomorrow: what was in as parts never comes as a whole.
#[tokio::test]
async fn parts_and_whole_never_both_count() {
    let Some(case) = case() else { return };
    let bad = series("bad", &[]);
    case.refuse(&bad, START).await;
    let mut maker = Maker::new(SECOND, 0);
    let good = |n: u64| (series("good", &[("n", &n.to_string())]), START, n);
    let batch = maker.batch(&[good(1), good(2), (bad.clone(), START, 50), good(4)]);
    let sink = worker(&case);
    assert!(matches!(write(&*sink, &batch).await, WriteOutcome::Split { .. }));
    let (left, right) = batch.split().expect("halves");
    assert_eq!(write(&*sink, &left).await, WriteOutcome::Done);
    let allow = format!("ALTER TABLE \"{}\".counters DROP CONSTRAINT refused", case.schema);
    case.ask(&allow);
    let next = worker(&case);
    let answer = write(&*next, &recovered(&batch)).await;
    assert!(matches!(&answer, WriteOutcome::Split { reason } if reason.contains("already written")), "{answer:?}");
    case.refuse(&bad, START).await;
    assert_eq!(settle(&*next, &recovered(&batch)).await, [(bad.clone(), 50)]);
    // What was refused stays refused, for the part and for the whole, whatever the table takes now.
    case.ask(&allow);
    let last = worker(&case);
    let refused = |answer: WriteOutcome| match answer {
        WriteOutcome::Rejected(points) => points.iter().map(|rejection| rejection.point).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(write(&*last, &recovered(&batch)).await), [2]);
    assert_eq!(refused(write(&*last, &recovered(&right)).await), [0]);
    assert_eq!(write(&*last, &recovered(&left)).await, WriteOutcome::Done);
    let after = maker.batch(&[good(8)]);
    settle_all(&*last, &after).await;
    let mut expected = Expected::of([&after]);
    for (series, time, value) in [good(1), good(2), good(4)] {
        expected.add(&series, time, value);
    }
    expected.check(&*last, SECOND).await;
}

#[tokio::test]
async fn a_table_that_is_ahead_of_the_bus_halts() {
    let Some(case) = case() else { return };
    let batch = some_batch(&mut Maker::new(SECOND, 0));
    settle_all(&*worker(&case), &batch).await;
    let anew = worker(&case);
    for _ in 0..3 {
        let answer = write(&*anew, &batch).await;
        assert!(
            matches!(&answer, WriteOutcome::Halt { reason } if reason.contains("the topic was recreated")),
            "{answer:?}"
        );
    }
    let mut inside = batch.clone();
    (inside.id.first, inside.id.end) = (1, 9);
    for batch in [inside.clone(), recovered(&inside)] {
        let answer = write(&*anew, &batch).await;
        assert!(matches!(&answer, WriteOutcome::Halt { reason } if reason.contains("inside batch")), "{answer:?}");
    }
    assert_eq!(write(&*anew, &recovered(&batch)).await, WriteOutcome::Done);
    // Gaps are nothing: compaction and transaction markers make them.
    let later = some_batch(&mut Maker::new(SECOND, 0).from(1_000));
    assert_eq!(write(&*anew, &later).await, WriteOutcome::Done);
    Expected::of([&batch, &later]).check(&*anew, SECOND).await;
}

#[tokio::test]
async fn texts_stay_texts_whatever_a_backslash_means() {
    for escapes in [true, false] {
        let Some(case) = case() else { return };
        case.redshift.behave(|behaviour| behaviour.backslash_escapes = escapes);
        let hostile =
            ["a\\", "\\'; DROP TABLE x; --", "'; --", "\\\\'", "~\\", "\"", "a\u{1}\n\t", "${a}", ":name", "$1"];
        let mut events = Vec::new();
        for (index, text) in hostile.iter().enumerate() {
            events.push((series(text, &[(text, text), ("route", text)]), START, 1 << index));
        }
        for sink in [worker(&case), case.with(&json!({"table": "other", "tag_columns": ["route"], "create": true}))] {
            sink.prepare().await.expect("tables");
            let batch = Maker::new(SECOND, 0).batch(&events);
            settle_all(&*sink, &batch).await;
            let expected = Expected::of([&batch]);
            expected.check(&*sink, SECOND).await;
            for series in expected.series() {
                let windows = sink.windows(series, TimeRange::default(), SECOND).await.expect("windows");
                assert_eq!(windows, expected.windows(series, TimeRange::default(), SECOND), "{series}");
            }
        }
    }
}

#[tokio::test]
async fn tags_with_columns_of_their_own_come_back() {
    let Some(case) = case() else { return };
    let sink = case.with(&json!({"table": "wide", "tag_columns": ["Route", "status"], "create": true}));
    sink.prepare().await.expect("tables");
    assert_ne!(sink.layout_fingerprint(), worker(&case).layout_fingerprint());
    let batch = Maker::new(SECOND, 0).batch(&[
        (series("a", &[("Route", "/v1"), ("zone", "1")]), START, 1),
        (series("a", &[("route", "/v1")]), START, 2),
        (series("a", &[("status", "200")]), START, 4),
        (series("a", &[]), START, 8),
    ]);
    settle_all(&*sink, &batch).await;
    Expected::of([&batch]).check(&*sink, SECOND).await;
    let of = |column: &str| case.ask(&format!("SELECT sum(value) FROM \"{}\".wide WHERE {column}", case.schema));
    assert_eq!(of("route = '/v1'"), "1");
    assert_eq!(of("status = '200'"), "4");
    assert_eq!(of("tags::jsonb = '{\"zone\": \"1\"}'"), "1");
    assert_eq!(of("topic = 'tallybus.counters' AND partition_id = 0 AND first_offset = 0"), "15");
}

#[tokio::test]
async fn doctor_says_what_is_missing_and_makes_it() {
    let Some(warehouse) = Warehouse::new(false) else { return };
    let case = warehouse.empty_case();
    let halts = |outcome: Result<(), SinkError>, because: &str| match outcome {
        Err(SinkError::Halt(reason)) => assert!(reason.contains(because), "{because} is not in {reason}"),
        other => panic!("{because}: {other:?}"),
    };
    let sink = worker(&case);
    halts(sink.check().await, "has no table counters, counters_ledger, counters_refused");
    halts(sink.prepare().await, "tallybus sink ddl tested");
    assert!(case.with(&json!({"create": true})).check().await.is_ok(), "what may be made may be missing");
    sink.fix().await.expect("makes them");
    sink.fix().await.expect("and needs to make none");
    sink.check().await.expect("check");
    for isolation in [RedshiftIsolation::Snapshot, RedshiftIsolation::Serializable] {
        case.redshift.behave(|behaviour| behaviour.isolation = isolation);
        sink.check().await.expect("either isolation level will do");
    }
    case.redshift.behave(|behaviour| behaviour.collation = "case_insensitive");
    halts(sink.check().await, "compares text case-insensitively");
    case.redshift.behave(|behaviour| behaviour.collation = "case_sensitive");
    let alter = |change: &str| case.ask(&format!("ALTER TABLE \"{}\".{change}", case.schema));
    alter("counters_ledger ALTER next_offset DROP NOT NULL");
    halts(sink.check().await, "column next_offset may be NULL");
    alter("counters_ledger ALTER next_offset SET NOT NULL");
    alter("counters ALTER value TYPE int");
    halts(sink.check().await, "column value is integer, expected bigint");
    alter("counters ALTER value TYPE bigint");
    alter("counters DROP tags");
    halts(sink.check().await, "counters has no column tags");
    halts(case.with(&json!({"database": "other"})).check().await, "database \"other\" does not exist");
    halts(case.with(&json!({"workgroup": "other"})).check().await, "endpoint doesn't exist");
    // What the DDL says is what is taken.
    let case = warehouse.empty_case();
    let sink = worker(&case);
    let ddl = sink.ddl().expect("a DDL");
    let ddl: Vec<&str> = ddl.split(";\n").collect();
    for statement in ddl.iter().filter(|statement| statement.contains("CREATE TABLE")) {
        let statement: Vec<&str> = statement.lines().filter(|line| !line.starts_with("--")).collect();
        let (status, error) = execute(&case, &statement.join("\n")).await;
        assert_eq!(status, "FINISHED", "{error}");
    }
    sink.check().await.expect("check");
}

/// An object is read by the transaction that adds it to the ledger, and gone once its batch is in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staged_objects_count_once_and_go() {
    let Some(warehouse) = Warehouse::new(true) else { return };
    let case = warehouse.case();
    let mut maker = Maker::new(SECOND, 0);
    let batches: Vec<Batch> = (0..3).map(|_| some_batch(&mut maker)).collect();
    let before = case.redshift.batches().len();
    case.redshift.behave(|behaviour| behaviour.held = true);
    let (sink, doomed) = (worker(&case), batches[0].clone());
    let dying = tokio::spawn(async move { write(&*sink, &doomed).await });
    while case.redshift.batches().len() == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    dying.abort();
    assert_eq!(case.staged(), 1);
    case.redshift.behave(|behaviour| behaviour.held = false);
    case.redshift.forget_tokens();
    let next = worker(&case);
    settle_all(&*next, &recovered(&batches[0])).await;
    for batch in &batches[1..] {
        settle_all(&*next, batch).await;
    }
    case.redshift.let_go();
    case.redshift.settle();
    assert_eq!(case.staged(), 0);
    let (finished, failed): (Vec<String>, Vec<String>) =
        statuses(&case, before).into_iter().partition(|status| status == "FINISHED");
    assert_eq!((finished.len(), failed.len()), (3, 1), "the late one finds the ledger behind its batch");
    // Redshift does not find the object: it is put there again.
    case.redshift.behave(|behaviour| behaviour.s3 = None);
    let last = some_batch(&mut maker);
    assert!(matches!(write(&*next, &last).await, WriteOutcome::Retry { .. }));
    case.find_s3();
    settle_all(&*next, &last).await;
    let all: Vec<&Batch> = batches.iter().chain([&last]).collect();
    Expected::of(all).check(&*next, SECOND).await;
    let used = next.usage();
    assert!(used.iter().any(|usage| usage.what == "staged bytes" && usage.amount > 0.0), "{used:?}");
}

/// The Data API ends a statement whose result is over 100 MB.
#[tokio::test]
async fn a_table_larger_than_one_result_is_read_page_by_page() {
    let Some(case) = case() else { return };
    // 100 MB, which a busy machine does not return in the few seconds of the other cases.
    let sink = case.with(&json!({"timeout": "60s"}));
    let batch = some_batch(&mut Maker::new(SECOND, 0));
    settle_all(&*sink, &batch).await;
    // 1,710 rows of 60 kB: hours of 12 MB, and one of 69 MB.
    case.ask(&format!(
        "INSERT INTO \"{}\".counters (window_start, nanos, name, tags, value, topic, partition_id, first_offset) \
         SELECT TIMESTAMP '2023-11-15 00:00:00' + n / 200 * INTERVAL '1 hour', n, 'large', \
         redshift.json_parse('{{\"n\":\"' || n || '\",\"v\":\"' || REPEAT('x', 60000) || '\"}}'), 2, 't', 0, 0 \
         FROM generate_series(0, 559) AS n",
        case.schema
    ));
    case.ask(&format!(
        "INSERT INTO \"{}\".counters (window_start, nanos, name, tags, value, topic, partition_id, first_offset) \
         SELECT TIMESTAMP '2023-11-15 05:00:00', 0, 'large', \
         redshift.json_parse('{{\"n\":\"many ' || n || '\",\"v\":\"' || REPEAT('x', 60000) || '\"}}'), 3, 't', 0, 0 \
         FROM generate_series(1, 1150) AS n",
        case.schema
    ));
    let (mut rows, mut total, mut foreign) = (0, 0, 0);
    let query = WindowsQuery::new(TimeRange::default());
    let mut visit = |held: Held| match held {
        Held::Window(window) => {
            rows += 1;
            total += window.total;
        }
        Held::Foreign(_) => foreign += 1,
    };
    sink.read_back().unwrap().windows(&query, &mut visit).await.unwrap();
    assert_eq!((rows, total, foreign), (3 + 560 + 1_150, 6 + 1_120 + 3_450, 0));
}

/// A comparison reads its probes again and again.
#[tokio::test]
async fn a_small_read_that_is_repeated_is_one_statement() {
    let Some(case) = case() else { return };
    let sink = worker(&case);
    settle_all(&*sink, &some_batch(&mut Maker::new(SECOND, 0))).await;
    let statements = || sink.usage().iter().find(|used| used.what == "statements").unwrap().amount;
    let named = |name: &str| WindowsQuery::new(TimeRange::default()).named(name);
    let mut taken = Vec::new();
    for name in ["a", "a", "a", "b", "b"] {
        let before = statements();
        let held = sink.read_back().unwrap().collect(&named(name)).await.unwrap();
        let total: u128 = held.windows.values().sum();
        assert_eq!(total, 3, "{name}");
        taken.push(statements() - before);
    }
    assert_eq!(taken, [2.0, 1.0, 1.0, 2.0, 1.0]);
}
