//! What only DynamoDB can do to a sink, with a server behind a front that goes wrong as tables do.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::Backend as _;
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::batches::{
    Expected, Maker, SECOND, START, recovered, series, settle, settle_all, write,
};
use tallybus_sdk::{Batch, Sink, SinkError, TimeRange, WriteOutcome};
use tallybus_tests::{FrontMode, call_dynamodb};

use crate::subjects::build;
use crate::subjects::dynamodb::{DynamoDb, DynamoDbCase};

fn used(sink: &dyn Sink, what: &str) -> f64 {
    sink.usage().into_iter().find(|usage| usage.what == what).expect("a usage").amount
}

fn numbered(count: u64) -> Vec<(Series, i64, u64)> {
    (0..count).map(|n| (series("a", &[("n", &n.to_string())]), START, n + 1)).collect()
}

fn halts(answer: &WriteOutcome) -> &str {
    let WriteOutcome::Halt { reason } = answer else { panic!("{answer:?}") };
    reason
}

fn rollup() -> Option<DynamoDbCase> {
    Some(DynamoDb::new("rollup")?.case())
}

fn raw() -> Option<DynamoDbCase> {
    Some(DynamoDb::new("raw")?.case())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Half of all writes are throttled, of all partitions at once: nothing is lost, nothing counts twice, and what is in is not sent
/// again.
#[test]
fn a_table_that_throttles_half_of_all_requests() {
    for case in [rollup(), raw()] {
        let Some(case) = case else { return };
        runtime().block_on(async {
            let sink = case.sink(SECOND);
            case.front.set(FrontMode { throttle: 50, ..FrontMode::default() });
            let mut partitions = Vec::new();
            for partition in 0..4 {
                let sink: Arc<dyn Sink> = Arc::clone(&sink);
                partitions.push(tokio::spawn(async move {
                    let mut maker = Maker::new(SECOND, partition);
                    let batches: Vec<Batch> = (0..3).map(|_| maker.batch(&numbered(100))).collect();
                    for batch in &batches {
                        settle_all(&*sink, batch).await;
                    }
                    batches
                }));
            }
            let mut all = Vec::new();
            for partition in partitions {
                all.extend(partition.await.expect("a partition"));
            }
            let (writes, throttled) = (case.front.writes(), case.front.throttled());
            assert!(throttled * 3 > writes, "{throttled} of {writes}");
            case.front.set(FrontMode::default());
            Expected::of(&all).check(&*sink, SECOND).await;
            assert_eq!(used(&*sink, "throttled requests") as u64, throttled);
            assert_eq!(used(&*sink, "conditions that failed"), 0.0, "what was in was sent again");
        });
    }
}

/// A table that takes four requests at once: most requests are throttled at first, few later; and all slots come back when it
/// takes more.
#[test]
fn requests_at_once_follow_what_the_table_takes() {
    let Some(case) = rollup() else { return };
    runtime().block_on(async {
        let sink = case.with(&json!({"concurrency": 32}), SECOND);
        let mut maker = Maker::new(SECOND, 0);
        let mut all = Vec::new();
        let mut shares = Vec::new();
        for _ in 0..3 {
            case.front.set(FrontMode { at_once: Some(4), ..FrontMode::default() });
            let batch = maker.batch(&numbered(400));
            settle_all(&*sink, &batch).await;
            all.push(batch);
            shares.push((case.front.most_at_once(), case.front.throttled()));
        }
        assert!(shares[0].0 > 4 && shares[0].1 > 0, "{shares:?}");
        // From four slots it rises by one each round and falls back by half: never far above what is taken.
        for (most, throttled) in &shares[1..] {
            assert!(*most <= 8 && *throttled < 100, "{shares:?}");
        }
        case.front.set(FrontMode::default());
        let batch = maker.batch(&numbered(1_000));
        settle_all(&*sink, &batch).await;
        all.push(batch);
        assert!(case.front.most_at_once() > 8, "{}", case.front.most_at_once());
        Expected::of(&all).check(&*sink, SECOND).await;
    });
}

/// It began an old batch, fell asleep, and wakes after the next owner has written that batch and newer ones.
#[tokio::test]
async fn a_zombie_that_is_late_changes_nothing() {
    let Some(case) = rollup() else { return };
    let (zombie, owner) = (case.sink(SECOND), case.sink(SECOND));
    let mut maker = Maker::new(SECOND, 0);
    let first = maker.batch(&numbered(30));
    settle_all(&*zombie, &first).await;
    let old = maker.batch(&numbered(60));
    case.front.set(FrontMode { dies_after: Some(20), ..FrontMode::default() });
    assert!(matches!(write(&*zombie, &old).await, WriteOutcome::Retry { .. }));
    case.front.set(FrontMode::default());
    settle_all(&*owner, &recovered(&old)).await;
    let newer = [maker.batch(&numbered(60)), maker.batch(&numbered(40))];
    for batch in &newer {
        settle_all(&*owner, batch).await;
    }
    let mut all = vec![first.clone(), old.clone()];
    all.extend(newer.clone());
    let expected = Expected::of(&all);
    // It does not know that it is one, and says what it sees.
    for _ in 0..2 {
        let answer = write(&*zombie, &old).await;
        assert!(halts(&answer).contains("another worker now owns the partition"), "{answer:?}");
    }
    // Zombies of any age that found their batch sealed.
    for batch in [&first, &old, &newer[0]] {
        settle_all(&*case.sink(SECOND), &recovered(batch)).await;
    }
    expected.check(&*owner, SECOND).await;
    settle_all(&*owner, &maker.batch(&[])).await;
    expected.check(&*owner, SECOND).await;
}

#[tokio::test]
async fn the_next_owner_finishes_what_a_crash_left() {
    // The ledger, then 80 items: a request each, or four requests of up to 25.
    for (case, deaths) in [(rollup(), [0, 1, 2, 8, 31]), (raw(), [0, 1, 2, 3, 4])] {
        let Some(case) = case else { return };
        let mut maker = Maker::new(0, 0);
        let mut all: Vec<Batch> = Vec::new();
        for (round, dies_after) in (0_i64..).zip(deaths) {
            let events: Vec<_> = numbered(80).into_iter().map(|(series, time, n)| (series, time + round, n)).collect();
            let batch = maker.batch(&events);
            case.front.set(FrontMode { dies_after: Some(dies_after), ..FrontMode::default() });
            let answer = write(&*case.with(&json!({"concurrency": 4}), 0), &batch).await;
            assert!(matches!(&answer, WriteOutcome::Retry { .. }), "{answer:?}");
            case.front.set(FrontMode::default());
            let left = 80 * (all.len() + 1) - case.items().len();
            assert!(left > 0 && (left < 80) == (dies_after > 1), "{dies_after}: {left} are left");
            settle_all(&*case.sink(0), &recovered(&batch)).await;
            all.push(batch);
        }
        Expected::of(&all).check(&*case.sink(0), 0).await;
    }
}

/// One worker writes the whole, another its halves and quarters, in any order and at once.
#[tokio::test]
async fn parts_and_wholes_of_a_batch_count_once() {
    for window in [SECOND, 0] {
        for case in [rollup(), raw()] {
            let Some(case) = case else { return };
            let mut maker = Maker::new(window, 2);
            let mut all = Vec::new();
            for round in 0..4 {
                let mut events = numbered(20);
                events.extend((0..20).map(|n| (series("b", &[]), START + n % 3, 1 + round)));
                let batch = recovered(&maker.batch(&events));
                let (left, right) = batch.split().unwrap();
                let (far, near) = left.split().unwrap();
                let (one, two) = (case.sink(window), case.sink(window));
                tokio::join!(
                    async {
                        for part in [&near, &right, &far] {
                            settle_all(&*one, part).await;
                        }
                    },
                    settle_all(&*two, &batch)
                );
                settle_all(&*two, &left).await;
                all.push(batch);
            }
            Expected::of(&all).check(&*case.sink(window), window).await;
        }
    }
}

/// A recreated topic begins at 0 again, in windows that hold counts of the old one: nothing is taken for done.
#[tokio::test]
async fn a_recreated_topic_halts() {
    for case in [rollup(), raw()] {
        let Some(case) = case else { return };
        a_recreated_topic_halts_in(&case).await;
    }
}

async fn a_recreated_topic_halts_in(case: &DynamoDbCase) {
    let sink = case.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0).from(100);
    let old = maker.batch(&numbered(5));
    settle_all(&*sink, &old).await;
    let expected = Expected::of([&old]);
    for first in [0, 98, 102, 100] {
        // A worker that is new, and seals the batch itself.
        let worker = case.sink(SECOND);
        let anew = Maker::new(SECOND, 0).from(first).batch(&numbered(5));
        for _ in 0..2 {
            let answer = write(&*worker, &anew).await;
            assert!(halts(&answer).contains("Name a new table"), "{first}: {answer:?}");
        }
        expected.check(&*sink, SECOND).await;
    }
    // Sealed under another chain of batches, and found so: it overlaps, which no two batches of one chain do.
    for (first, count) in [(98, 8), (102, 6), (104, 9)] {
        let other = recovered(&Maker::new(SECOND, 0).from(first).batch(&numbered(count)));
        let answer = write(&*case.sink(SECOND), &other).await;
        assert!(halts(&answer).contains("inside batch"), "{answer:?}");
    }
}

