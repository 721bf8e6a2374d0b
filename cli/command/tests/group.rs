//! A consumer group whose offsets another program has changed, or whose topic was recreated: the worker stops, and
//! `tallybus group` shows why and moves the group on purpose.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Place, Ran};

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
    // `doctor` and `audit` name the same next step as the halt.
    let doctor = place.run(&["doctor"]).expect(1);
    assert!(doctor.out.contains("FAIL  sink local: halted: group tallybus.local, "), "{doctor:?}");
    let audit = place.run(&["audit"]).expect(2);
    for told in [&doctor.out, &audit.out] {
        assert!(flat(told).contains("another program has set the group's offset to 4"), "{told}");
        assert!(flat(told).contains("Stop the sink's workers and run `tallybus group reset`"), "{told}");
    }

    // A dry run says what it means and changes nothing.
    let reset = ["group", "reset", "local", "--to", "10"];
    let dry = place.run(&reset).expect(0);
    assert!(flat(&dry.out).contains("no message is read again or passed over"), "{dry:?}");
    assert!(dry.out.contains("sqlite holds everything up to 10, as its ledger says"), "{dry:?}");
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

/// Ten messages of one, counted into Parquet files.
fn in_files() -> Place {
    let place = Place::with_settings("[sinks.files]\nkind = \"parquet\"\npath = \"files\"\ncreate = true\n");
    place.run(&["topic", "create", "--partitions", "1"]).expect(0);
    place.publish(0, &[EVENT; 10]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place
}

fn sets_offset(place: &Place, offset: u64) {
    let changed = place.sql("bus.db", &format!("UPDATE commits SET next = {offset}, metadata = ''"));
    assert_eq!(changed, 1);
}

#[test]
fn a_reset_that_leaves_a_hole_in_the_ledger_is_refused_until_the_loss_is_accepted() {
    let place = counted();
    place.publish(0, &[EVENT; 5]);
    sets_offset(&place, 15);
    let reset = ["group", "reset", "local", "--to", "newest"];
    let dry = place.run(&reset).expect(0);
    for expected in ["5 messages are passed over: never counted", "--to 10 --partition tallybus.counters/0"] {
        assert!(flat(&dry.out).contains(expected), "no {expected:?} in {dry:?}");
    }
    for more in [&["--yes"][..], &["--yes", "--accept-double"]] {
        let refused = place.run(&[&reset[..], more].concat()).expect(2);
        for expected in [
            "nothing was changed",
            "`tallybus group reset local --to 10 --partition tallybus.counters/0 --yes`",
            "--accept-loss`",
        ] {
            assert!(flat(&refused.err).contains(expected), "no {expected:?} in {refused:?}");
        }
        place.run(&["run", "--until-caught-up"]).expect(1);
    }
    place.run(&[&reset[..], &["--yes", "--accept-loss"]].concat()).expect(0);
    place.publish(0, &[EVENT]);
    // The commit of the reset says what the file held: one that holds less halts nevertheless.
    let file = place.file("local.db");
    std::fs::rename(&file, place.file("aside.db")).unwrap();
    let ran = place.run(&["run", "--until-caught-up"]).expect(1);
    assert!(ran.err.contains("up to offset 0 only, but the group has written it up to offset 10"), "{ran:?}");
    std::fs::rename(place.file("aside.db"), &file).unwrap();
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(total(&place, "local.db"), 11);
}

#[test]
fn a_reset_that_counts_twice_is_refused_until_that_is_accepted_and_names_the_offset_that_counts_once() {
    let place = in_files();
    sets_offset(&place, 0);
    let reset = ["group", "reset", "files", "--to", "oldest", "--yes"];
    let refused = place.run(&[&reset[..], &["--json"]].concat()).expect(2);
    let partition = refused.json()["partitions"][0].clone();
    assert_eq!(refused.json()["changed"], false);
    assert_eq!((&partition["counted_twice"], &partition["best"]), (&10.into(), &10.into()), "{partition}");
    assert!(flat(&refused.err).contains("10 messages are read again: counted twice in parquet"), "{refused:?}");
    assert!(refused.err.contains("`tallybus group reset files --to oldest --yes --accept-double`"), "{refused:?}");
    place.run(&["run", "--until-caught-up"]).expect(1);

    place.run(&["group", "reset", "files", "--to", "10", "--yes"]).expect(0);
    place.publish(0, &[EVENT]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    let audit = place.run(&["audit", "--json"]).expect(0).json();
    assert_eq!(audit["sinks"][0]["total"], 11, "{audit}");
}

#[test]
fn a_destination_that_cannot_be_asked_is_unknown_and_a_guess_is_refused() {
    let place = Place::with_settings(
        "[sinks.a]\nkind = \"influxdb\"\nurl = \"http://127.0.0.1:1\"\norg = \"o\"\nbucket = \"b\"\n\
         token = \"env:TALLYBUS_TEST_NOT_SET\"\n",
    );
    place.run(&["topic", "create", "--partitions", "1"]).expect(0);
    place.publish(0, &[EVENT; 10]);
    let reset = ["group", "reset", "a", "--to", "4"];
    let away = Ran::of(place.command(&reset).env("TALLYBUS_TEST_NOT_SET", "x").output().unwrap());
    assert!(flat(&away.out).contains("the destination does not answer, what it holds is unknown"), "{away:?}");
    let offline = [&reset[..], &["--offline"]].concat();
    let dry = place.run(&offline).expect(0);
    for expected in [
        "6 messages are read again: counted twice if influxdb has them, which is unknown",
        "4 messages are passed over: never counted unless influxdb has them, which is unknown",
        "the destination was not asked (--offline)",
        "--to 4 --offline --yes --accept-double --accept-loss`",
    ] {
        assert!(flat(&dry.out).contains(expected), "no {expected:?} in {dry:?}");
    }
    place.run(&[&offline[..], &["--yes"]].concat()).expect(2);
    place.run(&[&offline[..], &["--yes", "--accept-double"]].concat()).expect(2);
    place.run(&[&offline[..], &["--yes", "--accept-double", "--accept-loss"]].concat()).expect(0);
    let shown = place.run(&["group", "show", "a", "--json"]).expect(0).json();
    assert_eq!(shown["partitions"][0]["settled"], 4, "{shown}");
}

#[test]
fn a_deleted_group_is_told_the_offset_of_the_ledger_and_has_not_never_run() {
    let place = counted();
    assert_eq!(place.sql("bus.db", "DELETE FROM commits"), 1);
    let ran = place.run(&["run", "--until-caught-up"]).expect(1);
    assert!(ran.err.contains("--partition tallybus.counters/0 and --to 10: the ledger of"), "{ran:?}");
    let audit = place.run(&["audit", "--json"]).expect(1).json();
    let sink = &audit["sinks"][0];
    assert_eq!((&sink["never_ran"], &sink["offsets_gone"]), (&false.into(), &true.into()), "{sink}");
    let audit = place.run(&["audit"]).expect(1);
    assert!(audit.out.contains("so it has run") && !audit.out.contains("never ran"), "{audit:?}");
    let dry = place.run(&["group", "reset", "local", "--to", "oldest"]).expect(0);
    for expected in [
        "10 messages are read again: the ledger of sqlite has them, so that the sink halts and counts none twice",
        "sqlite holds everything up to 10, as its ledger says: --to 10 --partition tallybus.counters/0",
    ] {
        assert!(flat(&dry.out).contains(expected), "no {expected:?} in {dry:?}");
    }
    place.run(&["group", "reset", "local", "--to", "10", "--yes"]).expect(0);
    place.publish(0, &[EVENT]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(total(&place, "local.db"), 11);
}
