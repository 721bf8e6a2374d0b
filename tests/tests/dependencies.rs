//! What is linked is what `deny.toml` allows: licences, sources, versions, and crates banned by name.
//!
//! `cargo deny` reads the same file, but takes longer to install than all of these tests to run, and fetches its list of
//! advisories; so its checks that need no network are made here from `cargo metadata`.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A crate of the graph.
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for the crates of this workspace.
    source: Option<String>,
    /// The names of the crates that depend on it.
    parents: BTreeSet<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn rules() -> Value {
    toml::from_str(&std::fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap()
}

/// Everything that is linked, tests and benchmarks included, on the target that `deny.toml` names.
fn graph(rules: &Value) -> Vec<Package> {
    let target = rules["graph"]["targets"][0].as_str().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features", "--filter-platform", target])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let mut parents: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let id = node["id"].as_str().unwrap();
        parents.entry(id).or_default();
        for dependency in node["deps"].as_array().unwrap() {
            let of = parents.entry(dependency["pkg"].as_str().unwrap()).or_default();
            of.insert(names[id].to_owned());
        }
    }
    let is_linked = |package: &&Value| parents.contains_key(package["id"].as_str().unwrap());
    let linked = metadata["packages"].as_array().unwrap().iter().filter(is_linked);
    let packages: Vec<Package> = linked
        .map(|package| Package {
            name: text(&package["name"]).unwrap(),
            version: text(&package["version"]).unwrap(),
            license: text(&package["license"]),
            source: text(&package["source"]),
            parents: parents[package["id"].as_str().unwrap()].clone(),
        })
        .collect();
    assert!(packages.len() > 100, "the graph has {} packages", packages.len());
    packages
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Whether an SPDX expression can be fulfilled with these licences only. `/` is the old way to write `OR`.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    let outcome = any_of(&mut rest, allowed);
    outcome && rest.is_empty()
}

fn any_of(rest: &mut &[&str], allowed: &[&str]) -> bool {
    let mut outcome = all_of(rest, allowed);
    while rest.first() == Some(&"OR") {
        *rest = &rest[1..];
        outcome |= all_of(rest, allowed);
    }
    outcome
}

fn all_of(rest: &mut &[&str], allowed: &[&str]) -> bool {
    let mut outcome = one(rest, allowed);
    while rest.first() == Some(&"AND") {
        *rest = &rest[1..];
        outcome &= one(rest, allowed);
    }
    outcome
}

fn one(rest: &mut &[&str], allowed: &[&str]) -> bool {
    let Some((first, more)) = rest.split_first() else { return false };
    *rest = more;
    if *first == "(" {
        let outcome = any_of(rest, allowed);
        let Some((&")", more)) = rest.split_first() else { return false };
        *rest = more;
        return outcome;
    }
    if rest.first() == Some(&"WITH") && rest.len() > 1 {
        let license = format!("{first} WITH {}", rest[1]);
        *rest = &rest[2..];
        return allowed.contains(&license.as_str());
    }
    allowed.contains(first)
}

/// `name`, or `name@version` where a shorter version means all that begin with it.
fn means(entry: &Value, package: &Package) -> bool {
    let text = entry["crate"].as_str().unwrap();
    match text.split_once('@') {
        None => text == package.name,
        Some((name, version)) => {
            name == package.name && (package.version == version || package.version.starts_with(&format!("{version}.")))
        }
    }
}

#[test]
fn a_license_expression_is_allowed_when_one_way_to_fulfil_it_is() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"];
    let fine = [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "GPL-3.0 OR MIT AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ];
    for expression in fine {
        assert!(is_allowed(expression, &allowed), "{expression}");
    }
    let refused =
        ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0) AND GPL-2.0", "MIT WITH GPL-exception", "", "(MIT", "MIT MIT"];
    for expression in refused {
        assert!(!is_allowed(expression, &allowed), "{expression}");
    }
}

#[test]
fn every_license_is_allowed() {
    let rules = rules();
    let allowed = strings(&rules["licenses"]["allow"]);
    for package in graph(&rules).iter().filter(|package| package.source.is_some()) {
        let license = package.license.as_deref().unwrap_or("none");
        assert!(is_allowed(license, &allowed), "{} {}: {license}", package.name, package.version);
    }
}

#[test]
fn every_crate_comes_from_an_allowed_registry() {
    let rules = rules();
    let allowed = strings(&rules["sources"]["allow-registry"]);
    for package in graph(&rules) {
        let Some(source) = &package.source else { continue };
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        assert!(allowed.contains(&registry), "{} {} comes from {source}", package.name, package.version);
    }
}

#[test]
fn a_crate_has_one_version_or_the_older_ones_are_named() {
    let rules = rules();
    let skipped = rules["bans"]["skip"].as_array().unwrap();
    let graph = graph(&rules);
    let mut versions: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in &graph {
        versions.entry(&package.name).or_default().push(package);
    }
    for (name, packages) in versions.into_iter().filter(|(_, packages)| packages.len() > 1) {
        let unnamed: Vec<String> = packages
            .iter()
            .filter(|package| !skipped.iter().any(|entry| means(entry, package)))
            .map(|package| format!("{} (of {:?})", package.version, package.parents))
            .collect();
        assert!(unnamed.len() < 2, "{name} has several versions, and deny.toml does not name the older: {unnamed:?}");
    }
    for entry in skipped {
        assert!(!entry["reason"].as_str().unwrap_or_default().is_empty(), "{entry} has no reason");
        let is_there = graph.iter().any(|package| means(entry, package));
        assert!(is_there, "{} is not linked any more: remove it from `skip` in deny.toml", entry["crate"]);
    }
}

#[test]
fn a_banned_crate_is_not_linked_but_by_those_that_may() {
    let rules = rules();
    let graph = graph(&rules);
    for entry in rules["bans"]["deny"].as_array().unwrap() {
        let wrappers = if entry["wrappers"].is_array() { strings(&entry["wrappers"]) } else { Vec::new() };
        for package in graph.iter().filter(|package| means(entry, package)) {
            let others: Vec<&String> =
                package.parents.iter().filter(|parent| !wrappers.contains(&parent.as_str())).collect();
            let is_allowed = !wrappers.is_empty() && others.is_empty();
            assert!(is_allowed, "{} {} ({}) is linked by {others:?}", package.name, package.version, entry["reason"]);
        }
    }
}

/// What a package outside this workspace links that only counts: its Cargo.lock says so.
#[test]
fn a_service_without_commands_links_neither_their_records_nor_an_http_client() {
    let lock = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/minimal-service/Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    let is_linked = |name: &str| lock.contains(&format!("name = \"{name}\"\n"));
    assert!(is_linked("tallybus") && is_linked("rdkafka"));
    for name in ["tallybus-control", "hmac", "reqwest", "hyper"] {
        assert!(!is_linked(name), "{name}");
    }
}
