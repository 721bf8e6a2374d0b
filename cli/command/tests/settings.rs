//! Wrong settings, as the user meets them.
#![allow(missing_docs)]

mod common;

use common::Place;

const WRONG: &str = r#"
[bus]
kind = "kafka"
brokers = "127.0.0.1:9092"
partitions = "a few"

[sinks.influx]
kind = "influxdb"
urll = "http://127.0.0.1:8086"
url = "127.0.0.1:8086"
org = "o"
bucket = "b"
token = "env:NO_SUCH_TOKEN_HERE"
batch = { max_events = true }

[sinks.local]
kind = "sqlite"
path = 7
"#;

#[test]
fn every_command_tells_all_problems_at_once_and_ends_with_2() {
    let place = Place::new();
    place.write("wrong.toml", WRONG);
    let commands: [&[&str]; 8] = [
        &["run"],
        &["run", "--sink", "local", "--until-caught-up"],
        &["audit", "--json"],
        &["doctor"],
        &["tap", "--json"],
        &["count", "--json"],
        &["emit", "a"],
        &["topic", "create"],
    ];
    for args in commands {
        let ran = place.run(&[args, &["--config", "wrong.toml"]].concat()).expect(2);
        assert_eq!(ran.out, "", "{args:?}");
        for expected in [
            "wrong.toml",
            "bus.partitions: expected a whole number",
            "sinks.influx.urll: unknown key `urll`, did you mean `url`?",
            "sinks.influx.url: expected a URL",
            "sinks.influx.token: the environment variable NO_SUCH_TOKEN_HERE is not set",
            "sinks.influx.batch.max_events: expected a whole number from 0, found a boolean",
            "sinks.local.path: expected a string, found a number",
        ] {
            assert!(ran.err.contains(expected), "{args:?}: no {expected:?} in\n{}", ran.err);
        }
    }
}

#[test]
fn doctor_tells_wrong_settings_as_json_too() {
    let place = Place::new();
    place.write("wrong.toml", WRONG);
    let ran = place.run(&["doctor", "--offline", "--json", "--config", "wrong.toml"]).expect(2);
    let json = ran.json();
    assert_eq!(json["ok"], false);
    let checks: Vec<&str> =
        json["checks"].as_array().unwrap().iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert!(checks.contains(&"settings sinks.influx.token"), "{checks:?}");
}

#[test]
fn a_secret_is_not_printed() {
    let place = Place::new();
    place.write(
        "tallybus.toml",
        "[bus]\nkind = \"embedded\"\npath = \"bus.db\"\n[sinks.a]\nkind = \"influxdb\"\nurl = \"http://me:hunter2@db:8086\"\ntoken = [\"hunter2\"]\n",
    );
    let ran = place.run(&["doctor", "-vv"]).expect(2);
    assert!(!ran.err.contains("hunter2") && !ran.out.contains("hunter2"), "{ran:#?}");
    assert!(ran.err.contains("sinks.a.url: must not contain credentials"), "{}", ran.err);
}

#[test]
fn a_file_that_is_no_toml_is_reported_with_line_and_column_and_without_its_text() {
    let place = Place::new();
    place.write("tallybus.toml", "[bus]\nkind = \"embedded\"\npath = = \"bus.db\"\n");
    let ran = place.run(&["count"]).expect(2);
    assert!(ran.err.starts_with("error: tallybus.toml:3:8: "), "{}", ran.err);
    place.write("tallybus.toml", "[sinks.a]\ntoken = \"hunter2\n");
    let ran = place.run(&["count"]).expect(2);
    assert!(ran.err.starts_with("error: tallybus.toml:2:") && !ran.err.contains("hunter2"), "{}", ran.err);
}

