//! Every crate that is not for this repository alone can be packaged.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Crates that are of no use outside this repository.
const OURS_ALONE: [&str; 5] =
    ["tallybus-benches", "tallybus-e2e", "tallybus-examples", "tallybus-simulation", "tallybus-tests"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn cargo(args: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The crates of the workspace.
fn members() -> Vec<Value> {
    let metadata: Value =
        serde_json::from_slice(&cargo(&["metadata", "--format-version", "1", "--locked", "--no-deps"])).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Whether the manifest says `publish = false`.
fn is_private(member: &Value) -> bool {
    member["publish"].as_array().is_some_and(Vec::is_empty)
}

#[test]
fn only_what_is_of_no_use_elsewhere_is_private() {
    let mut private: Vec<String> = members()
        .iter()
        .filter(|member| is_private(member))
        .map(|member| member["name"].as_str().unwrap().to_owned())
        .collect();
    private.sort();
    assert_eq!(private, OURS_ALONE);
}

#[test]
fn a_published_crate_says_what_it_is() {
    for member in members().iter().filter(|member| !is_private(member)) {
        let name = member["name"].as_str().unwrap();
        for key in ["description", "license", "readme", "rust_version"] {
            assert!(member[key].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {key}");
        }
        for key in ["keywords", "categories"] {
            let count = member[key].as_array().unwrap().len();
            assert!((1..=5).contains(&count), "{name} has {count} {key}");
        }
    }
}

#[test]
fn every_published_crate_can_be_packaged() {
    let dir = scratch();
    let target = dir.to_str().unwrap().to_owned();
    let mut args = vec!["package", "--workspace", "--no-verify", "--allow-dirty", "--offline", "--target-dir", &target];
    for name in OURS_ALONE {
        args.extend(["--exclude", name]);
    }
    cargo(&args);
    let made = std::fs::read_dir(dir.join("package")).unwrap().map(|entry| entry.unwrap().path());
    let made = made.filter(|path| path.extension().is_some_and(|extension| extension == "crate")).count();
    let published = members().iter().filter(|member| !is_private(member)).count();
    assert_eq!(made, published);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A directory that no other run uses.
fn scratch() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("tallybus-packages-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
