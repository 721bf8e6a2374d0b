//! What `tap` and `count` select, leave out and say about it.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::time::Duration;

use common::{Place, Ran};
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};
use tallybus_bus::Bus as _;

const READ_ALL: [&str; 4] = ["tap", "--from", "beginning", "--until-end"];

fn tap(place: &Place, args: &[&str]) -> Ran {
    place.run(&[&READ_ALL, args].concat())
}

fn lines(ran: &Ran) -> Vec<&str> {
    ran.out.lines().collect()
}

/// One partition; every event is a record of its own.
fn place_with(events: impl Iterator<Item = Value>) -> Place {
    let place = Place::with_local();
    place.run(&["topic", "create", "--partitions", "1"]).expect(0);
    let events: Vec<String> = events.map(|event| event.to_string()).collect();
    place.publish(0, &events.iter().map(String::as_bytes).collect::<Vec<_>>());
    place
}

/// `http.requests` with the values 1 to 100, one each second from 2023-11-14T22:13:20Z on; each fifth one failed.
fn hundred() -> Place {
    place_with((1..=100_u64).map(|number| {
        let status = if number % 5 == 0 { "503" } else { "200" };
        let tags = match number % 2 {
            0 => json!({ "status": status, "route": "/v1" }),
            _ => json!({ "status": status }),
        };
        let ts = 1_700_000_000_000_000_000 + (number - 1) * 1_000_000_000;
        json!({ "ts": ts, "name": "http.requests", "value": number, "tags": tags })
    }))
}

#[test]
fn a_filter_selects_the_same_events_in_tap_and_count_as_the_flags_that_are_short_for_it() {
    let place = hundred();
    for (filter, flags, events) in [
        ("status >= 500", &["--tag", "status=503"][..], 20_u64),
        ("name ~ \"http.*\" && status == \"503\"", &["--name", "http.*", "--tag", "status=503"], 20),
        ("route == \"/v1\" && status < 500", &["--tag", "route=/v1", "--tag", "status=200"], 40),
        ("name ~ 'x*'", &["--name", "x*"], 0),
    ] {
        let filtered = place.run(&["count", "--json", "--filter", filter]).expect(0).json();
        assert_eq!(filtered["events"], events, "{filter}");
        assert_eq!(place.run(&[&["count", "--json"], flags].concat()).expect(0).json(), filtered, "{filter}");
        let tapped = tap(&place, &["--json", "--filter", filter]).expect(0);
        assert_eq!(lines(&tapped).len() as u64, events, "{filter}");
        assert_eq!(tap(&place, &[&["--json"], flags].concat()).out, tapped.out);
    }
    for (filter, events, total) in [
        ("value > 10 && value <= 20.5", 10, 155),
        ("offset < 3 || offset in (98, 99)", 5, 205),
        ("partition == 0 && topic == \"tallybus.counters\" && value > 99", 1, 100),
        ("time >= 2023-11-14T22:14:59Z", 1, 100),
        ("time > -1h", 0, 0),
        ("!has(route) && value < 4", 2, 4),
        ("route != \"/v2\"", 50, 2_550),
    ] {
        let count = place.run(&["count", "--json", "--filter", filter]).expect(0).json();
        assert_eq!((&count["events"], &count["total"]), (&json!(events), &json!(total)), "{filter}");
    }
    let both = place.run(&["count", "--json", "--filter", "value > 90", "--tag", "status=503"]).expect(0).json();
    assert_eq!((&both["events"], &both["total"]), (&json!(2), &json!(195)));
    let recent = place.run(&["count", "--from", "-5m"]).expect(0);
    assert_eq!(recent.out, "total 0 in 0 events\n");
}

#[test]
fn a_wrong_filter_is_answered_with_its_place_and_a_tag_that_no_event_has_with_the_nearest_one() {
    let place = hundred();
    for command in [&["count"][..], &READ_ALL] {
        let ran = place.run(&[command, &["--filter", "value > 10 && status = 500"]].concat()).expect(2);
        let expected = "error: --filter: `=` compares nothing: write `==`\n  value > 10 && status = 500\n                       ^\n";
        assert_eq!(ran.err, expected, "{command:?}");
        let ran = place.run(&[command, &["--filter", "statsu >= 500 && vaule > 1"]].concat()).expect(0);
        assert!(
            ran.err.contains("no event has the tag `statsu`; tags: route, status; did you mean `status`?"),
            "{ran:#?}"
        );
        assert!(ran.err.contains("no event has the tag `vaule`; tags: route, status; did you mean the field `value`?"));
        let ran = place.run(&[command, &["--name", "["]].concat()).expect(2);
        assert!(ran.err.starts_with("error: --name: "), "{ran:#?}");
    }
}

