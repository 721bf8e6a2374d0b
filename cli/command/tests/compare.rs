//! `tallybus compare`: what it ranks, what it does not, and that it leaves nothing behind.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use common::{Place, Ran, eventually};
use serde_json::{Value, json};

const SECOND: i64 = 1_000_000_000;
const BEGIN: i64 = 1_700_000_000 * SECOND;

/// Two SQLite sinks and one that writes Parquet files; 3,000 events of 30 series in 4 partitions.
fn place(sinks: &str) -> Place {
    let place = Place::with_settings(sinks);
    std::fs::create_dir(place.file("tmp")).unwrap();
    place.run(&["topic", "create"]).expect(0);
    for partition in 0..4 {
        let messages: Vec<Vec<u8>> = (0..15).map(|message| events(i64::from(partition) * 15 + message)).collect();
        place.publish(partition, &messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    place
}

/// Fifty events of one message.
fn events(message: i64) -> Vec<u8> {
    let event = |number: i64| {
        let (time, route) = (BEGIN + (message * 2 + number % 3) * SECOND, number % 10);
        let status = ["200", "404", "500"][usize::try_from(number).unwrap() % 3];
        format!(
            r#"{{"ts":{time},"name":"hits","value":{},"tags":{{"route":"/{route}","status":"{status}"}}}}"#,
            number + 1
        )
    };
    let events: Vec<String> = (0..50).map(event).collect();
    format!("[{}]", events.join(",")).into_bytes()
}

const THREE: &str = r#"
[sinks.local]
kind = "sqlite"
path = "a/local.db"
batch = { max_delay = "50ms", max_events = 100 }
[sinks.files]
kind = "parquet"
path = "b/files"
batch = { max_delay = "50ms", max_events = 100 }
[sinks.minutes]
kind = "sqlite"
path = "c/minutes.db"
window = "1m"
batch = { max_delay = "50ms", max_events = 100 }
"#;

fn with_folders(sinks: &str) -> Place {
    let place = place(sinks);
    for folder in ["a", "b", "c"] {
        std::fs::create_dir(place.file(folder)).unwrap();
    }
    place
}

const RUN: &[&str] = &["compare", "run", "--shadow", "--asks", "4", "--seed", "5", "--json"];

fn command(place: &Place, more: &[&str]) -> Command {
    let rounds: &[&str] = if more.contains(&"--rounds") { &[] } else { &["--rounds", "3"] };
    let mut command = place.command(&[RUN, rounds, more].concat());
    command.env("TMPDIR", place.file("tmp"));
    command
}

/// A comparison that runs beside the test.
struct Beside {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
}

impl Beside {
    fn start(place: &Place, more: &[&str]) -> Self {
        let mut child = place.spawn(&mut command(place, more));
        let lines = BufReader::new(child.stderr.take().unwrap());
        Self { child, lines }
    }

    /// Waits until it says what it does.
    fn until(&mut self, begins: &str) {
        let mut said = String::new();
        loop {
            let before = said.len();
            assert!(self.lines.read_line(&mut said).unwrap() > 0, "it never said {begins:?}:\n{said}");
            if said[before..].starts_with(begins) {
                return;
            }
        }
    }

    fn signal(&self, name: &str) {
        common::signal(&self.child, name);
    }

    fn finish(mut self) -> Ran {
        let mut err = String::new();
        self.lines.read_to_string(&mut err).unwrap();
        let ran = Ran::of(self.child.wait_with_output().unwrap());
        Ran { err, ..ran }
    }
}

/// Everything in the folders that only a comparison creates.
fn left_behind(place: &Place) -> Vec<PathBuf> {
    let folders = ["a", "b", "c", "tmp"].map(|folder| place.file(folder));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The database that a comparison has in a folder.
fn shadow_in(place: &Place, folder: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(place.file(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "db"))
}

fn sink<'r>(result: &'r Value, name: &str) -> &'r Value {
    result["sinks"].as_array().unwrap().iter().find(|sink| sink["name"] == name).unwrap()
}

fn ranking<'r>(result: &'r Value, aspect: &str) -> &'r Value {
    result["rankings"].as_array().unwrap().iter().find(|ranking| ranking["aspect"] == aspect).unwrap()
}