#[tokio::test]
async fn an_item_that_is_full_or_foreign_refuses_its_points_only() {
    let Some(case) = rollup() else { return };
    let sink = case.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    let first = maker.batch(&numbered(4));
    settle_all(&*sink, &first).await;
    let item = |n: &str| -> Value {
        case.items().into_iter().find(|item| item["tags"]["M"]["n"]["S"] == n).expect("the item")
    };
    let mut full = item("1");
    // As full as it can be without room for another partition, which takes 17 bytes.
    let is_put = |spare: usize| {
        full["filler"] = json!({"S": "x".repeat((400 << 10) - spare)});
        case.try_call("PutItem", json!({"Item": full})).is_ok()
    };
    assert!((100..300).step_by(8).any(is_put));
    let mut foreign = item("2");
    foreign["value"] = json!({"S": "many"});
    case.call("PutItem", json!({"Item": foreign}));
    // The partition of another partition does not fit any more.
    let second = Maker::new(SECOND, 1).batch(&numbered(4));
    let refused = [(series("a", &[("n", "1")]), 2), (series("a", &[("n", "2")]), 3)];
    assert_eq!(settle(&*sink, &second).await, refused);
    assert_eq!(settle(&*case.sink(SECOND), &recovered(&second)).await, refused);
    let WriteOutcome::Rejected(points) = write(&*sink, &recovered(&second)).await else { panic!("taken") };
    assert!(points[0].reason.contains("size") && points[1].reason.contains("type"), "{points:?}");
    let held = sink.totals(TimeRange::default()).await.unwrap();
    let held: BTreeSet<_> =
        held.into_iter().map(|total| (total.series.tag("n").unwrap().to_owned(), total.total)).collect();
    assert_eq!(held, BTreeSet::from([("0".to_owned(), 2), ("1".to_owned(), 2), ("3".to_owned(), 8)]));
}