#[test]
fn what_is_missing_is_reported_with_what_to_do() {
    let place = Place::new();
    let ran = place.run(&["count"]).expect(2);
    assert!(ran.err.contains("--config FILE") && ran.err.contains("--bus"), "{}", ran.err);
    let ran = place.run(&["count", "--config", "nowhere.toml"]).expect(2);
    assert!(ran.err.contains("nowhere.toml"), "{}", ran.err);
    let ran = place.run(&["count", "--bus", "redis://x"]).expect(2);
    assert!(ran.err.contains("unknown kind `redis`: expected `kafka` or `embedded`"), "{}", ran.err);
    let ran = place.run(&["count", "--bus", "kafka://x:y"]).expect(2);
    assert!(ran.err.contains("--bus: expected \"host:port\""), "{}", ran.err);
    let ran = place.run(&["audit", "--bus", "embedded:bus.db"]).expect(2);
    assert!(ran.err.contains("[sinks.NAME]"), "{}", ran.err);
    let place = Place::with_local();
    let ran = place.run(&["run", "--sink", "locl"]).expect(2);
    assert!(ran.err.contains("configured sinks: local"), "{}", ran.err);
    place.run(&["count", "--from", "yesterday"]).expect(2);
    place.run(&["no-such-command"]).expect(2);
}

#[test]
fn the_environment_wins_over_the_file_and_the_command_line_over_both() {
    let place = Place::with_local();
    let doctor = |name: &str, value: &str, more: &[&str]| {
        let mut command = place.command(&[&["doctor", "--json"], more].concat());
        let output = command.env(name, value).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    assert!(doctor("TALLYBUS__BUS__PATH", "other.db", &[]).contains("other.db does not exist yet"));
    assert!(
        doctor("TALLYBUS__BUS__PATH", "other.db", &["--bus", "embedded:third.db"])
            .contains("third.db does not exist yet")
    );
    assert!(doctor("TALLYBUS__SINKS__LOCAL__BATCH__MAX_EVENTS", "7", &["--offline"]).contains("\"ok\":true"));
    assert!(
        doctor("TALLYBUS__SINKS__LOCAL__BATCH__MAX_EVENTS", "x", &["--offline"])
            .contains("sinks.local.batch.max_events")
    );
}

#[test]
fn paths_of_a_file_are_relative_to_it_and_those_of_variables_and_options_to_where_the_command_is_started() {
    let place = Place::new();
    std::fs::create_dir(place.file("etc")).unwrap();
    place.write(
        "etc/t.toml",
        "[bus]\nkind = \"embedded\"\npath = \"bus.db\"\n[sinks.a]\nkind = \"sqlite\"\npath = \"a.db\"\n",
    );
    let args = ["doctor", "--config", "etc/t.toml"];
    assert!(place.run(&args).out.contains("etc/bus.db does not exist yet"));
    let output = place.command(&args).env("TALLYBUS__BUS__PATH", "other.db").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("bus: other.db does not exist yet"));
    let ran = place.run(&[&args[..], &["--bus", "embedded:third.db"]].concat());
    assert!(ran.out.contains("bus: third.db does not exist yet"), "{ran:#?}");
    place.run(&["emit", "hits", "--config", "etc/t.toml"]).expect(0);
    place.run(&["run", "--until-caught-up", "--config", "etc/t.toml"]).expect(0);
    assert!(place.file("etc/bus.db").exists() && place.file("etc/a.db").exists());
}

