//! A destination belongs to one sink and to one incarnation of each topic. A worker that finds something else there halts
//! before it writes, and says what to do.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Place;

const EVENT: &[u8] = br#"{"name":"m","value":1,"ts":1700000000000000000}"#;

fn sqlite(name: &str, file: &str) -> String {
    format!("[sinks.{name}]\nkind = \"sqlite\"\npath = \"{file}\"\n")
}

fn parquet(name: &str, directory: &str) -> String {
    format!("[sinks.{name}]\nkind = \"parquet\"\npath = \"{directory}\"\ncreate = true\n")
}

/// Ten messages of one, counted by the sink of these settings.
fn counted(sinks: &str) -> Place {
    let place = Place::with_settings(sinks);
    place.run(&["topic", "create", "--partitions", "1"]).expect(0);
    place.publish(0, &[EVENT; 10]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place
}

/// A second settings file for the same bus.
fn beside(place: &Place, file: &str, sinks: &str) {
    let settings = std::fs::read_to_string(place.file("tallybus.toml")).unwrap();
    let bus = settings.split("[sinks").next().unwrap().to_owned();
    place.write(file, &format!("{bus}{sinks}"));
}

fn total(place: &Place, file: &str) -> i64 {
    let sql = rusqlite::Connection::open(place.file(file)).unwrap();
    sql.query_row("SELECT sum(value) FROM counters", [], |row| row.get(0)).unwrap()
}

fn files(place: &Place, directory: &str) -> usize {
    let days = std::fs::read_dir(place.file(directory)).unwrap().map(|day| day.unwrap().path());
    let days = days.filter(|day| day.file_name().unwrap().to_string_lossy().starts_with("date="));
    days.map(|day| std::fs::read_dir(day).unwrap().count()).sum()
}

#[test]
fn two_sinks_of_one_file_with_one_destination_are_refused_by_run_and_doctor() {
    let place = Place::with_settings(&format!("{}{}", sqlite("a", "c.db"), sqlite("b", "./c.db")));
    let ran = place.run(&["run", "--until-caught-up"]).expect(2);
    assert!(ran.err.contains("sinks a and b both write to ") && ran.err.contains("c.db"), "{ran:?}");
    assert!(ran.err.contains("give one of them another destination"), "{ran:?}");
    let doctor = place.run(&["doctor"]).expect(1);
    assert!(doctor.out.contains("FAIL  destinations: sinks a and b both write to"), "{doctor:?}");
    assert!(!place.file("c.db").exists());
}

#[test]
fn a_sink_of_another_file_halts_at_a_destination_that_is_claimed_until_the_claim_is_removed() {
    let expected = "is claimed by another sink: group tallybus.first writes tallybus.counters/0 there, this one is tallybus.second";
    for (kind, place, other) in [
        ("sqlite", counted(&sqlite("first", "shared")), sqlite("second", "shared")),
        ("parquet", counted(&parquet("first", "shared")), parquet("second", "shared")),
    ] {
        beside(&place, "other.toml", &other);
        let ran = place.run(&["run", "--config", "other.toml", "--until-caught-up"]).expect(1);
        assert!(ran.err.contains(expected), "{kind}: {ran:?}");
        let doctor = place.run(&["doctor", "--config", "other.toml"]).expect(1);
        assert!(doctor.out.contains(expected), "{kind}: {doctor:?}");
        // The first one goes on.
        place.publish(0, &[EVENT; 2]);
        place.run(&["run", "--until-caught-up"]).expect(0);

        let shown = place.run(&["sink", "claims", "second", "--config", "other.toml"]).expect(0);
        assert!(shown.out.contains("tallybus.first") && !shown.out.contains("tallybus.second"), "{shown:?}");
        let remove = ["sink", "claims", "second", "--config", "other.toml", "--remove", "tallybus.first"];
        let dry = place.run(&remove).expect(0);
        assert!(dry.out.contains("nothing was changed; to remove 1 claim of tallybus.first"), "{dry:?}");
        place.run(&["run", "--config", "other.toml", "--until-caught-up"]).expect(1);
        let removed = place.run(&[&remove[..], &["--yes"]].concat()).expect(0);
        assert!(removed.out.contains("1 claim removed"), "{removed:?}");
        place.run(&remove).expect(2);
    }
}

#[test]
fn a_second_topic_in_a_claimed_file_halts_before_it_is_written() {
    let place = counted(&sqlite("first", "c.db"));
    place.run(&["topic", "create", "other", "--partitions", "1"]).expect(0);
    beside(&place, "other.toml", &format!("{}topics = [\"other\"]\n", sqlite("second", "c.db")));
    let text = String::from_utf8(EVENT.to_vec()).unwrap();
    place.run_with(&["emit", "-", "--topic", "other"], &text).expect(0);
    let ran = place.run(&["run", "--config", "other.toml", "--until-caught-up"]).expect(1);
    assert!(ran.err.contains("is claimed by another sink: group tallybus.first"), "{ran:?}");
    assert_eq!(total(&place, "c.db"), 10);
}

#[test]
fn a_deployment_that_shares_the_group_leaves_no_hole_in_the_ledger_of_the_other() {
    let place = counted(&sqlite("counts", "prod.db"));
    let stage = sqlite("counts", "stage.db");
    beside(&place, "stage.toml", &stage);
    place.publish(0, &[EVENT; 20]);
    // The other one asks first, because its destination holds nothing of what the group has written.
    let ran = place.run(&["run", "--config", "stage.toml", "--until-caught-up"]).expect(1);
    let doctor = place.run(&["doctor", "--config", "stage.toml"]).expect(1);
    for text in [&doctor.out, &ran.err] {
        assert!(text.contains("holds nothing of tallybus.counters/0, but group tallybus.counts has written"), "{text}");
    }
    beside(&place, "stage.toml", &format!("{stage}accept_gaps = [\"tallybus.counters/0/0-10\"]\n"));
    place.run(&["run", "--config", "stage.toml", "--until-caught-up"]).expect(0);
    assert_eq!(total(&place, "stage.db"), 20, "accepted: it goes on where the group is");
    place.publish(0, &[EVENT; 5]);
    let doctor = place.run(&["doctor"]).expect(1);
    let ran = place.run(&["run", "--until-caught-up"]).expect(1);
    for text in [&doctor.out, &ran.err] {
        assert!(text.contains("holds tallybus.counters/0 up to offset 10 only"), "{text}");
        assert!(text.contains("the group has written it up to offset 30"), "{text}");
    }
    assert_eq!(total(&place, "prod.db"), 10);
    // The documented way: write again what the destination lacks.
    place.run(&["group", "reset", "counts", "--to", "10", "--yes"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(total(&place, "prod.db"), 35);
    place.run(&["audit"]).expect(0);
}

#[test]
fn a_sink_with_a_new_destination_halts_until_the_operator_says_where_it_begins() {
    for (sink, moved) in
        [(sqlite("counts", "a.db"), sqlite("counts", "b.db")), (parquet("counts", "a"), parquet("counts", "b"))]
    {
        let place = counted(&sink);
        let settings = std::fs::read_to_string(place.file("tallybus.toml")).unwrap();
        place.write("tallybus.toml", &settings.replace(&sink, &moved));
        place.publish(0, &[EVENT; 5]);
        let doctor = place.run(&["doctor"]).expect(1);
        for _ in 0..2 {
            let ran = place.run(&["run", "--until-caught-up"]).expect(1);
            for text in [&doctor.out, &ran.err] {
                assert!(text.contains("up to offset 10 to another destination"), "{text}");
                assert!(text.contains("`tallybus group reset` with --to oldest"), "{text}");
            }
        }
        place.run(&["group", "reset", "counts", "--to", "oldest", "--yes"]).expect(0);
        place.run(&["run", "--until-caught-up"]).expect(0);
        let audit = place.run(&["audit", "--json"]).expect(0);
        assert_eq!(audit.json()["sinks"][0]["total"], 15, "{audit:?}");
    }
}

#[test]
fn a_bus_that_was_restored_from_an_older_copy_takes_no_place_of_newer_counts() {
    for sink in [sqlite("counts", "a.db"), parquet("counts", "a")] {
        let place = counted(&sink);
        std::fs::copy(place.file("bus.db"), place.file("older.db")).unwrap();
        place.publish(0, &[EVENT; 7]);
        place.run(&["run", "--until-caught-up"]).expect(0);
        std::fs::copy(place.file("older.db"), place.file("bus.db")).unwrap();
        place.publish(0, &[EVENT; 3]);
        let doctor = place.run(&["doctor"]).expect(1);
        for _ in 0..2 {
            let ran = place.run(&["run", "--until-caught-up"]).expect(1);
            for text in [&doctor.out, &ran.err] {
                assert!(text.contains("is past this group: it"), "{text}");
            }
        }
        place.run(&["audit"]).expect(1);
    }
}

#[test]
fn a_restored_backup_halts_and_is_filled_from_the_bus() {
    let place = counted(&sqlite("counts", "c.db"));
    std::fs::copy(place.file("c.db"), place.file("backup.db")).unwrap();
    place.publish(0, &[EVENT; 7]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    std::fs::copy(place.file("backup.db"), place.file("c.db")).unwrap();
    let ran = place.run(&["run", "--until-caught-up"]).expect(1);
    assert!(ran.err.contains("was restored from an older backup or emptied"), "{ran:?}");
    assert!(ran.err.contains("accept_gaps = [\"tallybus.counters/0/10-17\"]"), "{ran:?}");
    place.run(&["group", "reset", "counts", "--to", "10", "--yes"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(total(&place, "c.db"), 17);

    // The other way, which the message names: without what is lost.
    std::fs::copy(place.file("backup.db"), place.file("c.db")).unwrap();
    let settings = std::fs::read_to_string(place.file("tallybus.toml")).unwrap();
    place.write("tallybus.toml", &format!("{settings}accept_gaps = [\"tallybus.counters/0/10-17\"]\n"));
    place.publish(0, &[EVENT; 3]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(total(&place, "c.db"), 13);
}

#[test]
fn a_group_that_the_bus_forgot_is_not_counted_again_from_the_start() {
    let place = counted(&parquet("files", "files"));
    let before = files(&place, "files");
    place.sql("bus.db", "DELETE FROM commits WHERE grp = 'tallybus.files'");
    place.publish(0, &[EVENT; 5]);
    for _ in 0..2 {
        let ran = place.run(&["run", "--until-caught-up"]).expect(1);
        assert!(ran.err.contains("but the bus has no offset of the group for it: the group was deleted"), "{ran:?}");
    }
    let doctor = place.run(&["doctor"]).expect(1);
    assert!(doctor.out.contains("the bus has no offset of the group for it"), "{doctor:?}");
    assert_eq!(files(&place, "files"), before);
    // The mark says what is there at least: whether more is there, the operator has to know.
    let reset = ["group", "reset", "files", "--to", "10", "--yes"];
    place.run(&reset).expect(2);
    place.run(&[&reset[..], &["--accept-double"]].concat()).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.run(&["audit"]).expect(0);
}

#[test]
fn a_recreated_bus_does_not_write_into_the_files_of_the_old_one() {
    let place = counted(&parquet("files", "files"));
    let before = files(&place, "files");
    for file in ["bus.db", "bus.db-wal", "bus.db-shm"] {
        let _missing = std::fs::remove_file(place.file(file));
    }
    place.run(&["topic", "create", "--partitions", "1"]).expect(0);
    place.publish(0, &[EVENT; 10]);
    for _ in 0..2 {
        let ran = place.run(&["run", "--until-caught-up"]).expect(1);
        assert!(ran.err.contains("holds counts of another topic tallybus.counters: it was embedded:"), "{ran:?}");
    }
    assert_eq!(files(&place, "files"), before);
    let settings = std::fs::read_to_string(place.file("tallybus.toml")).unwrap();
    place.write("tallybus.toml", &settings.replace("\"files\"", "\"new\""));
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.run(&["audit"]).expect(0);
}

#[test]
fn a_destination_that_was_emptied_halts() {
    let place = counted(&parquet("files", "files"));
    std::fs::remove_dir_all(place.file("files")).unwrap();
    place.publish(0, &[EVENT; 5]);
    let ran = place.run(&["run", "--until-caught-up"]).expect(1);
    assert!(ran.err.contains("has lost the claim on tallybus.counters/0: it was emptied, or recreated"), "{ran:?}");
    // It may have lost its claims only: that it is empty, the operator has to know.
    let reset = ["group", "reset", "files", "--to", "oldest", "--yes"];
    place.run(&reset).expect(2);
    place.run(&[&reset[..], &["--accept-double"]].concat()).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.run(&["audit"]).expect(0);
}

#[test]
fn deployments_with_namespaces_share_no_group_and_no_dead_letter() {
    let place = counted(&sqlite("counts", "prod.db"));
    let settings = std::fs::read_to_string(place.file("tallybus.toml")).unwrap();
    let stage = settings.replace("[bus]\n", "[bus]\nnamespace = \"stage\"\n").replace("prod.db", "stage.db");
    place.write("stage.toml", &stage);
    place.publish(0, &[b"garbage"]);
    place.run(&["run", "--config", "stage.toml", "--until-caught-up"]).expect(0);
    assert_eq!((total(&place, "prod.db"), total(&place, "stage.db")), (10, 10));
    let letters = |file: &str| {
        place.run(&["replay", "list", "--config", file, "--json"]).expect(0).json()["sinks"][0]["dead_letters"].as_u64()
    };
    assert_eq!((letters("tallybus.toml"), letters("stage.toml")), (Some(0), Some(1)));
    let topics = place.run(&["doctor", "--config", "stage.toml"]).expect(0);
    assert!(topics.out.contains("stage.tallybus.counts"), "{topics:?}");
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!((letters("tallybus.toml"), letters("stage.toml")), (Some(1), Some(1)));

    place.write("wrong.toml", &stage.replace("\"stage\"", "\"Stage 1\""));
    let refused = place.run(&["run", "--config", "wrong.toml"]).expect(2);
    assert!(
        refused.err.contains("bus.namespace") && refused.err.contains("of the characters a-z 0-9 _ -"),
        "{refused:?}"
    );
}