#[tokio::test]
async fn a_table_with_other_keys_halts() {
    for mode in ["rollup", "raw"] {
        let Some(dynamodb) = DynamoDb::new(mode) else { return };
        let case = dynamodb.bare_case();
        case.call(
            "CreateTable",
            json!({"BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}]}),
        );
        let sink = case.sink(SECOND);
        for found in [sink.check().await, sink.prepare().await, sink.fix().await] {
            let Err(SinkError::Halt(reason)) = found else { panic!("{found:?}") };
            assert!(reason.contains("partition key `id` (S) and sort key none"), "{reason}");
        }
        let batch = Maker::new(SECOND, 0).batch(&numbered(3));
        let answer = write(&*sink, &batch).await;
        assert!(halts(&answer).contains("ValidationException"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_missing_table_is_made_where_that_is_allowed() {
    let Some(dynamodb) = DynamoDb::new("rollup") else { return };
    let case = dynamodb.bare_case();
    let batch = Maker::new(SECOND, 0).batch(&numbered(3));
    let sink = case.sink(SECOND);
    for found in [sink.check().await, sink.prepare().await] {
        let Err(SinkError::Halt(reason)) = found else { panic!("{found:?}") };
        assert!(reason.contains("does not exist") && reason.contains("create = true"), "{reason}");
    }
    let answer = write(&*sink, &batch).await;
    assert!(halts(&answer).contains("ResourceNotFoundException"), "{answer:?}");
    let creating = case.with(&json!({"create": true}), SECOND);
    creating.check().await.expect("it may be missing");
    creating.prepare().await.expect("a table");
    creating.prepare().await.expect("the same table");
    settle_all(&*sink, &batch).await;
    Expected::of([&batch]).check(&*sink, SECOND).await;
    let other = dynamodb.bare_case();
    let fixed = other.with(&json!({"ttl": "1h"}), SECOND);
    fixed.fix().await.expect("what doctor --fix makes");
    fixed.check().await.expect("a table whose items expire");
    let text = fixed.ddl().expect("commands");
    assert!(text.contains(&format!("--table-name {}", other.table)) && text.contains("update-time-to-live"), "{text}");
}

#[tokio::test]
async fn items_expire_where_the_settings_say() {
    for case in [rollup(), raw()] {
        let Some(case) = case else { return };
        let sink = case.with(&json!({"ttl": "90d"}), SECOND);
        let found = sink.check().await;
        let Err(SinkError::Halt(reason)) = found else { panic!("{found:?}") };
        assert!(reason.contains("`expires_at`") && reason.contains("doctor --fix"), "{reason}");
        case.with(&json!({"ttl": "90d", "create": true}), SECOND).prepare().await.expect("turned on");
        sink.check().await.expect("check");
        settle_all(&*sink, &Maker::new(SECOND, 0).batch(&numbered(3))).await;
        let expected = (START / SECOND + 1 + 90 * 86_400).to_string();
        for item in case.items() {
            assert_eq!(item["expires_at"]["N"], expected, "{item}");
        }
        // Without the setting nothing expires, and nobody looks.
        settle_all(&*case.sink(SECOND), &Maker::new(SECOND, 1).from(50).batch(&[(series("b", &[]), START, 1)])).await;
        assert_eq!(case.items().iter().filter(|item| item.get("expires_at").is_none()).count(), 1);
    }
}

/// Of each request some items come back; each event ends up in one item, and only what came back is sent again.
#[tokio::test]
async fn unprocessed_items_are_sent_again() {
    let Some(case) = raw() else { return };
    let sink = case.sink(0);
    case.front.set(FrontMode { throttle: 40, ..FrontMode::default() });
    let events: Vec<_> = (0..500).map(|n| (series("a", &[("n", &(n % 5).to_string())]), START + n / 100, 1)).collect();
    let batch = Maker::new(0, 0).batch(&events);
    settle_all(&*sink, &batch).await;
    let (writes, throttled) = (case.front.writes(), case.front.throttled());
    assert!(throttled > 0 && writes < 60, "{throttled} of {writes}");
    case.front.set(FrontMode::default());
    assert_eq!(case.items().len(), 500);
    Expected::of([&batch]).check(&*sink, 0).await;
    settle_all(&*case.sink(0), &recovered(&batch)).await;
    assert_eq!(case.items().len(), 500);
}

/// One item that the table refuses, among 25 of a request: it alone is rejected.
#[tokio::test]
async fn one_bad_item_of_a_request_is_rejected_alone() {
    let Some(case) = raw() else { return };
    let sink = case.sink(0);
    case.front.refuse(r#"{"S":"bad"}"#);
    let mut events: Vec<_> = (0..60).map(|n| (series("good", &[]), START + n, 1)).collect();
    events[33] = (series("bad", &[]), START, 5);
    let batch = Maker::new(0, 0).batch(&events);
    for batch in [&batch, &recovered(&batch)] {
        let WriteOutcome::Rejected(points) = write(&*sink, batch).await else { panic!("taken") };
        assert_eq!(points.iter().map(|rejection| rejection.point).collect::<Vec<_>>(), [33]);
    }
    assert_eq!(case.items().len(), 59);
}

/// More than a page of 1 MB, of one series and of the table.
#[tokio::test]
async fn every_page_is_read() {
    let Some(case) = raw() else { return };
    let sink = case.with(&json!({"shards": 1}), 0);
    let long = "x".repeat(1_000);
    let one = series("a", &[("long", &long)]);
    let events: Vec<_> = (0..2_500).map(|n| (one.clone(), START + n * 1_000_000, 1)).collect();
    let batch = Maker::new(0, 0).batch(&events);
    settle_all(&*sink, &batch).await;
    let before = used(&*sink, "requests");
    Expected::of([&batch]).check(&*sink, 0).await;
    // One page of each of four segments at the least, and further pages of the one that has the two megabytes and more.
    assert!(used(&*sink, "requests") - before > 4.0);
    assert!(used(&*sink, "read units") > 250.0, "{}", used(&*sink, "read units"));
}

#[tokio::test]
async fn a_series_is_spread_over_shards() {
    let Some(case) = rollup() else { return };
    let sink = case.with(&json!({"shards": 4}), SECOND);
    let mut all = Vec::new();
    for partition in 0..8 {
        let batch = Maker::new(SECOND, partition).batch(&[(series("a", &[]), START, 1 << partition)]);
        settle_all(&*sink, &batch).await;
        settle_all(&*case.with(&json!({"shards": 4}), SECOND), &recovered(&batch)).await;
        all.push(batch);
    }
    let items = case.items();
    assert_eq!(items.len(), 4);
    assert!(items.iter().all(|item| item.as_object().unwrap().keys().filter(|key| key.starts_with('@')).count() == 2));
    Expected::of(&all).check(&*sink, SECOND).await;
    // Before the series was spread it lay in the first shard, which is still one.
    assert_ne!(case.sink(SECOND).layout_fingerprint(), sink.layout_fingerprint());
}

#[tokio::test]
async fn usage_is_what_the_table_says_was_consumed() {
    let Some(case) = rollup() else { return };
    let sink = case.sink(SECOND);
    let batch = Maker::new(SECOND, 0).batch(&numbered(50));
    settle_all(&*sink, &batch).await;
    let names: Vec<&str> = sink.usage().iter().map(|usage| usage.what).collect();
    assert_eq!(names, ["requests", "write units", "read units", "throttled requests", "conditions that failed"]);
    // One request for the ledger, and one for each item.
    assert_eq!((used(&*sink, "requests"), used(&*sink, "write units")), (51.0, 51.0));
    settle_all(&*sink, &batch).await;
    assert_eq!((used(&*sink, "requests"), used(&*sink, "conditions that failed")), (101.0, 50.0));
    settle_all(&*case.sink(SECOND), &recovered(&batch)).await;
    assert_eq!(case.ledgers().len(), 1);
    let Some(case) = raw() else { return };
    let sink = case.sink(0);
    settle_all(&*sink, &Maker::new(0, 0).batch(&numbered(60))).await;
    assert_eq!((used(&*sink, "requests"), used(&*sink, "write units")), (4.0, 61.0));
}

/// A sum over 64 bits stays exact in the table; who asks for it is told, not lied to.
#[tokio::test]
async fn a_sum_over_64_bits_is_exact() {
    let Some(case) = rollup() else { return };
    let sink = case.sink(SECOND);
    let mut maker = Maker::new(SECOND, 0);
    for _ in 0..3 {
        settle_all(&*sink, &maker.batch(&[(series("a", &[]), START, i64::MAX as u64)])).await;
    }
    assert_eq!(case.items()[0]["value"]["N"], (3 * (i64::MAX as u128)).to_string());
    let held = sink.holdings(TimeRange::default()).await.unwrap();
    assert_eq!(held.windows.into_values().collect::<Vec<_>>(), [3 * (i64::MAX as u128)]);
}

/// moto's DynamoDB, which was written apart from dynalite, without a front before it. It has times to live and tells the item
/// of a failed condition, but is not atomic: one request at a time.
#[tokio::test]
async fn another_dynamodb_understands_the_same() {
    let Some(moto) = tallybus_tests::s3() else { return };
    for mode in ["rollup", "raw"] {
        let sink = || {
            let settings = json!({"table": format!("counters-{mode}"), "mode": mode, "region": "eu-west-1", "create": true,
                "endpoint": moto.url(), "access_key_id": "tallybus", "secret_access_key": "any", "ttl": "1d",
                "concurrency": 1, "shards": 2});
            build("dynamodb", settings, SECOND, &["tallybus.counters"])
        };
        let first = sink();
        first.prepare().await.expect("a table");
        first.check().await.expect("a table whose items expire");
        let mut maker = Maker::new(SECOND, 0);
        let mut all = vec![maker.batch(&numbered(30)), maker.batch(&[]), maker.batch(&numbered(40))];
        all.push(Maker::new(SECOND, 1).batch(&numbered(10)));
        for batch in &all {
            settle_all(&*first, batch).await;
        }
        for batch in &all {
            settle_all(&*sink(), &recovered(batch)).await;
        }
        let expected = Expected::of(&all);
        expected.check(&*first, SECOND).await;
        let range = TimeRange { from: Some(START), to: Some(START + 1) };
        expected.check_range(&*first, SECOND, range).await;
        expected.check_range(&*first, SECOND, TimeRange { from: Some(START + 1), to: None }).await;
        let scan = json!({"TableName": format!("counters-{mode}")});
        let items = call_dynamodb(&moto.url(), "Scan", &scan).expect("items");
        let expires_at = (START / SECOND + 1 + 86_400).to_string();
        let (ledgers, items): (Vec<&Value>, Vec<&Value>) =
            items["Items"].as_array().unwrap().iter().partition(|item| item["sk"]["S"] == "ledger");
        assert!(items.iter().all(|item| item["expires_at"]["N"] == expires_at));
        assert_eq!(ledgers.len(), 2);
        let answer = write(&*sink(), &Maker::new(SECOND, 0).batch(&numbered(3))).await;
        assert!(halts(&answer).starts_with("the table's ledger is at offset 71 of"), "{answer:?}");
        expected.check(&*first, SECOND).await;
    }
}
