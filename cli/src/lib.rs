//! The `tallybus` command as a library: a binary passes in the kinds of sinks that it has, [`main`] does everything
//! else.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     tallybus_cli::main(&[])
//! }
//! ```

#[cfg(test)]
mod broken_bus;
mod charts;
mod commands;
mod config;
mod control;
mod csv;
mod failure;
mod filter;
mod groups;
mod interrupt;
mod logging;
mod manual;
mod numbers;
mod output;
mod page;
mod privacy;
mod progress;
mod reference;
mod report;
mod selection;
mod tags;
mod text;
mod times;
mod waiting;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use tallybus_sdk::Kind;
use tallybus_worker::live::BuildInfo;

use crate::failure::{Failure, Verdict};
use crate::output::Output;

/// Counts on a message bus, written exactly once into every backend.
///
/// Exit status: 0 success; 1 a comparison is not equal or something failed; 2 wrong usage or settings, or something is
/// unavailable.
#[derive(Debug, Parser)]
#[command(name = "tallybus", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: commands::Command,
}

/// The heading of the options of every command.
const GLOBAL: &str = "Global options";

/// Options of every command: behind its own in the help, whatever the order of the definitions.
#[derive(Debug, Clone, clap::Args)]
struct Global {
    /// Settings file [default: tallybus.toml, if it exists].
    #[arg(long, global = true, help_heading = GLOBAL, display_order = 101, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Bus to use instead of the file's: kafka://host:port[,host:port] or embedded:PATH.
    #[arg(long, global = true, help_heading = GLOBAL, display_order = 102, value_name = "URL")]
    bus: Option<String>,
    /// Print results as JSON on standard output.
    #[arg(long, global = true, help_heading = GLOBAL, display_order = 103)]
    json: bool,
    /// Log format on standard error.
    #[arg(long, global = true, help_heading = GLOBAL, display_order = 104, value_name = "FORMAT", default_value = "human")]
    log: LogFormat,
    /// Log more; twice: everything.
    #[arg(short, long, global = true, help_heading = GLOBAL, display_order = 105, action = clap::ArgAction::Count)]
    verbose: u8,
    /// The kinds of sinks that this program has.
    #[arg(skip)]
    kinds: &'static [Kind],
    /// What this program was built from.
    #[arg(skip = UNKNOWN_BUILD)]
    build: BuildInfo,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Human-readable.
    Human,
    /// One JSON object per line.
    Json,
}

/// The version of these commands.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a binary was built from that does not say it.
const UNKNOWN_BUILD: BuildInfo = BuildInfo { version: VERSION, commit: "unknown" };

/// What a binary was built from, for its `--version`.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// The version of the binary's package.
    pub version: &'static str,
    /// The commit of its sources; `unknown` where that is not known.
    pub commit: &'static str,
    /// The date of the commit, not of the build: `2026-01-31`, or `unknown`.
    pub commit_date: &'static str,
    /// The features that were chosen.
    pub features: &'static str,
}

impl Build {
    /// The lines of `--version` behind the program's name.
    fn describe(self, kinds: &[Kind]) -> String {
        let commit: String = self.commit.chars().take(12).collect();
        let commit = if self.commit_date == "unknown" { commit } else { format!("{commit} ({})", self.commit_date) };
        format!("{}\ncommit: {commit}\nfeatures: {}\n{}", self.version, self.features, sinks_line(kinds))
    }
}

fn sinks_line(kinds: &[Kind]) -> String {
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    format!("sinks: {}", if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") })
}

/// Parses the command line and runs the command, with these kinds of sinks.
pub fn main(kinds: &'static [Kind]) -> ExitCode {
    main_of(None, kinds)
}

/// As [`main`], for a binary that names its build in `--version`.
pub fn main_of(build: Option<Build>, kinds: &'static [Kind]) -> ExitCode {
    let version = match build {
        Some(build) => build.describe(kinds),
        None => format!("{VERSION}\n{}", sinks_line(kinds)),
    };
    let mut command = command_line().version(build.map_or(VERSION, |build| build.version));
    // The text lives as long as the process, as those of the definitions do.
    command = command.long_version(&*version.leak());
    let matches = command.get_matches_mut();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    cli.global.kinds = kinds;
    cli.global.build = build.map_or(UNKNOWN_BUILD, |build| BuildInfo { version: build.version, commit: build.commit });
    let output = Output::new(cli.global.json);
    let private = if cli.command.writes_private_files() { privacy::apply() } else { Ok(()) };
    let started = private.and_then(|()| logging::start(&cli.global, cli.command.logs_by_default()));
    if let Err(reason) = started {
        let failure = Failure::could_not_look(reason);
        failure.tell(&output);
        return ExitCode::from(failure.status());
    }
    match cli.command.run(&cli.global, &output) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Ok(Verdict::CouldNotLook) => ExitCode::from(2),
        Ok(Verdict::Silent) => ExitCode::from(3),
        Ok(Verdict::Expired) => ExitCode::from(4),
        Err(failure) => {
            failure.tell(&output);
            ExitCode::from(failure.status())
        }
    }
}

/// The whole command line, also for what documents it.
fn command_line() -> clap::Command {
    Cli::command()
}

/// The command line without its hidden commands, for completions and manual pages.
fn visible_command_line() -> clap::Command {
    let whole = command_line();
    let visible = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut command = clap::Command::new("tallybus").version(VERSION).subcommand_required(true);
    command = command.args(whole.get_arguments().cloned()).subcommands(visible);
    if let (Some(about), Some(long)) = (whole.get_about(), whole.get_long_about()) {
        command = command.about(about.clone()).long_about(long.clone());
    }
    command
}
