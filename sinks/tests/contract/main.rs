//! The contract that every sink keeps, run against every kind in the table and against the fake sink.
//!
//! `tallybus_sdk::testkit::contract` is the contract, `subjects/` what each kind is held to it with. The other files test what only
//! one kind can do or suffer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test stops at the first surprise, and says what it measured"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers made up by the tests"
)]

mod clickhouse_faults;
mod dynamodb;
mod faults;
mod http;
mod http_presets;
mod other_servers;
mod parquet_faults;
mod postgres_faults;
mod redshift_faults;
mod redshift_stand_in;
mod storage;
mod subjects;

use tallybus_sdk::QUESTIONS;
use tallybus_sinks::KINDS;

/// Every kind has a file of subjects that calls `testkit::contract!`.
#[test]
fn every_kind_is_held_to_the_contract() {
    let subjects = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/subjects");
    for kind in KINDS {
        let file = subjects.join(format!("{}.rs", kind.name));
        let source = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(source.contains("testkit::contract!("), "{} does not call `contract!`", file.display());
    }
}

/// The contract tries the shadows of a kind that says it has them, and no kind but HTTP is without.
#[test]
fn every_kind_that_can_create_a_destination_has_shadows() {
    let without: Vec<&str> = KINDS.iter().filter(|kind| kind.shadow.is_none()).map(|kind| kind.name).collect();
    assert_eq!(without, ["http"]);
    let subjects = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/subjects");
    for kind in KINDS {
        let source = std::fs::read_to_string(subjects.join(format!("{}.rs", kind.name))).expect("its subjects");
        let backends = source.matches("impl Backend for ").count();
        let shadows = source.matches("    fn shadow(").count();
        assert_eq!(shadows, if kind.shadow.is_some() { backends } else { 0 }, "{}", kind.name);
        assert!(kind.questions.iter().all(|name| QUESTIONS.contains(name)), "{}", kind.name);
    }
}

#[test]
fn every_kind_documents_its_settings() {
    for kind in KINDS {
        assert!(!kind.summary.is_empty() && kind.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(kind.name);
        let readme = std::fs::read_to_string(folder.join("README.md")).expect("a README.md in the kind's directory");
        assert!(readme.contains(&format!("kind = \"{}\"", kind.name)), "{}: no example", kind.name);
        for setting in kind.settings {
            let row = format!("| `{}` |", setting.key);
            assert!(readme.contains(&row), "{}: README.md has no row {row}", kind.name);
            assert!(!setting.help.is_empty());
        }
    }
}
