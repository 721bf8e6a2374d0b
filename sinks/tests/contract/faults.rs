//! What only an HTTP backend can do to a sink, with the real InfluxDB behind a proxy that goes wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::batches::{
    Expected, Maker, SECOND, START, batches, recovered, series, settle, settle_all, write,
};
use tallybus_sdk::{Sink, SinkError, TimeRange, WriteOutcome};
use tallybus_tests::{FaultProxy, InfluxOptions, InfluxServer, InfluxV2, Mode, flux};

use crate::subjects::build;

struct Fixture {
    server: InfluxServer,
    proxy: FaultProxy,
}

impl Fixture {
    fn start() -> Option<Self> {
        Self::with(InfluxOptions::default())
    }

    fn with(options: InfluxOptions) -> Option<Self> {
        let server = tallybus_tests::influxdb_with(options)?;
        server.create_database("d").unwrap();
        let proxy = FaultProxy::start(&server.url()).unwrap();
        Some(Self { server, proxy })
    }

    fn sink(&self, more: Value) -> Arc<dyn Sink> {
        let mut table = json!({"url": self.proxy.url(), "api": "v1", "database": "d", "timeout": "2s"});
        for (key, value) in more.as_object().unwrap() {
            table[key] = value.clone();
        }
        build("influxdb", table, SECOND, &["tallybus.counters"])
    }
}

fn retries(answer: &WriteOutcome) -> Option<Option<Duration>> {
    if let WriteOutcome::Retry { after, reason } = answer {
        assert!(!reason.is_empty());
        return Some(*after);
    }
    None
}

#[tokio::test]
async fn whatever_breaks_is_retried_and_counts_once() {
    let Some(fixture) = Fixture::start() else { return };
    break_everything(&fixture.proxy, &*fixture.sink(json!({}))).await;
}

/// Writes a batch through each thing that can go wrong on the way, and then again; each counts once.
pub(crate) async fn break_everything(proxy: &FaultProxy, sink: &dyn Sink) {
    let modes = [
        Mode::ApplyThenCut,
        Mode::CutRequest,
        Mode::Unavailable { retry_after: None },
        Mode::Refuse,
        Mode::answer(429, "{}"),
        Mode::answer(502, "<html>bad gateway</html>"),
        Mode::answer(408, ""),
        Mode::Delay(Duration::from_secs(3)),
        Mode::Hang,
    ];
    let all = batches(modes.len() as u64);
    for (batch, mode) in all.iter().zip(modes) {
        proxy.set(mode.clone());
        let began = Instant::now();
        let answer = write(sink, batch).await;
        assert_eq!(retries(&answer), Some(None), "{mode:?}: {answer:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{mode:?}: {:?}", began.elapsed());
        proxy.set(Mode::Pass);
        settle_all(sink, batch).await;
    }
    // The delayed write comes in late: it changes nothing.
    while proxy.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Expected::of(&all).check(sink, SECOND).await;
}

#[tokio::test]
async fn a_stated_wait_is_handed_on() {
    let Some(fixture) = Fixture::start() else { return };
    let sink = fixture.sink(json!({}));
    let batch = &batches(1)[0];
    for status in [429, 503] {
        fixture.proxy.set(Mode::Answer {
            status,
            headers: vec![("Retry-After".to_owned(), "17".to_owned())],
            body: r#"{"code":"too many requests","message":"slow down"}"#.to_owned(),
        });
        let answer = write(&*sink, batch).await;
        assert_eq!(retries(&answer), Some(Some(Duration::from_secs(17))));
        assert!(matches!(answer, WriteOutcome::Retry { reason, .. } if reason.contains("slow down")));
    }
    fixture.proxy.set(Mode::Unavailable { retry_after: Some(3) });
    assert_eq!(retries(&write(&*sink, batch).await), Some(Some(Duration::from_secs(3))));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let Some(fixture) = Fixture::start() else { return };
    let sink = fixture.sink(json!({}));
    let location = format!("{}/write?db=d", fixture.server.url());
    for status in [301, 302, 307, 308] {
        let headers = vec![("Location".to_owned(), location.clone())];
        fixture.proxy.set(Mode::Answer { status, headers, body: String::new() });
        let answer = write(&*sink, &batches(1)[0]).await;
        assert!(matches!(&answer, WriteOutcome::Halt { reason } if reason.contains("set `url`")), "{answer:?}");
    }
    fixture.proxy.set(Mode::Pass);
    Expected::default().check(&*sink, SECOND).await;
}

