//! What probes see of a worker, and that a process needs only the settings of the sinks it runs.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::process::{Child, Command};

use common::{Place, Ran, eventually};

const FILE: [&str; 2] = ["--file", "health"];

/// Nobody listens on it as long as this process runs.
fn dead_port() -> u16 {
    tallybus_tests::free_port().unwrap()
}

fn start(place: &Place, args: &[&str]) -> Child {
    let child = place.spawn(&mut place.command(&[&["run", "--health-file", "health"], args].concat()));
    eventually("the health file", || place.file("health").exists());
    child
}

fn signal(child: &Child, name: &str) {
    common::signal(child, name);
}

fn status(place: &Place, more: &[&str]) -> i32 {
    place.run(&[&["health"], &FILE[..], more].concat()).status
}

fn end(mut child: Child, place: &Place) {
    signal(&child, "-TERM");
    assert!(child.wait().unwrap().success());
    assert!(!place.file("health").exists(), "a worker that has ended leaves no file");
    let gone = place.run(&[&["health"], &FILE[..]].concat()).expect(2);
    assert!(gone.err.contains("there is no health file health: no `tallybus run"), "{gone:?}");
}

#[test]
fn a_worker_that_works_is_ready_and_one_that_hangs_is_not_alive() {
    let place = Place::with_local();
    place.run(&["emit", "hits", "3"]).expect(0);
    let child = start(&place, &[]);
    eventually("a ready worker", || status(&place, &["--ready"]) == 0);
    eventually("four partitions, all of it written", || {
        let told = place.run(&["health", "--file", "health", "--json"]).expect(0).json();
        let worker = &told["file"]["workers"][0];
        worker["partitions"] == 4 && worker["behind"] == 0
    });
    let line = place.run(&["health", "--file", "health"]).expect(0).out;
    assert_eq!(line, "local: alive, 4 partitions, 0 messages behind\n");

    signal(&child, "-STOP");
    eventually("a hanging worker to be noticed", || status(&place, &["--within", "2s"]) == 1);
    assert_eq!(status(&place, &["--within", "10m"]), 0);
    signal(&child, "-CONT");
    eventually("the worker to be back", || status(&place, &["--within", "2s"]) == 0);
    end(child, &place);
}

#[test]
fn a_worker_that_waits_for_its_bus_or_its_backend_is_alive_and_not_ready() {
    let place = Place::with_local();
    let bus = format!("kafka://127.0.0.1:{}", dead_port());
    let child = start(&place, &["--bus", &bus]);
    assert_eq!(place.run(&["health", "--file", "health"]).expect(0).out, "alive; waiting for the bus\n");
    assert_eq!(place.run(&["health", "--file", "health", "--ready"]).expect(1).out, "waiting for the bus\n");
    end(child, &place);

    let away = format!("http://127.0.0.1:{}", dead_port());
    let influx = format!(
        "[sinks.influx]\nkind = \"influxdb\"\napi = \"v1\"\nurl = \"{away}\"\ndatabase = \"d\"\nbatch = {{ max_delay = \"50ms\" }}\n"
    );
    let place = Place::with_settings(&influx);
    place.run(&["emit", "hits", "3"]).expect(0);
    let child = start(&place, &[]);
    eventually("the failure to be told", || {
        let line = place.run(&["health", "--file", "health"]).expect(0).out;
        line.contains("not ready yet: ")
    });
    let ready = place.run(&["health", "--file", "health", "--ready"]).expect(1).out;
    assert!(ready.contains("influx: the backend is not ready yet"), "{ready}");
    end(child, &place);
}

#[test]
fn a_link_beside_the_health_file_is_replaced_and_its_target_stays() {
    let place = Place::with_local();
    place.write("precious", "kept");
    std::os::unix::fs::symlink(place.file("precious"), place.file("health.partial")).unwrap();
    let child = start(&place, &[]);
    eventually("a ready worker", || status(&place, &["--ready"]) == 0);
    assert!(std::fs::symlink_metadata(place.file("health")).unwrap().is_file(), "the health file is a link");
    end(child, &place);
    assert_eq!(std::fs::read_to_string(place.file("precious")).unwrap(), "kept");
}

#[test]
fn two_stop_signals_at_once_count_as_one() {
    let place = Place::with_local();
    place.run(&["emit", "hits", "3"]).expect(0);
    let child = start(&place, &[]);
    eventually("a ready worker", || status(&place, &["--ready"]) == 0);
    // As `timeout` does, which sends one to the process and one to its group.
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id, &id, &id]).status().unwrap().success());
    let ran = Ran::of(child.wait_with_output().unwrap()).expect(0);
    assert!(ran.err.contains("stopping") && !ran.err.contains("terminating immediately"), "{ran:?}");
    assert!(ran.err.contains("\nlocal: ") && ran.err.contains(" written"), "the summary is missing: {ran:?}");
}

#[test]
fn a_health_file_that_cannot_be_written_is_reported_at_the_start() {
    let place = Place::with_local();
    let ran = place.run(&["run", "--health-file", "no/such/directory/health"]).expect(1);
    assert!(ran.err.contains("cannot write the health file no/such/directory/health"), "{ran:?}");
    place.write("other", "{}");
    let ran = place.run(&["health", "--file", "other"]).expect(2);
    assert!(ran.err.contains("other is not a health file: `written_ms` is missing"), "{ran:?}");
}

#[test]
fn a_process_needs_only_the_settings_and_secrets_of_its_own_sinks() {
    let place = Place::with_settings(
        "[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\n\
         [sinks.other]\nkind = \"influxdb\"\nurl = \"http://127.0.0.1:1\"\norg = \"o\"\nbucket = \"b\"\n\
         token = \"env:TOKEN_OF_ANOTHER_PROCESS\"\n",
    );
    let emitted = place.command(&["emit", "hits", "3"]).env("TOKEN_OF_ANOTHER_PROCESS", "t").status().unwrap();
    assert!(emitted.success());
    let all = place.run(&["run", "--until-caught-up"]).expect(2);
    assert!(all.err.contains("TOKEN_OF_ANOTHER_PROCESS is not set"), "{all:?}");
    place.run(&["run", "--until-caught-up", "--sink", "local"]).expect(0);
    place.run(&["doctor", "--sink", "local"]).expect(0);
    assert_eq!(place.run(&["audit", "--sink", "local", "--json"]).expect(0).json()["sinks"][0]["total"], 3);
    let unknown = place.run(&["doctor", "--offline", "--sink", "lokal"]).expect(2);
    assert!(unknown.err.contains("TOKEN_OF_ANOTHER_PROCESS"), "{unknown:?}");
}
