//! The result as it is published: without the names of this machine.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::comparing::{read, tallybus};

/// What a reader must know of the backends, beside their names.
const NOTES: [&str; 4] = [
    "Every server ran on the one machine, reached over loopback, with the bus and the workers beside it: times are lower limits, and \
     a backend that shares the processor is slower than on a machine of its own.",
    "influxdb-far is influxdb behind a network that takes 250 ms for each request; influxdb-losing is influxdb behind a proxy that drops \
     one line in a thousand: it shows what a comparison does with a backend that loses counts.",
    "dynamodb-stand-in is dynalite, and redshift-stand-in the Data API's operations over PostgreSQL: their times and storage say nothing \
     about AWS; completeness, requests, bytes and write units do.",
    "clickhouse-engine is ClickHouse's engine (chDB) behind a small HTTP server.",
];

/// Writes `bake-off.json` and `bake-off.html` into `out`: a result of a comparison in `dir`.
///
/// # Errors
/// A name of this machine is left in it, or a file cannot be written.
pub(super) fn publish(result: &Path, dir: &Path, out: &Path, more: &[String]) -> Result<()> {
    let mut published = read(result)?;
    let host = published["environment"]["host"]["value"].as_str().map(str::to_owned);
    published["environment"]["host"] = json!({"value": null, "unknown": "left out of a published result"});
    without(&mut published, &format!("{}/", dir.display()));
    let notes = published["notes"].as_array_mut().context("the result has no notes")?;
    notes.extend(NOTES.into_iter().chain(more.iter().map(String::as_str)).map(|note| json!(note)));
    let text = format!("{published}\n");
    for name in [Some(dir.display().to_string()), host].into_iter().flatten() {
        ensure!(!text.contains(&name), "the result names {name}");
    }
    let json = out.join("bake-off.json");
    fs::write(&json, text)?;
    let page = out.join("bake-off.html");
    let shown = tallybus()?.args(["compare", "show"]).arg(&json).arg("--page").arg(&page).output()?;
    ensure!(shown.status.success(), "the page could not be written: {}", String::from_utf8_lossy(&shown.stderr));
    let size = fs::metadata(&page).context("the page was not written")?.len();
    println!("written to {}: a page of {size} bytes, and its figures", out.display());
    Ok(())
}

/// Removes a directory's name from every text.
fn without(value: &mut Value, prefix: &str) {
    match value {
        Value::String(text) => *text = text.replace(prefix, ""),
        Value::Array(items) => items.iter_mut().for_each(|item| without(item, prefix)),
        Value::Object(fields) => fields.values_mut().for_each(|field| without(field, prefix)),
        _ => {}
    }
}
