//! `tallybus compare show` and `compare diff`, on the result of a real comparison.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Place, Ran};
use serde_json::{Value, json};
use tallybus_tests::json_schema::JsonSchema;

const SECOND: i64 = 1_000_000_000;

const SINKS: &str = r#"
[sinks.local]
kind = "sqlite"
path = "local.db"
batch = { max_delay = "50ms" }
[sinks.files]
kind = "parquet"
path = "files"
batch = { max_delay = "50ms" }
"#;

/// The result of a comparison of a SQLite and a Parquet sink over 2,000 events, in `result.json`.
fn compared() -> (Place, Value) {
    let place = Place::with_settings(SINKS);
    place.run(&["topic", "create"]).expect(0);
    for partition in 0..2 {
        let event = |n: i64| {
            let time = (1_700_000_000 + n % 90) * SECOND;
            format!(r#"{{"ts":{time},"name":"hits","value":{},"tags":{{"route":"/{}"}}}}"#, n + 1, n % 7)
        };
        let messages: Vec<String> = (0..20)
            .map(|m| format!("[{}]", (0..50).map(|n| event(m * 50 + n)).collect::<Vec<_>>().join(",")))
            .collect();
        place.publish(partition, &messages.iter().map(String::as_bytes).collect::<Vec<_>>());
    }
    let run = ["compare", "run", "--shadow", "--rounds", "3", "--asks", "4", "--seed", "5", "--probe-time", "2s"];
    let ran = place.run(&[&run[..], &["--out", "result.json", "--page", "run.html"]].concat()).expect(0);
    assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{}", ran.out);
    let text = std::fs::read_to_string(place.file("result.json")).unwrap();
    (place, serde_json::from_str(&text).unwrap())
}

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn schema() -> JsonSchema {
    JsonSchema::new(
        serde_json::from_str(&std::fs::read_to_string(repository("docs/compare.schema.json")).unwrap()).unwrap(),
    )
}

/// Another result beside the first: the same, changed.
fn changed(place: &Place, result: &Value, change: impl FnOnce(&mut Value)) -> String {
    let mut other = result.clone();
    change(&mut other);
    place.write("other.json", &other.to_string());
    "other.json".to_owned()
}

fn diff(place: &Place, old: &str, new: &str, more: &[&str]) -> Ran {
    place.run(&[&["compare", "diff", old, new], more].concat())
}

fn sink<'r>(result: &'r mut Value, name: &str) -> &'r mut Value {
    result["sinks"].as_array_mut().unwrap().iter_mut().find(|sink| sink["name"] == name).unwrap()
}

fn scale(result: &mut Value, name: &str, aspect: &str, factor: f64) {
    let summary = &mut sink(result, name)["summaries"][aspect]["value"];
    for key in ["median", "low", "high"] {
        summary[key] = json!(summary[key].as_f64().unwrap() * factor);
    }
}

#[test]
fn a_real_result_is_what_the_published_schema_says_and_is_shown_as_table_json_and_csv() {
    let (place, result) = compared();
    assert_eq!(schema().violations(&result), [""; 0]);

    let shown = place.run(&["compare", "show", "result.json"]).expect(0);
    assert!(shown.out.lines().all(|line| line.chars().count() <= 80), "{}", shown.out);
    for expected in ["catch-up rate", "files (control)", "yes: equal", "questions, and their answers against the bus"] {
        assert!(shown.out.contains(expected), "{expected} is not in\n{}", shown.out);
    }
    assert!(!shown.out.contains("money"), "no price is built in");
    assert_eq!(place.run(&["compare", "show", "result.json", "--json"]).expect(0).json(), result);

    let csv = place.run(&["compare", "show", "result.json", "--csv"]).expect(0).out;
    let mut rows = csv.lines();
    assert_eq!(rows.next(), Some("sink,figure,unit,median,low,high,figures,rank,unknown"));
    let figures = result["sinks"].as_array().unwrap().iter().map(|sink| sink["summaries"].as_object().unwrap().len());
    assert_eq!(rows.count(), figures.sum::<usize>());
    assert!(csv.lines().any(|row| row.starts_with("local,catch_up_rate,events/s,")), "{csv}");
    place.run(&["compare", "show", "result.json", "--csv", "--json"]).expect(2);

    // The page that the run wrote is the one that its result is shown as.
    place.run(&["compare", "show", "result.json", "--page", "shown.html"]).expect(0);
    let read = |name: &str| std::fs::read_to_string(place.file(name)).unwrap();
    assert_eq!(read("run.html"), read("shown.html"));
    for expected in ["Which one to take", "All equal.", "files (control)", "role=\"img\"", "default-src &#39;none&#39;"]
    {
        assert!(read("run.html").contains(expected), "{expected} is not on the page");
    }
    place.run(&["compare", "show", "result.json", "--page", "no/such/page.html"]).expect(1);
}

