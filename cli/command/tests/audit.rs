//! An audit finds what somebody took out of a backend, or put into it.
#![allow(missing_docs)]

mod common;

use common::Place;
use serde_json::{Value, json};

const WINDOW: i64 = 1_000_000_000;
const BEGIN: i64 = 1_700_000_000 * WINDOW;

/// Five windows of two series, one message for each window, all written.
fn written() -> Place {
    let place = Place::with_local();
    place.run(&["topic", "create"]).expect(0);
    for window in 0..5 {
        let time = BEGIN + window * WINDOW;
        let events = format!(
            r#"[{{"ts":{time},"name":"hits","value":10,"tags":{{"route":"/a"}}}},{{"ts":{time},"name":"hits","value":1,"tags":{{"route":"/b"}}}}]"#
        );
        place.publish(2, &[events.as_bytes()]);
    }
    place.run(&["run", "--until-caught-up"]).expect(0);
    place
}

fn audit(place: &Place, status: i32) -> Value {
    place.run(&["audit", "--json"]).expect(status).json()
}

#[test]
fn a_row_that_is_gone_is_missing_with_its_series_and_offsets() {
    let place = written();
    assert_eq!(audit(&place, 0)["bus"], 55);
    let gone = format!("DELETE FROM counters WHERE tags LIKE '%/a%' AND window_start = {}", BEGIN + 3 * WINDOW);
    assert_eq!(place.sql("local.db", &gone), 1);

    let found = audit(&place, 1);
    let sink = &found["sinks"][0];
    assert_eq!(found["equal"], false);
    assert_eq!((&sink["total"], &sink["missing"], &sink["extra"]), (&json!(45), &json!(10), &json!(0)));
    assert_eq!(sink["differing_series"], 1);
    let difference = &sink["differences"][0];
    assert_eq!((&difference["name"], &difference["tags"]), (&json!("hits"), &json!({ "route": "/a" })));
    assert_eq!((&difference["expected"], &difference["total"]), (&json!(50), &json!(40)));
    let place_found = &difference["first_difference"];
    assert_eq!(place_found["window_start"], "2023-11-14T22:13:23Z");
    assert_eq!(place_found["window_end"], "2023-11-14T22:13:24Z");
    let offsets = json!([{ "topic": "tallybus.counters", "partition": 2, "first": 3, "end": 4 }]);
    assert_eq!(place_found["offsets"], offsets);

    let human = place.run(&["audit"]).expect(1);
    let difference = "hits route=/a: missing 10 in 1 window (bus 50, sink 40)";
    for expected in ["DIFFERS", difference, "offsets tallybus.counters/2/3-4"] {
        assert!(human.out.contains(expected), "no {expected:?} in\n{}", human.out);
    }
}

#[test]
fn an_audit_with_a_filter_is_of_that_part_alone_and_says_so() {
    let place = written();
    assert_eq!(place.sql("local.db", "DELETE FROM counters WHERE tags LIKE '%/a%'"), 5);
    let part = place.run(&["audit", "--filter", "route == \"/b\""]).expect(0);
    assert!(part.out.contains("compared are only the series that meet route == \"/b\""), "{part:#?}");
    let json = place.run(&["audit", "--json", "--filter", "route == \"/b\""]).expect(0).json();
    assert_eq!((&json["equal"], &json["filter"]), (&json!(true), &json!("route == \"/b\"")));
    assert_eq!((&json["sinks"][0]["total"], &json["sinks"][0]["expected"]), (&json!(5), &json!(5)));
    let json = place.run(&["audit", "--json", "--filter", "route == \"/a\""]).expect(1).json();
    assert_eq!(json["sinks"][0]["missing"], 50);
    // Misspelt: nothing was compared, which is not equal.
    let nothing = place.run(&["audit", "--filter", "rout == \"/b\""]).expect(2);
    assert!(nothing.err.contains("nothing was compared"), "{nothing:#?}");
    for expression in ["value > 1", "time > -1h", "offset == 3"] {
        let refused = place.run(&["audit", "--filter", expression]).expect(2);
        assert!(refused.err.contains("sums of windows") && refused.err.contains("--from and --to"), "{refused:#?}");
    }
    let wrong = place.run(&["audit", "--filter", "route = 1"]).expect(2);
    assert!(wrong.err.contains("write `==`") && !wrong.err.contains("sums of windows"), "{wrong:#?}");
}

