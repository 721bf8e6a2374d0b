//! The demo, as a script sees it.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Place;
use serde_json::json;

/// The processes of the program under test that were started for this directory: their ids.
fn processes_of(place: &Place) -> Vec<u32> {
    let directory = place.path().display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let entry = entry.unwrap();
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended meanwhile, or is dead and not yet waited for, has none.
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&directory) {
            found.push(pid);
        }
    }
    found
}

#[test]
fn a_killed_worker_is_taken_over_and_all_three_sinks_are_equal() {
    let place = Place::new();
    let ran = place.run(&["demo", "--events", "20000", "--json"]).expect(0);
    let json = ran.json();
    assert_eq!((&json["emitted"], &json["bus"], &json["equal"]), (&json!(20_000), &json!(20_000), &json!(true)));
    let sinks = json["sinks"].as_array().unwrap();
    let names: Vec<&str> = sinks.iter().filter_map(|sink| sink["name"].as_str()).collect();
    assert_eq!(names, ["parquet", "sqlite", "sqlite-1m"]);
    for sink in sinks {
        let figures = (&sink["total"], &sink["missing"], &sink["extra"]);
        assert_eq!(figures, (&json!(20_000), &json!(0), &json!(0)), "{sink}");
    }
    assert_eq!((&sinks[1]["series"], &sinks[2]["series"]), (&json!(1_000), &json!(125)));

    // It was in the middle of a batch, and another process finished that batch.
    let killed = &json["killed"];
    let number = |field: &str| killed[field].as_u64().unwrap_or_else(|| panic!("{field}: {killed}"));
    assert!(number("sealed_batches") > 0 && number("sealed_messages") > 0, "{killed}");
    assert_ne!(number("pid"), number("taken_over_by"));
    assert!(killed["taken_over_seconds"].as_f64() > killed["seconds"].as_f64(), "{killed}");
    assert_eq!(killed["sink"], "sqlite");
    for said in ["killed with SIGKILL", "another worker started", "took over"] {
        assert!(ran.err.contains(said), "{said}: {}", ran.err);
    }
    for pid in ["pid", "taken_over_by"] {
        assert!(ran.err.contains(&format!("pid {}", number(pid))), "{pid}: {}", ran.err);
    }
    assert_eq!(processes_of(&place), [0; 0]);

    // Everything was settled by each, the killed sink last.
    for backend in json["backends"].as_array().unwrap() {
        assert!(backend["bytes"].as_u64() > Some(0) && backend["windows"].as_u64() > Some(0), "{backend}");
        assert!(backend["all_settled_within_seconds"].as_f64() > Some(0.0), "{backend}");
    }
    let report = std::fs::read_to_string(json["report"].as_str().unwrap()).unwrap();
    for held in ["<svg", "Equal.", "no worker of sqlite", &format!("process {}", number("pid")), "tallybus audit"] {
        assert!(report.contains(held), "{held}: {report}");
    }
    assert!(report.starts_with("<!doctype html>") && !report.contains("http:") && !report.contains("<script"));

    // What the hints advise works, in the directory of the demo and with its settings.
    let in_it = |args: &[&str]| {
        let mut command = place.command(args);
        let ran = common::Ran::of(command.current_dir(place.file("tallybus-demo")).output().unwrap());
        ran.expect(0)
    };
    assert_eq!(in_it(&["audit", "--json"]).json()["bus"], 20_000);
    let by_status = in_it(&["count", "--json", "--by", "status"]).json();
    assert_eq!(by_status["groups"].as_array().map(Vec::len), Some(5));
    in_it(&["emit", "demo.mine", "42", "--tag", "who=me"]);
    in_it(&["run", "--until-caught-up"]);
    let audit = in_it(&["audit", "--json"]).json();
    for sink in audit["sinks"].as_array().unwrap() {
        assert_eq!(sink["total"], 20_042, "{sink}");
    }
}

