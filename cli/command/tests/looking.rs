//! Commands that only look: they create no bus, and say what they cannot know.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Place, Ran, eventually};

fn signal(child: &Child, name: &str) {
    common::signal(child, name);
}

#[test]
fn a_command_that_only_looks_names_a_missing_bus_and_creates_none() {
    let place = Place::with_local();
    let looking: [&[&str]; 10] = [
        &["count"],
        &["tap"],
        &["tap", "--until-end"],
        &["top"],
        &["audit"],
        &["replay", "list"],
        &["replay", "show", "tallybus.counters/0/0"],
        &["replay", "run", "--sink", "local"],
        &["replay", "run", "--sink", "local", "--dry-run"],
        &["audit", "--json"],
    ];
    for args in looking {
        let ran = place.run(&[args, &["--bus", "embedded:typo.db"]].concat()).expect(2);
        assert!(ran.err.contains("no such bus: typo.db does not exist yet"), "{args:?}: {ran:#?}");
        assert!(ran.err.contains("correct `path` in [bus] (or --bus)"), "{args:?}: {ran:#?}");
    }
    for args in [&["doctor"][..], &["doctor", "--offline"], &["sink", "ddl", "local"]] {
        place.run(&[args, &["--bus", "embedded:typo.db"]].concat()).expect(0);
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1, "only the settings are there");
}

#[test]
fn a_file_that_is_still_empty_is_no_bus_and_stays_empty() {
    let place = Place::with_local();
    place.write("bus.db", "");
    let ran = place.run(&["count"]).expect(2);
    assert!(ran.err.contains("no such bus: bus.db is still empty"), "{ran:#?}");
    assert_eq!(std::fs::metadata(place.file("bus.db")).unwrap().len(), 0);
}

#[test]
fn a_bus_in_a_directory_that_does_not_exist_names_the_directory() {
    let place = Place::with_local();
    for args in [["count"], ["doctor"]] {
        let ran = place.run(&[&args[..], &["--bus", "embedded:no/such/bus.db"]].concat());
        assert_ne!(ran.status, 0);
        assert!((ran.out.clone() + &ran.err).contains("the directory no/such does not exist"), "{ran:#?}");
    }
}

#[test]
fn doctor_notes_a_bus_that_the_first_emit_creates() {
    let place = Place::with_local();
    let ran = place.run(&["doctor"]).expect(0);
    let note = "note  bus: bus.db does not exist yet; the first `tallybus emit` or `tallybus run` creates it";
    assert!(ran.out.contains(note), "{ran:#?}");
    let json = place.run(&["doctor", "--json"]).expect(0).json();
    let bus = json["checks"].as_array().unwrap().iter().find(|check| check["check"] == "bus").unwrap().clone();
    assert_eq!((&json["ok"], &bus["ok"]), (&true.into(), &serde_json::Value::Null), "{json}");
    let ran = place.run(&["emit", "hits"]).expect(0);
    assert!(!ran.err.contains("WARN"), "a topic that is created is no failure: {}", ran.err);
    assert!(place.run(&["doctor"]).expect(0).out.contains("ok    bus: embedded bus bus.db"));
}

