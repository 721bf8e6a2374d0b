//! Dead letters go back to the sink that refused them, and count once.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Place, eventually};
use serde_json::{Value, json};
use tallybus_bus::{Bus, read_range};

const BEGIN: i64 = 1_700_000_000_000_000_000;
const MOST: u64 = i64::MAX as u64;

fn audit(place: &Place) -> Value {
    // Rows that `make_room` moved are in the same minute.
    let audit = place.run(&["audit", "--json", "--window", "1m"]).expect(0).json();
    assert_eq!(audit["equal"], true, "{audit:#}");
    audit
}

/// Total, dead letters, their value, and how many were written again: of the first sink.
fn progress(place: &Place) -> (Value, Value, Value, Value) {
    let audit = audit(place);
    let sink = &audit["sinks"][0];
    assert_eq!(sink["name"], "local");
    let of = |key: &str| sink[key].clone();
    (of("total"), of("dead_letters"), of("dead_total"), of("replayed"))
}

fn replay(place: &Place, more: &[&str], status: i32) -> Value {
    place.run(&[&["replay", "run", "--sink", "local", "--json"], more].concat()).expect(status).json()
}

/// By state: how many letters.
fn states(place: &Place) -> Value {
    let list = place.run(&["replay", "list", "--json", "--sink", "local"]).expect(0).json();
    let mut states = serde_json::Map::new();
    for group in list["sinks"][0]["groups"].as_array().unwrap() {
        let count = states.entry(group["state"].as_str().unwrap()).or_insert(json!(0));
        *count = json!(count.as_u64().unwrap() + group["dead_letters"].as_u64().unwrap());
    }
    states.into()
}

