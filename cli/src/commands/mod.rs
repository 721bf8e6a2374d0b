//! One file per command.

mod audit;
mod count;
mod demo;
mod doctor;
mod emit;
mod run;
mod tap;
mod topic;

use clap::Subcommand;

use crate::Global;
use crate::failure::{Failure, Verdict};
use crate::output::Output;

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole thing on this machine: emit, carry, write twice, compare.
    Demo(demo::Demo),
    /// Run the workers of a configuration, or some of them.
    Run(run::Run),
    /// Emit counts from a shell, or from lines on standard input.
    Emit(emit::Emit),
    /// Follow the bus live; nobody notices.
    Tap(tap::Tap),
    /// Exact sums of what is on the bus, by name or tag.
    Count(count::Count),
    /// Compare the bus with every backend, series by series.
    Audit(audit::AuditCommand),
    /// Check everything that can be wrong before the first message moves.
    Doctor(doctor::Doctor),
    /// Look after topics.
    #[command(subcommand)]
    Topic(topic::Topic),
    /// Write the reference of all commands, in Markdown.
    #[command(hide = true)]
    Reference,
}

impl Command {
    /// What is logged when nobody asks for more or less.
    pub(crate) fn logs_by_default(&self) -> &'static str {
        match self {
            Self::Run(_) => "info",
            _ => "warn",
        }
    }

    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        match self {
            Self::Demo(command) => command.run(output),
            Self::Run(command) => command.run(global, output),
            Self::Emit(command) => command.run(global, output),
            Self::Tap(command) => command.run(global, output),
            Self::Count(command) => command.run(global, output),
            Self::Audit(command) => command.run(global, output),
            Self::Doctor(command) => command.run(global, output),
            Self::Topic(command) => command.run(global, output),
            Self::Reference => {
                output.print(crate::reference::markdown().trim_end())?;
                Ok(Verdict::Good)
            }
        }
    }
}

/// Starts the threads on which sinks work.
pub(crate) fn start_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name("tallybus-sink");
    builder.build().map_err(|error| Failure::failed(format!("cannot start threads: {error}")))
}
