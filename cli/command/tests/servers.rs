//! The commands against a real Kafka and a real InfluxDB.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Place, eventually};
use serde_json::{Value, json};

/// Settings for these servers, with one sink in InfluxDB and one in SQLite.
fn settings(brokers: &str, influx: &str) -> String {
    format!(
        "[bus]\nkind = \"kafka\"\nbrokers = \"{brokers}\"\npartitions = 3\n\
         [sinks.influx]\nkind = \"influxdb\"\nurl = \"{influx}\"\napi = \"v1\"\ndatabase = \"counts\"\n\
         batch = {{ max_delay = \"50ms\" }}\n\
         [sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\nbatch = {{ max_delay = \"50ms\" }}\n"
    )
}

fn totals(place: &Place) -> Vec<Value> {
    let audit = place.run(&["audit", "--json"]).expect(0).json();
    assert_eq!(audit["equal"], true, "{audit}");
    audit["sinks"].as_array().unwrap().iter().map(|sink| sink["total"].clone()).collect()
}

#[test]
fn counts_go_through_kafka_into_both_backends() {
    let Some(mut kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    influx.create_database("counts").unwrap();
    let place = Place::new();
    place.write("tallybus.toml", &settings(&kafka.bootstrap(), &influx.url()));

    let missing = place.run(&["count"]).expect(2);
    assert!(missing.err.contains("tallybus topic create"), "{}", missing.err);
    let doctor = place.run(&["doctor"]).expect(0);
    assert!(doctor.out.contains("note  topic tallybus.counters: does not exist yet"), "{}", doctor.out);
    assert!(doctor.out.contains("ok    sink influx"), "{}", doctor.out);
    place.run(&["topic", "create"]).expect(0);
    place.run(&["topic", "create", "--partitions", "4"]).expect(1);
    place.run(&["doctor"]).expect(0);

    // Events as other programs send them: with and without a time, twice in one nanosecond, and garbage.
    let ts = "1700000000000000000";
    let lines = format!(
        "{{\"ts\":{ts},\"name\":\"twins\"}}\n{{\"ts\":{ts},\"name\":\"twins\"}}\n{{\"name\":\"now\",\"value\":3}}\ngarbage\n"
    );
    place.write("lines", &lines);
    let bootstrap = kafka.bootstrap();
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &bootstrap, "-t", "tallybus.counters", "-P", "-l"]).arg(place.file("lines"));
    let sent_by_kcat = kcat.status().is_ok_and(|status| status.success());
    if !sent_by_kcat {
        println!("SKIPPED the part with kcat: it is not installed");
        place.run_with(&["emit", "-"], &lines).expect(1);
    }
    place.run(&["emit", "hits", "5", "--tag", "route=/a"]).expect(0);
    place.run(&["emit", "hits", "1", "--tag", "route=/a", "--time", ts]).expect(0);
    let count = place.run(&["count", "--json", "--by", "name"]).expect(0).json();
    assert_eq!(count["total"], 11);
    assert_eq!(count["groups"][2], json!({ "key": { "name": "twins" }, "total": 2, "events": 2 }));
    let tapped = place.run(&["tap", "--json", "--from", "beginning", "--until-end"]).expect(0);
    assert_eq!(tapped.out.lines().count(), 5, "{tapped:?}");

    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(totals(&place), [11, 11]);
    let audit = place.run(&["audit", "--json"]).expect(0).json();
    if sent_by_kcat {
        assert_eq!((&audit["undecodable"], &audit["sinks"][0]["dead_letters"]), (&json!(1), &json!(1)));
    }

    // While workers run the broker goes away and comes back.
    let mut worker = place.spawn(&mut place.command(&["run", "-v"]));
    place.run(&["emit", "hits", "10"]).expect(0);
    eventually("the first part", || totals(&place) == [21, 21]);
    kafka.kill();
    let lost = place.run(&["emit", "hits", "1", "--deadline", "2s"]).expect(1);
    assert!(lost.err.contains("not delivered") || lost.err.contains("perhaps delivered"), "{}", lost.err);
    kafka.restart().unwrap();
    let before = place.run(&["count", "--json"]).expect(0).json()["total"].as_u64().unwrap();
    place.run(&["emit", "hits", "10"]).expect(0);
    eventually("the second part", || totals(&place) == [before + 10, before + 10]);
    common::signal(&worker, "-TERM");
    let mut log = String::new();
    worker.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(0), "{log}");

    // Somebody takes a series out of one of the backends.
    influx.query("counts", "DROP SERIES FROM \"twins\"").unwrap();
    let audit = place.run(&["audit", "--json"]).expect(1).json();
    let (first, second) = (&audit["sinks"][0], &audit["sinks"][1]);
    assert_eq!((&first["name"], &first["missing"], &second["missing"]), (&json!("influx"), &json!(2), &json!(0)));
    assert_eq!(first["differences"][0]["name"], "twins");
    assert_eq!(first["differences"][0]["first_difference"]["window_start"], "2023-11-14T22:13:20Z");
}

