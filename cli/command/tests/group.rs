//! A consumer group whose offsets another program has changed, or whose topic was recreated: the worker stops, and
//! `tallybus group` shows why and moves the group on purpose.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Place;

const EVENT: &[u8] = br#"{"name":"m","value":1,"ts":1700000000000000000}"#;

/// Ten messages of one, counted into SQLite.
fn counted() -> Place {
    let place = Place::with_settings("[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\n");
    place.run(&["topic", "create", "--partitions", "1"]).expect(0);
    place.publish(0, &[EVENT; 10]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place
}

/// A text without its line breaks.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn total(place: &Place, file: &str) -> i64 {
    let sql = rusqlite::Connection::open(place.file(file)).unwrap();
    sql.query_row("SELECT sum(value) FROM counters", [], |row| row.get(0)).unwrap()
}

#[test]
fn an_offset_set_by_another_program_stops_the_worker_until_the_group_is_reset() {
    let place = counted();
    place.sql("bus.db", "UPDATE commits SET next = 4, metadata = '' WHERE grp = 'tallybus.local'");
    let ran = place.run(&["run", "--until-caught-up"]).expect(1);
    assert!(ran.err.contains("another program has set the group's offset to 4"), "{ran:?}");
    assert!(ran.err.contains("tallybus group reset"), "{ran:?}");
    let shown = place.run(&["group", "show", "local"]).expect(0);
    assert!(shown.out.contains("set by another program"), "{shown:?}");

    // A dry run says what it means and changes nothing.
    let reset = ["group", "reset", "local", "--to", "10"];
    let dry = place.run(&reset).expect(0);
    assert!(flat(&dry.out).contains("6 messages are never counted, unless the destination has them"), "{dry:?}");
    assert!(dry.out.contains("nothing was changed"), "{dry:?}");
    place.run(&["run", "--until-caught-up"]).expect(1);

    place.run(&[&reset[..], &["--yes"]].concat()).expect(0);
    place.publish(0, &[EVENT]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(total(&place, "local.db"), 11);
    let shown = place.run(&["group", "show", "local", "--json"]).expect(0).json();
    let partition = &shown["partitions"][0];
    assert_eq!((&partition["settled"], &partition["stream"]), (&11.into(), &partition["topic_stream"]), "{shown}");
}

#[test]
fn a_recreated_topic_stops_the_worker_and_is_begun_in_a_new_destination() {
    let place = counted();
    // Another topic of the same name, with other records.
    place.sql(
        "bus.db",
        "UPDATE topics SET stream = 'ffffffffffffffffffffffffffffffff' WHERE name = 'tallybus.counters'",
    );
    place.publish(0, &[EVENT; 3]);
    let ran = place.run(&["run", "--until-caught-up"]).expect(1);
    assert!(ran.err.contains("was recreated: it is embedded:ffff"), "{ran:?}");
    assert_eq!(total(&place, "local.db"), 10);
    let shown = place.run(&["group", "show", "local"]).expect(0);
    assert!(flat(&shown.out).contains("another topic's: embedded:"), "{shown:?}");

    let reset = place.run(&["group", "reset", "local", "--to", "oldest", "--yes"]).expect(0);
    assert!(flat(&reset.out).contains("begins the recreated topic at 0"), "{reset:?}");
    // The destination belongs to the old topic: the sink halts until it has another one.
    let ran = place.run(&["run", "--until-caught-up"]).expect(1);
    assert!(ran.err.contains("holds counts of another topic tallybus.counters"), "{ran:?}");
    let settings = std::fs::read_to_string(place.file("tallybus.toml")).unwrap();
    place.write("tallybus.toml", &settings.replace("local.db", "new.db"));
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(total(&place, "new.db"), 13);
}

#[test]
fn a_group_with_a_worker_is_not_reset() {
    let place = counted();
    let mut worker = place.spawn(&mut place.command(&["run"]));
    common::eventually("the worker is a member", || {
        place.run(&["group", "show", "local"]).out.contains("present") && members(&place) > 0
    });
    let ran = place.run(&["group", "reset", "local", "--to", "oldest", "--yes"]).expect(1);
    assert!(ran.err.contains("group \"tallybus.local\" has running members"), "{ran:?}");
    worker.kill().unwrap();
    worker.wait().unwrap();
    // A killed worker is still in the file until its session has passed.
    place.run(&["group", "reset", "local", "--to", "oldest", "--yes"]).expect(0);
}

fn members(place: &Place) -> i64 {
    let sql = rusqlite::Connection::open(place.file("bus.db")).unwrap();
    sql.query_row("SELECT count(*) FROM members WHERE grp = 'tallybus.local'", [], |row| row.get(0)).unwrap()
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let place = counted();
    let cases: [(&[&str], &str); 4] = [
        (&["group", "reset", "local", "--to", "99"], "holds offsets 0 to 10: 99 is outside"),
        (&["group", "reset", "local", "--to", "oldest", "--partition", "x/0"], "no partition \"x/0\""),
        (&["group", "reset", "nosuch", "--to", "oldest"], "no sink \"nosuch\""),
        (&["group", "reset", "local", "--to", "soon"], "expected oldest, newest, an offset, or a time"),
    ];
    for (args, expected) in cases {
        let ran = place.run(args).expect(2);
        assert!(ran.err.contains(expected), "{args:?}: {ran:?}");
    }
}
