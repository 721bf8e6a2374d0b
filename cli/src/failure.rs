use std::fmt;

use tallybus_bus::BusError;
use tallybus_sdk::config::Problem;
use tallybus_sdk::progress::ProgressError;

use crate::output::Output;
use crate::text::count_of;

/// The result of a command that ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Success; equal.
    Good,
    /// Not equal, not delivered, not caught up.
    Bad,
    /// Part of it could not be read.
    CouldNotLook,
    /// One that was asked did not answer.
    Silent,
    /// It was not done in time.
    Expired,
}

/// Why a command did not run to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong settings: all of them, with their key paths. Exit status 2.
    Settings {
        /// Where they come from.
        source: String,
        /// The problems.
        problems: Vec<Problem>,
    },
    /// Wrong usage, or the bus or a backend could not be read. Exit status 2.
    CouldNotLook(anyhow::Error),
    /// The operation failed. Exit status 1.
    Failed(anyhow::Error),
    /// The reader of our output has closed it, so there is nothing to report. Exit status 0.
    ReaderGone,
}

impl Failure {
    pub(crate) fn could_not_look(message: impl fmt::Display) -> Self {
        Self::CouldNotLook(anyhow::anyhow!("{message}"))
    }

    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::Failed(anyhow::anyhow!("{message}"))
    }

    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Settings { .. } | Self::CouldNotLook(_) => 2,
            Self::Failed(_) => 1,
            Self::ReaderGone => 0,
        }
    }

    pub(crate) fn tell(&self, output: &Output) {
        match self {
            Self::Settings { source, problems } => {
                output.say(&format!("error: {} in {source}", count_of(problems.len() as u64, "problem")));
                for problem in problems {
                    output.say(&format!("  {problem}"));
                }
            }
            Self::CouldNotLook(error) | Self::Failed(error) => {
                output.say(&format!("error: {error:#}"));
                if matches!(error.downcast_ref(), Some(BusError::Unavailable(_))) {
                    output.say(
                        "  is the bus running, and is the address in [bus] (or --bus) right? `tallybus doctor` \
                         checks both",
                    );
                }
            }
            Self::ReaderGone => {}
        }
    }
}

impl From<ProgressError> for Failure {
    fn from(error: ProgressError) -> Self {
        Self::CouldNotLook(error.into())
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        match error {
            BusError::GroupInUse(_) => Self::Failed(error.into()),
            error => Self::CouldNotLook(error.into()),
        }
    }
}
