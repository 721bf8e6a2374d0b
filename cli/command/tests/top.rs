//! `tallybus top`: what it prints without a screen, that it leaves groups alone, and that it leaves the terminal as it was.
#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, Ran};
use serde_json::Value;
use tallybus_bus::Bus;
use tallybus_bus::kafka::KafkaBus;

const HIT: &[u8] = br#"{"name":"hits"}"#;

/// Seven messages, three of them written.
fn behind() -> Place {
    let place = Place::with_local();
    place.run(&["topic", "create", "--partitions", "2"]).expect(0);
    place.publish(0, &[HIT; 3]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.publish(0, &[HIT; 3]);
    place.publish(1, &[HIT]);
    place
}

fn sink<'p>(picture: &'p Value, name: &str) -> &'p Value {
    let sinks = picture["sinks"].as_array().unwrap();
    sinks.iter().find(|sink| sink["name"] == name).unwrap_or_else(|| panic!("no {name} in {picture}"))
}

#[test]
fn one_look_as_json_says_how_far_each_sink_is() {
    let place = behind();
    let picture = place.run(&["top", "--once", "--json", "--interval", "200ms"]).expect(0).json();
    assert_eq!(picture["version"], 1, "{picture}");
    let local = sink(&picture, "local");
    assert_eq!((&local["lag_messages"], &local["settled_per_second"]), (&4.into(), &0.0.into()), "{local}");
    assert_eq!((&local["kind"], &local["dead_letters"]), (&"sqlite".into(), &0.into()), "{local}");
    let partitions = local["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 2);
    assert_eq!((&partitions[0]["partition"], &partitions[0]["settled"]), (&0.into(), &3.into()), "worst first");
    let topics: Vec<&str> =
        picture["topics"].as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap()).collect();
    assert_eq!(topics, ["tallybus.counters", "tallybus.dead.local", "tallybus.replay.local"]);
}

#[test]
fn without_a_terminal_the_tables_are_printed_once() {
    let ran = behind().run(&["top", "--interval", "200ms"]).expect(0);
    let row = ran.out.lines().find(|line| line.starts_with("local ")).unwrap_or_else(|| panic!("{ran:#?}"));
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((cells[1], cells[2]), ("measuring", "4"), "{ran:#?}");
    assert!(ran.out.contains("SINK") && ran.out.contains("TOPIC") && ran.err.is_empty(), "{ran:#?}");
}

#[test]
fn without_sinks_in_the_settings_those_with_groups_on_the_bus_are_shown() {
    let place = behind();
    let elsewhere = Place::new();
    let bus = format!("embedded:{}", place.file("bus.db").display());
    let picture = elsewhere.run(&["top", "--once", "--json", "--interval", "200ms", "--bus", &bus]).expect(0).json();
    let local = sink(&picture, "local");
    assert_eq!((&local["lag_messages"], &local["kind"]), (&4.into(), &Value::Null), "{local}");
}

#[test]
fn watching_makes_no_group_and_moves_no_offset() {
    let place = behind();
    let state = |place: &Place| {
        let (bus, groups) = (place.bus(), ["tallybus.local", "tallybus.local.replay"]);
        let observer = bus.observer().unwrap();
        let commits: Vec<_> =
            groups.iter().map(|group| observer.committed_by(group, "tallybus.counters").unwrap()).collect();
        (observer.groups().unwrap(), commits)
    };
    let before = state(&place);
    place.run(&["top", "--once", "--interval", "200ms"]).expect(0);
    assert_eq!(state(&place), before);
}

