//! Emitting, looking, writing and comparing on the embedded bus, through the real binary.
#![allow(missing_docs)]

mod common;

use std::io::{BufRead, BufReader, Read};

use common::{Place, eventually};
use serde_json::{Value, json};
use tallybus_bus::Bus;

fn count(place: &Place, more: &[&str]) -> Value {
    place.run(&[&["count", "--json"], more].concat()).expect(0).json()
}

#[test]
fn what_is_emitted_is_counted_and_tapped() {
    let place = Place::with_local();
    let emitted = place.run(&["emit", "hits", "5", "--tag", "route=/a", "--tag", "status=200", "--json"]).expect(0);
    assert_eq!(emitted.json()["delivered"], 5);
    let lines = "hits 2 route=/b status=200\n\n# comment\n\
                 {\"ts\":1700000000000000000,\"name\":\"old\",\"value\":7,\"tags\":{\"route\":\"/a\"}}\n\
                 hits route=\"/with space\"\n";
    place.run_with(&["emit", "-", "--tag", "shell=yes"], lines).expect(0);

    let all = count(&place, &[]);
    assert_eq!((&all["total"], &all["events"], &all["groups"]), (&json!(15), &json!(4), &json!([])));
    let grouped = count(&place, &["--by", "status", "--by", "name"]);
    let expected = json!([
        { "key": { "status": null, "name": "hits" }, "total": 1, "events": 1 },
        { "key": { "status": null, "name": "old" }, "total": 7, "events": 1 },
        { "key": { "status": "200", "name": "hits" }, "total": 7, "events": 2 },
    ]);
    assert_eq!(grouped["groups"], expected);
    assert_eq!(count(&place, &["--name", "h*"])["total"], 8);
    assert_eq!(count(&place, &["--tag", "shell=yes"])["total"], 10);
    assert_eq!(count(&place, &["--to", "2023-12-01"])["total"], 7);
    assert_eq!(count(&place, &["--from", "-1h"])["total"], 8);
    assert_eq!(count(&place, &["--from", "1700000000000000000", "--to", "1700000000000000001"])["total"], 7);

    let tapped = place.run(&["tap", "--json", "--from", "beginning", "--until-end"]).expect(0);
    let events: Vec<Value> = tapped.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 4);
    assert!(tapped.out.lines().any(|line| {
        line == r#"{"ts":1700000000000000000,"name":"old","value":7,"tags":{"route":"/a","shell":"yes"}}"#
    }));
    // What tap writes, emit reads: the same events once more.
    place.run_with(&["emit", "-"], &tapped.out).expect(0);
    assert_eq!(count(&place, &[])["total"], 30);
    let limited = place.run(&["tap", "--from", "0", "--limit", "1", "--name", "old", "--coordinates"]).expect(0);
    assert!(
        limited.out.contains("2023-11-14T22:13:20Z") && limited.out.contains("[tallybus.counters/"),
        "{}",
        limited.out
    );
}

#[test]
fn a_bus_is_enough() {
    let place = Place::new();
    place.run(&["emit", "hits", "--bus", "embedded:x.db"]).expect(0);
    assert_eq!(count(&place, &["--bus", "embedded:x.db"])["total"], 1);
    let tapped = place.run(&["tap", "--bus", "embedded:x.db", "--from", "beginning", "--until-end"]).expect(0);
    assert!(tapped.out.contains("hits"), "{}", tapped.out);
    place.run(&["count", "--bus", "embedded:nowhere/x.db"]).expect(2);
    let ran = place.run(&["count", "--bus", "embedded:x.db", "--topic", "none"]).expect(2);
    assert!(ran.err.contains("tallybus topic create"), "{}", ran.err);
}

