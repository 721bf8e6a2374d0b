//! Misuse of the macros gives an error that says what to do, on the line that is wrong.
//!
//! The files in `misuse/` are compiled against the library as it was built for this test; each line with a mistake ends
//! with `//~` and a part of the error expected there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test and its helpers")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn what_is_no_call_at_all() {
    check("syntax.rs");
}

#[test]
fn values_that_cannot_be_counted_or_be_tags() {
    check("types.rs");
}

#[test]
fn literals_that_cannot_be_meant() {
    check("literals.rs");
}

fn check(file: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/misuse").join(file);
    let expected: BTreeMap<usize, String> = (1..)
        .zip(fs::read_to_string(&source).unwrap().lines())
        .filter_map(|(number, line)| Some((number, line.split_once("//~")?.1.trim().to_owned())))
        .collect();
    assert!(!expected.is_empty());
    let output = compile(&source);
    let mut found: BTreeMap<usize, String> = BTreeMap::new();
    for line in output.lines() {
        // `path:line:column: error[E0277]: text`
        let Some((place, text)) = line.split_once(": error") else { continue };
        let Some(number) = place.rsplit(':').nth(1) else { continue };
        found.entry(number.parse().unwrap()).or_default().push_str(text);
    }
    for (number, text) in &expected {
        let found = found.get(number).map_or("no error", String::as_str);
        assert!(found.contains(text), "{file}:{number}: expected {text:?}, found {found:?}\n{output}");
    }
    let more: Vec<_> = found.keys().filter(|number| !expected.contains_key(number)).collect();
    assert!(more.is_empty(), "{file}: errors in other lines, {more:?}:\n{output}");
}

fn compile(source: &Path) -> String {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let output = tempfile::tempdir().unwrap();
    let compiled = Command::new("rustc")
        .args(["--edition=2024", "--error-format=short", "--emit=metadata", "--crate-name=misuse"])
        .arg("--extern")
        .arg(format!("tallybus={}", newest_library(&deps).display()))
        .arg("-L")
        .arg(format!("dependency={}", deps.display()))
        .arg("--out-dir")
        .arg(output.path())
        .arg(source)
        .output()
        .unwrap();
    assert!(!compiled.status.success(), "{} was compiled", source.display());
    String::from_utf8(compiled.stderr).unwrap()
}

/// The library this test was linked with, or one built since.
fn newest_library(deps: &Path) -> PathBuf {
    fs::read_dir(deps)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("libtallybus-") && name.ends_with(".rlib")
        })
        .max_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap())
        .unwrap()
}