#[test]
fn around_a_coordinate_its_neighbours_are_shown_and_it_is_marked() {
    let place = hundred();
    let ran = place.run(&["tap", "--around", "tallybus.counters/0/50", "--context", "2"]).expect(0);
    let offsets: Vec<String> = (48..=52).map(|offset| format!("[tallybus.counters/0/{offset}/0]")).collect();
    assert_eq!(lines(&ran).len(), 5, "{ran:#?}");
    for (line, offset) in lines(&ran).into_iter().zip(&offsets) {
        assert!(line.ends_with(offset) && line.starts_with(if offset.contains("/50/") { "> 2023" } else { "  2023" }));
    }
    // As logs have it.
    let stream = place.bus().observer().unwrap().stream_ids(&["tallybus.counters"]).unwrap().remove(0);
    let logged = format!("tallybus.counters@{}/0/50/0", stream.short());
    assert_eq!(place.run(&["tap", "--around", &logged, "--context", "2"]).expect(0).out, ran.out);
    let recreated = place.run(&["tap", "--around", "tallybus.counters@00ff/0/50/0"]).expect(2);
    assert!(recreated.err.contains("is of the topic tallybus.counters before it was recreated"), "{recreated:#?}");
    let json = place.run(&["tap", "--json", "--around", "tallybus.counters/0/99/0"]).expect(0);
    assert_eq!(lines(&json).len(), 6, "five before it, and nothing after it");
    let filtered = place.run(&["tap", "--around", "tallybus.counters/0/50", "--filter", "status >= 500"]).expect(0);
    assert_eq!(lines(&filtered).len(), 2, "of offsets 45 to 55: 49 and 54");
    for (coordinate, why) in [
        ("tallybus.counters/0/100", "the partition ends before offset 100"),
        ("tallybus.counters/7/0", "the partitions of tallybus.counters are 0 to 0"),
        ("nosuch/0/0", "topic \"nosuch\" does not exist"),
        ("tallybus.counters/0", "expected a coordinate as --coordinates or the log shows it"),
    ] {
        let ran = place.run(&["tap", "--around", coordinate]).expect(2);
        assert!(ran.err.contains(why), "{ran:#?}");
    }
}

#[test]
fn offsets_that_are_missing_are_shown_as_gaps() {
    let place = hundred();
    assert_eq!(place.sql("bus.db", "DELETE FROM records WHERE (id & 1099511627775) IN (10, 11, 40)"), 3);
    let ran = tap(&place, &[]).expect(0);
    assert_eq!(lines(&ran).len(), 97);
    let why = "not on the bus (deleted before they were read)";
    let expected =
        format!("gap: tallybus.counters/0: offsets 10 to 11 are {why}\ngap: tallybus.counters/0: offset 40 is {why}\n");
    assert_eq!(ran.err, expected);
    let ran = place.run(&["tap", "--around", "tallybus.counters/0/40"]).expect(2);
    assert!(
        ran.err.contains("tallybus.counters/0/40 is not on the bus: its place in the partition is empty"),
        "{ran:#?}"
    );
    assert_eq!(lines(&ran).len(), 10);
}

#[test]
fn a_sample_says_what_it_left_out() {
    let place = hundred();
    let ran = tap(&place, &["--sample", "1/37", "--json"]).expect(0);
    let values: Vec<Value> =
        lines(&ran).iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].clone()).collect();
    assert_eq!(values, [1, 38, 75]);
    assert!(ran.err.ends_with("in total 3 of 100 shown\n"), "{ran:#?}");
    let ran = tap(&place, &["--sample", "10/s", "--filter", "status < 500"]).expect(0);
    assert!(lines(&ran).len() >= 10 && ran.err.contains(" of 80 shown"), "{ran:#?}");
    let ran = tap(&place, &["--sample", "2/3"]).expect(2);
    assert!(ran.err.contains("expected 1/100 (one of 100 events) or 10/s (at most ten each second)"), "{ran:#?}");
}