#[test]
fn what_a_bus_that_cannot_be_written_did_not_take_is_not_delivered_and_not_in_doubt() {
    let place = Place::with_local();
    place.run(&["topic", "create"]).expect(0);
    let lock = rusqlite::Connection::open(place.file("bus.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ran = place.run(&["emit", "hits", "5", "--json", "--deadline", "7s"]).expect(1);
    let told = ran.json();
    assert_eq!(
        (&told["delivered"], &told["undelivered"], &told["unknown"]),
        (&json!(0), &json!(5), &json!(0)),
        "{ran:?}"
    );
    assert!(ran.err.contains("is locked while") && ran.err.contains("last error"), "{ran:?}");
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(count(&place, &[])["total"], 0);
}

#[test]
fn an_event_lands_in_one_partition_with_and_without_a_time() {
    let place = Place::with_local();
    let lines: String = (0..40)
        .map(|n| format!("hits n={n} z=1\n{{\"ts\":1700000000000000000,\"name\":\"hits\",\"tags\":{{\"z\":\"1\",\"n\":\"{n}\"}}}}\n"))
        .collect();
    place.run_with(&["emit", "-"], &lines).expect(0);
    let tapped = place.run(&["tap", "--json", "--coordinates", "--from", "beginning", "--until-end"]).expect(0);
    let mut partitions = std::collections::BTreeMap::<String, Vec<u64>>::new();
    for line in tapped.out.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let series = event["tags"]["n"].as_str().unwrap().to_owned();
        partitions.entry(series).or_default().push(event["partition"].as_u64().unwrap());
    }
    assert_eq!(partitions.len(), 40);
    assert!(partitions.values().all(|places| places.len() == 2 && places[0] == places[1]), "{partitions:?}");
    let distinct: std::collections::BTreeSet<u64> = partitions.values().map(|places| places[0]).collect();
    assert_eq!(distinct.len(), 4);
}

#[test]
fn lines_that_are_no_events_are_reported_and_the_rest_is_sent() {
    let place = Place::with_local();
    let ran =
        place.run_with(&["emit", "-", "--json"], "good\nbad bad\n{\"name\":\"x\",\"vaule\":1}\ngood 2\n").expect(1);
    assert_eq!((&ran.json()["delivered"], &ran.json()["refused_lines"]), (&json!(3), &json!(2)));
    assert!(ran.err.contains("line 2:") && ran.err.contains("line 3:"), "{}", ran.err);
    assert_eq!(count(&place, &[])["total"], 3);
    place.run(&["emit", "hits", "0"]).expect(2);
    place.run(&["emit", "hits", "--tag", "novalue"]).expect(2);
    place.run(&["emit", "a\tb"]).expect(2);
}

#[test]
fn run_writes_everything_and_audit_says_so() {
    let place = Place::with_local();
    place.run(&["topic", "create"]).expect(0);
    // Two increments of one series in one nanosecond, an event without a time, and garbage.
    place.publish(
        1,
        &[
            br#"[{"ts":1700000000000000000,"name":"twins","value":1},{"ts":1700000000000000000,"name":"twins","value":1}]"#,
            br#"{"name":"now"}"#,
            b"garbage",
            b"lines,a=b value=3i 1700000000000000000",
        ],
    );
    place.run(&["emit", "hits", "5"]).expect(0);

    let before = place.run(&["audit", "--json"]).expect(1).json();
    assert_eq!((&before["sinks"][0]["verdict"], &before["bus"]), (&json!("never ran"), &json!(11)));
    assert_eq!((&before["sinks"][0]["total"], &before["sinks"][0]["behind"]), (&json!(0), &json!(5)));

    let ran = place.run(&["run", "--until-caught-up", "--json"]).expect(0);
    assert_eq!(ran.json()["sinks"][0]["dead_letters"], 1);
    let warning = "dead letters; `tallybus replay list --sink local` lists them";
    assert!(ran.err.contains(warning) && ran.err.contains("topic=\"tallybus.dead.local\""), "{}", ran.err);
    let after = place.run(&["audit", "--json"]).expect(0).json();
    let sink = &after["sinks"][0];
    assert_eq!((&after["equal"], &after["bus"], &after["undecodable"]), (&json!(true), &json!(11), &json!(1)));
    assert_eq!(sink["name"], "local");
    assert_eq!((&sink["total"], &sink["missing"], &sink["extra"]), (&json!(11), &json!(0), &json!(0)));
    assert_eq!((&sink["behind"], &sink["dead_letters"]), (&json!(0), &json!(1)));
    assert_eq!(count(&place, &[])["undecodable"], 1);
    let tapped = place.run(&["tap", "--json", "--from", "beginning", "--until-end"]).expect(0);
    assert_eq!(tapped.out.lines().count(), 5);
    assert!(tapped.err.contains("tallybus.counters/1/2:"), "{}", tapped.err);
    assert!(tapped.err.contains("1 record could not be decoded"), "{}", tapped.err);
    let human = place.run(&["audit"]).expect(0);
    assert!(human.out.contains("local") && human.out.contains("equal"), "{}", human.out);
    place.run(&["doctor"]).expect(0);
}

#[test]
fn several_sinks_are_selected_by_name_and_shaped_by_their_settings() {
    let place = Place::with_settings(
        "[sinks.all]\nkind = \"sqlite\"\npath = \"all.db\"\nbatch = { max_delay = \"50ms\" }\n\
         [sinks.some]\nkind = \"sqlite\"\npath = \"some.db\"\nwindow = \"0s\"\nbatch = { max_delay = \"50ms\" }\n\
         select = { names = [\"http.*\"], drop_tags = [\"pod\"], tags = { env = \"prod\" } }\n",
    );
    place.run_with(&["emit", "-"], "http.a 1 pod=x\nhttp.a 2 pod=y\nother 4\n").expect(0);
    place.run(&["run", "--sink", "some", "--until-caught-up"]).expect(0);
    let audit = place.run(&["audit", "--json"]).expect(1).json();
    assert_eq!((&audit["sinks"][0]["verdict"], &audit["sinks"][0]["total"]), (&json!("never ran"), &json!(0)));
    assert_eq!((&audit["sinks"][1]["verdict"], &audit["sinks"][1]["total"]), (&json!("equal"), &json!(3)));
    assert_eq!(audit["sinks"][1]["series"], 1);
    place.run(&["run", "--until-caught-up"]).expect(0);
    let audit = place.run(&["audit", "--json", "--sink", "all"]).expect(0).json();
    assert_eq!(audit["sinks"].as_array().map(Vec::len), Some(1));
    assert_eq!((&audit["sinks"][0]["total"], &audit["sinks"][0]["behind"]), (&json!(7), &json!(0)));
}

#[test]
fn a_running_worker_ends_gracefully_and_can_be_audited_meanwhile() {
    let place = Place::with_local();
    let mut worker = place.spawn(&mut place.command(&["run", "--log", "json"]));
    for round in 0..4 {
        place.run(&["emit", "hits", "3", "--tag", &format!("round={round}")]).expect(0);
        if round == 0 {
            eventually("the worker's first commit", || place.run(&["audit"]).status == 0);
        }
        let audit = place.run(&["audit", "--json"]).expect(0).json();
        assert_eq!(audit["equal"], true);
    }
    eventually("the last count", || {
        let audit = place.run(&["audit", "--json"]).expect(0).json();
        audit["sinks"][0]["total"] == 12 && audit["sinks"][0]["behind"] == 0
    });
    common::signal(&worker, "-TERM");
    let mut log = String::new();
    worker.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(0), "{log}");
    let (lines, summary): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.starts_with('{'));
    assert!(lines.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
    assert!(summary.iter().any(|line| line.starts_with("local: 4 events")), "{log}");
}