#[test]
fn nothing_of_it_is_wider_than_80_columns_and_nothing_is_coloured_in_a_pipe() {
    let place = Place::new();
    let ran = place.run(&["demo", "--events", "1"]).expect(0);
    assert!(ran.err.contains("1 increment of 1 series") && !ran.err.contains("will be killed"), "{}", ran.err);
    assert!(ran.out.contains("Every backend holds every increment exactly once."), "{}", ran.out);
    let text = format!("{}{}", ran.err, ran.out);
    // The path of the program under test is as long as it is.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("alias "));
    for line in lines {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(!text.contains('\u{1b}') && !text.contains("sqlite3"), "{text}");

    // Into the same directory, recreated.
    place.run(&["demo", "--events", "7"]).expect(0);
    let count = place.run(&["count", "--json", "--config", "tallybus-demo/tallybus.toml"]).expect(0).json();
    assert_eq!(count["total"], 7);
}

#[test]
fn no_increments_are_refused_with_what_is_accepted() {
    let place = Place::new();
    let ran = place.run(&["demo", "--events", "0"]).expect(2);
    assert!(ran.err.contains("expected a whole number from 1"), "{}", ran.err);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn no_worker_outlives_a_demo_that_is_interrupted_or_killed() {
    for (signal, status) in [("-INT", Some(1)), ("-KILL", None)] {
        let place = Place::new();
        let demo = place.spawn(&mut place.command(&["demo", "--dir", "with a space"]));
        let id = demo.id();
        let is_worker = |pid: &u32| *pid != id;
        let workers = || processes_of(&place).into_iter().filter(is_worker).count();
        common::eventually("three workers", || workers() == 3);
        let settled = || place.file("with a space/sqlite-1m.db").exists();
        common::eventually("a worker at work", settled);
        let sent = std::process::Command::new("kill").args([signal, &id.to_string()]).status().unwrap();
        assert!(sent.success());
        let ran = demo.wait_with_output().unwrap();
        assert_eq!(ran.status.code(), status);
        if signal == "-INT" {
            assert!(String::from_utf8_lossy(&ran.stderr).contains("interrupted"), "{ran:?}");
            assert_eq!(workers(), 0, "they have ended before the demo");
        }
        common::eventually("the end of every worker", || workers() == 0);
    }
}

#[test]
fn a_directory_that_was_moved_works_from_wherever_a_command_is_started() {
    let place = Place::new();
    place.run(&["demo", "--events", "100", "--dir", "a"]).expect(0);
    std::fs::create_dir(place.file("b")).unwrap();
    std::fs::rename(place.file("a"), place.file("b/moved")).unwrap();
    let audit = place.run(&["audit", "--json", "--config", "b/moved/tallybus.toml"]).expect(0).json();
    assert_eq!((&audit["bus"], &audit["sinks"][0]["total"]), (&json!(100), &json!(100)));
    place.run(&["emit", "mine", "42", "--config", "b/moved/tallybus.toml"]).expect(0);
    let run = |sinks: &[&str]| {
        let args = [&["run", "--until-caught-up", "--config", "moved/tallybus.toml"], sinks].concat();
        common::Ran::of(place.command(&args).current_dir(place.file("b")).output().unwrap())
    };
    run(&["--sink", "sqlite", "--sink", "sqlite-1m"]).expect(0);
    // Files without a ledger are known by where they are.
    let parquet = run(&["--sink", "parquet"]).expect(1);
    assert!(parquet.err.contains("the destination has another address now"), "{}", parquet.err);
    let audit = place.run(&["audit", "--json", "--config", "b/moved/tallybus.toml"]).expect(0).json();
    assert_eq!((&audit["sinks"][1]["total"], &audit["sinks"][2]["total"]), (&json!(142), &json!(142)));
    let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["b"], "nothing was created where the commands were started");
}

#[test]
fn a_directory_below_one_that_does_not_exist_is_refused() {
    let place = Place::new();
    let ran = place.run(&["demo", "--events", "10", "--dir", "no/such"]).expect(2);
    assert!(ran.err.contains("--dir: the directory no does not exist; create it first"), "{}", ran.err);
    assert!(!place.file("no").exists());
}

#[test]
fn a_directory_of_another_program_is_left_alone() {
    let place = Place::new();
    std::fs::create_dir(place.file("mine")).unwrap();
    place.write("mine/bus.db", "precious");
    let ran = place.run(&["demo", "--events", "10", "--dir", "mine"]).expect(2);
    assert!(ran.err.contains("contains other files"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(place.file("mine/bus.db")).unwrap(), "precious");
}

#[test]
fn what_the_demo_does_not_take_is_refused() {
    let place = Place::new();
    for args in [["demo", "--bus", "embedded:x.db"], ["demo", "--config", "x.toml"]] {
        let ran = place.run(&args).expect(2);
        assert!(ran.err.contains("its own bus and settings"), "{}", ran.err);
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_second_demo_does_not_pull_the_files_from_under_the_first() {
    let place = Place::new();
    let first = place.spawn(&mut place.command(&["demo", "--events", "100", "--json"]));
    common::eventually("the bus", || place.file("tallybus-demo/bus.db").exists());
    let ran = place.run(&["demo", "--events", "100"]).expect(2);
    assert!(ran.err.contains("another demo is running"), "{}", ran.err);
    assert!(first.wait_with_output().unwrap().status.success());
}