#[test]
fn sums_by_interval_have_every_event_once() {
    let place = hundred();
    let ran = tap(&place, &["--sum-by", "route", "--every", "1m"]).expect(0);
    // 22:13:20 to 22:13:59, 22:14:00 to 22:14:59.
    let expected = [
        "2023-11-14T22:13:00Z                    420 in 20 events     route=/v1",
        "2023-11-14T22:13:00Z                    400 in 20 events     route=-",
        "2023-11-14T22:14:00Z                  2,130 in 30 events     route=/v1",
        "2023-11-14T22:14:00Z                  2,100 in 30 events     route=-",
    ];
    assert_eq!(lines(&ran), expected, "{ran:#?}");
    let csv = tap(&place, &["--sum-by", "route", "--sum-by", "name", "--every", "1h", "--output", "csv"]).expect(0);
    let expected = "time,route,name,total,events\n2023-11-14T22:00:00Z,/v1,http.requests,2550,50\n\
                    2023-11-14T22:00:00Z,,http.requests,2500,50\n";
    assert_eq!(csv.out, expected);
    let json = tap(&place, &["--sum-by", "status", "--json"]).expect(0);
    let sums: Vec<Value> = lines(&json).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(sums.len(), 100, "one each second");
    assert_eq!(sums[4], json!({ "time": "2023-11-14T22:13:24Z", "key": { "status": "503" }, "total": 5, "events": 1 }));
    assert_eq!(sums.iter().map(|sum| sum["total"].as_u64().unwrap()).sum::<u64>(), 5_050);
    let all = tap(&place, &["--every", "1h", "--json", "--filter", "value > 50"]).expect(0).json();
    assert_eq!(all, json!({ "time": "2023-11-14T22:00:00Z", "key": {}, "total": 3_775, "events": 50 }));
    let counted = place.run(&["count", "--sum-by", "route", "--csv"]).expect(0);
    assert_eq!(counted.out, "route,total,events\n/v1,2550,50\n,2500,50\n");
    tap(&place, &["--every", "1s", "--output", "influx"]).expect(2);
    tap(&place, &["--every", "0s"]).expect(2);
}

