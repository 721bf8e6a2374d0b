//! A halt stays a halt until the operator decides: through the real binary, after a restart and after a rebalance.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs::File;
use std::process::{Child, Stdio};

use common::{Place, eventually};

const SINKS: &str = "
[sinks.s]
kind = \"sqlite\"
path = \"c.db\"
[sinks.p]
kind = \"parquet\"
path = \"pq\"
create = true
";

/// A message with a thousand events from this time on, so that the batches of both incarnations have the same offsets.
fn thousand(begin: u64) -> String {
    let event =
        |n: u64| format!(r#"{{"ts":{},"name":"m","value":1,"tags":{{"s":"{}"}}}}"#, begin + n * 1_000_000_000, n % 5);
    format!("[{}]", (0..1_000).map(event).collect::<Vec<_>>().join(","))
}

const OLD: u64 = 1_700_000_000_000_000_000;
const NEW: u64 = 1_700_005_000_000_000_000;

/// Written from one bus, which was then deleted and created again with as many records.
fn recreated(sinks: &str, partitions: u32) -> Place {
    let place = Place::new();
    place.write(
        "tallybus.toml",
        &format!("[bus]\nkind = \"embedded\"\npath = \"bus.db\"\npartitions = {partitions}\n{sinks}"),
    );
    let publish = |begin: u64| {
        place.run(&["topic", "create"]).expect(0);
        for partition in 0..partitions {
            place.publish(partition, &[thousand(begin).as_bytes()]);
        }
    };
    publish(OLD);
    place.run(&["run", "--until-caught-up"]).expect(0);
    for end in ["", "-wal", "-shm"] {
        let file = place.file(&format!("bus.db{end}"));
        if file.exists() {
            std::fs::remove_file(file).unwrap();
        }
    }
    publish(NEW);
    place
}

fn new_rows(place: &Place, database: &str) -> i64 {
    let connection = rusqlite::Connection::open(place.file(database)).unwrap();
    let select = format!("SELECT count(*) FROM counters WHERE window_start >= {NEW}");
    connection.query_row(&select, [], |row| row.get(0)).unwrap()
}

#[test]
fn case_30_a_halt_is_no_loss_after_a_restart() {
    let place = recreated(SINKS, 1);
    for _ in 0..2 {
        let ran = place.run(&["run", "--until-caught-up"]).expect(1);
        for expected in ["c.db holds counts of another topic", "pq holds counts of another topic"] {
            assert!(ran.err.contains(expected), "no {expected:?} in {ran:#?}");
        }
        assert_eq!(new_rows(&place, "c.db"), 0);
    }
    // The operator names new destinations.
    let settings = std::fs::read_to_string(place.file("tallybus.toml")).unwrap();
    place.write("tallybus.toml", &settings.replace("c.db", "new.db").replace("\"pq\"", "\"new\""));
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(new_rows(&place, "new.db"), 1_000);
    place.run(&["audit"]).expect(0);
}

/// A worker whose log is a file.
fn worker(place: &Place, log: &str) -> Child {
    let log = File::create(place.file(log)).unwrap();
    place.command(&["run", "--drain", "1s"]).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// What a halted worker and `doctor` say beside the log.
#[test]
fn a_halt_is_in_the_summary_of_a_stopped_worker_and_in_doctor() {
    let place = recreated("[sinks.s]\nkind = \"sqlite\"\npath = \"c.db\"\n", 1);
    let doctor = place.run(&["doctor"]).expect(1);
    assert!(doctor.out.contains("FAIL  sink s: halted: "), "{}", doctor.out);
    assert!(doctor.out.contains("1 message behind (whether a worker runs and advances"), "{}", doctor.out);
    let halted = worker(&place, "log");
    let log = || std::fs::read_to_string(place.file("log")).unwrap();
    eventually("the halt", || log().contains("halted"));
    stop(halted);
    let log = log();
    let summary = log.split("\ns: ").nth(1).unwrap_or_else(|| panic!("no summary in {log}"));
    assert!(summary.contains("halted, needs operator action; its records stay on the bus: "), "{summary}");
    assert!(!summary.contains("retrying"), "{summary}");
    assert!(log.contains("reason=\"halted: needs operator action: "), "{log}");
}

fn stop(mut worker: Child) {
    common::signal(&worker, "-TERM");
    worker.wait().unwrap();
}

#[test]
fn case_31_a_halt_is_no_loss_after_a_rebalance() {
    let place = recreated("[sinks.s]\nkind = \"sqlite\"\npath = \"c.db\"\n", 2);
    let says_halted = |log: &str| {
        let text = std::fs::read_to_string(place.file(log)).unwrap();
        text.contains("halted") && text.contains("c.db holds counts of another topic")
    };
    let one = worker(&place, "one.log");
    eventually("the first worker's halt", || says_halted("one.log"));
    let two = worker(&place, "two.log");
    eventually("the second worker's halt", || says_halted("two.log"));
    stop(one);
    std::thread::sleep(std::time::Duration::from_secs(3));
    stop(two);
    assert_eq!(new_rows(&place, "c.db"), 0);
    place.run(&["run", "--until-caught-up"]).expect(1);
    assert_eq!(new_rows(&place, "c.db"), 0);
}
