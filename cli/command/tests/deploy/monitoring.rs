//! The alert rules and the dashboard: every metric and label in them is one that a worker has.

use std::collections::BTreeSet;

use serde_json::Value;
use tallybus_worker::metrics::{METRICS, MetricKind};

use crate::repository;

/// The names of metrics in an expression, each with the text in braces behind it.
fn metrics_in(expression: &str) -> Vec<(String, String)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find("tallybus_") {
        let name: String = rest[start..].chars().take_while(|c| is_name(*c)).collect();
        rest = &rest[start + name.len()..];
        let braces = rest.strip_prefix('{').and_then(|inside| inside.split_once('}')).map_or("", |(inside, _)| inside);
        found.push((name, braces.to_owned()));
    }
    found
}

/// The labels by which an expression groups: `sink` and `le` in `sum by (sink, le) (…)`.
fn groups_in(expression: &str) -> Vec<String> {
    let parts = expression.split("by (").skip(1).filter_map(|part| part.split(')').next());
    parts.flat_map(|labels| labels.split(',')).map(|label| label.trim().to_owned()).collect()
}

fn check(place: &str, expression: &str) {
    let metrics = metrics_in(expression);
    // `up` is Prometheus' own.
    assert!(!metrics.is_empty() || expression.starts_with("up{"), "{place} has no metric: {expression}");
    let mut labels: BTreeSet<&str> = ["instance", "job"].into();
    for (name, braces) in &metrics {
        let is_it = |metric: &&&tallybus_worker::metrics::Metric| {
            let suffixes = ["_bucket", "_sum", "_count"];
            let is_part = suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(metric.name));
            if metric.kind == MetricKind::Histogram { is_part } else { metric.name == name }
        };
        let metric = METRICS.iter().find(is_it).unwrap_or_else(|| panic!("{place}: there is no metric {name}"));
        labels.extend(metric.labels);
        if name.ends_with("_bucket") {
            labels.insert("le");
        }
        for label in braces.split(',').filter(|label| !label.is_empty()) {
            let label = label.split(['=', '!']).next().unwrap_or_default();
            assert!(metric.labels.contains(&label), "{place}: {name} has no label {label}");
        }
    }
    for label in groups_in(expression) {
        assert!(labels.contains(label.as_str()), "{place}: no metric of {expression} has the label {label}");
    }
}

#[test]
fn every_alert_is_about_metrics_that_workers_have() {
    let rules = std::fs::read_to_string(repository("deploy/monitoring/alerts.yaml")).unwrap();
    let mut alerts = Vec::new();
    for line in rules.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            alerts.push(name);
        }
        if let Some(expression) = line.strip_prefix("expr: ") {
            check(alerts.last().unwrap(), expression);
        }
        // What an alert says may use the labels of its metrics only.
        for (label, _) in line.split("$labels.").skip(1).filter_map(|part| part.split_once(' ')) {
            let known = METRICS.iter().any(|metric| metric.labels.contains(&label)) || label == "instance";
            assert!(known, "{line}");
        }
    }
    let expected = [
        "TallybusHalted",
        "TallybusLagHigh",
        "TallybusLagGrowing",
        "TallybusRetrying",
        "TallybusDeadLetters",
        "TallybusWorkerDown",
        "TallybusResting",
        "TallybusTargetDown",
        "TallybusHeartbeatsFailing",
    ];
    assert_eq!(alerts, expected);
}

#[test]
fn every_panel_of_the_dashboard_shows_metrics_that_workers_have() {
    let dashboard = std::fs::read_to_string(repository("deploy/monitoring/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 15);
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            check(title, target["expr"].as_str().unwrap());
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let query = dashboard["templating"]["list"][1]["query"].as_str().unwrap();
    assert_eq!(metrics_in(query)[0].0, "tallybus_sink_up");
}

#[test]
fn a_metric_or_a_label_that_no_worker_has_is_found() {
    let wrong = [
        "rate(tallybus_sink_lag_second[5m])",
        "tallybus_sink_stage_seconds",
        "sum by (site) (tallybus_sink_up)",
        "tallybus_sink_up{topic=\"x\"}",
        "1",
    ];
    for expression in wrong {
        assert!(std::panic::catch_unwind(|| check("test", expression)).is_err(), "{expression}");
    }
    check("test", "sum by (sink, le) (rate(tallybus_sink_stage_seconds_bucket{sink=~\"a\",stage!=\"seal\"}[5m]))");
}
