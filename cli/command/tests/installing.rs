//! What comes with the command when it is installed: its version, completions and manual pages.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;

use common::Place;

/// What git says in this repository; `None` where there is neither git nor its directory.
fn git(arguments: &[&str]) -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("git").args(arguments).current_dir(folder).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn the_version_is_one_line_and_the_long_one_adds_commit_features_and_sinks() {
    let place = Place::new();
    let short = place.run(&["-V"]).expect(0).out;
    assert_eq!(short, format!("tallybus {}\n", env!("CARGO_PKG_VERSION")));
    let long = place.run(&["--version"]).expect(0).out;
    assert!(long.starts_with(&short), "{long}");
    let line = |name: &str| long.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let commit = git(&["log", "-1", "--format=%H %cs"]).map(|log| format!("{} ({})", &log[..12], &log[41..]));
    assert_eq!(line("commit: "), commit.unwrap_or("unknown".to_owned()));
    assert!(line("features: ").split(", ").any(|feature| feature == "sqlite"), "{long}");
    let kinds = place.run(&["sinks", "--json"]).expect(0).json();
    let kinds: Vec<&str> =
        kinds["kinds"].as_array().unwrap().iter().map(|kind| kind["name"].as_str().unwrap()).collect();
    assert_eq!(line("sinks: "), kinds.join(", "));
}

#[test]
fn every_shell_has_completions_that_it_can_read() {
    let place = Place::new();
    for (shell, mark) in [
        ("bash", "complete -F _tallybus"),
        ("zsh", "#compdef tallybus"),
        ("fish", "complete -c tallybus"),
        ("powershell", "Register-ArgumentCompleter -Native -CommandName 'tallybus'"),
    ] {
        let script = place.run(&["completions", shell]).expect(0).out;
        assert!(script.contains(mark) && script.contains("until-caught-up"), "{shell}");
        assert!(!script.contains("reference"), "{shell}: hidden commands stay hidden");
        place.write("script", &script);
        // Bash is there wherever `./test` runs; the others are asked where they are installed.
        let is_there = Command::new(shell).args(["-c", "exit 0"]).output().is_ok();
        assert!(is_there || shell != "bash");
        if is_there && shell != "powershell" {
            let checked = Command::new(shell).arg("-n").arg(place.file("script")).output().unwrap();
            assert!(checked.status.success() && checked.stderr.is_empty(), "{shell}: {checked:?}");
        }
    }
    place.run(&["completions", "nosuch"]).expect(2);
}

#[test]
fn every_command_has_a_manual_page() {
    let place = Place::new();
    std::fs::create_dir(place.file("man1")).unwrap();
    let written = place.run(&["man", "--dir", "man1", "--json"]).expect(0).json();
    let pages: Vec<&str> = written["pages"].as_array().unwrap().iter().map(|page| page.as_str().unwrap()).collect();
    // The page that documents every command, too.
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md")).unwrap();
    for command in documented.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`')) {
        let page = format!("{}.1", command.replace(' ', "-"));
        assert!(pages.contains(&page.as_str()), "no {page} in {pages:?}");
    }
    assert_eq!(std::fs::read_dir(place.file("man1")).unwrap().count(), pages.len());
    assert!(!pages.iter().any(|page| page.contains("reference")), "{pages:?}");
    let page = std::fs::read_to_string(place.file("man1/tallybus-count.1")).unwrap();
    assert!(page.contains(".TH tallybus-count 1") && page.contains("Exact sums"), "{page}");
    let ran = place.run(&["man", "--dir", "nowhere"]).expect(2);
    assert!(ran.err.contains("nowhere is no directory"), "{}", ran.err);
}