#[test]
fn money_is_what_the_price_list_says_and_unknown_without_a_price() {
    let (place, _) = compared();
    let example = repository("docs/prices.example.toml").display().to_string();
    let shown = place.run(&["compare", "show", "result.json", "--prices", &example]).expect(0).out;
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    let total =
        |sink: &str| shown.lines().any(|line| line.contains(sink) && line.contains("total") && line.contains(" EUR"));
    assert!(total("local") && total("files"), "{shown}");

    place.run(&["compare", "show", "result.json", "--prices", &example, "--page", "page.html"]).expect(0);
    let page = std::fs::read_to_string(place.file("page.html")).unwrap();
    assert!(page.contains("the cheapest first") && page.contains(" EUR"), "{page}");

    let json = place.run(&["compare", "show", "result.json", "--prices", &example, "--json"]).expect(0).json();
    assert_eq!(schema().violations(&json), [""; 0]);
    assert!(json["money"][0]["total"]["value"]["amount"].as_f64().unwrap() > 0.0, "{}", json["money"]);

    let part = std::fs::read_to_string(&example).unwrap().replace("unit = \"files\"", "unit = \"no such unit\"");
    place.write("part.toml", &part.replace("2026-11-01", "2020-01-31"));
    let shown = place.run(&["compare", "show", "result.json", "--prices", "part.toml"]).expect(0).out;
    assert!(
        shown.contains("not known: files: no") && shown.contains("OLD, ") && shown.contains("180 days ago"),
        "{shown}"
    );
    let csv = place.run(&["compare", "show", "result.json", "--prices", "part.toml", "--csv"]).expect(0).out;
    assert!(csv.lines().any(|row| row == "files,cost of everything,,,,,,,files: no price is given"), "{csv}");

    place.write("wrong.toml", "[[price]]\nkind = \"sqlite\"\nunit = \"x\"\n");
    let refused = place.run(&["compare", "show", "result.json", "--prices", "wrong.toml"]).expect(2);
    assert!(refused.err.contains("wrong.toml") && refused.err.contains("currency"), "{}", refused.err);
}

#[test]
fn a_diff_fails_only_where_something_got_worse_beyond_the_intervals() {
    let (place, result) = compared();
    let same = diff(&place, "result.json", "result.json", &[]).expect(0);
    assert!(same.out.contains("0 figures better, 0 worse") && !same.out.contains("WORSE"), "{}", same.out);
    assert!(same.out.lines().all(|line| line.chars().count() <= 80), "{}", same.out);

    let slower = changed(&place, &result, |result| scale(result, "local", "catch_up_rate", 1.0 / 64.0));
    let worse = diff(&place, "result.json", &slower, &[]).expect(1);
    assert!(worse.out.lines().any(|line| line.contains("catch-up rate") && line.ends_with("WORSE")), "{}", worse.out);
    let better = diff(&place, &slower, "result.json", &[]).expect(0);
    assert!(
        better.out.lines().any(|line| line.contains("catch-up rate") && line.ends_with("better")),
        "{}",
        better.out
    );
    let json = diff(&place, "result.json", &slower, &["--json"]).expect(1).json();
    assert_eq!(json["worse"], json!(true));
    let worse = json["changes"].as_array().unwrap().iter().filter(|change| change["outcome"] == "worse");
    let worse: Vec<(&Value, &Value)> = worse.map(|change| (&change["sink"], &change["aspect"])).collect();
    assert_eq!(worse, [(&json!("local"), &json!("catch_up_rate"))]);
    let csv = diff(&place, "result.json", &slower, &["--csv"]).expect(1).out;
    assert!(csv.lines().any(|row| row.starts_with("local,catch_up_rate,") && row.ends_with(",worse")), "{csv}");

    let unequal = changed(&place, &result, |result| {
        let completeness = &mut sink(result, "local")["completeness"]["value"];
        completeness["is_complete"] = json!(false);
        completeness["missing"] = json!("7");
    });
    let worse = diff(&place, "result.json", &unequal, &[]).expect(1);
    assert!(worse.out.contains("WORSE: local: holds what it must: not equal: 7 missing"), "{}", worse.out);
}

#[test]
fn results_that_say_nothing_about_each_other_are_refused() {
    let (place, result) = compared();
    let other = changed(&place, &result, |result| result["workload"]["events"] = json!(5));
    let refused = diff(&place, "result.json", &other, &[]).expect(2);
    assert!(refused.err.contains("different workloads (events: 2000 and 5)"), "{}", refused.err);
    let shown = diff(&place, "result.json", &other, &["--any-workload"]).expect(0);
    assert!(shown.out.contains("note: different workloads: events: 2000 and 5"), "{}", shown.out);
    let later = changed(&place, &result, |result| result["schema_version"] = json!(2));
    for args in [&["compare", "show", &later][..], &["compare", "diff", "result.json", &later]] {
        let refused = place.run(args).expect(2);
        assert!(refused.err.contains("other.json: this result has schema version 2"), "{}", refused.err);
    }
    place.write("other.json", "{}");
    place.run(&["compare", "show", "other.json"]).expect(2);
    place.run(&["compare", "show", "missing.json"]).expect(2);
}

/// `cargo run --release -p tallybus-benches --bin bake-off` writes both again, and `compare show` the page alone.
#[test]
fn the_published_page_is_the_one_of_the_published_result_and_names_no_machine() {
    let text = std::fs::read_to_string(repository("docs/bake-off.json")).unwrap();
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema().violations(&result), [""; 0]);
    assert_eq!(result["environment"]["host"]["value"], Value::Null);
    for directory in ["/tmp", "/home", "/work", "/root", "/var"] {
        assert!(!text.contains(directory), "{directory} is in docs/bake-off.json");
    }

    let place = Place::with_settings("");
    let file = repository("docs/bake-off.json").display().to_string();
    place.run(&["compare", "show", &file, "--page", "page.html"]).expect(0);
    let page = std::fs::read_to_string(place.file("page.html")).unwrap();
    let published = std::fs::read_to_string(repository("docs/bake-off.html")).unwrap();
    assert!(
        page == published,
        "docs/bake-off.html is another page: tallybus compare show docs/bake-off.json --page docs/bake-off.html"
    );
}