/// One series on one partition, written to both backends by a worker that has caught up.
fn one_partition(kafka: &str, influx: &str) -> Place {
    let place = Place::new();
    place.write("tallybus.toml", &settings(kafka, influx).replace("partitions = 3", "partitions = 1"));
    place.run(&["topic", "create"]).expect(0);
    place.run(&["emit", "hits", "100"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(totals(&place), [100, 100]);
    place
}

/// What each sink holds, whether or not that is right.
fn held(place: &Place) -> Vec<Value> {
    let audit = place.run(&["audit", "--json"]).json();
    audit["sinks"].as_array().unwrap().iter().map(|sink| sink["total"].clone()).collect()
}

#[test]
fn an_influxdb_that_was_written_under_other_settings_is_not_written_although_nothing_is_sealed() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    influx.create_database("counts").unwrap();
    let place = one_partition(&kafka.bootstrap(), &influx.url());
    let before = std::fs::read_to_string(place.file("tallybus.toml")).unwrap();
    place.run(&["emit", "hits", "10"]).expect(0);
    for change in ["window = \"30s\"", "max_partitions = 65"] {
        place.write("tallybus.toml", &before.replace("kind = \"influxdb\"", &format!("kind = \"influxdb\"\n{change}")));
        let ran = place.run(&["run", "--until-caught-up", "--sink", "influx"]).expect(1);
        assert!(ran.err.contains("was written under other settings of this sink"), "{change}: {ran:?}");
        let doctor = place.run(&["doctor", "--sink", "influx"]).expect(1);
        assert!(doctor.out.contains("was written under other settings of this sink"), "{change}: {doctor:?}");
        assert_eq!(held(&place)[0], 100, "{change}");
    }
    place.write("tallybus.toml", &before);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(totals(&place), [110, 110]);
}

#[test]
fn a_topic_that_is_recreated_under_a_worker_stops_every_sink_before_anything_of_it_is_written() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    influx.create_database("counts").unwrap();
    let place = one_partition(&kafka.bootstrap(), &influx.url());
    let log = std::fs::File::create(place.file("log")).unwrap();
    let mut worker = place.command(&["run"]).stderr(log).spawn().unwrap();
    let logged = |text: &str| std::fs::read_to_string(place.file("log")).unwrap().matches(text).count();
    eventually("both sinks have the partition", || logged("partitions assigned") >= 2);

    kafka.delete_topic("tallybus.counters").unwrap();
    eventually("the topic can be created again", || place.run(&["topic", "create"]).status == 0);
    place.run(&["emit", "hits", "300"]).expect(0);
    eventually("both sinks halt", || logged("topic tallybus.counters was recreated: it is kafka:") >= 2);
    common::signal(&worker, "-TERM");
    worker.wait().unwrap();
    assert_eq!(held(&place), [100, 100]);
    place.run(&["audit"]).expect(1);
}