#[test]
fn a_problem_of_a_variable_is_the_variables_and_not_the_files() {
    let place = Place::with_local();
    let run = |variables: &[(&str, &str)]| {
        let output = place.command(&["doctor", "--offline"]).envs(variables.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, err) = run(&[("TALLYBUS__SINKS__LOCAL__BATCH__MAX_EVENTS", "many")]);
    assert_eq!(status, Some(2));
    assert!(err.contains("1 problem in the environment"), "{err}");
    let expected = "found a string (from the environment variable TALLYBUS__SINKS__LOCAL__BATCH__MAX_EVENTS)";
    assert!(err.contains(expected) && !err.contains("tallybus.toml"), "{err}");
    let (_, err) = run(&[("TALLYBUS__SINKS__LOKAL__PATH", "x.db")]);
    assert!(err.contains("(`sinks.lokal` from the environment variable TALLYBUS__SINKS__LOKAL__PATH)"), "{err}");
    let (status, err) = run(&[("TALLYBUS_BUS__PATH", "x.db")]);
    assert_eq!(status, Some(0));
    assert!(err.contains("TALLYBUS_BUS__PATH is ignored: did you mean TALLYBUS__BUS__PATH?"), "{err}");
    let (_, err) = run(&[("TALLYBUS_SINKS_LOCAL_PATH", "x.db")]);
    assert!(err.contains("did you mean TALLYBUS__SINKS__LOCAL__PATH?"), "{err}");
}

#[test]
fn log_filters_that_are_none_are_refused_with_the_reason() {
    let place = Place::with_local();
    for (filter, expected) in [("verbose", "\"verbose\" is not a level"), ("info,a=loud", "level filter")] {
        let output = place.command(&["doctor", "--offline"]).env("TALLYBUS_LOG", filter).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.starts_with("error: TALLYBUS_LOG: ") && err.contains(expected), "{err}");
    }
}

#[test]
fn a_problem_does_not_hide_the_other_problems_of_its_table() {
    let place = Place::new();
    place.write(
        "tallybus.toml",
        "[bus]\nkind = \"kafka\"\nbrokers = \"host:port\"\nkafka = { \"no.such\" = \"1\", \"linger.ms\" = \"x\", \
         \"sasl.password\" = \"env:NO_SUCH_PASSWORD\" }\n\
         [sinks.a]\npath = \"a.db\"\nwindwo = \"1s\"\nzzz = 1\n\
         [sinks.b]\nkind = \"influxdb\"\napi = \"v1\"\nurl = \"http://h:1\"\ndatabase = \"d\"\nusername = \"u\"\n\
         password = \"env:NO_SUCH_PASSWORD\"\n\
         [sinks.c]\nkind = \"redshift\"\ncluster = \"c\"\ndatabase = \"d\"\ntimeout = \"1ms\"\nstaging = \"s3://b\"\n\
         iam_role = \"r\"\nregion = \"x\"\n",
    );
    let err = place.run(&["doctor", "--offline"]).expect(2).err;
    for expected in [
        "bus.brokers: expected \"host:port\"",
        "`no.such` is not a librdkafka property",
        "`linger.ms` has a value that librdkafka does not accept",
        "`sasl.password`: the environment variable NO_SUCH_PASSWORD is not set",
        "sinks.a.kind: missing required setting",
        "sinks.a.windwo: unknown key `windwo`, did you mean `window`?",
        "sinks.a.zzz: unknown key `zzz`",
        "sinks.b.password: the environment variable NO_SUCH_PASSWORD is not set",
        "sinks.c.timeout: must be 1s or longer",
        "sinks.c.staging: belongs to",
        "sinks.c.iam_role: belongs to",
    ] {
        assert!(err.contains(expected), "no {expected:?} in\n{err}");
    }
    for wrong in ["sinks.a.path", "sinks.c.region", "is missing; give env:NAME"] {
        assert!(!err.contains(wrong), "{wrong:?} is in\n{err}");
    }
}

#[test]
fn a_sink_whose_file_is_the_bus_by_any_name_is_refused_before_anything_is_created() {
    for (name, path) in [("its own", "bus.db"), ("a detour", "./sub/../bus.db"), ("a link", "link.db")] {
        let place = Place::with_settings(&format!("[sinks.local]\nkind = \"sqlite\"\npath = \"{path}\"\n"));
        std::fs::create_dir(place.file("sub")).unwrap();
        std::os::unix::fs::symlink("bus.db", place.file("link.db")).unwrap();
        let ran = place.run(&["run", "--until-caught-up"]).expect(2);
        assert!(
            ran.err.contains("sinks.local.path") && ran.err.contains("the file of the embedded bus"),
            "{name}: {ran:?}"
        );
        assert!(!place.file("bus.db").exists(), "{name}");
    }
}