fn names_of(ranking: &Value) -> Vec<String> {
    let groups = ranking["groups"].as_array().unwrap().iter().flat_map(|group| group.as_array().unwrap());
    let mut names: Vec<String> = groups.map(|name| name.as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn sinks_that_hold_everything_are_ranked_and_nothing_is_left_behind() {
    let place = with_folders(THREE);
    let out = place.file("result.json");
    let more = ["--sink", "local", "--sink", "files", "--sink", "minutes", "--probe-time", "3s", "--out"];
    let ran = Ran::of(command(&place, &[&more[..], &[out.to_str().unwrap()]].concat()).output().unwrap()).expect(0);
    let result = ran.json();
    assert_eq!(result, serde_json::from_str::<Value>(&std::fs::read_to_string(out).unwrap()).unwrap());
    assert_eq!((&result["kind"], &result["schema_version"]), (&json!("tallybus.compare"), &json!(1)));

    let workload = &result["workload"];
    assert_eq!(
        (&workload["messages"], &workload["events"], &workload["series"]),
        (&json!(60), &json!(3_000), &json!({ "value": 30 }))
    );
    assert_eq!(workload["total"], "76500");
    let names: Vec<_> = result["sinks"].as_array().unwrap().iter().map(|sink| sink["name"].clone()).collect();
    assert_eq!(names, ["local", "local (control)", "files", "minutes"]);
    let order = result["method"]["order"].as_array().unwrap();
    assert_eq!(order[0], json!(["local", "files", "minutes", "local (control)"]));
    assert_eq!(order[1], json!(["local (control)", "minutes", "files", "local"]));
    assert_eq!(order.len(), 4, "a warm-up and three rounds");

    for sink in result["sinks"].as_array().unwrap() {
        let completeness = &sink["completeness"]["value"];
        assert_eq!(completeness["is_complete"], true, "{sink}");
        let rounds = sink["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 3);
        assert!(rounds.iter().all(|round| round["events"] == 3_000 && round["batches"].as_u64().unwrap() > 4));
        assert!(sink["latency"]["value"]["n"] == 30, "{}", sink["latency"]);
    }
    assert_eq!(names_of(ranking(&result, "catch_up_rate")), ["files", "local", "minutes"], "the control is not ranked");
    // Windows of a minute need less storage than windows of a second.
    let storage = ranking(&result, "storage_per_event");
    assert_eq!(storage["groups"].as_array().unwrap().len(), 3, "{storage}");
    let queries = ranking(&result, "total_by_tag");
    assert_eq!(names_of(queries), ["local", "minutes"]);
    assert_eq!(queries["unranked"][0]["sink"], "files");
    assert!(queries["unranked"][0]["why"].as_str().unwrap().starts_with("not offered: "));
    for question in sink(&result, "local")["questions"].as_array().unwrap() {
        assert_eq!(question["answer"]["verdict"], "right", "{question}");
        assert_eq!(question["later_runs"].as_array().unwrap().len(), 3);
    }
    // Where batches end differs from run to run, and so does the size of what is kept of them, by little.
    let noise = result["noise"].as_array().unwrap();
    let storage = noise.iter().find(|noise| noise["aspect"] == "storage_per_event").unwrap();
    assert!(storage["difference"].as_f64().unwrap() < 0.05, "{storage}");
    assert!(noise.iter().any(|noise| noise["aspect"] == "catch_up_rate"));

    assert_eq!(left_behind(&place), Vec::<PathBuf>::new());
    let groups = rusqlite::Connection::open(place.file("bus.db")).unwrap();
    let count: u64 = groups.query_row("SELECT count(*) FROM commits", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 0, "no group of the bus was touched");
    assert_eq!(place.run(&["count", "--json"]).expect(0).json()["total"], 76_500, "no probe is on the bus");
}

#[test]
fn a_sink_that_loses_rows_is_named_and_not_ranked() {
    let place = with_folders(THREE);
    let mut running = Beside::start(&place, &["--sink", "minutes", "--sink", "local", "--probe-time", "4s"]);
    running.until("sending probes");
    let lossy = rusqlite::Connection::open(shadow_in(&place, "a").unwrap()).unwrap();
    lossy.busy_timeout(Duration::from_secs(5)).unwrap();
    let lost = "DELETE FROM counters WHERE tags LIKE '%/4%'";
    assert!(lossy.execute(lost, []).unwrap() > 0);
    drop(lossy);
    let result = running.finish().expect(1).json();
    let completeness = &sink(&result, "local")["completeness"]["value"];
    assert_eq!(completeness["is_complete"], false);
    assert!(completeness["missing"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(sink(&result, "minutes")["completeness"]["value"]["is_complete"], true);
    for ranking in result["rankings"].as_array().unwrap() {
        assert_eq!(names_of(ranking), ["minutes"], "{ranking}");
        let why = ranking["unranked"][0]["why"].as_str().unwrap();
        assert!(why.starts_with("not equal: ") && why.contains(" missing at the end"), "{why}");
    }
    assert_eq!(left_behind(&place), Vec::<PathBuf>::new());
}

#[test]
fn a_stall_of_three_seconds_shows_in_the_p99_and_the_maximum_of_that_sink_alone() {
    let place = with_folders(THREE);
    let more = ["--sink", "minutes", "--sink", "local", "--rate", "0", "--no-control", "--probe-time", "8s"];
    let mut running = Beside::start(&place, &more);
    running.until("sending probes");
    std::thread::sleep(Duration::from_secs(2));
    let stalled = rusqlite::Connection::open(shadow_in(&place, "a").unwrap()).unwrap();
    stalled.busy_timeout(Duration::from_secs(5)).unwrap();
    stalled.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    stalled.execute_batch("ROLLBACK").unwrap();
    drop(stalled);
    let result = running.finish().expect(0).json();
    let latency = |name: &str| sink(&result, name)["latency"]["value"].clone();
    let (stalled, other) = (latency("local"), latency("minutes"));
    assert_eq!((&stalled["n"], &stalled["never_seen"]), (&json!(80), &json!(0)));
    assert!(stalled["p99"].as_f64().unwrap() > 2.7, "{stalled}");
    assert!(stalled["max"].as_f64().unwrap() > 2.8 && stalled["p50"].as_f64().unwrap() < 2.0, "{stalled}");
    assert!(other["max"].as_f64().unwrap() < stalled["p99"].as_f64().unwrap(), "{other}");
}

#[test]
fn an_interrupted_comparison_removes_what_it_created() {
    let place = with_folders(THREE);
    let mut running = Beside::start(&place, &["--rounds", "50"]);
    running.until("round 1 of 50");
    running.signal("-INT");
    let ran = running.finish().expect(2);
    assert!(ran.err.contains("interrupted before the comparison was complete"), "{}", ran.err);
    assert_eq!(left_behind(&place), Vec::<PathBuf>::new());
}

#[test]
fn what_a_killed_comparison_leaves_behind_is_removed_by_its_directory() {
    let place = with_folders(THREE);
    let mut running = Beside::start(&place, &["--rounds", "50"]);
    running.until("round 1 of 50");
    eventually("a destination", || shadow_in(&place, "a").is_some() || shadow_in(&place, "c").is_some());
    running.signal("-KILL");
    running.finish().expect(-1);
    let directory = std::fs::read_dir(place.file("tmp")).unwrap().next().unwrap().unwrap().path();
    let cleaned = place.run(&["compare", "clean", directory.to_str().unwrap(), "--json"]).expect(0).json();
    assert!(cleaned["removed"].as_u64().unwrap() > 0 && cleaned["left"] == 0, "{cleaned}");
    assert_eq!(left_behind(&place), Vec::<PathBuf>::new());
}

#[test]
fn without_anything_to_compare_the_status_says_that_it_could_not_run() {
    let place = with_folders(&format!("{THREE}[sinks.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:9/\"\n"));
    let nothing = Ran::of(command(&place, &["--from", "now"]).output().unwrap()).expect(2);
    assert!(nothing.err.contains("nothing to compare with: tallybus.counters has no records"), "{}", nothing.err);
    let refused = Ran::of(command(&place, &["--sink", "web"]).output().unwrap()).expect(2);
    assert!(refused.err.contains("sink web: sinks of kind http cannot be given a destination"), "{}", refused.err);
    assert_eq!(left_behind(&place), Vec::<PathBuf>::new());
}

#[test]
fn the_table_fits_eighty_columns_and_says_who_holds_what() {
    let place = with_folders(THREE);
    let args = ["compare", "run", "--shadow", "--rounds", "3", "--asks", "1", "--probe-time", "0s"];
    let mut command = place.command(&args);
    command.env("TMPDIR", place.file("tmp")).env("COLUMNS", "80");
    let ran = Ran::of(command.output().unwrap()).expect(0);
    for line in ran.out.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for expected in ["3,000 events of 30 series", "catch-up rate (more is better"] {
        assert!(ran.out.contains(expected), "no {expected:?} in\n{}", ran.out);
    }
    // With SQLite's own version.
    let is_local = |line: &str| line.starts_with("local            sqlite 3.") && line.ends_with("  yes: equal");
    assert!(ran.out.lines().any(is_local), "{}", ran.out);
}

/// Workers that end with the test, also when it fails.
struct Workers(Child);

impl Drop for Workers {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn running_workers_are_compared_by_probes_alone_and_what_they_used_is_not_known() {
    let place = with_folders(THREE);
    std::fs::create_dir(place.file("b/files")).unwrap();
    let mut workers = Workers(place.spawn(&mut place.command(&["run"])));
    eventually("the workers", || place.run(&["audit", "--strict"]).status == 0);
    let more = ["compare", "run", "--probe-time", "4s", "--probe-rate", "20", "--json"];
    let ran = place.run(&more);
    let signalled = Command::new("kill").args(["-TERM", &workers.0.id().to_string()]).status().unwrap();
    assert!(signalled.success() && workers.0.wait().unwrap().success());
    let result = ran.expect(0).json();
    assert_eq!((&result["method"]["mode"], &result["method"]["probes"]["value"]["sent"]), (&json!("live"), &json!(80)));
    for sink in result["sinks"].as_array().unwrap() {
        assert_eq!(sink["completeness"]["value"]["is_complete"], true, "{sink}");
        assert_eq!(sink["latency"]["value"]["n"], 80, "{sink}");
        assert!(sink["settled_rate"]["value"].as_f64().unwrap() > 0.0);
        let unknown = sink["summaries"]["requests"]["unknown"].as_str().unwrap();
        assert!(unknown.contains("workers do not publish it yet"), "{unknown}");
    }
    assert_eq!(names_of(ranking(&result, "freshness_median")), ["files", "local", "minutes"]);
    let probes = place.run(&["count", "--name", "tallybus.probe", "--json"]).expect(0).json();
    assert_eq!(probes["total"], 80);
    assert_eq!(place.run(&["count", "--json"]).expect(0).json()["total"], 76_580, "nothing else was published");
}

#[test]
fn options_of_a_copy_need_a_copy() {
    let place = Place::with_local();
    for option in [&["--last", "5"][..], &["--rounds", "3"], &["--from", "now"], &["--no-control"]] {
        let refused = place.run(&[&["compare", "run"], option].concat()).expect(2);
        assert!(refused.err.contains("--shadow"), "{}", refused.err);
    }
}
