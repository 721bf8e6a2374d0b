//! One file per command.

mod acl;
mod audit;
mod compare;
mod completions;
mod config;
mod count;
mod ctl;
mod demo;
mod doctor;
mod emit;
mod group;
mod health;
mod init;
mod live;
mod man;
mod replay;
mod run;
mod sink;
mod sinks;
mod tap;
mod top;
mod topic;

use clap::Subcommand;

use crate::Global;
use crate::failure::{Failure, Verdict};
use crate::output::Output;

/// The commands; each is described where its arguments are.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Demo),
    Init(init::Init),
    Run(run::Run),
    Emit(emit::Emit),
    Tap(tap::Tap),
    Top(top::Top),
    Count(count::Count),
    Audit(audit::AuditCommand),
    #[command(subcommand)]
    Compare(compare::Compare),
    Doctor(doctor::Doctor),
    #[command(subcommand)]
    Config(config::Config),
    Health(health::Health),
    #[command(subcommand)]
    Ctl(ctl::Ctl),
    #[command(subcommand)]
    Group(group::Group),
    #[command(subcommand)]
    Replay(replay::Replay),
    Sinks(sinks::Sinks),
    #[command(subcommand)]
    Sink(sink::Sink),
    #[command(subcommand)]
    Topic(topic::Topic),
    Acl(acl::Acl),
    Completions(completions::Completions),
    Man(man::Man),
    #[command(hide = true)]
    Reference(crate::reference::Reference),
}

impl Command {
    /// The log level when the command line does not change it.
    pub(crate) fn logs_by_default(&self) -> &'static str {
        match self {
            Self::Run(_) => "info",
            // Its log would be written over what it draws; it shows what the bus does not answer.
            Self::Top(_) => "off",
            // Connection errors of the bus's client are reported once, by the command's own error.
            _ => "warn,kafka=error",
        }
    }

    /// Whether the files that it creates are for its own user alone. Manual pages are for everyone.
    pub(crate) fn writes_private_files(&self) -> bool {
        !matches!(self, Self::Man(_))
    }

    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        match self {
            Self::Demo(command) => command.run(global, output),
            Self::Init(command) => command.run(global, output),
            Self::Run(command) => command.run(global, output),
            Self::Emit(command) => command.run(global, output),
            Self::Tap(command) => command.run(global, output),
            Self::Top(command) => command.run(global, output),
            Self::Count(command) => command.run(global, output),
            Self::Audit(command) => command.run(global, output),
            Self::Compare(command) => command.run(global, output),
            Self::Doctor(command) => command.run(global, output),
            Self::Config(command) => command.run(global, output),
            Self::Health(command) => command.run(global, output),
            Self::Ctl(command) => command.run(global, output),
            Self::Group(command) => command.run(global, output),
            Self::Replay(command) => command.run(global, output),
            Self::Sinks(command) => command.run(global, output),
            Self::Sink(command) => command.run(global, output),
            Self::Topic(command) => command.run(global, output),
            Self::Acl(command) => command.run(global, output),
            Self::Completions(command) => command.run(output),
            Self::Man(command) => command.run(output),
            Self::Reference(command) => command.run(global, output),
        }
    }
}

/// Starts the threads that run the sinks.
pub(crate) fn start_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name("tallybus-sink");
    builder.build().map_err(|error| Failure::failed(format!("cannot start threads: {error}")))
}
