//! What stands in `deploy/`, as far as it can be checked without a cluster, an engine or an init system: the files are what
//! their readers want, and what they say to `tallybus` is what it takes.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod chart;
#[path = "../common/mod.rs"]
mod common;
mod compose;
mod container;
mod monitoring;
mod units;

use std::path::PathBuf;
use std::process::{Command, Output};

use common::Place;

const HELM: &str = "helm-3.19.5/helm";
const KEDA: &str = "keda-2.18.1/keda.sh_scaledobjects.yaml";
const COMPOSE: &str = "compose-go-2.9.1/cmd";
const PYTHON: &str = "deploy-checks-1/bin/python3";
const HADOLINT: &str = "deploy-checks-1/bin/hadolint";

/// A file or a directory of the repository.
fn repository(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize().unwrap().join(path)
}

fn run(command: &mut Command) -> (bool, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    (status.success(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn succeed(command: &mut Command) -> String {
    let (well, out, err) = run(command);
    assert!(well, "{command:?}\n{out}\n{err}");
    out
}

/// Whether `tallybus` knows this command and all of its options; it does nothing.
fn is_a_command(args: &[String]) {
    let place = Place::new();
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--help"]).collect();
    place.run(&args).expect(0);
}

/// Loads settings as a worker does that is given these secrets, and no others, for these sinks.
fn load(settings: &str, secrets: &str, files: &[String], variables: &[String], sinks: &[&str]) {
    let place = Place::new();
    for file in files {
        place.write(file, "s3cret\n");
    }
    // Where the secrets are mounted there is nothing here.
    let here = format!("{}/", place.path().display());
    place.write("tallybus.toml", &settings.replace(secrets, &here));
    let mut command = place.command(&["doctor", "--offline"]);
    for sink in sinks {
        command.args(["--sink", sink]);
    }
    for name in variables {
        command.env(name, "s3cret");
    }
    let (well, out, err) = run(&mut command);
    assert!(well && out.contains("ok    settings"), "{settings}\n{out}{err}");
    assert!(!format!("{out}{err}").contains("s3cret"), "{out}{err}");
}

/// The names of the sinks of a settings file.
fn sinks_of(settings: &str) -> Vec<&str> {
    settings.lines().filter_map(|line| line.strip_prefix("[sinks.")?.strip_suffix(']')).collect()
}

fn texts(list: &serde_json::Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}
