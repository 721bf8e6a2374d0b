//! The formats that systems which exist take, on a real VictoriaMetrics.

use std::sync::Arc;

use serde_json::{Value, json};
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::batches::{Expected, Maker, SECOND, START, recovered, series, settle, settle_all};
use tallybus_sdk::{Batch, Sink, TimeRange, WriteOutcome};
use tallybus_tests::VictoriaMetricsServer;

use crate::subjects::build;

const PRESETS: [(&str, &str); 3] =
    [("prometheus", "/api/v1/write"), ("datadog", "/datadog/api/v1/series"), ("influx", "/write")];

fn sink(server: &VictoriaMetricsServer, format: &str, path: &str, more: Value) -> Arc<dyn Sink> {
    let mut table = json!({
        "url": format!("{}{path}", server.url()), "format": format, "slots": 1, "idempotency_key": "",
        "read": "victoriametrics", "read_url": server.url(), "check_url": format!("{}/health", server.url()),
    });
    for (key, value) in more.as_object().unwrap() {
        table[key] = value.clone();
    }
    build("http", table, SECOND, &["tallybus.counters"])
}

/// Two partitions, batches that share series and windows, texts that need care.
fn history(name: &str) -> Vec<Batch> {
    let mut all = Vec::new();
    for partition in 0..2 {
        let mut maker = Maker::new(SECOND, partition).from(1 << 40);
        for round in 0..20_u64 {
            let events: Vec<_> = (0..60)
                .map(|n| {
                    let series = match n % 3 {
                        0 => series(&format!("{name}.a"), &[]),
                        1 => series(&format!("{name}.b"), &[("route", "/v1/sites?a=b&c"), ("status", "200")]),
                        _ => series(&format!("{name}.c d"), &[("k", "é 日本, \"x\" = y"), ("n", &(n % 7).to_string())]),
                    };
                    (series, START + (n as i64 % 4) * SECOND, 1 + n + round)
                })
                .collect();
            all.push(maker.batch(&events));
        }
    }
    all
}

fn total(batches: &[Batch]) -> u64 {
    u64::try_from(batches.iter().map(Batch::total).sum::<u128>()).unwrap()
}

/// What a user would ask for the exact sum.
fn queried(server: &VictoriaMetricsServer, name: &str) -> u64 {
    queried_within(server, name, "1h", START / SECOND + 600)
}

