//! A worker whose process is stopped for longer than its session lasts, and goes on.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Place, eventually};

#[test]
fn a_worker_that_was_suspended_warns_once_says_so_and_goes_on() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let place = Place::new();
    place.write(
        "tallybus.toml",
        &format!(
            "[bus]\nkind = \"kafka\"\nbrokers = \"{}\"\nkafka = {{ \"session.timeout.ms\" = \"6000\" }}\n\
             [sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\nbatch = {{ max_delay = \"50ms\" }}\n",
            kafka.bootstrap()
        ),
    );
    let log = std::fs::File::create(place.file("log")).unwrap();
    let mut worker = place.command(&["run"]).stderr(log).spawn().unwrap();
    let logged = || std::fs::read_to_string(place.file("log")).unwrap();
    let signal = |name: &str| {
        common::signal(&worker, name);
    };
    eventually("partitions", || logged().contains("partitions assigned"));
    place.run(&["emit", "hits", "5"]).expect(0);
    signal("-STOP");
    std::thread::sleep(Duration::from_secs(9));
    // It wakes with a record to write.
    place.run(&["emit", "hits", "7"]).expect(0);
    signal("-CONT");
    eventually("the partitions again", || logged().matches("partitions assigned").count() >= 2);
    eventually("every count", || place.run(&["audit"]).status == 0);
    let log = logged();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("did not run for about"), "{log}");
    signal("-TERM");
    worker.wait().unwrap();
}
