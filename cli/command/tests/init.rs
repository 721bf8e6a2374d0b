//! A new settings file is one that the other commands accept.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Place, Ran};

const SECRETS: [(&str, &str); 2] = [("INFLUX_TOKEN", "s3cret"), ("PGPASSWORD", "s3cret")];

fn kinds() -> Vec<String> {
    let kinds = Place::new().run(&["sinks", "--json"]).expect(0).json();
    kinds["kinds"].as_array().unwrap().iter().map(|kind| kind["name"].as_str().unwrap().to_owned()).collect()
}

fn run_with_secrets(place: &Place, args: &[&str]) -> Ran {
    Ran::of(place.command(args).envs(SECRETS).output().unwrap())
}

#[test]
fn the_file_of_a_sink_without_a_server_passes_every_check_and_runs() {
    for kind in ["sqlite", "parquet"] {
        let place = Place::new();
        let init = place.run(&["init", "--bus", "embedded", "--sink", kind]).expect(0);
        assert_eq!(
            init.out,
            "tallybus.toml: written, 1 sink\nnext: `tallybus doctor` checks settings, bus and backends\n"
        );
        let doctor = place.run(&["doctor"]).expect(0);
        assert!(doctor.err.is_empty() && !doctor.out.contains("FAIL"), "{doctor:#?}");
        place.run(&["emit", "hits", "3"]).expect(0);
        place.run(&["run", "--until-caught-up"]).expect(0);
        assert_eq!(place.run(&["audit", "--json"]).expect(0).json()["sinks"][0]["total"], 3);
    }
}

#[test]
fn the_file_of_every_kind_is_valid_with_its_comments_and_without() {
    let kinds = kinds();
    assert!(kinds.len() >= 8, "{kinds:?}");
    for (number, kind) in kinds.iter().enumerate() {
        let place = Place::new();
        let bus = if number % 2 == 0 { "kafka://h:1,i:2" } else { "embedded:x.db" };
        place.run(&["init", "--bus", bus, "--sink", kind, "--output", "new.toml"]).expect(0);
        let doctor = ["doctor", "--offline", "--config", "new.toml"];
        let ran = run_with_secrets(&place, &doctor).expect(0);
        assert!(ran.err.is_empty() && ran.out.contains(&format!("1 sink: {kind}")), "{ran:#?}");

        // `# key = value` is a setting with its default.
        let text = std::fs::read_to_string(place.file("new.toml")).unwrap();
        let is_default = |line: &str| {
            // Without `read_url` nothing is read, whatever the way.
            line != "# read = \"rows\""
                && line.strip_prefix("# ").is_some_and(|line| line.split(' ').nth(1) == Some("="))
        };
        let uncommented: Vec<&str> =
            text.lines().map(|line| if is_default(line) { &line[2..] } else { line }).collect();
        assert!(uncommented.contains(&"window = \"1s\"") && uncommented.contains(&"partitions = 4"), "{text}");
        place.write("new.toml", &uncommented.join("\n"));
        run_with_secrets(&place, &doctor).expect(0);
    }
}

#[test]
fn every_kind_has_values_to_begin_with_so_that_nothing_is_left_to_complete() {
    let place = Place::new();
    let mut args = vec!["init", "--bus", "kafka://127.0.0.1:9092", "--json"];
    let (kinds, again) = (kinds(), ["--sink", "second=sqlite", "--sink", "b-2=postgres"]);
    kinds.iter().for_each(|kind| args.extend(["--sink", kind]));
    args.extend(again);
    let told = place.run(&args).expect(0).json();
    assert_eq!(told["problems"], serde_json::json!([]));
    let mut variables: Vec<&str> =
        told["variables"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    variables.sort_unstable();
    variables.dedup();
    assert_eq!(variables, SECRETS.map(|(name, _)| name), "the secrets that these tests set");
    assert_eq!(told["sinks"].as_array().map(Vec::len), Some(kinds.len() + 2));
    // No two write to one destination.
    run_with_secrets(&place, &["doctor", "--offline"]).expect(0);
}

#[test]
fn a_file_that_exists_is_overwritten_only_when_forced() {
    let place = Place::new();
    place.write("tallybus.toml", "precious");
    let init = ["init", "--bus", "embedded", "--sink", "sqlite"];
    let ran = place.run(&init).expect(2);
    assert!(ran.err.contains("tallybus.toml exists already") && ran.err.contains("--force"), "{ran:#?}");
    assert_eq!(std::fs::read_to_string(place.file("tallybus.toml")).unwrap(), "precious");
    place.run(&[&init[..], &["--force"]].concat()).expect(0);
    place.run(&["doctor"]).expect(0);
}

#[test]
fn without_a_terminal_the_missing_options_are_named_and_nothing_is_written() {
    let place = Place::new();
    for args in [&["init"][..], &["init", "--bus", "embedded"], &["init", "--sink", "sqlite"]] {
        let ran = place.run(args).expect(2);
        for option in ["--bus embedded[:PATH]", "--bus kafka://HOST:PORT", "--sink [NAME=]KIND", "sqlite"] {
            assert!(ran.err.contains(option), "{args:?}: no {option} in {}", ran.err);
        }
    }
    let embedded = ["init", "--bus", "embedded"];
    for (more, expected) in [
        (&["--sink", "nosuch"][..], "--sink: unknown kind \"nosuch\": this build has "),
        (&["--sink", "sqlite", "--sink", "sqlite"], "--sink: two sinks are named sqlite"),
        (&["--sink", "A B=sqlite"], "sinks.\"A B\""),
        (&["--sink", "sqlite", "--bus", "redis://h"], "--bus: unknown kind `redis`"),
        (&["--sink", "sqlite", "--config", "x.toml"], "--output"),
    ] {
        let args = match more.contains(&"--bus") {
            true => [&["init"], more].concat(),
            false => [&embedded[..], more].concat(),
        };
        let ran = place.run(&args).expect(2);
        assert!(ran.err.contains(expected), "{args:?}: {}", ran.err);
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}