#[test]
fn a_worker_says_why_its_sink_is_behind_and_how_old_the_lag_is() {
    // Nothing listens on port 1.
    let place = Place::with_settings(
        "[sinks.away]\nkind = \"influxdb\"\nurl = \"http://127.0.0.1:1\"\norg = \"o\"\nbucket = \"b\"\n\
         token = \"not-a-secret\"\nbatch = { max_delay = \"50ms\" }\n",
    );
    place.run(&["topic", "create"]).expect(0);
    place.publish(0, &[HIT]);
    let mut run = place.command(&["run"]);
    let mut run = place.spawn(&mut run);
    let look =
        || sink(&place.run(&["top", "--once", "--json", "--interval", "200ms"]).expect(0).json(), "away").clone();
    common::eventually("the reason", || look()["state"] == "retrying");
    let away = look();
    assert_eq!((&away["workers"], &away["lag_messages"]), (&1.into(), &1.into()), "{away}");
    assert!(away["why"].as_str().is_some_and(|why| why.contains("InfluxDB cannot be reached")), "{away}");
    assert!(away["lag_seconds"].as_f64().is_some_and(|seconds| (0.0..60.0).contains(&seconds)), "{away}");
    assert!(away["partitions"][0]["worker"].is_string(), "{away}");
    common::signal(&run, "-TERM");
    run.wait().unwrap();
    assert_eq!(look()["workers"], 0, "it has left");
}

#[test]
fn on_kafka_twenty_sinks_of_64_partitions_are_seen_and_no_group_is_made() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let sinks: String =
        (0..20).map(|number| format!("[sinks.s{number:02}]\nkind = \"sqlite\"\npath = \"{number}.db\"\n")).collect();
    let place = Place::new();
    let bus = format!("[bus]\nkind = \"kafka\"\nbrokers = \"{}\"\n", kafka.bootstrap());
    place.write("tallybus.toml", &format!("{bus}{sinks}"));
    place.run(&["topic", "create", "--partitions", "64"]).expect(0);
    place.run(&["emit", "hits"]).expect(0);
    place.run(&["run", "--sink", "s07", "--until-caught-up"]).expect(0);
    let groups =
        || KafkaBus::new(&kafka.bootstrap(), &Default::default()).unwrap().observer().unwrap().groups().unwrap();
    let before = groups();
    let picture = place.run(&["top", "--once", "--json", "--interval", "200ms"]).expect(0).json();
    let all = picture["sinks"].as_array().unwrap();
    assert_eq!(all.len(), 20);
    assert!(all.iter().all(|sink| sink["partitions"].as_array().unwrap().len() == 64), "{picture}");
    let state = |name| (sink(&picture, name)["state"].clone(), sink(&picture, name)["lag_messages"].clone());
    assert_eq!(state("s07"), ("caught_up".into(), 0.into()));
    assert_eq!(state("s08"), ("not_started".into(), 1.into()));
    assert_eq!(groups(), before);
    assert!(before.contains(&"tallybus.s07".to_owned()) && !before.contains(&"tallybus.s08".to_owned()), "{before:?}");
}

#[test]
fn a_recording_holds_every_look_and_is_played_again() {
    let place = behind();
    let mut top = place.command(&["top", "--json", "--interval", "100ms", "--record", "looks.jsonl"]);
    let mut top = place.spawn(&mut top);
    common::eventually("three looks", || {
        std::fs::read_to_string(place.file("looks.jsonl")).is_ok_and(|text| text.lines().count() >= 3)
    });
    common::signal(&top, "-TERM");
    assert!(top.wait().unwrap().success());
    let recorded = std::fs::read_to_string(place.file("looks.jsonl")).unwrap();
    let played = place.run(&["top", "--json", "--play", "looks.jsonl"]).expect(0);
    assert_eq!(played.out, recorded);
    let last = place.run(&["top", "--json", "--once", "--play", "looks.jsonl"]).expect(0).out;
    assert_eq!(last, format!("{}\n", recorded.lines().last().unwrap()));
    assert!(place.run(&["top", "--play", "looks.jsonl"]).expect(0).out.contains("local "));
    // Cut at both ends and in the middle: the looks that are whole are played.
    let lines: Vec<&str> = recorded.lines().collect();
    let cut = format!("{}\n{}\n{}\n{}", &lines[0][30..], lines[1], &lines[0][..50], &lines[2][..lines[2].len() - 1]);
    place.write("cut.jsonl", &cut);
    let played = place.run(&["top", "--json", "--play", "cut.jsonl"]).expect(0);
    assert_eq!(played.out, format!("{}\n", lines[1]));
    assert!(played.err.contains("not whole: line 1, and 2 more (not JSON"), "{played:#?}");
    // An earlier recording is not overwritten.
    let refused = place.run(&["top", "--once", "--record", "looks.jsonl"]).expect(1);
    assert!(refused.err.contains("cannot record to looks.jsonl"), "{refused:#?}");
}