#[test]
fn a_row_that_another_program_added_to_is_extra() {
    let place = written();
    let more = format!("UPDATE counters SET value = value + 5 WHERE tags LIKE '%/b%' AND window_start = {BEGIN}");
    assert_eq!(place.sql("local.db", &more), 1);
    let strange = "INSERT INTO counters(name, tags, window_start, value) VALUES('stranger', '{}', 5000000000, 3)";
    assert_eq!(place.sql("local.db", strange), 1);

    let found = audit(&place, 1);
    let sink = &found["sinks"][0];
    assert_eq!((&sink["missing"], &sink["extra"], &sink["differing_series"]), (&json!(0), &json!(8), &json!(2)));
    let (first, second) = (&sink["differences"][0], &sink["differences"][1]);
    assert_eq!((&first["tags"], &first["extra"]), (&json!({ "route": "/b" }), &json!(5)));
    assert_eq!(first["first_difference"]["offsets"][0]["first"], 0);
    assert_eq!((&second["name"], &second["extra"]), (&json!("stranger"), &json!(3)));
    assert_eq!(second["first_difference"]["offsets"], json!([]));
    let human = place.run(&["audit"]).expect(1);
    assert!(human.out.contains("the bus has no messages there"), "{}", human.out);
}

#[test]
fn missing_and_extra_do_not_cancel_out() {
    let place = written();
    place.sql("local.db", "UPDATE counters SET value = value + 1 WHERE tags LIKE '%/b%'");
    place.sql("local.db", "UPDATE counters SET value = value - 1 WHERE tags LIKE '%/a%'");
    let found = audit(&place, 1);
    let sink = &found["sinks"][0];
    assert_eq!((&sink["total"], &sink["missing"], &sink["extra"]), (&json!(55), &json!(5), &json!(5)));
    assert_eq!((&sink["verdict"], &sink["differing_windows"]), (&json!("differs"), &json!(10)));
}

#[test]
fn a_time_range_is_compared_alone() {
    let place = written();
    place.sql("local.db", &format!("DELETE FROM counters WHERE window_start = {BEGIN}"));
    let from = (BEGIN + WINDOW).to_string();
    let found = place.run(&["audit", "--json", "--from", &from]).expect(0).json();
    assert_eq!((&found["bus"], &found["sinks"][0]["total"]), (&json!(44), &json!(44)));
    let found = place.run(&["audit", "--json", "--to", &from]).expect(1).json();
    assert_eq!((&found["bus"], &found["sinks"][0]["missing"]), (&json!(11), &json!(11)));
}

#[test]
fn what_is_not_settled_is_not_missing() {
    let place = written();
    place.run(&["emit", "hits", "100"]).expect(0);
    let found = audit(&place, 0);
    let sink = &found["sinks"][0];
    assert_eq!((&found["bus"], &sink["total"], &sink["behind"]), (&json!(155), &json!(55), &json!(1)));
}

