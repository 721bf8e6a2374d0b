mod clean;
mod contenders;
mod diff;
mod money;
pub(super) mod page;
mod run;
mod show;
mod table;
mod verdicts;

use clap::Subcommand;

use crate::Global;
use crate::failure::{Failure, Verdict};
use crate::output::Output;

/// Compare backends with each other: on the same events, right before fast.
#[derive(Debug, Subcommand)]
pub(crate) enum Compare {
    Run(run::Run),
    Show(show::Show),
    Diff(diff::DiffCommand),
    Clean(clean::Clean),
}

impl Compare {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        match self {
            Self::Run(command) => command.run(global, output),
            Self::Show(command) => command.run(global, output),
            Self::Diff(command) => command.run(global, output),
            Self::Clean(command) => command.run(global, output),
        }
    }
}
