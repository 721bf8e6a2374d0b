//! The container file. It is not built here: that takes an engine.

use std::process::Command;

use crate::common::Place;
use crate::{HADOLINT, is_a_command, repository, run, succeed};

fn instructions() -> Vec<String> {
    let text = std::fs::read_to_string(repository("deploy/Containerfile")).unwrap();
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    text.join("\n")
        .replace("\\\n", " ")
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What is copied from the repository.
fn sources() -> Vec<String> {
    let copies = instructions().into_iter().filter_map(|line| line.strip_prefix("COPY ").map(str::to_owned));
    let mut sources = Vec::new();
    for copy in copies.filter(|copy| !copy.starts_with("--from")) {
        let words: Vec<&str> = copy.split_whitespace().collect();
        sources.extend(words[..words.len() - 1].iter().map(|word| (*word).to_owned()));
    }
    sources
}

#[test]
fn the_linter_finds_nothing() {
    let Some(hadolint) = tallybus_tests::fetched(HADOLINT) else { return };
    succeed(Command::new(hadolint).arg(repository("deploy/Containerfile")));
}

#[test]
fn what_is_copied_is_enough_to_build_the_command() {
    let place = Place::new();
    for source in sources() {
        assert!(repository(&source).exists(), "{source} is not there");
        std::os::unix::fs::symlink(repository(&source), place.file(&source)).unwrap();
    }
    // cargo finds every member of the workspace and every dependency in the lock file, without the network.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--offline", "--package", "tallybus-command", "--edges", "normal,build"]);
    let tree = succeed(cargo.current_dir(place.path()));
    assert!(tree.contains("tallybus-sinks") && tree.contains("rdkafka"), "{tree}");
}

#[test]
fn the_image_runs_as_nobody_and_says_whether_it_works() {
    let instructions = instructions();
    let last =
        |name: &str| instructions.iter().rev().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(last("USER "), "65532:65532");
    assert_eq!(last("ENTRYPOINT "), "[\"tallybus\"]");
    let args = |text: &str| serde_json::from_str::<Vec<String>>(&text[text.find('[').unwrap()..]).unwrap();
    let health = args(&last("HEALTHCHECK "));
    is_a_command(&health[1..]);
    let command = args(&last("CMD "));
    is_a_command(&command);
    assert!(command.contains(health.last().unwrap()), "both name one file: {command:?}, {health:?}");
    for line in instructions.iter().filter(|line| line.starts_with("ARG ") && line.contains("IMAGE=")) {
        let image = line.split_once('=').unwrap().1;
        assert!(image.contains(':') && !image.ends_with(":latest"), "{line}");
    }
}

#[test]
fn the_compiler_is_new_enough() {
    let manifest = std::fs::read_to_string(repository("Cargo.toml")).unwrap();
    let wanted = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    let image = instructions().into_iter().find(|line| line.starts_with("ARG RUST_IMAGE")).unwrap();
    assert!(image.contains(&format!("rust:{wanted}-")), "{image}: the workspace wants {wanted}");
}

#[test]
fn the_command_needs_no_library_that_a_slim_image_lacks() {
    let Some(ldd) = tallybus_tests::program("ldd") else { return };
    let (_, out, _) = run(Command::new(ldd).arg(env!("CARGO_BIN_EXE_tallybus")));
    let slim = ["linux-vdso", "libgcc_s.so", "libm.so", "libc.so", "ld-linux", "libpthread", "libdl.so", "librt.so"];
    for line in out.lines() {
        assert!(slim.iter().any(|library| line.contains(library)), "{line}");
    }
}