#[test]
fn a_file_that_is_no_recording_is_refused_with_the_line() {
    let place = Place::new();
    for (text, reason) in [
        ("", "the recording looks.jsonl holds no picture"),
        ("{}\n", "looks.jsonl:1: not a recording of `tallybus top`: `version` is missing"),
        ("x\n", "looks.jsonl:1: not JSON"),
        ("{\"version\":1,\"time_ms\":1,\"error\":\"away\"}\n{}\n", "looks.jsonl:2: not a recording of `tallybus top`"),
        ("{\"version\":2}\n", "looks.jsonl:1: version 2; this program reads version 1"),
        (
            "{\"version\":1}\n",
            "looks.jsonl:1: not a recording of `tallybus top`: a key is missing, or its value is not",
        ),
    ] {
        place.write("looks.jsonl", text);
        let ran = place.run(&["top", "--play", "looks.jsonl"]).expect(2);
        assert!(ran.err.contains(reason), "{text:?}: {ran:#?}");
    }
}

/// Runs a shell script in a pseudo-terminal of 24 rows and 80 columns, with the settings of the terminal before and after it.
/// `$TOP` is the command, on the bus of `place`.
fn in_terminal(place: &Place, script: &str) -> (String, String, String) {
    let script = format!(
        "stty rows 24 cols 80; printf 'BEFORE:%s\\n' \"$(stty -g)\"; {script}; printf '\\nAFTER:%s\\n' \"$(stty -g)\""
    );
    let mut command = Command::new("script");
    command.args(["-qec", &script, "/dev/null"]).current_dir(place.path()).env("TERM", "xterm-256color");
    command.env("SHELL", "/bin/sh").env("TOP", format!("{} top --interval 100ms", env!("CARGO_BIN_EXE_tallybus")));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Open until the end: `script` passes the end of its input on.
    let input = child.stdin.take();
    let until = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "the script did not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(input);
    let ran = Ran::of(child.wait_with_output().unwrap());
    let setting = |name: &str| {
        let line = ran.out.lines().rev().find_map(|line| line.split_once(name));
        line.unwrap_or_else(|| panic!("no {name} in {ran:#?}")).1.trim().to_owned()
    };
    (setting("BEFORE:"), setting("AFTER:"), ran.out)
}

/// Enter and leave the alternate screen.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

#[test]
fn the_terminal_is_restored_after_signals_that_end_it_and_follows_its_size() {
    let place = behind();
    for signal in ["TERM", "INT", "HUP"] {
        let script = format!(
            "$TOP </dev/tty & top=$!; sleep 2; stty rows 5 cols 20; sleep 1; stty rows 24 cols 80; sleep 1; kill -{signal} $top; \
             wait $top; echo STATUS:$?"
        );
        let (before, after, shown) = in_terminal(&place, &script);
        assert_eq!(after, before, "{signal}");
        assert!(shown.contains("SINK") && shown.contains("local"), "{shown:?}");
        assert!(shown.contains("STATUS:0"), "{shown:?}");
        let (enter, leave) = (shown.find(ENTER).unwrap(), shown.rfind(LEAVE).unwrap());
        assert!(enter < leave && !shown[leave..].contains(ENTER), "{shown:?}");
    }
}

#[test]
fn a_stopped_process_gives_the_terminal_back_and_takes_it_again() {
    let place = behind();
    let script = "$TOP </dev/tty & top=$!; sleep 2; kill -TSTP $top; sleep 1; printf 'STOPPED:%s\\n' \"$(stty -g)\"; kill -CONT $top; \
                  sleep 1; kill -TERM $top; wait $top";
    let (before, after, shown) = in_terminal(&place, script);
    let stopped = shown.lines().find_map(|line| line.split_once("STOPPED:")).unwrap().1.trim().to_owned();
    assert_eq!((&stopped, &after), (&before, &before));
    let while_stopped = &shown[..shown.find("STOPPED:").unwrap()];
    assert!(while_stopped.rfind(LEAVE) > while_stopped.rfind(ENTER), "{shown:?}");
}
