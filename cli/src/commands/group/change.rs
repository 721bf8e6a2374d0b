use clap::Args;
use tallybus_worker::settings::Settings;

use super::Which;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::{Global, config};

/// How a change that was only shown is made.
pub(super) const ADD_YES: &str = "nothing was changed; to make the change, stop the sink's workers and add --yes";

/// Whether a change of a group's offsets is made, and what is accepted with it.
#[derive(Debug, Args)]
pub(super) struct Change {
    /// Make the change.
    #[arg(long)]
    pub(super) yes: bool,
    /// Make it also where messages are, or may be, counted twice.
    #[arg(long)]
    pub(super) accept_double: bool,
    /// Make it also where messages are, or may be, never counted.
    #[arg(long)]
    pub(super) accept_loss: bool,
    /// Ask only the bus: the destination's secrets are not needed, and what it holds is unknown.
    #[arg(long)]
    pub(super) offline: bool,
}

impl Change {
    /// The settings, with the secrets that are needed.
    pub(super) fn settings(&self, which: &Which, global: &Global) -> Result<Settings, Failure> {
        match self.offline {
            true => config::load_without_secrets(global),
            false => config::load_for(global, std::slice::from_ref(&which.sink)),
        }
    }

    /// Says how it ended. `refusal`: why it needs more than --yes; `done`: what was changed; `nothing`: what to say where nothing
    /// was, and nothing was refused.
    ///
    /// # Errors
    /// The change was to be made, and was refused.
    pub(super) fn conclude(
        &self,
        refusal: Option<String>,
        done: Option<String>,
        nothing: &str,
        output: &Output,
    ) -> Result<Verdict, Failure> {
        match (refusal, done) {
            (Some(reason), _) if self.yes => {
                return Err(Failure::could_not_look(format!("nothing was changed: {reason}")));
            }
            _ if output.json => {}
            (_, Some(done)) => output.print(&done)?,
            (Some(reason), None) => output.wrapped(&format!("nothing was changed: {reason}"))?,
            (None, None) => output.print(nothing)?,
        }
        Ok(Verdict::Good)
    }
}