#[test]
fn every_form_has_the_same_events_and_nothing_in_it_is_obeyed() {
    let evil = "=cmd|' /C calc'!A0";
    let place = place_with(
        [
            json!({ "ts": 1_700_000_000_000_000_000_u64, "name": "a b", "value": 3, "tags": { "k,1": "v=\"x\"" } }),
            json!({ "ts": 1_700_000_000_000_000_001_u64, "name": evil, "value": u64::MAX, "tags": { "+k": "-1" } }),
            json!({ "ts": 1_700_000_000_000_000_002_u64, "name": "n\u{9b}2J", "value": 1, "tags": { "k": "\u{9b}31m\u{202e}" } }),
        ]
        .into_iter(),
    );
    let csv = tap(&place, &["--output", "csv", "--coordinates"]).expect(0);
    let expected = r#"time,name,tags,value,coordinate
2023-11-14T22:13:20Z,a b,"{""k,1"":""v=\""x\""""}",3,tallybus.counters/0/0/0
2023-11-14T22:13:20.000000001Z,'=cmd|' /C calc'!A0,"{""+k"":""-1""}",18446744073709551615,tallybus.counters/0/1/0
2023-11-14T22:13:20.000000002Z,n\u{9b}2J,"{""k"":""\u{9b}31m\u{202e}""}",1,tallybus.counters/0/2/0
"#;
    assert_eq!(csv.out, expected);
    let influx = tap(&place, &["--output", "influx"]).expect(0);
    let expected = "a\\ b,k\\,1=v\\=\"x\" value=3i 1700000000000000000\n\
                    =cmd|'\\ /C\\ calc'!A0,+k=-1 value=18446744073709551615u 1700000000000000001\n";
    assert_eq!(influx.out, expected);
    let why = "tallybus.counters/0/2/0 left out: it has characters that a terminal would obey, and line protocol cannot escape them";
    assert_eq!(influx.err, format!("{why}\n1 event left out\n"));
    // What it writes is read again as the same events.
    place.run(&["topic", "create", "again", "--partitions", "1"]).expect(0);
    place.publish_with("again", influx.out.as_bytes(), &[("tallybus-encoding", b"influx")]);
    let again = tap(&place, &["--topic", "again", "--json"]).expect(0);
    let json = tap(&place, &["--output", "json", "--limit", "2"]).expect(0);
    assert_eq!(again.out, json.out);
    for args in [&["--sum-by", "k"][..], &["--sum-by", "name", "--output", "csv"], &["--every", "1s", "--json"]] {
        let ran = tap(&place, args).expect(0);
        assert!(!ran.out.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{ran:#?}");
    }
    let empty = tap(&place, &["--output", "csv", "--filter", "value == 0"]).expect(0);
    assert_eq!(empty.out, "time,name,tags,value\n");
    assert!(tap(&place, &["--json", "--output", "csv"]).expect(2).err.contains("choose one"));
}

#[test]
fn a_tap_that_is_slower_than_the_bus_says_how_far_it_is_behind() {
    let place = place_with(std::iter::empty());
    let event = json!({ "name": "hits", "tags": { "padding": "x".repeat(400) } }).to_string();
    let many = vec![event.as_bytes(); 4_000];
    let mut tap = place.spawn(&mut place.command(&["tap", "--json", "--from", "beginning"]));
    let mut out = tap.stdout.take().unwrap();
    // It is read more slowly than it is written to, and the pipe holds little.
    let mut some = vec![0; 256 << 10];
    for _ in 0..4 {
        place.publish(0, &many);
        out.read_exact(&mut some).unwrap();
        std::thread::sleep(Duration::from_millis(2_100));
    }
    out.read_exact(&mut some).unwrap();
    common::signal(&tap, "-INT");
    drop(out);
    let mut err = String::new();
    tap.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(tap.wait().unwrap().code(), Some(0), "{err}");
    let behind =
        err.lines().find_map(|line| line.strip_prefix("slower than the bus: ")).unwrap_or_else(|| panic!("{err:?}"));
    assert!(behind.contains(" messages behind, and more each second; the last one read is "), "{err}");
}

#[test]
fn neither_joins_a_group_nor_moves_an_offset() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let place = Place::new();
    let settings = format!(
        "[bus]\nkind = \"kafka\"\nbrokers = \"{}\"\npartitions = 2\n[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\n",
        kafka.bootstrap()
    );
    place.write("tallybus.toml", &settings);
    place.run(&["topic", "create"]).expect(0);
    place.run(&["emit", "hits", "5", "--tag", "route=/a", "--time", "-10m"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    let client: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", "unused")
        .create()
        .unwrap();
    let groups = || {
        let list = client.fetch_group_list(None, Duration::from_secs(20)).unwrap();
        let mut names: Vec<(String, usize)> =
            list.groups().iter().map(|group| (group.name().to_owned(), group.members().len())).collect();
        names.sort();
        names
    };
    let progress = || place.run(&["group", "show", "local", "--json"]).expect(0).json();
    let (groups_before, progress_before) = (groups(), progress());
    assert_eq!(groups_before, [("tallybus.local".to_owned(), 0)]);
    let coordinate = {
        let event = tap(&place, &["--json", "--coordinates"]).expect(0).json();
        format!("tallybus.counters/{}/{}", event["partition"], event["offset"])
    };
    let mut live = place.spawn(&mut place.command(&["tap", "--filter", "route == \"/a\"", "--sum-by", "route"]));
    std::thread::sleep(Duration::from_secs(3));
    for (args, status) in [
        (&["tap", "--from", "-15m", "--until-end", "--filter", "value > 1"][..], 0),
        (&["tap", "--around", &coordinate], 0),
        (&["tap", "--from", "beginning", "--until-end", "--sum-by", "route"], 0),
        (&["count", "--filter", "value > 1", "--by", "route"], 0),
    ] {
        let ran = place.run(args).expect(status);
        assert!(ran.out.contains("route=/a") || ran.out.contains("/a "), "{args:?}: {ran:#?}");
    }
    assert_eq!((groups(), progress()), (groups_before, progress_before), "while a tap runs");
    common::signal(&live, "-TERM");
    assert_eq!(live.wait().unwrap().code(), Some(0));
}