#[test]
fn a_topic_that_was_recreated_while_no_worker_ran_is_not_written_over_the_old_one() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    influx.create_database("counts").unwrap();
    let place = one_partition(&kafka.bootstrap(), &influx.url());
    kafka.delete_topic("tallybus.counters").unwrap();
    eventually("the topic can be created again", || place.run(&["topic", "create"]).status == 0);
    place.run(&["emit", "hits", "70"]).expect(0);
    for _ in 0..2 {
        let ran = place.run(&["run", "--until-caught-up"]).expect(1);
        let halts = ran.err.matches("topic tallybus.counters was recreated: it is kafka:").count();
        assert!(halts >= 2, "both sinks, from the notes: {ran:?}");
    }
    assert_eq!(held(&place), [100, 100]);
    let doctor = place.run(&["doctor"]).expect(1);
    assert!(doctor.out.contains("holds counts of another topic"), "{doctor:?}");
}

#[test]
fn a_group_that_kafka_has_deleted_is_not_counted_again() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    influx.create_database("counts").unwrap();
    let place = one_partition(&kafka.bootstrap(), &influx.url());
    for group in ["tallybus.influx", "tallybus.local"] {
        kafka.delete_group(group).unwrap();
    }
    place.run(&["emit", "hits", "10"]).expect(0);
    for _ in 0..2 {
        let ran = place.run(&["run", "--until-caught-up"]).expect(1);
        assert!(
            ran.err.contains("says that it had settled everything before offset 1: the group was deleted"),
            "{ran:?}"
        );
    }
    assert_eq!(held(&place), [100, 100]);
    let dry = place.run(&["group", "restore", "influx"]).expect(0);
    assert!(dry.out.contains("is restored to 1") && dry.out.contains("nothing was changed"), "{dry:?}");
    for sink in ["influx", "local"] {
        let restored = place.run(&["group", "restore", sink, "--yes"]).expect(0);
        assert!(restored.out.contains("1 offset restored"), "{restored:?}");
    }
    let again = place.run(&["group", "restore", "influx", "--yes"]).expect(0);
    assert!(again.out.contains("has the offset 1") && again.out.contains("nothing to restore"), "{again:?}");
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(totals(&place), [110, 110]);
}

#[test]
fn a_group_that_kafkas_own_tool_has_reset_is_not_read_again_until_it_is_reset_on_purpose() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    influx.create_database("counts").unwrap();
    let place = one_partition(&kafka.bootstrap(), &influx.url());
    for group in ["tallybus.influx", "tallybus.local"] {
        kafka.reset_group(group, "tallybus.counters").unwrap();
    }
    let ran = place.run(&["run", "--until-caught-up"]).expect(1);
    assert!(ran.err.contains("another program has set the group's offset to 0"), "{ran:?}");
    assert!(ran.err.contains("run `tallybus group reset`"), "{ran:?}");
    for sink in ["influx", "local"] {
        let shown = place.run(&["group", "show", sink]).expect(0);
        assert!(shown.out.contains("set by another program"), "{shown:?}");
        place.run(&["group", "reset", sink, "--to", "newest", "--yes"]).expect(0);
    }
    place.run(&["emit", "hits", "10"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(totals(&place), [110, 110]);
}

#[test]
fn a_stop_while_the_broker_is_away_takes_a_second_and_nothing_handled_is_an_error_in_the_log() {
    let Some(mut kafka) = tallybus_tests::kafka() else { return };
    let place = Place::new();
    let settings = format!(
        "[bus]\nkind = \"kafka\"\nbrokers = \"{}\"\n[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\n\
         batch = {{ max_delay = \"50ms\" }}\n",
        kafka.bootstrap()
    );
    place.write("tallybus.toml", &settings);
    place.run(&["topic", "create"]).expect(0);
    place.run(&["emit", "hits", "5"]).expect(0);
    let mut worker = place.spawn(&mut place.command(&["run"]));
    eventually("the counts", || held(&place) == [5]);
    kafka.kill();
    let mut log = BufReader::new(worker.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("the bus failed, retrying") {
        assert!(log.read_line(&mut told).unwrap() > 0, "it ended instead of waiting for the bus: {told}");
    }
    let asked = Instant::now();
    common::signal(&worker, "-TERM");
    log.read_to_string(&mut told).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(0), "{told}");
    // A second, and as much again for a machine that is busy.
    assert!(asked.elapsed() < Duration::from_secs(2), "the stop took {:?}: {told}", asked.elapsed());
    assert!(!told.contains("ERROR"), "{told}");
    assert_eq!(told.matches(" WARN ").count(), 1, "one warning for one cause: {told}");
}

#[test]
fn doctor_creates_an_influx_database_and_tries_to_write_and_to_read() {
    let Some(influx) = tallybus_tests::influxdb() else { return };
    let place = Place::with_settings(&format!(
        "[sinks.influx]\nkind = \"influxdb\"\nurl = \"{}\"\napi = \"v1\"\ndatabase = \"made\"\ncreate = false\n",
        influx.url()
    ));
    place.run(&["topic", "create"]).expect(0);
    let before = place.run(&["doctor"]).expect(1).out;
    assert!(before.contains("FAIL  sink influx: "), "{before}");
    let after = place.run(&["doctor", "--fix"]).expect(0).out;
    assert!(after.contains("ok    sink influx: influxdb, exactly once\n"), "{after}");
    assert!(!place.run(&["doctor"]).expect(0).out.contains("not tried"));
}

#[test]
fn a_run_until_caught_up_ends_when_it_has_run_out_of_descriptors() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let place = Place::new();
    let settings = format!(
        "[bus]\nkind = \"kafka\"\nbrokers = \"{}\"\n[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\n",
        kafka.bootstrap()
    );
    place.write("tallybus.toml", &settings);
    place.run(&["topic", "create"]).expect(0);
    place.run(&["emit", "hits", "5"]).expect(0);
    let program = place.command(&[]).get_program().to_owned();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -n 28; exec timeout 120 \"$0\" run --until-caught-up"])
        .arg(program)
        .current_dir(place.file(""));
    let ran = shell.output().unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(told.contains("run out of file descriptors") && told.contains("ulimit -n"), "{told}");
    assert_ne!(ran.status.code(), Some(0), "{told}");
}