#[test]
fn a_group_of_another_program_is_reported() {
    let place = written();
    let foreign = rusqlite::Connection::open(place.file("bus.db")).unwrap();
    let tables: Vec<String> = foreign
        .prepare("SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = 'metadata'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(tables.len(), 1, "{tables:?}");
    foreign.execute(&format!("UPDATE {} SET metadata = 'somebody else'", tables[0]), []).unwrap();
    let found = audit(&place, 2);
    let error = found["sinks"][0]["error"].as_str().unwrap();
    assert!(error.contains("does another program use this group"), "{error}");
    let doctor = place.run(&["doctor"]).expect(1);
    assert!(doctor.out.contains("FAIL  group tallybus.local"), "{}", doctor.out);
}

#[test]
fn messages_that_are_gone_need_a_time_to_compare_from() {
    let place = written();
    // What retention does: the first two messages are no longer there.
    place.sql("bus.db", "UPDATE partitions SET first = 2 WHERE next = 5");
    let ran = place.run(&["audit", "--json"]).expect(2);
    assert!(ran.err.contains("tallybus.counters/2 begins at offset 2") && ran.err.contains("--from"), "{}", ran.err);
    // The messages were sent just now, so a time before that is too early to be sure of.
    let ran = place.run(&["audit", "--from", &(BEGIN + 2 * WINDOW).to_string()]).expect(2);
    assert!(ran.err.contains("later --from"), "{}", ran.err);
    place.run(&["audit", "--from", "now"]).expect(0);
}

#[test]
fn a_recreated_topic_is_reported() {
    let place = written();
    place.sql("bus.db", "UPDATE partitions SET next = 3 WHERE next = 5");
    let found = audit(&place, 2);
    let error = found["sinks"][0]["error"].as_str().unwrap();
    assert!(error.contains("was the topic recreated"), "{error}");
}

#[test]
fn a_value_that_no_backend_holds_is_a_dead_letter_and_not_missing() {
    let place = written();
    let huge = format!(r#"{{"ts":{BEGIN},"name":"huge","value":{}}}"#, u64::MAX);
    place.publish(0, &[huge.as_bytes()]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    let found = audit(&place, 0);
    let sink = &found["sinks"][0];
    assert_eq!((&sink["total"], &sink["expected"], &sink["dead_letters"]), (&json!(55), &json!(55), &json!(1)));
    assert_eq!(sink["dead_total"], json!(u64::MAX));
    assert_eq!(found["bus"], json!("18446744073709551670"), "past 64 bits the digits come as text");
}

/// Case 02: retention takes a partition of which the last messages were never written.
#[test]
fn offsets_that_are_gone_unwritten_are_lost() {
    let place = written();
    // Two more messages, deleted before the worker came back.
    place.publish(2, &[br#"{"name":"hits"}"#, br#"{"name":"hits"}"#]);
    place.sql("bus.db", "UPDATE partitions SET first = 7 WHERE next = 7");
    let ran = place.run(&["audit"]).expect(1);
    assert!(ran.err.contains("offsets 5-7 of tallybus.counters/2 are gone unwritten"), "{}", ran.err);
    let found = place.run(&["audit", "--json", "--from", "now"]).expect(1).json();
    let sink = &found["sinks"][0];
    assert_eq!((&found["equal"], &sink["verdict"]), (&json!(false), &json!("lost")));
    let gone = json!([{ "topic": "tallybus.counters", "partition": 2, "first": 5, "end": 7 }]);
    assert_eq!(sink["gone_unwritten"], gone);
    let human = place.run(&["audit", "--from", "now"]).expect(1);
    assert!(human.out.contains("LOST") && human.out.contains("offsets 5-7"), "{}", human.out);
}

/// Case 14.
#[test]
fn sums_over_64_bits_are_compared_exactly() {
    let place = Place::with_local();
    place.run(&["topic", "create"]).expect(0);
    for window in 0..3 {
        let event = format!(r#"{{"ts":{},"name":"cpu.ns","value":9000000000000000000}}"#, BEGIN + window * WINDOW);
        place.publish(0, &[event.as_bytes(), br#"{"ts":1700000000000000000,"name":"hits","value":3}"#]);
    }
    place.run(&["run", "--until-caught-up"]).expect(0);
    let found = audit(&place, 0);
    assert_eq!((&found["equal"], &found["sinks"][0]["total"]), (&json!(true), &json!("27000000000000000009")));
    place.sql(
        "local.db",
        &format!("UPDATE counters SET value = value - 1 WHERE name = 'cpu.ns' AND window_start = {BEGIN}"),
    );
    assert_eq!(audit(&place, 1)["sinks"][0]["missing"], 1);
}

/// Cases 17 and 33, B4a: each foreign row is named, and the rest is compared.
#[test]
fn foreign_rows_are_named_and_hide_no_difference() {
    let place = written();
    place.sql(
        "local.db",
        r#"INSERT INTO counters VALUES ('m', 'x', 1, 999999), ('m', '{"s":4}', 1, 999999), ('m', '{"s":"4"}', -5, 999999),
           ('temperature', '{"room":"a"}', 1, -5)"#,
    );
    let found = audit(&place, 1);
    let sink = &found["sinks"][0];
    assert_eq!((&sink["verdict"], &sink["missing"], &sink["extra"]), (&json!("foreign"), &json!(0), &json!(0)));
    assert_eq!((&sink["total"], &sink["foreign"]["points"]), (&json!(55), &json!(4)));
    let kinds = json!({"not the name and tags of a series": 2, "negative value": 1, "time before 1970": 1});
    assert_eq!(sink["foreign"]["kinds"], kinds);
    place.sql("local.db", "DELETE FROM counters WHERE tags LIKE '%/a%'");
    let sink = &audit(&place, 1)["sinks"][0];
    assert_eq!((&sink["verdict"], &sink["missing"]), (&json!("differs"), &json!(50)));
    assert_eq!(sink["verdicts"], json!(["differs", "foreign"]));
    let human = place.run(&["audit"]).expect(1);
    assert!(human.out.contains("negative value: counters: temperature"), "{}", human.out);
}

/// Case 33, B1a, B1b and B1c.
#[test]
fn points_in_wrong_windows_are_found() {
    let series = r#"tags = '{"route":"/a"}'"#;
    let (next, moved) = (BEGIN + WINDOW, 2_400_000_000 * WINDOW);
    for statements in [
        [
            format!("UPDATE counters SET value = value + 3 WHERE {series} AND window_start = {BEGIN}"),
            format!("UPDATE counters SET value = value - 3 WHERE {series} AND window_start = {next}"),
        ],
        [format!("UPDATE counters SET window_start = window_start + {moved} WHERE {series}"), "SELECT 1".to_owned()],
        [
            format!("UPDATE counters SET value = 50 WHERE {series} AND window_start = {BEGIN}"),
            format!("DELETE FROM counters WHERE {series} AND window_start > {BEGIN}"),
        ],
    ] {
        let place = written();
        let database = rusqlite::Connection::open(place.file("local.db")).unwrap();
        database.execute_batch(&statements.join(";")).unwrap();
        let found = audit(&place, 1);
        let sink = &found["sinks"][0];
        assert_eq!((&sink["verdict"], &sink["total"]), (&json!("misplaced"), &json!(55)), "{statements:?}");
        assert_eq!(sink["missing"], sink["extra"]);
        assert_eq!(sink["differing_series"], 1);
    }
}

/// Case 33, B3.
#[test]
fn a_huge_dead_letter_excuses_no_other_value() {
    let place = written();
    let huge = format!(r#"{{"ts":{BEGIN},"name":"hits","value":{},"tags":{{"route":"/a"}}}}"#, u64::MAX);
    place.publish(0, &[huge.as_bytes()]);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(audit(&place, 0)["sinks"][0]["verdicts"], json!(["equal", "dead letters"]));
    place.run(&["audit", "--strict"]).expect(1);
    let more = format!("UPDATE counters SET value = value + 500000 WHERE tags LIKE '%/a%' AND window_start = {BEGIN}");
    place.sql("local.db", &more);
    assert_eq!(audit(&place, 1)["sinks"][0]["extra"], 500_000);
}

/// Case 33, B5.
#[test]
fn a_sink_that_never_ran_is_not_equal() {
    let place = Place::with_local();
    place.run(&["emit", "hits", "5"]).expect(0);
    let found = audit(&place, 1);
    let sink = &found["sinks"][0];
    assert_eq!(
        (&found["equal"], &sink["verdict"], &sink["never_ran"]),
        (&json!(false), &json!("never ran"), &json!(true))
    );
    assert_eq!((&sink["missing"], &sink["behind"]), (&json!(0), &json!(1)));
}

#[test]
fn lag_is_judged_by_its_age_where_that_is_asked_for() {
    let place = written();
    place.run(&["audit", "--strict", "--max-lag", "1s"]).expect(0);
    place.run(&["emit", "hits", "1"]).expect(0);
    place.run(&["audit", "--max-lag", "1h"]).expect(0);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let late = place.run(&["audit", "--json", "--max-lag", "1ms"]).expect(1).json();
    assert_eq!(late["sinks"][0]["verdicts"], json!(["equal", "late", "behind"]));
    let found = place.run(&["audit", "--json", "--strict"]).expect(1).json();
    assert_eq!((&found["equal"], &found["complete"]), (&json!(true), &json!(false)));
    assert!(found["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{found}");
}
