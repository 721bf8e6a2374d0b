//! Requests and bytes, against what proxies before the backends count.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tallybus_tests::{FaultProxy, Posted};

use crate::comparing::{Workplace, sinks};
use crate::postgres_wire::PostgresWire;
use crate::servers::{Servers, influx};

/// How far a figure may be from the proxy's.
const TOLERANCE: f64 = 0.02;

/// Compares InfluxDB and PostgreSQL behind proxies, and their figures with those of the proxies.
///
/// # Errors
/// A figure is not the proxy's, within the tolerance.
pub(super) fn agree(place: &Workplace, servers: &Servers, rounds: u64) -> Result<()> {
    let proxy = FaultProxy::start(&servers.influx.url())?;
    servers.influx.create_database("counted")?;
    let wire = PostgresWire::start(servers.postgres.port())?;
    let mut chosen = json!({
        "influxdb": influx(&proxy.url(), "counted"),
        "postgres": servers.postgres_at(wire.port()),
    });
    for sink in ["influxdb", "postgres"] {
        // With many batches, what a worker asks before its first one does not matter.
        chosen[sink]["batch.max_events"] = json!(250);
    }
    let rounds_text = rounds.to_string();
    let more = ["--rounds", &rounds_text, "--asks", "1", "--probe-time", "0s", "--no-control"];
    let result = place.compare("counted", &chosen, &more)?;
    let Posted { requests, bytes } = proxy.posted("/write");
    check(&result, "influxdb", rounds, (requests, bytes))?;
    check(&result, "postgres", rounds, wire.of_writers())
}

/// The proxy has seen the round that warms up as well.
fn check(result: &Value, name: &str, rounds: u64, (requests, bytes): (u64, u64)) -> Result<()> {
    let sink = sinks(result).find(|sink| sink["name"] == name).context("no such sink in the result")?;
    let all = sink["rounds"].as_array().context("no rounds")?;
    let share = (rounds as f64 + 1.0) / rounds as f64;
    for (what, theirs) in [("requests", requests as f64), ("bytes", bytes as f64)] {
        let counted: Option<Vec<f64>> = all.iter().map(|round| round[what]["value"].as_f64()).collect();
        let counted = counted.with_context(|| format!("{name}: {what} are not known"))?;
        let ours = counted.iter().sum::<f64>() * share;
        let difference = ours / theirs - 1.0;
        println!("{name}: {what}: {ours:.0} counted, {theirs:.0} seen by the proxy ({:+.2} %)", difference * 100.0);
        ensure!(difference.abs() <= TOLERANCE, "{name}: the {what} are not those that the proxy saw");
    }
    Ok(())
}
