//! Programs that the chores call.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tallybus_benches::report;

/// `cargo`, the one that called this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(report::root());
    command
}

/// Where this program lies, and so every other one that is built like it.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("where does this program lie?")?;
    Ok(this.with_file_name(name))
}

/// Cargo's directory for what is built.
pub(crate) fn target() -> Result<PathBuf> {
    let this = std::env::current_exe().context("where does this program lie?")?;
    let target = this.parent().and_then(Path::parent).context("this program does not lie in cargo's directory")?;
    Ok(target.to_owned())
}

/// Runs it to its end.
///
/// # Errors
/// It cannot be started, or it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| missing(command.get_program()))?;
    if !status.success() {
        bail!("{} failed: {status}", tell(command));
    }
    Ok(())
}

/// Runs it to its end and returns its standard output and its standard error.
///
/// # Errors
/// As [`run`]; the error holds what the program said.
pub(crate) fn output(command: &mut Command) -> Result<(String, String)> {
    let output = command.stdin(Stdio::null()).output().with_context(|| missing(command.get_program()))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("{} failed: {}\n{said}", tell(command), output.status);
    }
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), said))
}

fn missing(program: &OsStr) -> String {
    let remedy = match program.to_str() {
        Some("valgrind" | "callgrind_annotate") => "; tests/install-servers.sh installs it",
        Some("perf") => "; Debian's package linux-perf has it",
        _ => "",
    };
    format!("cannot run {}{remedy}", program.to_string_lossy())
}

fn tell(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
