mod ask;
mod change;
mod consequence;
mod known;
mod partition;
mod reset;
mod restore;
mod show;

use clap::{Args, Subcommand};
use tallybus_worker::WorkerOptions;
use tallybus_worker::settings::{Settings, SinkSettings};

use self::reset::Reset;
use self::restore::Restore;
use self::show::Show;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::{Global, selection};

/// Show or move the offsets of a sink's consumer group.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    Show(Show),
    Reset(Reset),
    Restore(Restore),
}

/// Which group.
#[derive(Debug, Args)]
struct Which {
    /// The sink.
    sink: String,
    /// The group that replays the sink's dead letters.
    #[arg(long)]
    replay: bool,
}

impl Group {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        match self {
            Self::Show(command) => command.run(global, output),
            Self::Reset(command) => command.run(global, output),
            Self::Restore(command) => command.run(global, output),
        }
    }
}

impl Which {
    /// The sink, its group, and the group's topics.
    fn of<'s>(&self, settings: &'s Settings) -> Result<(&'s SinkSettings, String, Vec<String>), Failure> {
        let sink = selection::select_one(settings, &self.sink)?;
        let (group, topics) = match self.replay {
            true => (sink.replay_group(), vec![sink.replay_topic()]),
            false => (sink.group(), sink.topics.clone()),
        };
        Ok((sink, group, topics))
    }

    /// The options of the worker of this group.
    fn options(&self, sink: &SinkSettings) -> WorkerOptions {
        if self.replay { sink.replay_options() } else { sink.worker_options() }
    }
}
