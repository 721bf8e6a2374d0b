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
mod commands;
mod config;
mod failure;
mod filter;
mod interrupt;
mod logging;
mod numbers;
mod output;
mod reference;
mod report;
mod selection;
mod text;
mod times;
mod waiting;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, ValueEnum};
use tallybus_sdk::Kind;

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

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
struct Global {
    /// Settings file [default: tallybus.toml, if it exists].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Bus to use instead of the file's: kafka://host:port[,host:port] or embedded:PATH.
    #[arg(long, global = true, value_name = "URL")]
    bus: Option<String>,
    /// Print results as JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
    /// Log format on standard error.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "human")]
    log: LogFormat,
    /// Log more; twice: everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// The kinds of sinks that this program has.
    #[arg(skip)]
    kinds: &'static [Kind],
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Human-readable.
    Human,
    /// One JSON object per line.
    Json,
}

/// Parses the command line and runs the command, with these kinds of sinks.
pub fn main(kinds: &'static [Kind]) -> ExitCode {
    let mut cli = Cli::parse();
    cli.global.kinds = kinds;
    let output = Output::new(cli.global.json);
    if let Err(reason) = logging::start(&cli.global, cli.command.logs_by_default()) {
        let failure = Failure::could_not_look(reason);
        failure.tell(&output);
        return ExitCode::from(failure.status());
    }
    match cli.command.run(&cli.global, &output) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Ok(Verdict::CouldNotLook) => ExitCode::from(2),
        Err(failure) => {
            failure.tell(&output);
            ExitCode::from(failure.status())
        }
    }
}

/// The whole command line, for the page that documents it.
fn command_line() -> clap::Command {
    Cli::command()
}
