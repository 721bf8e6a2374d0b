//! What a result must show.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::comparing::sinks;

/// The groups of each aspect, best first.
pub(super) fn rankings(result: &Value) -> BTreeMap<String, Vec<Vec<String>>> {
    let groups = |ranking: &Value| -> Vec<Vec<String>> {
        let groups = ranking["groups"].as_array().into_iter().flatten();
        groups.map(|group| group.as_array().into_iter().flatten().map(text).collect()).collect()
    };
    let all = result["rankings"].as_array().into_iter().flatten();
    all.map(|ranking| (text(&ranking["aspect"]), groups(ranking))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(super) fn is_named_and_not_ranked(result: &Value) -> Result<()> {
    for sink in sinks(result) {
        let completeness = &sink["completeness"]["value"];
        let is_losing = sink["name"] == "influxdb-losing";
        ensure!(completeness["is_complete"] == !is_losing, "{}: {completeness}", sink["name"]);
        if is_losing {
            println!("influxdb-losing: missing {} of {}", completeness["missing"], completeness["expected"]);
        }
    }
    let ranked = rankings(result).into_values().flatten().flatten().any(|name| name == "influxdb-losing");
    ensure!(!ranked, "a sink that loses counts is ranked");
    Ok(())
}

/// The rank of a sink in an aspect.
pub(super) fn rank(groups: &[Vec<String>], name: &str) -> Option<usize> {
    groups.iter().position(|group| group.iter().any(|other| other == name))
}

pub(super) fn is_never_before(result: &Value, slow: &str, near: &str) -> Result<()> {
    let of_time = ["catch_up_rate", "write_time", "freshness_median", "freshness_p99"];
    for (aspect, groups) in rankings(result).iter().filter(|(aspect, _)| of_time.contains(&aspect.as_str())) {
        let (Some(slow), Some(near)) = (rank(groups, slow), rank(groups, near)) else {
            bail!("{aspect}: one of the two is not ranked: {groups:?}");
        };
        println!("{aspect}: far is {} places behind near", slow.saturating_sub(near));
        ensure!(slow >= near, "{aspect}: the slow one comes first: {groups:?}");
    }
    // Others may lie between the two, and make one group of all.
    let aspect = "write_time";
    ensure!(is_slower(result, aspect, slow, near)?, "{aspect}: no difference seen between {slow} and {near}");
    Ok(())
}

/// Whether a difference between two sinks was seen in a time: their intervals are apart, and their medians by more than the noise
/// floor.
fn is_slower(result: &Value, aspect: &str, slow: &str, near: &str) -> Result<bool> {
    let figure = |name: &str, key: &str| {
        let sink = sinks(result).find(|sink| sink["name"] == name);
        let figure = sink.and_then(|sink| sink["summaries"][aspect]["value"][key].as_f64());
        figure.with_context(|| format!("{aspect} of {name} is not known"))
    };
    let noise = result["noise"].as_array().into_iter().flatten().find(|noise| noise["aspect"] == aspect);
    let noise = noise.and_then(|noise| noise["difference"].as_f64()).context("no noise floor")?;
    let (far, close) = (figure(slow, "median")?, figure(near, "median")?);
    println!("{aspect}: {slow} {:.1} ms, {near} {:.1} ms; noise {:.1} %", far * 1e3, close * 1e3, noise * 100.0);
    Ok(figure(slow, "low")? > figure(near, "high")? && far / close - 1.0 > noise)
}

pub(super) fn contradicts_nothing(first: &Value, second: &Value) -> Result<()> {
    let (first, second) = (rankings(first), rankings(second));
    let (mut same, mut unsure) = (0, 0);
    for (aspect, groups) in &first {
        let others = second.get(aspect).with_context(|| format!("{aspect} was not measured again"))?;
        let names: Vec<&String> = groups.iter().flatten().collect();
        for (number, one) in names.iter().enumerate() {
            for other in &names[number + 1..] {
                let before = rank(groups, one).cmp(&rank(groups, other));
                let after = rank(others, one).cmp(&rank(others, other));
                ensure!(before != after.reverse() || before.is_eq(), "{aspect}: {one} and {other} changed places");
                if before == after { same += 1 } else { unsure += 1 }
            }
        }
    }
    println!(
        "run twice: {same} pairs in the same order, {unsure} in order once and \"no difference seen\" once, none reversed"
    );
    Ok(())
}
