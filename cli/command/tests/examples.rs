//! The example configurations are read by the program they are examples for.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{Place, Ran};

/// The variables that an example names as `env:NAME`, outside comments.
fn secrets(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let code = text.lines().map(|line| line.split_once('#').map_or(line, |(code, _)| code));
    // `env:NAME` alone, or behind a word: "Bearer env:NAME".
    let named = code.flat_map(|line| line.split("env:").skip(1));
    named.map(|rest| rest.split_once('"').unwrap().0.to_owned()).collect()
}

fn examples() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/examples");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_example_is_sound_and_shows_no_secret() {
    let files = examples();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let place = Place::new();
        let mut command = place.command(&["doctor", "--offline", "--config"]);
        let ran = command.arg(&file).envs(secrets(&file).iter().map(|name| (name, "s3cret"))).output().unwrap();
        let (out, err) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
        assert_eq!(ran.status.code(), Some(0), "{}: {out}{err}", file.display());
        assert!(out.contains("ok    settings"), "{}: {out}", file.display());
        assert!(!format!("{out}{err}").contains("s3cret"), "{}: {out}{err}", file.display());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "an offline look leaves no file");
    }
}

#[test]
fn every_example_is_shown_in_effect_within_80_columns_and_without_its_secrets() {
    for file in examples() {
        let place = Place::new();
        let run = |more: &[&str]| {
            let mut command = place.command(&[&["config", "show"], more, &["--config"]].concat());
            let command = command.arg(&file).env_remove("COLUMNS");
            Ran::of(command.envs(secrets(&file).iter().map(|name| (name, "s3cret"))).output().unwrap()).expect(0)
        };
        let (human, json) = (run(&[]), run(&["--json"]));
        assert!(human.out.starts_with("[bus]\n") && human.err.is_empty(), "{human:#?}");
        assert!(human.out.lines().all(|line| line.chars().count() <= 80), "{}", human.out);
        assert!(!human.out.contains("s3cret") && !json.out.contains("s3cret"), "{}", file.display());
        let json = json.json();
        let settings = json["settings"].as_array().unwrap();
        let of_file = settings.iter().find(|setting| setting["key"] == "bus.kind").unwrap();
        assert_eq!((&of_file["from"], of_file["file"].as_str()), (&"file".into(), file.to_str()), "{json:#}");
        let text = std::fs::read_to_string(&file).unwrap();
        let line = usize::try_from(of_file["line"].as_u64().unwrap()).unwrap();
        assert!(text.lines().nth(line - 1).unwrap().starts_with("kind = "), "{json:#}");
        assert!(settings.iter().any(|setting| setting["from"] == "default"), "{json:#}");
    }
}

#[test]
fn every_kind_has_an_example_and_the_page_names_them_all() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/README.md")).unwrap();
    let mut shown = String::new();
    for file in examples() {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(page.contains(&format!("(examples/{name})")), "deploy/README.md does not name {name}");
        shown.push_str(&std::fs::read_to_string(&file).unwrap());
    }
    let kinds = Place::new().run(&["sinks", "--json"]).expect(0).json();
    for kind in kinds["kinds"].as_array().unwrap() {
        let kind = kind["name"].as_str().unwrap();
        assert!(shown.contains(&format!("\nkind = \"{kind}\"\n")), "no file in deploy/examples shows the kind {kind}");
    }
}

#[test]
fn an_example_names_the_secrets_it_misses() {
    for file in examples() {
        let wanted = secrets(&file);
        let place = Place::new();
        let mut command = place.command(&["doctor", "--offline", "--config"]);
        for name in &wanted {
            command.env_remove(name);
        }
        let ran = command.arg(&file).output().unwrap();
        let err = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(if wanted.is_empty() { 0 } else { 2 }), "{}: {err}", file.display());
        assert!(wanted.iter().all(|name| err.contains(name.as_str())), "{}: {err}", file.display());
    }
}

#[test]
fn the_embedded_example_works_as_its_comments_say() {
    let place = Place::new();
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/examples/embedded-sqlite.toml"));
    place.write("embedded-sqlite.toml", &text.unwrap());
    let config = ["--config", "embedded-sqlite.toml"];
    place.run(&[&["emit", "hits", "3", "--tag", "route=/a"], &config[..]].concat()).expect(0);
    place.run(&[&["run", "--until-caught-up"], &config[..]].concat()).expect(0);
    let audit = place.run(&[&["audit", "--json"], &config[..]].concat()).expect(0).json();
    assert_eq!(audit["sinks"][0]["total"], 3);
    let database = rusqlite::Connection::open(place.file("counters.db")).unwrap();
    let most = "select total from counts order by total desc limit 10";
    assert_eq!(database.query_row(most, [], |row| row.get::<_, u64>(0)).unwrap(), 3);
}