#[test]
fn tap_follows_live_and_waits_for_the_topic() {
    let place = Place::with_local();
    drop(place.bus());
    let mut tap = place.spawn(&mut place.command(&["tap", "--json", "--limit", "2"]));
    let mut err = BufReader::new(tap.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert!(line.contains("waiting for the topic"), "{line}");
    place.run(&["topic", "create"]).expect(0);
    // The tap begins at the end, so it must have seen the topic before something is sent.
    line.clear();
    err.read_line(&mut line).unwrap();
    assert!(line.contains("exists now"), "{line}");
    place.run(&["emit", "one"]).expect(0);
    place.run(&["emit", "two"]).expect(0);
    let mut out = String::new();
    tap.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(tap.wait().unwrap().code(), Some(0));
    let names: Vec<String> =
        out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].to_string()).collect();
    assert_eq!(names, ["\"one\"", "\"two\""]);
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let place = Place::with_local();
    let lines: String = (0..20_000).map(|n| format!("{{\"ts\":{n},\"name\":\"many\"}}\n")).collect();
    place.run_with(&["emit", "-"], &lines).expect(0);
    let mut tap = place.spawn(&mut place.command(&["tap", "--json", "--from", "beginning"]));
    let mut first = String::new();
    {
        let mut out = BufReader::new(tap.stdout.take().unwrap());
        out.read_line(&mut first).unwrap();
    }
    assert!(first.starts_with("{\"ts\":"), "{first}");
    let mut err = String::new();
    tap.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((tap.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn one_dead_sink_leaves_the_other_at_work() {
    let place = Place::with_settings(
        "[sinks.dead]\nkind = \"influxdb\"\nurl = \"http://127.0.0.1:9\"\norg = \"o\"\nbucket = \"b\"\ntoken = \"t\"\n\
         [sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\nbatch = { max_delay = \"50ms\" }\n",
    );
    place.run(&["emit", "hits", "9"]).expect(0);
    let mut worker = place.spawn(&mut place.command(&["run", "--drain", "200ms"]));
    eventually("the living sink", || {
        place.run(&["audit", "--json", "--sink", "local"]).json()["sinks"][0]["total"] == 9
    });
    let both = place.run(&["audit", "--json"]).expect(2).json();
    assert_eq!(both["sinks"][0]["name"], "dead");
    assert!(both["sinks"][0]["error"].is_string());
    assert_eq!((&both["equal"], &both["sinks"][1]["total"]), (&json!(false), &json!(9)));
    let doctor = place.run(&["doctor"]).expect(1);
    assert!(doctor.out.contains("FAIL  sink dead") && doctor.out.contains("ok    sink local"), "{}", doctor.out);
    common::signal(&worker, "-INT");
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

#[test]
fn topics_are_created_or_checked() {
    let place = Place::with_local();
    let made = place.run(&["topic", "create", "other", "--partitions", "3", "--json"]).expect(0).json();
    assert_eq!((&made["created"], &made["partitions"]), (&json!(true), &json!(3)));
    assert_eq!(
        place.run(&["topic", "create", "other", "--partitions", "3", "--json"]).expect(0).json()["created"],
        false
    );
    let ran = place.run(&["topic", "create", "other"]).expect(1);
    assert!(ran.err.contains("has 3 partitions, not 4"), "{}", ran.err);
    assert_eq!(place.bus().observer().unwrap().partitions_of("other").unwrap(), Some(3));
    place.run(&["topic", "create", "a b"]).expect(2);
}