#[test]
fn doctor_fails_a_sink_whose_directory_cannot_be_written_and_leaves_nothing_in_one_that_can() {
    // Not even the superuser creates files in /proc.
    let place = Place::with_settings(
        "[sinks.a]\nkind = \"sqlite\"\npath = \"/proc/a.db\"\n[sinks.b]\nkind = \"parquet\"\npath = \"/proc\"\n\
         [sinks.c]\nkind = \"parquet\"\npath = \"/proc/no/such\"\ncreate = true\n\
         [sinks.d]\nkind = \"parquet\"\npath = \"counts\"\n[sinks.e]\nkind = \"sqlite\"\npath = \"e.db\"\n",
    );
    std::fs::create_dir(place.file("counts")).unwrap();
    let ran = place.run(&["doctor"]).expect(1);
    for expected in [
        "FAIL  sink a: /proc/a.db cannot be created: ",
        "FAIL  sink b: /proc cannot be written: ",
        "FAIL  sink c: /proc/no/such cannot be created: ",
        "ok    sink d: parquet",
        "ok    sink e: sqlite",
    ] {
        assert!(ran.out.contains(expected), "no {expected:?} in\n{}", ran.out);
    }
    assert_eq!(std::fs::read_dir(place.file("counts")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2, "the settings and the directory");
}

#[test]
fn a_directory_that_cannot_be_opened_is_not_said_to_be_missing() {
    // A name that no file system accepts: the directory cannot be looked at, whoever looks.
    let name = "n".repeat(300);
    let place = Place::with_settings(&format!(
        "[sinks.a]\nkind = \"parquet\"\npath = \"{name}\"\n[sinks.b]\nkind = \"parquet\"\npath = \"{name}\"\ncreate = true\n\
         [sinks.c]\nkind = \"sqlite\"\npath = \"{name}/c.db\"\n"
    ));
    let ran = place.run(&["doctor"]).expect(1);
    assert_eq!(ran.out.matches("cannot be opened: File name too long").count(), 3, "{}", ran.out);
    assert!(!ran.out.contains("`create = true`"), "{}", ran.out);
}

#[test]
fn tap_that_is_interrupted_ends_with_success() {
    let place = Place::with_local();
    drop(place.bus());
    for (state, started) in [("waits for the topic", false), ("follows the topic", true)] {
        if started {
            place.run(&["topic", "create"]).expect(0);
        }
        let mut tap = place.spawn(&mut place.command(&["tap"]));
        // Signals that arrive before the command listens for them end it as they do any program.
        std::thread::sleep(Duration::from_millis(500));
        signal(&tap, "-INT");
        assert_eq!(tap.wait().unwrap().code(), Some(0), "{state}");
    }
}

#[test]
fn a_hangup_stops_a_worker_as_sigterm_does_unless_it_is_ignored() {
    let place = Place::with_local();
    place.run(&["emit", "hits", "3"]).expect(0);
    let settled = || place.run(&["audit", "--json"]).json()["sinks"][0]["total"] == 3;
    // Tests that `nohup` started ignore the signal, and their children would too: `env` says which it is.
    let run = |disposition: &str, health: &str| {
        let mut command = Command::new("env");
        command.args([disposition, env!("CARGO_BIN_EXE_tallybus"), "run", "--health-file", health]);
        command.current_dir(place.path()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut worker = run("--default-signal=HUP", "first");
    eventually("the count", settled);
    signal(&worker, "-HUP");
    assert_eq!(worker.wait().unwrap().code(), Some(0));

    let mut worker = run("--ignore-signal=HUP", "second");
    eventually("the worker runs", || place.run(&["health", "--file", "second"]).status == 0);
    signal(&worker, "-HUP");
    place.run(&["emit", "hits", "4"]).expect(0);
    eventually("it goes on counting", || place.run(&["audit", "--json"]).json()["sinks"][0]["total"] == 7);
    assert!(worker.try_wait().unwrap().is_none(), "a hangup that `nohup` ignores stays ignored");
    signal(&worker, "-TERM");
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

#[test]
fn an_event_that_is_not_valid_is_refused_before_the_bus_is_created() {
    let place = Place::with_local();
    let wrong: [(&[&str], &str); 6] = [
        (&["emit", ""], "empty"),
        (&["emit", "a", "--tag", "x=1", "--tag", "x=2"], "the tag \"x\" is given twice"),
        (&["emit", "a", "1.5"], "expected a whole number from 1"),
        (&["emit", "a", "-5"], "expected a whole number from 1"),
        (&["emit", "a", "-1e6"], "such as 1000000, 1_000_000 or 1e6"),
        (&["emit", "a", "1,000"], "write 1_000"),
    ];
    for (args, expected) in wrong {
        let ran = place.run(args).expect(2);
        assert!(ran.err.contains(expected), "{args:?}: {ran:#?}");
        assert!(!ran.out.contains("delivered") && !place.file("bus.db").exists(), "{args:?}: {ran:#?}");
    }
    for args in
        [&["tap", "--limit", "1.5"][..], &["audit", "--details", "-1e3"], &["topic", "create", "--partitions", "-1"]]
    {
        let ran = place.run(args).expect(2);
        assert!(ran.err.contains("expected a whole number from"), "{args:?}: {ran:#?}");
        assert!(!ran.err.contains("tip:"), "a tip that leads to the same error: {args:?}: {ran:#?}");
    }
}

#[test]
fn numbers_with_separators_and_powers_of_ten_are_taken_wherever_something_is_counted() {
    let place = Place::with_local();
    place.run(&["topic", "create", "--partitions", "4e0"]).expect(0);
    place.run(&["emit", "hits", "1e6"]).expect(0);
    place.run(&["emit", "hits", "1_000_000", "--time", "2026-01-31"]).expect(0);
    place.run_with(&["emit", "-"], "hits 2.5e6\n").expect(0);
    assert_eq!(place.run(&["count", "--json"]).expect(0).json()["total"], 4_500_000);
    let tap = place.run(&["tap", "--from", "beginning", "--until-end", "--limit", "2e0"]).expect(0);
    assert_eq!(tap.out.lines().count(), 2);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.run(&["audit", "--details", "1e3"]).expect(0);
    place.run(&["replay", "run", "--sink", "local", "--limit", "1_0", "--dry-run"]).expect(0);
}

#[test]
fn count_by_a_tag_that_no_event_has_names_those_that_events_have() {
    let place = Place::with_local();
    place.run(&["emit", "hits", "3", "--tag", "route=/a"]).expect(0);
    let ran = place.run(&["count", "--by", "rout"]).expect(0);
    assert!(ran.err.contains("no event has the tag `rout`; tags: route"), "{ran:#?}");
    assert_eq!(ran.out, "total 3 in 1 event\n");
    let ran = place.run(&["count", "--by", "name"]).expect(0);
    assert!(ran.err.is_empty() && ran.out.contains("hits"), "{ran:#?}");
    let ran = place.run(&["count", "--from", "2020"]).expect(2);
    assert!(ran.err.contains("write a date, 2020-01-01"), "{ran:#?}");
}

#[test]
fn the_list_of_sinks_is_as_wide_as_columns() {
    let place = Place::new();
    for (columns, most) in [(None, 80), (Some("100"), 100)] {
        let mut command = place.command(&["sinks"]);
        command.env_remove("COLUMNS");
        if let Some(columns) = columns {
            command.env("COLUMNS", columns);
        }
        let out = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let longest = out.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= most && longest > most - 20, "{longest} of {most}");
    }
}

#[test]
fn events_are_not_emitted_onto_topics_of_tallybus_itself() {
    let place = Place::with_local();
    for topic in ["tallybus.control", "tallybus.progress", "tallybus.dead.local", "stage.tallybus.replay.local"] {
        let ran = place.run(&["emit", "hits", "--topic", topic]).expect(2);
        assert!(ran.err.contains(&format!("{topic} holds Tallybus's own records")), "{ran:#?}");
    }
    assert!(!place.file("bus.db").exists(), "the bus was created");
}

#[test]
fn tables_fit_a_terminal_of_80_columns_and_are_whole_in_a_pipe() {
    let name = "sink-with-a-name-of-forty-characters-here";
    let place = Place::with_settings(&format!("[sinks.{name}]\nkind = \"sqlite\"\npath = \"local.db\"\n"));
    place.run(&["topic", "create"]).expect(0);
    place.publish(0, &[br#"{"name":"hits"}"#, br#"{"name":"hits","value":1,"tags":{"a-tag-with-a-long-key":[1]}}"#]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    for args in [
        &["top", "--once", "--interval", "100ms"][..],
        &["audit"],
        &["replay", "list"],
        &["replay", "list", "--dead-letters"],
        &["sink", "claims", name],
        &["group", "show", name],
    ] {
        let whole = place.run(args).out;
        let narrow = Ran::of(place.command(args).env("COLUMNS", "80").output().unwrap()).expect(0).out;
        // The lines of prose around a table are the terminal's to wrap.
        let is_wide = |line: &&str| line.chars().count() > 80 && !line.contains(": ");
        assert!(!narrow.lines().any(|line| is_wide(&line)), "{args:?}: {narrow}");
        assert!(narrow.lines().any(|line| line.contains(name)), "{args:?}: {narrow}");
        assert!(whole.lines().any(|line| line.contains(name)), "{args:?}: {whole}");
    }
    let narrow =
        Ran::of(place.command(&["top", "--once", "--interval", "100ms"]).env("COLUMNS", "80").output().unwrap());
    assert!(
        narrow.out.contains("without ") && narrow.out.contains(&format!("{name}: everything is settled")),
        "{narrow:#?}"
    );
}