#[test]
fn dead_letters_go_back_through_kafka() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    influx.create_database("counts").unwrap();
    let place = Place::new();
    place.write("tallybus.toml", &settings(&kafka.bootstrap(), &influx.url()));
    place.run(&["topic", "create"]).expect(0);
    // Somebody else has a field of another type there, so InfluxDB refuses ours.
    let (ts, body) = ("1700000000000000000", "twisted value=1.5 1700000000000000000");
    let address = influx.url().trim_start_matches("http://").to_owned();
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    let head = format!("POST /write?db=counts HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 204 "), "{answer}");
    for route in ["/a", "/b", "/c"] {
        place.run(&["emit", "twisted", "5", "--time", ts, "--tag", &format!("route={route}")]).expect(0);
    }
    place.run(&["emit", "straight", "1", "--time", ts]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    let list = place.run(&["replay", "list", "--json", "--sink", "influx"]).expect(0).json();
    assert_eq!((&list["sinks"][0]["dead_letters"], &list["sinks"][0]["value"]), (&json!(3), &json!(15)), "{list}");
    let refused = place.run(&["replay", "run", "--sink", "influx", "--limit", "1"]).expect(1);
    assert!(refused.out.contains("refused again as 1 dead letter"), "{refused:?}");

    influx.query("counts", "DROP MEASUREMENT twisted").unwrap();
    assert_eq!(totals(&place), [1, 16]);
    let mut both: Vec<_> =
        (0..2).map(|_| place.spawn(&mut place.command(&["replay", "run", "--sink", "influx", "--again"]))).collect();
    for child in &mut both {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    assert_eq!(totals(&place), [16, 16]);
    place.run(&["replay", "run", "--sink", "influx", "--again"]).expect(0);
    assert_eq!(totals(&place), [16, 16]);
}

#[test]
fn a_bus_that_is_away_cannot_be_looked_at() {
    let place = Place::with_local();
    std::thread::scope(|scope| {
        for command in ["audit", "count"] {
            let place = &place;
            scope.spawn(move || {
                let ran = place.run(&[command, "--json", "--bus", "kafka://127.0.0.1:9"]).expect(2);
                assert!(ran.out.is_empty() && ran.err.contains("127.0.0.1:9"), "{ran:#?}");
            });
        }
    });
}

#[test]
fn a_worker_makes_the_database_that_it_may_make() {
    let Some(influx) = tallybus_tests::influxdb() else { return };
    let place = Place::with_settings(&format!(
        "[sinks.influx]\nkind = \"influxdb\"\nurl = \"{}\"\napi = \"v1\"\ndatabase = \"fresh\"\ncreate = true\n\
         batch = {{ max_delay = \"50ms\" }}\n",
        influx.url()
    ));
    place.run(&["emit", "hits", "5"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    assert_eq!(totals(&place), [json!(5)]);
}

#[test]
fn a_comparison_of_real_servers_ranks_them_and_leaves_nothing_in_them() {
    let Some(postgres) = tallybus_tests::postgres() else { return };
    let Some(influx) = tallybus_tests::influxdb() else { return };
    let Some(clickhouse) = tallybus_tests::clickhouse() else { return };
    influx.create_database("counts").unwrap();
    let place = Place::with_settings(&format!(
        "[sinks.postgres]\nkind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"counters\"\n\
         user = \"{}\"\npassword = \"{}\"\nbatch = {{ max_events = 100, max_delay = \"50ms\" }}\n\
         [sinks.influx]\nkind = \"influxdb\"\nurl = \"{}\"\napi = \"v1\"\ndatabase = \"counts\"\n\
         batch = {{ max_events = 100, max_delay = \"50ms\" }}\n\
         [sinks.clickhouse]\nkind = \"clickhouse\"\nurl = \"{}\"\nuser = \"{}\"\npassword = \"{}\"\n\
         batch = {{ max_events = 100, max_delay = \"50ms\" }}\n",
        postgres.port(),
        postgres.user(),
        postgres.password(),
        influx.url(),
        clickhouse.url(),
        clickhouse.user(),
        clickhouse.password(),
    ));
    place.run(&["topic", "create"]).expect(0);
    for partition in 0..4 {
        let event = |number: u32| {
            let (time, route) = (1_700_000_000 + i64::from(number), (number + partition) % 7);
            format!(r#"{{"ts":{time}000000000,"name":"hits","value":3,"tags":{{"route":"/{route} \"x\",y=z"}}}}"#)
        };
        let messages: Vec<String> = (0..500).map(event).collect();
        place.publish(partition, &messages.iter().map(String::as_bytes).collect::<Vec<_>>());
    }
    let names = ["postgres", "influx", "clickhouse"];
    let sinks: Vec<&str> = names.iter().flat_map(|name| ["--sink", name]).collect();
    let args = ["compare", "run", "--shadow", "--rounds", "3", "--asks", "4", "--probe-time", "3s", "--json"];
    let result = place.run(&[&args[..], &sinks].concat()).expect(0).json();
    for sink in result["sinks"].as_array().unwrap() {
        assert_eq!(sink["completeness"]["value"]["is_complete"], true, "{sink}");
        assert_eq!(sink["latency"]["value"]["n"], 30, "{sink}");
        for question in sink["questions"].as_array().unwrap() {
            let verdict = question["answer"]["verdict"].as_str().unwrap();
            assert!(["right", "not_offered"].contains(&verdict), "{}: {question}", sink["name"]);
        }
    }
    let rates = result["rankings"].as_array().unwrap().iter().find(|ranking| ranking["aspect"] == "catch_up_rate");
    let ranked = rates.unwrap()["groups"].as_array().unwrap().iter().flat_map(|group| group.as_array().unwrap());
    assert_eq!(ranked.count(), 3);

    let databases = influx.query("counts", "SHOW DATABASES").unwrap();
    assert!(databases.contains("counts") && !databases.contains("tallybus_compare_"), "{databases}");
    let tables = clickhouse.query("SELECT database, name FROM system.tables WHERE name LIKE '%tallybus_compare_%'");
    assert_eq!(tables.unwrap(), "");
}