#[tokio::test]
async fn too_large_is_halved_until_it_fits() {
    let Some(fixture) = Fixture::with(InfluxOptions { max_body: Some(4_000), ..InfluxOptions::default() }) else {
        return;
    };
    let sink = fixture.sink(json!({"gzip": false}));
    let mut maker = Maker::new(SECOND, 0);
    let events: Vec<_> = (0..500).map(|n| (series("a", &[("n", &n.to_string())]), START, n + 1)).collect();
    let batch = maker.batch(&events);
    assert!(matches!(write(&*sink, &batch).await, WriteOutcome::Split { .. }));
    settle_all(&*sink, &batch).await;
    settle_all(&*sink, &recovered(&batch)).await;
    // One line that is too large for itself is rejected, and only it.
    let long = "x".repeat(1_024);
    let tags: Vec<(String, &str)> = (0..5).map(|n| (format!("k{n}"), long.as_str())).collect();
    let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let huge = maker.batch(&[(series("b", &tags), START, 1), (series("c", &[]), START, 1)]);
    assert_eq!(settle(&*sink, &huge).await, [(series("b", &tags), 1)]);
    let mut expected = Expected::of([&batch]);
    expected.add(&series("c", &[]), START, 1);
    expected.check(&*sink, SECOND).await;
}

#[tokio::test]
async fn points_behind_the_retention_are_rejected_and_the_rest_is_in() {
    let Some(fixture) = Fixture::start() else { return };
    fixture.server.query("d", "CREATE RETENTION POLICY \"day\" ON \"d\" DURATION 1d REPLICATION 1").unwrap();
    let sink = fixture.sink(json!({"retention_policy": "day"}));
    sink.check().await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_nanos()).unwrap();
    let time = |n: u64| if n.is_multiple_of(10) { START } else { now };
    let events: Vec<_> = (0..40).map(|n| (series("a", &[("n", &n.to_string())]), time(n), n + 1)).collect();
    let batch = Maker::new(SECOND, 0).batch(&events);
    let mut rejected: Vec<u64> = settle(&*sink, &batch).await.into_iter().map(|(_, value)| value).collect();
    rejected.sort_unstable();
    assert_eq!(rejected, [1, 11, 21, 31]);
    let totals = sink.totals(TimeRange::default()).await.unwrap();
    assert_eq!(totals.len(), 36);
    assert_eq!(totals.iter().map(|total| total.total).sum::<u64>(), (1..=40).sum::<u64>() - 64);
}

/// Every error that needs an operator names the other version, and none tells to set what is set already.
#[tokio::test]
async fn a_server_of_the_other_version_is_named_with_the_api_to_set() {
    let Some(fixture) = Fixture::start() else { return };
    let front = InfluxV2::start(&fixture.server).unwrap();
    let v2_on_1 = json!({"url": fixture.server.url(), "org": "o", "bucket": "b", "token": "t", "create": true});
    let v1_on_2 = json!({"url": front.url(), "api": "v1", "database": "d", "create": true});
    for (table, wanted) in [(v2_on_1, "v1"), (v1_on_2, "v2")] {
        let sink = build("influxdb", table, SECOND, &["tallybus.counters"]);
        let mut reasons = vec![sink.prepare().await.unwrap_err(), sink.check().await.unwrap_err()];
        reasons.push(sink.claims().unwrap().add("{}").await.unwrap_err());
        reasons.extend(sink.totals(TimeRange::default()).await.err());
        let WriteOutcome::Halt { reason } = write(&*sink, &batches(1)[0]).await else { panic!("written") };
        reasons.push(SinkError::Halt(reason));
        assert_eq!(reasons.len(), 5);
        for error in reasons {
            let SinkError::Halt(reason) = &error else { panic!("it would be asked again: {error}") };
            assert!(reason.ends_with(&format!("`api = \"{wanted}\"` is most likely wanted")), "{reason}");
            assert!(!reason.contains("set `create"), "{reason}");
        }
    }
}

