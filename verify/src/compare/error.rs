use std::path::PathBuf;

use tallybus_bus::BusError;
use tallybus_sdk::progress::ProgressError;
use thiserror::Error;

use crate::audit::AuditError;

/// Why a comparison could not run. What one sink alone could not do is no error: the result names it.
#[derive(Debug, Error)]
pub enum CompareError {
    /// The bus could not be read, or the copy could not be written.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A group's progress could not be read.
    #[error(transparent)]
    Progress(#[from] ProgressError),
    /// The audit could not run.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The range holds nothing.
    #[error("nothing to compare with: {0}")]
    Empty(String),
    /// The settings do not allow it.
    #[error("{0}")]
    Settings(String),
    /// The disk is too small for the copy.
    #[error(
        "the copy of the range needs about {needed} bytes more, and {} has {free} bytes free: choose another directory with \
         --dir, or a smaller range with --from or --last",
        dir.display()
    )]
    Space {
        /// Where the copy is.
        dir: PathBuf,
        /// About how many bytes are still needed.
        needed: u64,
        /// How many bytes are free.
        free: u64,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The system's clock shows a time before 1970 or after 2262.
    #[error("the system's clock is wrong: it shows a time before 1970 or after 2262; set it")]
    Clock,
    /// It was interrupted.
    #[error("interrupted before the comparison was complete")]
    Interrupted,
}

impl CompareError {
    /// For an error of the operating system, with what was tried.
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}
