//! A bus that is away: commands give up in time, say why, and leave nothing half said.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use common::{Place, Ran};

/// Where nobody listens as long as this process runs.
fn dead_bus() -> String {
    format!("kafka://127.0.0.1:{}", tallybus_tests::free_port().unwrap())
}

fn timed(place: &Place, args: &[&str], stdin: &str) -> (Ran, Duration) {
    let began = Instant::now();
    (place.run_with(args, stdin), began.elapsed())
}

#[test]
fn emit_ends_with_its_deadline() {
    let place = Place::new();
    let bus = dead_bus();
    let cases: [(&[&str], &str, u64); 3] = [
        (&["emit", "a", "5"], "", 5),
        (&["emit", "a", "5", "--time", "-1h"], "", 5),
        (&["emit", "-"], "a\n{\"ts\":1700000000000000000,\"name\":\"b\",\"value\":3}\n", 4),
    ];
    for (args, stdin, emitted) in cases {
        let (ran, took) = timed(&place, &[args, &["--deadline", "1s", "--json", "--bus", &bus]].concat(), stdin);
        let ran = ran.expect(1);
        let told = ran.json();
        assert_eq!((&told["emitted"], &told["undelivered"]), (&emitted.into(), &emitted.into()), "{args:?}: {ran:?}");
        assert!(ran.err.lines().all(|line| line.matches("asking for topic").count() < 2), "{args:?}: {ran:?}");
        // A second for the deadline, one for a call under way, and as much again for a machine that is busy.
        assert!(took < Duration::from_secs(4), "{args:?} took {took:?}");
    }
}

#[test]
fn an_audit_waits_once_and_not_for_every_sink() {
    let place = Place::new();
    place.write(
        "tallybus.toml",
        "[bus]\nkind = \"kafka\"\nbrokers = \"127.0.0.1:1\"\n[sinks.a]\nkind = \"sqlite\"\npath = \"a.db\"\n\
         [sinks.b]\nkind = \"sqlite\"\npath = \"b.db\"\n",
    );
    let (ran, took) = timed(&place, &["audit", "--json", "--bus", &dead_bus()], "");
    let ran = ran.expect(2);
    assert!(ran.out.is_empty() && ran.err.contains("tallybus doctor"), "{ran:?}");
    assert!(took < Duration::from_secs(15), "it took {took:?}");
}

#[test]
fn values_past_64_bits_in_one_run_are_refused() {
    let place = Place::with_local();
    let lines = format!("big {}\nbig 1\n[{{\"name\":\"b\",\"ts\":5}}]\n", u64::MAX);
    let ran = place.run_with(&["emit", "-", "--json"], &lines).expect(1);
    assert_eq!((&ran.json()["delivered"], &ran.json()["refused_lines"]), (&u64::MAX.into(), &2.into()), "{ran:?}");
    assert!(ran.err.contains("line 2: the values of one run together stay below 2^64"), "{ran:?}");
    assert_eq!(place.run(&["count", "--json"]).expect(0).json()["total"], u64::MAX);
}

#[test]
fn a_worker_that_is_stopped_before_it_has_caught_up_is_no_success() {
    let place = Place::with_local();
    let bus = dead_bus();
    let start = |more: &[&str]| place.spawn(&mut place.command(&[&["run", "--json", "--bus", &bus], more].concat()));
    let mut workers = [(start(&["--until-caught-up"]), 1), (start(&[]), 0)];
    let mut logs = Vec::new();
    for (worker, _) in &mut workers {
        let mut log = BufReader::new(worker.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("bus unavailable") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended instead of waiting for the bus");
        }
        // What is logged later needs somebody who reads it.
        logs.push(log);
    }
    for (worker, status) in workers {
        let asked = Instant::now();
        common::signal(&worker, "-TERM");
        let ended = worker.wait_with_output().unwrap();
        // A call to the bus takes up to ten seconds, which a stop does not wait for.
        assert!(asked.elapsed() < Duration::from_secs(3), "the stop took {:?}", asked.elapsed());
        assert_eq!(ended.status.code(), Some(status), "{ended:?}");
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), "{\"sinks\":[]}\n");
    }
}

#[test]
fn a_command_that_waits_for_the_bus_says_so() {
    let place = Place::with_local();
    let bus = dead_bus();
    let commands: [&[&str]; 5] =
        [&["count"], &["tap", "--until-end"], &["topic", "create"], &["doctor"], &["group", "show", "local"]];
    // Each waits for ten seconds.
    std::thread::scope(|scope| {
        for args in commands {
            let (place, bus) = (&place, &bus);
            scope.spawn(move || {
                let ran = place.run(&[args, &["--bus", bus]].concat());
                let is_notice = |line: &&str| line.starts_with("waiting for Kafka at 127.0.0.1:");
                assert_eq!(ran.err.lines().filter(is_notice).count(), 1, "{args:?}: {ran:?}");
            });
        }
    });
}

#[test]
fn a_command_that_only_looks_at_the_bus_needs_no_secret_of_a_sink() {
    let place = Place::new();
    place.write(
        "tallybus.toml",
        "[bus]\nkind = \"embedded\"\npath = \"bus.db\"\n[sinks.a]\nkind = \"influxdb\"\nurl = \"http://127.0.0.1:1\"\n\
         org = \"o\"\nbucket = \"b\"\ntoken = \"env:TALLYBUS_TEST_NOT_SET\"\n[sinks.local]\nkind = \"sqlite\"\npath = \"a.db\"\n",
    );
    place.run(&["topic", "create"]).expect(0);
    place.run(&["emit", "a", "5"]).expect(0);
    let looks: [&[&str]; 6] = [
        &["count"],
        &["tap", "--from", "beginning", "--until-end"],
        &["group", "show", "a"],
        &["replay", "list"],
        &["doctor", "--sink", "local"],
        &["run", "--sink", "local", "--until-caught-up"],
    ];
    for args in looks {
        let ran = place.run(args).expect(0);
        assert!(!ran.err.contains("TALLYBUS_TEST_NOT_SET"), "{args:?}: {ran:?}");
    }
    let ran = place.run(&["run"]).expect(2);
    assert!(ran.err.contains("TALLYBUS_TEST_NOT_SET is not set"), "{ran:?}");
}