fn event(name: &str, value: u64) -> Vec<u8> {
    format!(r#"{{"ts":{BEGIN},"name":"{name}","value":{value}}}"#).into_bytes()
}

/// The row of `big` is full, so that 5 and 7 more are refused; and a record is no event.
fn with_dead_letters() -> Place {
    let sink = |name: &str| {
        format!("[sinks.{name}]\nkind = \"sqlite\"\npath = \"{name}.db\"\nbatch = {{ max_delay = \"50ms\" }}\n")
    };
    let place =
        Place::with_settings(&format!("{}{}select = {{ names = [\"small\"] }}\n", sink("local"), sink("other")));
    place.run(&["topic", "create"]).expect(0);
    place.publish(0, &[&event("big", MOST), &event("small", 1)]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.publish(0, &[&event("big", 5), b"garbage"]);
    place.publish(1, &[&event("big", 7)]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place
}

/// Somebody moves what is in the full row to another, so that there is room.
fn make_room(place: &Place) {
    let moved =
        place.sql("local.db", "UPDATE counters SET window_start = window_start - 1000000000 WHERE name = 'big'");
    assert_eq!(moved, 1);
}

#[test]
fn dead_letters_are_listed_and_shown_and_a_dry_run_changes_nothing() {
    let place = with_dead_letters();
    assert_eq!(progress(&place), (json!(MOST + 1), json!(3), json!(12), json!(0)));
    let list = place.run(&["replay", "list", "--json", "--dead-letters"]).expect(0).json();
    let local = &list["sinks"][0];
    assert_eq!((&local["name"], &local["dead_letters"], &local["value"]), (&json!("local"), &json!(3), &json!(12)));
    assert_eq!(list["sinks"][1]["dead_letters"], 1, "the other sink refused garbage only: {list}");
    let refused = local["groups"].as_array().unwrap().iter().find(|group| group["dead_letters"] == 2).unwrap();
    assert!(refused["reason"].as_str().unwrap().contains("2^63"), "{refused}");
    assert_eq!((&refused["events"], &refused["value"]), (&json!(2), &json!(12)));

    let human = place.run(&["replay", "list", "--dead-letters", "--name", "b*"]).expect(0);
    assert!(human.out.contains("local: 2 dead letters worth 12"), "{}", human.out);
    assert!(human.out.contains("tallybus.counters/1/0/0"), "{}", human.out);
    let shown = place.run(&["replay", "show", "tallybus.counters/1/0/0"]).expect(0);
    assert!(shown.out.contains("(local): dead, big") && shown.out.contains("tallybus-reason: "), "{}", shown.out);
    assert!(shown.out.contains(r#""value":7"#), "{}", shown.out);
    let shown = place.run(&["replay", "show", "tallybus.counters/0/3", "--sink", "local", "--json"]).expect(0).json();
    assert_eq!(shown["dead_letters"][0]["payload"], "garbage");
    place.run(&["replay", "show", "tallybus.counters/9/9"]).expect(2);

    let dry = replay(&place, &["--dry-run", "--reason", "2^63"], 0);
    let keys: Vec<&Value> =
        dry["would_send"].as_array().unwrap().iter().map(|dead_letter| &dead_letter["key"]).collect();
    assert_eq!((keys.len(), &dry["value"]), (2, &json!(12)), "{dry}");
    let dry = place.run(&["replay", "run", "--sink", "local", "--dry-run"]).expect(0);
    assert!(dry.out.contains("would send 3 dead letters worth 12"), "{}", dry.out);
    assert_eq!(
        place.bus().observer().unwrap().partitions_of("tallybus.replay.local").unwrap(),
        None,
        "nothing was made"
    );
    assert_eq!(progress(&place), (json!(MOST + 1), json!(3), json!(12), json!(0)));
    let tapped = place.run(&["tap", "--topic", "tallybus.dead.local", "--from", "beginning", "--until-end"]).expect(0);
    assert!(tapped.out.contains("tallybus.counters/1/0/0: the sum"), "{}", tapped.out);
}

#[test]
fn some_by_filter_then_the_rest_and_however_often_once() {
    let place = with_dead_letters();
    make_room(&place);
    let one = replay(&place, &["--key", "tallybus.counters/1/0/0"], 0);
    assert_eq!((&one["chosen"], &one["events"], &one["points"]), (&json!(1), &json!(1), &json!(1)), "{one}");
    assert_eq!(progress(&place), (json!(MOST + 8), json!(2), json!(5), json!(1)));
    let none = replay(&place, &["--name", "small"], 0);
    assert_eq!(none["chosen"], 0);
    let rest = replay(&place, &["--reason", "*2^63*"], 0);
    assert_eq!((&rest["chosen"], &rest["left_out"]["chosen_before"]), (&json!(1), &json!(1)), "{rest}");
    for _ in 0..3 {
        assert_eq!(progress(&place), (json!(MOST + 13), json!(1), json!(0), json!(2)));
        let nothing = replay(&place, &["--name", "big"], 0);
        assert_eq!((&nothing["chosen"], &nothing["left_out"]["chosen_before"]), (&json!(0), &json!(2)), "{nothing}");
    }
    assert_eq!(states(&place), json!({ "dead": 1, "replayed": 2 }));
    // The other sink has its own garbage still, and nothing else happened to it.
    let found = audit(&place);
    assert_eq!((&found["sinks"][1]["total"], &found["sinks"][1]["dead_letters"]), (&json!(1), &json!(1)));
    assert_eq!(place.bus().observer().unwrap().partitions_of("tallybus.replay.other").unwrap(), None);
    // Ordinary work goes on beside it.
    place.run(&["emit", "big", "100"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(progress(&place).0, json!(MOST + 113));
}

#[test]
fn what_is_refused_again_is_a_dead_letter_again_and_guarded() {
    let place = with_dead_letters();
    let refused = replay(&place, &["--name", "big"], 1);
    assert_eq!((&refused["chosen"], &refused["refused_again"]), (&json!(2), &json!(1)), "one point: {refused}");
    // Both are one dead letter now, which is worth as much.
    assert_eq!(progress(&place), (json!(MOST + 1), json!(2), json!(12), json!(2)));
    assert_eq!(states(&place), json!({ "dead": 1, "refused again": 1, "replayed, refused again": 2 }));
    // The two that were sent back are not counted beside the one that they became.
    let list = place.run(&["replay", "list", "--json", "--sink", "local"]).expect(0).json();
    let local = &list["sinks"][0];
    assert_eq!((&local["dead_letters"], &local["value"], &local["open"]), (&json!(2), &json!(12), &json!(2)), "{list}");
    let human = place.run(&["replay", "list", "--sink", "local"]).expect(0).out;
    assert!(human.starts_with("local: 2 dead letters worth 12\n"), "{human}");
    assert!(human.contains("  replayed, refused again: sent back and refused; counted only as"), "{human}");
    let shown = place.run(&["replay", "show", "tallybus.replay.local/0/0/0", "--json"]).expect(0).json();
    let dead_letter = &shown["dead_letters"][0];
    assert_eq!(
        (&dead_letter["replays"], &dead_letter["events"], &dead_letter["value"]),
        (&json!(1), &json!(2), &json!(12))
    );
    let origin = dead_letter["origin"].as_str().unwrap();
    let first = place.run(&["replay", "show", origin, "--json"]).expect(0).json();
    assert_eq!(first["dead_letters"][0]["refused_as"], "tallybus.replay.local/0/0/0");

    let guarded = replay(&place, &["--name", "big"], 0);
    assert_eq!((&guarded["chosen"], &guarded["left_out"]["refused_again"]), (&json!(0), &json!(1)), "{guarded}");
    assert_eq!(replay(&place, &["--name", "big", "--again"], 1)["refused_again"], 1);
    assert_eq!(replay(&place, &["--name", "big", "--again"], 1)["refused_again"], 1);
    let guarded = replay(&place, &["--name", "big", "--again"], 0);
    assert_eq!((&guarded["chosen"], &guarded["left_out"]["too_often"]), (&json!(0), &json!(1)), "{guarded}");
    assert_eq!(progress(&place), (json!(MOST + 1), json!(2), json!(12), json!(4)));

    make_room(&place);
    assert_eq!(replay(&place, &["--name", "big", "--force"], 0)["events"], 2);
    assert_eq!(progress(&place), (json!(MOST + 13), json!(1), json!(0), json!(5)));
    assert_eq!(replay(&place, &["--name", "big", "--force"], 0)["chosen"], 0);
    // Garbage stays garbage.
    assert_eq!(replay(&place, &[], 1)["refused_again"], 1);
    assert_eq!(progress(&place), (json!(MOST + 13), json!(1), json!(0), json!(6)));
}

/// Forty messages that a wrong setting made undecodable, worth 1 to 40.
fn misread() -> Place {
    let settings =
        "[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\nbatch = { max_delay = \"50ms\", max_events = 7 }\n";
    let place = Place::with_settings(&format!("encodings = {{ \"tallybus.counters\" = \"native\" }}\n{settings}"));
    place.run(&["topic", "create"]).expect(0);
    for partition in 0..4 {
        let names = ["a", "b", "c"].into_iter().cycle();
        let events = (1..=10).zip(names).map(|(n, name)| event(name, u64::from(partition) * 10 + n));
        let events: Vec<Vec<u8>> = events.collect();
        place.publish(partition, &events.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    let ran = place.run(&["run", "--until-caught-up", "--json"]).expect(0).json();
    assert_eq!(ran["sinks"][0]["dead_letters"], 40);
    assert_eq!(progress(&place), (json!(0), json!(40), json!(0), json!(0)));
    place.write("tallybus.toml", &format!("[bus]\nkind = \"embedded\"\npath = \"bus.db\"\n{settings}"));
    place
}

fn chosen(place: &Place) -> u64 {
    let bus = place.bus();
    let Ok(ranges) = bus.observer().unwrap().offsets_of("tallybus.replay.local") else { return 0 };
    ranges[0].end
}

/// Whether a replay has begun to write: it names its batch in the commit before the first byte goes to the backend.
fn is_sealed(place: &Place) -> bool {
    let committed =
        place.bus().observer().unwrap().committed_by("tallybus.local.replay", "tallybus.replay.local").unwrap();
    committed
        .iter()
        .flatten()
        .any(|committed| committed.metadata.contains("\"ends\":[") && !committed.metadata.contains("\"ends\":[]"))
}

#[test]
fn what_a_setting_made_undecodable_is_read_after_all_and_a_kill_changes_nothing() {
    let place = misread();
    // The bus can be read now, so all of it is in letters.
    assert_eq!(progress(&place), (json!(0), json!(40), json!(820), json!(0)));
    // The first takes the claim, without which none is sealed. Which of the four partitions it is from is open.
    assert_eq!(replay(&place, &["--limit", "1"], 0)["chosen"], 1);
    let after_one = progress(&place);
    let (total, left) = (after_one.0.as_u64().unwrap(), after_one.2.as_u64().unwrap());
    assert_eq!((total + left, &after_one.1, &after_one.3), (820, &json!(39), &json!(1)));

    // Killed while the backend does not take anything: some are chosen, none is written.
    let backend = rusqlite::Connection::open(place.file("local.db")).unwrap();
    backend.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut first = place.spawn(&mut place.command(&["replay", "run", "--sink", "local", "--limit", "25"]));
    eventually("25 chosen dead letters", || chosen(&place) == 1 + 25);
    eventually("a sealed batch of them", || is_sealed(&place));
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(progress(&place), after_one);
    assert_eq!(states(&place), json!({ "chosen": 25, "dead": 14, "replayed": 1 }));
    let dry = replay(&place, &["--dry-run"], 0);
    assert_eq!((dry["would_send"].as_array().unwrap().len(), &dry["pending"]), (14, &json!(25)));

    // Two at once: what both choose stands there twice, and counts once.
    let mut both: Vec<_> =
        (0..2).map(|_| place.spawn(&mut place.command(&["replay", "run", "--sink", "local", "--json"]))).collect();
    eventually("all chosen dead letters", || chosen(&place) >= 40);
    backend.execute_batch("ROLLBACK").unwrap();
    for child in &mut both {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    assert_eq!(progress(&place), (json!(820), json!(0), json!(0), json!(40)));
    let nothing = replay(&place, &[], 0);
    assert_eq!((&nothing["chosen"], &nothing["left_out"]["chosen_before"]), (&json!(0), &json!(40)));
    assert_eq!(progress(&place), (json!(820), json!(0), json!(0), json!(40)));
}

#[test]
fn killed_at_any_moment_by_anybody_and_still_once() {
    let place = misread();
    let mut kills = 0;
    for (round, filter) in (0..12).zip(["a", "b", "c", "*"].into_iter().cycle()) {
        let mut children: Vec<_> = (0..1 + round % 2)
            .map(|_| {
                place.spawn(
                    &mut place.command(&["replay", "run", "--sink", "local", "--limit", "6", "--reason", filter]),
                )
            })
            .collect();
        // The moment of the kill is what is tested.
        std::thread::sleep(Duration::from_millis(20 + 35 * round));
        for child in &mut children {
            kills += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        audit(&place);
    }
    println!("{kills} were killed before their end");
    replay(&place, &[], 0);
    assert_eq!(progress(&place), (json!(820), json!(0), json!(0), json!(40)));
}

#[test]
fn a_dead_letter_that_is_there_twice_counts_once() {
    let place = with_dead_letters();
    make_room(&place);
    replay(&place, &["--name", "big"], 0);
    // Somebody was killed, and what the bus took of it came a second time.
    let bus = place.bus();
    let mut records = Vec::new();
    let mut reader = bus.reader().unwrap();
    read_range(reader.as_mut(), "tallybus.replay.local", &[(0, 0..2)], Duration::from_secs(5), &mut |record| {
        let headers = tallybus_bus::read_headers(record.headers);
        records.push((record.key.unwrap().to_vec(), record.payload.to_vec(), headers));
    })
    .unwrap();
    let mut publisher = bus.publisher().unwrap();
    for (token, (key, payload, headers)) in (0..).zip(&records) {
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let topic = "tallybus.replay.local";
        let record = tallybus_bus::NewRecord { topic, partition: Some(0), key: Some(key), payload, headers: &headers };
        publisher.publish(record, token).unwrap();
    }
    eventually("two more records", || {
        publisher.poll(Duration::from_millis(10), &mut Vec::new());
        chosen(&place) == 4
    });
    assert_eq!(progress(&place), (json!(MOST + 13), json!(1), json!(0), json!(2)));
    // A later replay passes them.
    replay(&place, &[], 1);
    assert_eq!(progress(&place), (json!(MOST + 13), json!(1), json!(0), json!(3)));
}

#[test]
fn a_truncated_dead_letter_is_read_where_it_came_from() {
    let place = misread();
    // As large as the bus takes it with few headers, and too large with those of a letter.
    let size = (16 << 20) - 400;
    let mut lines = event("large", 1);
    lines.push(b'\n');
    let count = size / lines.len();
    let mut lines = lines.repeat(count);
    lines.resize(size, b'\n');
    let right = std::fs::read_to_string(place.file("tallybus.toml")).unwrap();
    let wrong = "encodings = { \"tallybus.counters\" = \"native\" }\n[sinks.local]";
    place.write("wrong.toml", &right.replace("[sinks.local]", wrong));
    place.publish(0, &[&lines]);
    place.run(&["run", "--until-caught-up", "--config", "wrong.toml"]).expect(0);
    let shown = place.run(&["replay", "show", "tallybus.counters/0/10", "--json"]).expect(0).json();
    assert_eq!(shown["dead_letters"][0]["cut_from"], size);
    assert_eq!(progress(&place), (json!(0), json!(41), json!(820 + count), json!(0)));
    replay(&place, &[], 0);
    assert_eq!(progress(&place), (json!(820 + count), json!(0), json!(0), json!(41)));
}

#[test]
fn nothing_is_sent_when_it_is_unknown_what_was_sent_before() {
    let place = with_dead_letters();
    make_room(&place);
    replay(&place, &["--limit", "1"], 0);
    assert!(place.run(&["doctor"]).expect(0).out.contains("1 dead letter sent back"));
    // What retention does.
    let topic = "(SELECT id FROM topics WHERE name = 'tallybus.replay.local')";
    place.sql("bus.db", &format!("UPDATE partitions SET first = 1 WHERE topic = {topic}"));
    let ran = place.run(&["replay", "run", "--sink", "local"]).expect(2);
    assert!(ran.err.contains("tallybus.replay.local begins at offset 1"), "{}", ran.err);
    assert!(place.run(&["doctor"]).expect(1).out.contains("FAIL  topic tallybus.replay.local"));
    assert_eq!(chosen(&place), 1);
}

#[test]
fn dead_letters_of_a_topic_before_it_was_recreated_hide_none_of_the_new_one() {
    let place = with_dead_letters();
    make_room(&place);
    replay(&place, &["--reason", "*2^63*"], 0);
    let before = place.run(&["replay", "list", "--json", "--sink", "local"]).expect(0).json();
    let count = before["sinks"][0]["dead_letters"].as_u64().unwrap();
    assert!(count > 0, "{before}");
    // Another topic of the same name, in which the same offsets are other records.
    place.sql(
        "bus.db",
        "UPDATE topics SET stream = 'ffffffffffffffffffffffffffffffff' WHERE name = 'tallybus.counters'",
    );
    let listed = place.run(&["replay", "list", "--sink", "local"]).expect(0);
    let expected = format!("{count} dead letters of other topics, or of a topic before it was recreated, not listed");
    assert!(listed.err.contains(&expected), "{listed:?}");
    let after = place.run(&["replay", "list", "--json", "--sink", "local"]).expect(0).json();
    assert_eq!((&after["sinks"][0]["dead_letters"], &after["sinks"][0]["elsewhere"]), (&json!(0), &json!(count)));
}

#[test]
fn kinds_and_statements_are_printed() {
    let place = Place::with_local();
    let sinks = place.run(&["sinks", "--json"]).expect(0).json();
    let kinds = sinks["kinds"].as_array().unwrap();
    assert_eq!(kinds.len(), tallybus_sinks::KINDS.len());
    for kind in tallybus_sinks::KINDS {
        let told = kinds.iter().find(|told| told["name"] == kind.name).unwrap();
        assert_eq!(
            (&told["mechanism"], &told["delivery_guarantee"]),
            (&json!(kind.mechanism), &json!(kind.delivery_guarantee.to_string()))
        );
        assert_eq!(told["settings"].as_array().unwrap().len(), kind.settings.len());
    }
    let window = sinks["settings"].as_array().unwrap().iter().find(|setting| setting["key"] == "window").unwrap();
    assert_eq!(window["default"], "1s");
    let human = place.run(&["sinks", "sqlite"]).expect(0);
    assert!(human.out.contains("sqlite: SQLite") && human.out.contains("batch.max_events"), "{}", human.out);
    assert!(!human.out.contains("influxdb"), "{}", human.out);
    let unknown = place.run(&["sinks", "oracle"]).expect(2);
    assert!(unknown.err.contains("sqlite"), "{}", unknown.err);

    let ddl = place.run(&["sink", "ddl", "local", "--json"]).expect(0).json();
    assert_eq!((&ddl["sink"], &ddl["kind"]), (&json!("local"), &json!("sqlite")));
    let ddl = place.run(&["sink", "ddl", "local"]).expect(0);
    assert!(!ddl.out.is_empty() || ddl.err.contains("nothing has to be created by hand"), "{ddl:#?}");
    place.run(&["sink", "ddl", "none"]).expect(2);
}

#[test]
fn doctor_makes_what_is_missing_only_when_asked() {
    let place = Place::with_local();
    place.run(&["topic", "create"]).expect(0);
    place.run(&["doctor"]).expect(0);
    assert!(!place.file("local.db").exists(), "looking makes nothing");
    let fixed = place.run(&["doctor", "--fix"]).expect(0);
    assert!(fixed.out.contains("ok    sink local: sqlite, exactly once"), "{}", fixed.out);
    assert!(place.file("local.db").exists());
    place.run(&["doctor", "--fix", "--offline"]).expect(2);
}
