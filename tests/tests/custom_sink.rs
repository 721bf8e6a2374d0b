//! A sink outside of this workspace: `examples/custom-sink` holds the whole contract, and its command has nine kinds of sinks.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/custom-sink")
}

/// Where this test was built: what the package has in common with the workspace is not compiled again.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_path_buf()
}

/// Runs cargo in the package; its `Cargo.lock` must be up to date.
fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).args(["--release", "--locked"]).current_dir(package()).env("CARGO_TARGET_DIR", target());
    succeed(&command.output().unwrap())
}

fn succeed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_sink_outside_the_workspace_holds_the_contract_and_its_command_writes_and_audits() {
    let tests = cargo(&["test"]);
    let passed = tests.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(passed >= 24, "{passed} cases of the contract passed:\n{tests}");

    cargo(&["build"]);
    let program = target().join("release/custom-sink");
    let place = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], input: &str| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .current_dir(place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        succeed(&child.wait_with_output().unwrap())
    };
    let kinds = run(&["sinks", "--json"], "");
    assert!(kinds.contains(r#""name":"jsonlines""#) && kinds.contains(r#""name":"redshift""#), "{kinds}");

    std::fs::create_dir(place.path().join("counts")).unwrap();
    std::fs::write(
        place.path().join("tallybus.toml"),
        "[bus]\nkind = \"embedded\"\npath = \"bus.db\"\n\n[sinks.lines]\nkind = \"jsonlines\"\ndirectory = \"counts\"\n",
    )
    .unwrap();
    let events: String =
        (0..1_000).map(|n| format!("{{\"name\":\"m\",\"value\":1,\"tags\":{{\"s\":\"{}\"}}}}\n", n % 5)).collect();
    run(&["emit", "-"], &events);
    run(&["run", "--until-caught-up"], "");
    let audit = run(&["audit"], "");
    assert!(audit.contains("equal"), "{audit}");
    let files = std::fs::read_dir(place.path().join("counts")).unwrap();
    assert!(files.map(|file| file.unwrap().path()).any(|path| path.extension().is_some_and(|end| end == "jsonl")));
}
