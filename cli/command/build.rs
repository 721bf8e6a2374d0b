//! Names the commit that the command is built from, and its features, for `tallybus --version`.
//!
//! What it names depends on the sources alone, not on when or where they are built. It runs again only when another commit is
//! checked out: Cargo watches the files of git in which that shows.

use std::path::Path;
use std::process::Command;

/// What is named where there is no git, or the sources are not from its working tree.
const UNKNOWN: &str = "unknown";
/// For builds without `.git`, as in a container: the commit and its date, as in `git log -1 --format='%H %cs'`.
const COMMIT: &str = "TALLYBUS_BUILD_COMMIT";
const DATE: &str = "TALLYBUS_BUILD_DATE";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={COMMIT}");
    println!("cargo:rerun-if-env-changed={DATE}");
    let (commit, date) =
        given().or_else(packaged).or_else(checked_out).unwrap_or((UNKNOWN.to_owned(), UNKNOWN.to_owned()));
    println!("cargo:rustc-env={COMMIT}={commit}");
    println!("cargo:rustc-env={DATE}={date}");
    println!("cargo:rustc-env=TALLYBUS_BUILD_FEATURES={}", features());
}

/// The commit that the environment names.
fn given() -> Option<(String, String)> {
    let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some((read(COMMIT)?, read(DATE).unwrap_or_else(|| UNKNOWN.to_owned())))
}

/// The commit that `cargo package` has noted in a published package.
fn packaged() -> Option<(String, String)> {
    let note = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let rest = note.split_once("\"sha1\"")?.1;
    let commit = rest.split('"').nth(1)?;
    Some((commit.to_owned(), UNKNOWN.to_owned()))
}

/// The commit that is checked out.
fn checked_out() -> Option<(String, String)> {
    // Elsewhere, as in a directory of vendored packages, the commit is another project's.
    if git(&["rev-parse", "--show-prefix"])? != "cli/command/" {
        return None;
    }
    let head = watched(&git(&["rev-parse", "--git-path", "HEAD"])?);
    // A branch without a file of its own is among the packed ones; then commits show in the log of HEAD.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let reference = branch.and_then(|branch| git(&["rev-parse", "--git-path", &branch]));
    if head && !reference.is_some_and(|path| watched(&path)) {
        for name in ["packed-refs", "logs/HEAD"] {
            git(&["rev-parse", "--git-path", name]).map(|path| watched(&path));
        }
    }
    let log = git(&["log", "-1", "--no-show-signature", "--format=%H %cs"])?;
    let (commit, date) = log.split_once(' ')?;
    Some((commit.to_owned(), date.to_owned()))
}

/// Has Cargo watch a file, if there is one: a missing file would make every build run this again.
fn watched(path: &str) -> bool {
    let is_there = Path::new(path).is_file();
    if is_there {
        println!("cargo:rerun-if-changed={path}");
    }
    is_there
}

/// What git says; `None` without git, and outside of a working tree.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The features of this package, in the order of the alphabet.
fn features() -> String {
    let names = std::env::vars().filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase()));
    let mut names: Vec<String> = names.filter(|name| name != "default").collect();
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
