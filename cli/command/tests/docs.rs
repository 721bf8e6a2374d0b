//! The generated pages of `docs/` say what the program says.
#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod common;

use common::Place;

/// What `tallybus reference` writes for this page; fails when the page in `docs/` is another.
fn up_to_date(page: &str) -> String {
    let generated = Place::new().run(&["reference", page]).expect(0).out;
    let path = format!("{}/../../docs/{page}.md", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == generated,
        "docs/{page}.md is out of date: UPDATE_DOCS=1 cargo test -p tallybus-command --test docs"
    );
    generated
}

#[test]
fn the_reference_of_commands_is_up_to_date() {
    let page = up_to_date("cli");
    for command in [
        "demo",
        "init",
        "run",
        "emit",
        "tap",
        "top",
        "count",
        "audit",
        "compare run",
        "compare clean",
        "doctor",
        "config show",
        "health",
        "completions",
        "man",
        "replay list",
        "replay show",
        "replay run",
        "sinks",
        "sink ddl",
        "topic create",
        "acl",
    ] {
        assert!(page.contains(&format!("## `tallybus {command}`")), "{command}");
    }
}

#[test]
fn every_help_has_the_options_of_every_command_last_under_their_own_heading() {
    let page = Place::new().run(&["reference", "cli"]).expect(0).out;
    let sections: Vec<&str> = page.split("\n## `").skip(1).collect();
    assert!(sections.len() > 20, "{}", sections.len());
    for section in sections {
        let (own, global) = section.split_once("\nGlobal options:\n").unwrap_or_else(|| panic!("{section}"));
        assert!(own.contains("\nOptions:\n") && own.contains("--help"), "{section}");
        let options = |text: &str| -> Vec<String> {
            // What an option means is indented further.
            let lines = text.lines().filter(|line| !line.starts_with("       ")).map(str::trim_start);
            let lines = lines.filter(|line| line.starts_with('-') && !line.starts_with("- "));
            lines
                .filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--")))
                .map(str::to_owned)
                .collect()
        };
        let (own, global) = (options(own.split_once("\nOptions:\n").unwrap().1), options(global));
        assert_eq!(global, ["--config", "--bus", "--json", "--log", "--verbose..."], "{section}");
        assert!(!own.iter().any(|option| global.contains(option)), "{section}");
    }
}

#[test]
fn the_reference_of_metrics_is_up_to_date() {
    let page = up_to_date("metrics");
    for metric in tallybus_worker::metrics::METRICS {
        assert!(page.contains(&format!("| `{}` | {} |", metric.name, metric.kind.name())), "{}", metric.name);
    }
    for hold in <tallybus_worker::Hold as tallybus_worker::counters::Label>::ALL {
        let name = tallybus_worker::counters::Label::name(*hold);
        assert!(page.contains(&format!("| `{name}` | ")), "{name}");
    }
}

#[test]
fn the_reference_of_settings_topics_and_groups_is_up_to_date() {
    let page = up_to_date("settings");
    for row in ["| `brokers` |", "| `batch.max_bytes` |", "| `tallybus.dead.<sink>` |", "| `tallybus.<sink>.replay` |"]
    {
        assert!(page.contains(row), "{row}");
    }
}
