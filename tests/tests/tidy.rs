//! The invariants of ARCHITECTURE.md that the source itself can show.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every source file below a directory of the workspace, with its path from there.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no source");
    found
}

/// Files below these directories that hold any of these texts outside comments.
fn files_with(folders: &[&str], texts: &[&str]) -> Vec<String> {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let mut files: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(folder))
        .filter(|(_, text)| text.lines().filter(is_code).any(|line| texts.iter().any(|wanted| line.contains(wanted))))
        .map(|(name, _)| name)
        .collect();
    files.sort();
    files
}

#[test]
fn schemas_does_no_io_reads_no_clock_and_has_no_unsafe() {
    let outside =
        ["std::fs", "std::net", "std::env", "std::process", "std::io::std", "SystemTime", "Instant", "unsafe "];
    assert_eq!(files_with(&["schemas/src"], &outside), [""; 0]);
}

#[test]
fn unsafe_is_only_where_the_architecture_says() {
    let folders = [
        "schemas/src",
        "bus/src",
        "collector/src",
        "sdk/src",
        "sinks/src",
        "worker/src",
        "verify/src",
        "cli/src",
        "examples/src",
    ];
    let expected = [
        "bus/src/embedded/fork.rs",
        "bus/src/kafka/messages.rs",
        "bus/src/kafka/raw.rs",
        "bus/src/kafka/raw/access.rs",
        "bus/src/kafka/raw/groups.rs",
        "collector/src/sys.rs",
    ];
    assert_eq!(files_with(&folders, &["unsafe {", "unsafe fn"]), expected);
}

#[test]
fn what_a_sink_writes_follows_from_the_batch_alone() {
    let outside = ["SystemTime", "Instant", "reqwest", "rusqlite", "rand"];
    let ends = ["encode.rs", "identity.rs", "keys.rs", "lines.rs"];
    let folders = ["/encode/", "/format/"];
    let is_in = |name: &String| folders.iter().any(|folder| name.contains(folder));
    let pure = |name: &String| ends.iter().any(|end| name.ends_with(end)) || is_in(name);
    let impure = files_with(&["sinks/src"], &outside);
    assert_eq!(impure.into_iter().filter(pure).collect::<Vec<_>>(), [""; 0]);
}

/// The directories of sinks: those that say in a README what they write.
fn kinds() -> Vec<String> {
    let folders = fs::read_dir(root().join("sinks/src")).unwrap().map(|entry| entry.unwrap());
    let is_kind = |folder: &fs::DirEntry| folder.path().join("README.md").exists();
    let names = folders.filter(is_kind).map(|folder| folder.file_name().into_string().unwrap());
    names.map(|name| format!("sinks/src/{name}")).collect()
}

#[test]
fn a_sink_neither_subscribes_nor_commits() {
    let kinds = kinds();
    assert!(kinds.len() > 2);
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    assert_eq!(files_with(&kinds, &["Subscriber", "Publisher", "dyn Bus", "Commit {"]), [""; 0]);
}

#[test]
fn crates_depend_on_each_other_as_the_architecture_draws() {
    for (crate_of, allowed) in [
        ("schemas", &[][..]),
        ("bus", &[]),
        ("control", &[]),
        ("collector", &["tallybus-schemas", "tallybus-bus", "tallybus-control"]),
        ("sdk", &["tallybus-schemas", "tallybus-bus"]),
        ("sinks", &["tallybus-schemas", "tallybus-bus", "tallybus-sdk"]),
        ("worker", &["tallybus-schemas", "tallybus-bus", "tallybus-control", "tallybus-sdk"]),
        ("verify", &["tallybus-schemas", "tallybus-bus", "tallybus-control", "tallybus-sdk", "tallybus-worker"]),
    ] {
        let manifest = fs::read_to_string(root().join(crate_of).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
        let ours: Vec<&str> = dependencies
            .lines()
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|name| name.starts_with("tallybus"))
            .filter(|name| !allowed.contains(name))
            .collect();
        assert_eq!(ours, [""; 0], "{crate_of}");
    }
}

#[test]
fn nothing_unfinished_lands() {
    let folders = [
        "schemas",
        "bus",
        "collector",
        "sdk",
        "sinks",
        "worker",
        "verify",
        "cli",
        "examples",
        "tests/src",
        "tests/e2e",
        "tests/simulation",
    ];
    assert_eq!(
        files_with(&folders, &[concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")]),
        [""; 0]
    );
}

/// A cell that names a test which is gone would claim what nothing shows.
#[test]
fn every_test_that_the_guarantees_name_exists() {
    let page = std::fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let (faults, tests) = page.split_once("## Tests").unwrap();
    let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
    assert!(named.len() > 20, "{named:?}");
    let mut known = Vec::new();
    for folder in ["sdk", "sinks", "worker", "verify", "cli", "tests", "bus", "schemas", "collector"] {
        known.extend(sources(folder).into_iter().map(|(_, text)| text));
    }
    for name in named {
        let definition = format!("fn {name}(");
        assert!(known.iter().any(|text| text.contains(&definition)), "docs/guarantees.md names {name}");
    }
    // Every letter in the table has a row, and every row is used.
    let rows = faults.lines().filter(|line| line.starts_with('|')).collect::<Vec<_>>();
    let letters = |text: &str| -> std::collections::BTreeSet<String> {
        let groups = text.split('(').skip(1).filter_map(|rest| rest.split(')').next());
        groups.flat_map(|group| group.split(", ").map(str::to_owned)).filter(|letter| letter.len() == 1).collect()
    };
    let listed = tests.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next().map(str::to_owned));
    let listed: std::collections::BTreeSet<String> =
        listed.filter(|letter| matches!(letter.as_bytes(), [b'a'..=b'z'])).collect();
    assert_eq!(letters(&rows.join("\n")), listed);
    assert!(rows.iter().all(|row| row.matches('|').count() == 10), "a cell for every kind");
}
