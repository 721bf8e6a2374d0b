//! The documented command line is the real one.
#![allow(missing_docs)]

mod common;

use common::Place;

#[test]
fn the_reference_is_up_to_date() {
    let page = Place::new().run(&["reference"]).expect(0).out;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).unwrap();
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/cli.md is out of date: UPDATE_DOCS=1 cargo test --release -p tallybus-command --test docs"
    );
    for command in [
        "demo",
        "run",
        "emit",
        "tap",
        "count",
        "audit",
        "doctor",
        "health",
        "replay list",
        "replay show",
        "replay run",
        "sinks",
        "sink ddl",
        "topic create",
    ] {
        assert!(page.contains(&format!("## `tallybus {command}`")), "{command}");
    }
}
