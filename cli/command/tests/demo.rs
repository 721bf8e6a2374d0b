//! The demo, as a script sees it.
#![allow(missing_docs)]

mod common;

use common::Place;
use serde_json::json;

#[test]
fn ends_with_one_object_and_equal_sinks() {
    let place = Place::new();
    let ran = place.run(&["demo", "--events", "20000", "--json"]).expect(0);
    let json = ran.json();
    assert_eq!((&json["emitted"], &json["bus"]), (&json!(20_000), &json!(20_000)));
    let sinks = json["sinks"].as_array().unwrap();
    assert_eq!(sinks.len(), 2);
    for sink in sinks {
        assert_eq!(
            (&sink["total"], &sink["missing"], &sink["extra"]),
            (&json!(20_000), &json!(0), &json!(0)),
            "{sink}"
        );
    }
    assert_eq!(sinks[0]["series"], 1_000);
    let report = std::fs::read_to_string(json["report"].as_str().unwrap()).unwrap();
    assert!(report.starts_with("<!doctype html>") && report.contains("<svg") && !report.contains("http"), "{report}");

    let config = ["--config", "tallybus-demo/tallybus.toml"];
    let audit = place.run(&[&["audit", "--json"], &config[..]].concat()).expect(0).json();
    assert_eq!((&audit["equal"], &audit["bus"]), (&json!(true), &json!(20_000)));
    let by_status = place.run(&[&["count", "--json", "--by", "status"], &config[..]].concat()).expect(0).json();
    assert_eq!(by_status["groups"].as_array().map(Vec::len), Some(5));
    place.run(&[&["emit", "mine", "42"], &config[..]].concat()).expect(0);
    place.run(&[&["run", "--until-caught-up"], &config[..]].concat()).expect(0);
    let audit = place.run(&[&["audit", "--json"], &config[..]].concat()).expect(0).json();
    assert_eq!(audit["sinks"][1]["total"], 20_042);

    // Fewer increments than series, into the same directory, recreated.
    let again = place.run(&["demo", "--events", "7"]).expect(0);
    assert!(again.out.contains("What to try next") && again.out.contains("equal"), "{}", again.out);
    let count = place.run(&[&["count", "--json"], &config[..]].concat()).expect(0).json();
    assert_eq!(count["total"], 7);
}

#[test]
fn a_directory_that_was_moved_works_from_wherever_a_command_is_started() {
    let place = Place::new();
    place.run(&["demo", "--events", "100", "--dir", "a"]).expect(0);
    std::fs::create_dir(place.file("b")).unwrap();
    std::fs::rename(place.file("a"), place.file("b/moved")).unwrap();
    let audit = place.run(&["audit", "--json", "--config", "b/moved/tallybus.toml"]).expect(0).json();
    assert_eq!((&audit["bus"], &audit["sinks"][1]["total"]), (&json!(100), &json!(100)));
    place.run(&["emit", "mine", "42", "--config", "b/moved/tallybus.toml"]).expect(0);
    let mut command = place.command(&["run", "--until-caught-up", "--config", "moved/tallybus.toml"]);
    assert!(command.current_dir(place.file("b")).output().unwrap().status.success());
    let audit = place.run(&["audit", "--json", "--config", "b/moved/tallybus.toml"]).expect(0).json();
    assert_eq!(audit["sinks"][0]["total"], 142);
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
