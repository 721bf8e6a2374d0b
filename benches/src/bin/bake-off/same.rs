//! One sink against itself: what is called a difference where there is none.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::checks::{rank, rankings};
use crate::comparing::{Workplace, sinks};

/// Of ten comparisons, so many must see no difference in any aspect.
const AT_LEAST: f64 = 0.9;

/// Compares two sinks of the same settings, so many times.
///
/// # Errors
/// Too many comparisons saw a difference.
pub(super) fn show_no_difference(place: &Workplace, times: u64) -> Result<()> {
    let mut without = 0;
    for time in 1..=times {
        let twins = json!({
            "one": {"kind": "sqlite", "path": place.file("one.db")},
            "two": {"kind": "sqlite", "path": place.file("two.db")},
        });
        let result = place.compare("same", &twins, &["--probe-time", "10s"])?;
        ensure!(sinks(&result).all(|sink| sink["completeness"]["value"]["is_complete"] == true), "a sink is not equal");
        let rankings = rankings(&result);
        ensure!(rankings.len() >= 9, "only {} aspects were measured", rankings.len());
        let differs = |groups: &Vec<Vec<String>>| rank(groups, "one") != rank(groups, "two");
        let seen: Vec<&str> =
            rankings.iter().filter(|(_, groups)| differs(groups)).map(|(aspect, _)| aspect.as_str()).collect();
        without += u64::from(seen.is_empty());
        match seen.is_empty() {
            true => println!("the same sink, comparison {time}: no difference seen in {} aspects", rankings.len()),
            false => println!("the same sink, comparison {time}: differs in {}", seen.join(", ")),
        }
    }
    println!("the same sink: {without} of {times} comparisons saw no difference in any aspect");
    ensure!(without as f64 >= AT_LEAST * times as f64, "differences are seen where there are none");
    Ok(())
}