fn queried_within(server: &VictoriaMetricsServer, name: &str, range: &str, until: i64) -> u64 {
    let promql = format!(r#"sum(sum_over_time({{__name__=~"{name}\\..*",tallybus_partition!=""}}[{range}]))"#);
    let answer: Value = serde_json::from_str(&server.query(&promql, until).unwrap()).unwrap();
    answer["data"]["result"][0]["value"][1].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn sums_queried_from_victoriametrics_agree() {
    let Some(server) = tallybus_tests::victoria_metrics() else { return };
    for (format, path) in PRESETS {
        let compression = if format == "prometheus" { "none" } else { "gzip" };
        // A server for each would do; the partition's label would not tell apart what is read back here.
        let sink = sink(&server, format, path, json!({"compression": compression}));
        sink.check().await.unwrap();
        let batches = history(format);
        for batch in &batches {
            settle_all(&*sink, batch).await;
        }
        server.flush().unwrap();
        assert_eq!(queried(&server, format), total(&batches), "{format}");
        // Second by second, and nothing of one in another.
        for second in 0..4 {
            let start = START + second * SECOND;
            let points = batches.iter().flat_map(|batch| &batch.points).filter(|point| point.time == start);
            let sum: u64 = points.map(|point| point.value).sum();
            assert_eq!(queried_within(&server, format, "1s", start / SECOND + 1), sum, "{format}, second {second}");
        }
        let expected = Expected::of(&batches);
        let totals = sink.totals(TimeRange::default()).await.unwrap();
        for series in expected.series() {
            let found: Vec<u64> =
                totals.iter().filter(|total| total.series == *series).map(|total| total.total).collect();
            assert_eq!(found, [expected.totals(TimeRange::default())[series]], "{format}: {series}");
            for range in [
                TimeRange::default(),
                TimeRange { from: Some(START + SECOND), to: Some(START + 3 * SECOND) },
                TimeRange { from: Some(START + 1), to: Some(START + 3 * SECOND + 1) },
            ] {
                let windows = sink.windows(series, range, SECOND).await.unwrap();
                assert_eq!(windows, expected.windows(series, range, SECOND), "{format}: {series} in {range:?}");
            }
        }
    }
}

/// VictoriaMetrics keeps what comes twice, unless it is told not to.
#[tokio::test]
async fn a_repeated_write_counts_twice_unless_samples_are_deduplicated() {
    let Some(plain) = tallybus_tests::victoria_metrics() else { return };
    let flags = ["-dedup.minScrapeInterval=1ms"];
    let Some(deduplicating) = tallybus_tests::victoria_metrics_with(&flags) else { return };
    for (format, path) in PRESETS {
        let batches = history(format);
        for (server, times) in [(&plain, 2), (&deduplicating, 1)] {
            let sink = sink(server, format, path, json!({"idempotent": times == 1}));
            for batch in &batches {
                settle_all(&*sink, batch).await;
                settle_all(&*sink, &recovered(batch)).await;
            }
            server.flush().unwrap();
            assert_eq!(queried(server, format), times * total(&batches), "{format}, counted {times} times");
            let totals = sink.totals(TimeRange::default()).await.unwrap();
            let of_format = totals.iter().filter(|total| total.series.name().starts_with(&format!("{format}.")));
            assert_eq!(of_format.map(|total| total.total).sum::<u64>(), times * total(&batches), "{format}");
        }
    }
}

/// What stands at the same place: with deduplication one of two is lost, and more slots keep them apart.
#[tokio::test]
async fn the_bound_is_where_it_is_said_to_be() {
    let flags = ["-dedup.minScrapeInterval=1ms"];
    let Some(server) = tallybus_tests::victoria_metrics_with(&flags) else { return };
    for (slots, distance, survives) in [(1, 998, true), (1, 999, false), (2, 999, true), (2, 2 * 999, false)] {
        let name = format!("s{slots}d{distance}");
        let sink = sink(&server, "prometheus", "/api/v1/write", json!({"slots": slots}));
        let event = |value| (series(&format!("{name}.x"), &[]), START, value);
        let one = Maker::new(SECOND, 0).from(5_000).batch(&[event(1)]);
        let two = Maker::new(SECOND, 0).from(5_000 + distance).batch(&[event(2)]);
        settle_all(&*sink, &one).await;
        settle_all(&*sink, &two).await;
        server.flush().unwrap();
        assert_eq!(queried(&server, &name) == 3, survives, "slots {slots}, {distance} apart");
    }
}

#[tokio::test]
async fn what_victoriametrics_cannot_hold_exactly_is_rejected() {
    let Some(server) = tallybus_tests::victoria_metrics() else { return };
    for (format, path) in &PRESETS[..2] {
        let sink = sink(&server, format, path, json!({}));
        let (large, fine) = (series(&format!("{format}.large"), &[]), series(&format!("{format}.fine"), &[]));
        let batch = Maker::new(SECOND, 0).batch(&[(large.clone(), START, (1 << 53) + 1), (fine, START, 1 << 53)]);
        assert_eq!(settle(&*sink, &batch).await, [(large, (1 << 53) + 1)]);
        server.flush().unwrap();
        assert_eq!(queried(&server, format), 1 << 53);
    }
}

#[tokio::test]
async fn a_body_that_is_none_is_refused_and_nothing_of_it_is_in() {
    let Some(server) = tallybus_tests::victoria_metrics() else { return };
    // Lines where remote write is expected.
    let sink = sink(&server, "influx", "/api/v1/write", json!({}));
    let answer = sink.write(&history("x")[0], &sink.encode(&history("x")[0])).await;
    assert!(
        matches!(&answer, WriteOutcome::Split { reason } if reason.contains("the server answered 400")),
        "{answer:?}"
    );
    assert_eq!(sink.totals(TimeRange::default()).await.unwrap(), []);
}