#[tokio::test]
async fn what_is_missing_halts_or_is_created() {
    let Some(fixture) = Fixture::start() else { return };
    let batch = &batches(1)[0];
    let missing = fixture.sink(json!({"database": "none \"such\""}));
    let answer = write(&*missing, batch).await;
    assert!(matches!(&answer, WriteOutcome::Halt { reason } if reason.contains("create = true")), "{answer:?}");
    assert!(matches!(missing.check().await, Err(SinkError::Halt(_))));
    assert!(matches!(missing.totals(TimeRange::default()).await, Err(SinkError::Halt(_))));
    let created = fixture.sink(json!({"database": "none \"such\"", "create": true}));
    for _ in 0..2 {
        created.prepare().await.unwrap();
    }
    settle_all(&*missing, batch).await;
    Expected::of([batch]).check(&*created, SECOND).await;
    let policy = fixture.sink(json!({"retention_policy": "none"}));
    let answer = write(&*policy, batch).await;
    assert!(matches!(&answer, WriteOutcome::Halt { reason } if reason.contains("retention policy")), "{answer:?}");
    assert!(matches!(policy.totals(TimeRange::default()).await, Err(SinkError::Halt(_))));
    let mut beyond = batch.clone();
    beyond.id.partition = 64;
    let answer = write(&*fixture.sink(json!({})), &beyond).await;
    assert!(
        matches!(&answer, WriteOutcome::Halt { reason } if reason.contains("raise `max_partitions` above 64")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn version_2_says_what_is_missing_and_creates_it() {
    let Some(fixture) = Fixture::start() else { return };
    let front = InfluxV2::start(&fixture.server).unwrap();
    front.on_query(flux::sink_queries());
    let sink = |more: Value| {
        let mut table = json!({"url": front.url(), "org": InfluxV2::ORG, "bucket": "new", "token": InfluxV2::TOKEN});
        for (key, value) in more.as_object().unwrap() {
            table[key] = value.clone();
        }
        build("influxdb", table, SECOND, &["tallybus.counters"])
    };
    let batch = &batches(1)[0];
    let answer = write(&*sink(json!({})), batch).await;
    assert!(
        matches!(&answer, WriteOutcome::Halt { reason } if reason.contains("bucket \"new\" not found")),
        "{answer:?}"
    );
    assert!(matches!(sink(json!({})).check().await, Err(SinkError::Halt(_))));
    let elsewhere = sink(json!({"org": "nobody", "create": true}));
    assert!(matches!(elsewhere.prepare().await, Err(SinkError::Halt(_))));
    let creating = sink(json!({"create": true}));
    for _ in 0..2 {
        creating.prepare().await.unwrap();
    }
    settle_all(&*creating, batch).await;
    Expected::of([batch]).check(&*sink(json!({})), SECOND).await;
    let wrong = sink(json!({"token": "wrong-secret"}));
    for outcome in [wrong.check().await, wrong.totals(TimeRange::default()).await.map(drop)] {
        let Err(SinkError::Halt(reason)) = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("401") && !reason.contains("wrong-secret"), "{reason}");
    }
}

#[tokio::test]
async fn a_token_that_is_replaced_in_its_file_is_used_by_the_running_sink_for_writing_and_reading() {
    let Some(fixture) = Fixture::start() else { return };
    let front = InfluxV2::start(&fixture.server).unwrap();
    front.on_query(flux::sink_queries());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "an-old-token").unwrap();
    let token = format!("file:{}", path.display());
    let table = json!({"url": front.url(), "org": InfluxV2::ORG, "bucket": "b", "token": token, "create": true});
    let sink = build("influxdb", table, SECOND, &["tallybus.counters"]);
    assert!(matches!(sink.prepare().await, Err(SinkError::Halt(_))));
    assert!(matches!(sink.claims().unwrap().entries().await, Err(SinkError::Halt(_))));
    std::fs::write(&path, InfluxV2::TOKEN).unwrap();
    sink.prepare().await.unwrap();
    let batch = &batches(1)[0];
    settle_all(&*sink, batch).await;
    Expected::of([batch]).check(&*sink, SECOND).await;
}

#[tokio::test]
async fn a_server_that_repeats_the_secret_does_not_put_it_into_a_reason() {
    let Some(fixture) = Fixture::start() else { return };
    let sink = fixture.sink(json!({"username": "u", "password": "very-secret"}));
    for status in [400, 401, 404, 418, 500, 503] {
        fixture.proxy.set(Mode::answer(status, r#"{"error":"bad password very-secret, not found"}"#));
        let answer = format!("{:?}", write(&*sink, &batches(1)[0]).await);
        assert!(answer.contains("bad password ***") && !answer.contains("very-secret"), "{answer}");
        let check = format!("{:?}", sink.check().await);
        let totals = format!("{:?}", sink.totals(TimeRange::default()).await);
        assert!(!check.contains("very-secret") && !totals.contains("very-secret"), "{check} {totals}");
    }
    let shown = format!("{:?}", fixture.sink(json!({"username": "u", "password": "very-secret"})).layout_fingerprint());
    assert!(!shown.contains("very-secret"));
}

#[tokio::test]
async fn a_check_of_a_failing_server_says_whether_to_check_again() {
    let Some(fixture) = Fixture::start() else { return };
    let front = InfluxV2::start(&fixture.server).unwrap();
    front.on_query(flux::sink_queries());
    let proxy = FaultProxy::start(&front.url()).unwrap();
    let table = json!({"url": proxy.url(), "org": InfluxV2::ORG, "bucket": "d", "token": InfluxV2::TOKEN});
    let two = build("influxdb", table, SECOND, &["tallybus.counters"]);
    let one = fixture.sink(json!({}));
    for (mode, passing) in [
        (Mode::Refuse, true),
        (Mode::CutRequest, true),
        (Mode::ApplyThenCut, true),
        (Mode::Unavailable { retry_after: None }, true),
        (Mode::answer(403, r#"{"message":"no"}"#), false),
        (Mode::answer(200, "neither CSV nor JSON"), false),
    ] {
        for (sink, proxy) in [(&one, &fixture.proxy), (&two, &proxy)] {
            proxy.set(mode.clone());
            let outcome = sink.totals(TimeRange::default()).await;
            match outcome {
                Err(SinkError::Unavailable(_)) if passing => {}
                Err(SinkError::Halt(_)) if !passing => {}
                other => panic!("{mode:?}: {other:?}"),
            }
            proxy.set(Mode::Pass);
            assert_eq!(sink.totals(TimeRange::default()).await.unwrap(), []);
        }
    }
}
