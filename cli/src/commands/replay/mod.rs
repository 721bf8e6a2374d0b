//! Dead letters: listing them, and replaying them to the sink that refused them.

mod again;
mod list;
mod show;

use std::time::Duration;

use clap::{Args, Subcommand};
use globset::Glob;
use tallybus_bus::{Bus, BusError, Observer};
use tallybus_verify::replay::{self, DeadLetterEntry, DeadLetterIndex, Filter, Pattern, State, Why};
use tallybus_worker::settings::SinkSettings;

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::progress::Progress;
use crate::waiting::waiting_for_bus;
use crate::{Global, times};

const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// List dead letters, and send them back to the sink that refused them.
///
/// They go only to the sink that refused them, and count once, however often and by how many operators at once they are
/// sent back.
#[derive(Debug, Subcommand)]
pub(crate) enum Replay {
    List(list::List),
    Show(show::Show),
    Run(again::Run),
}

impl Replay {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        match self {
            Self::List(command) => command.run(global, output),
            Self::Show(command) => command.run(global, output),
            Self::Run(command) => command.run(global, output),
        }
    }
}

/// Reads a sink's dead letters; a terminal shows how far that has come.
fn read(
    bus: &dyn Bus,
    observer: &dyn Observer,
    sink: &SinkSettings,
    output: &Output,
) -> Result<DeadLetterIndex, BusError> {
    waiting_for_bus(output, bus, || observer.partitions_of(&sink.dead_letter_topic()))?;
    let mut progress = Progress::new(output, "dead letters read");
    replay::read(bus, observer, sink, STALL_TIMEOUT, &mut |read, whole| progress.at(read, whole))
}

/// Which dead letters.
#[derive(Debug, Args)]
struct FilterArgs {
    /// Only dead letters whose reason contains this text; with * or ? or [ it is a glob that must match the whole
    /// reason.
    #[arg(long, value_name = "TEXT|GLOB")]
    reason: Option<String>,
    /// Only dead letters of counters whose name matches.
    #[arg(long, value_name = "GLOB")]
    name: Option<String>,
    /// Only events (or undecodable records) at or after this time.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    from: Option<i64>,
    /// Only those before this time.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    to: Option<i64>,
    /// Only this dead letter; repeatable.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
}

impl FilterArgs {
    fn filter(&self) -> Result<Filter, Failure> {
        let wrong = |flag: &str, reason: String| Failure::could_not_look(format!("{flag}: {reason}"));
        let reason = self.reason.as_deref().map(Pattern::parse).transpose();
        let name = self.name.as_deref().map(|name| Glob::new(name).map(|glob| glob.compile_matcher())).transpose();
        Ok(Filter {
            reason: reason.map_err(|error| wrong("--reason", error))?,
            name: name.map_err(|error| wrong("--name", error.to_string()))?,
            range: times::range(self.from, self.to)?,
            keys: self.keys.clone(),
        })
    }
}

/// A dead letter's state, for operators and for scripts.
fn state(dead_letter: &DeadLetterEntry) -> &'static str {
    match (&dead_letter.state, dead_letter.why_not(false, false)) {
        (State::Chosen, _) => "chosen",
        (State::Replayed, _) => "replayed",
        (State::RefusedAgain(_), _) => "replayed, refused again",
        (_, Some(Why::Unsettled)) => "not settled",
        (_, Some(Why::Cut)) => "not replayable",
        (_, Some(Why::RefusedAgain | Why::TooOften)) => "refused again",
        (State::Dead | State::Unsettled, _) => "dead",
    }
}
